/**
 * Judges what a redrive left, by what is stored:
 * - a letter is in its store or back in the group's redrive topic, as it was, and in the end in the topic alone;
 * - no more of them are there twice than may be, and each first time in the order of its partition;
 * - no second has more of them than the rate and a tenth.
 *
 * Two redrives at once hand all letters back twice where there are no idempotency keys; where there are, nothing shows them.
 */
import type { DeadLetter } from '../../src/dead-letter.ts'
import { partitionKey, type ConsumerRecord } from '../../src/record.ts'
import { returned } from '../../src/return-topic.ts'

/** What is stored. */
export interface RedriveRemains {
  /** All that there were, oldest first. */
  readonly letters: readonly DeadLetter[]
  /** The ids of those that are in the store. */
  readonly left: ReadonlySet<string>
  /** The records of the redrive topic, each partition in its order. */
  readonly back: readonly ConsumerRecord[]
}

/** What is allowed. */
export interface RedriveBounds {
  /** Letters that may be there once more than once. */
  readonly mostTwice: number
  readonly perSecond: number
  /** Nothing may be left in the store. */
  readonly isFinished: boolean
}

/** What was found. */
export interface RedriveVerdict {
  readonly violations: readonly string[]
  /** Records beyond the first of each letter. */
  readonly twice: number
  /** Most records in a second. */
  readonly peak: number
}

const SECOND_MS = 1_000
/** One was sent before the second began and stored in it, and one goes at its beginning. */
const AT_THE_EDGES = 2

/** Judges one redrive. */
export function judgeRedrive({ letters, left, back }: RedriveRemains, bounds: RedriveBounds): RedriveVerdict {
  const violations: string[] = []
  const byPlace = new Map(letters.map((letter) => [placeOf(letter.record), letter]))
  const seen = new Set<string>()
  const newest = new Map<string, number>()
  let twice = 0
  for (const record of back) {
    const came = returned(record)
    const letter = came === undefined ? undefined : byPlace.get(placeOf(came.record))
    if (came === undefined || letter === undefined || !isAsItWas(came, letter, record)) {
      violations.push(`changed: ${partitionKey(record)}@${record.offset} is not what any letter was`)
      continue
    }
    if (seen.has(letter.id)) {
      twice += 1
      continue
    }
    seen.add(letter.id)
    const before = newest.get(partitionKey(record)) ?? -1
    if (letter.record.offset < before) violations.push(`order: ${letter.id} came after offset ${before}`)
    newest.set(partitionKey(record), Math.max(before, letter.record.offset))
  }
  for (const { id } of letters) {
    if (!seen.has(id) && !left.has(id)) violations.push(`lost: ${id} is neither in the store nor back`)
    if (bounds.isFinished && left.has(id)) violations.push(`left: ${id} is still in the store`)
  }
  if (twice > bounds.mostTwice) violations.push(`twice: ${twice} came again, and ${bounds.mostTwice} may have`)
  const peak = peakOf(back)
  const most = Math.ceil(bounds.perSecond * 1.1) + AT_THE_EDGES
  if (peak > most) violations.push(`rate: ${peak} in a second, and at most ${most} may have gone`)
  return { violations, twice, peak }
}

function isAsItWas(
  { groupId, record, redriveCount, attempts }: NonNullable<ReturnType<typeof returned>>,
  letter: DeadLetter,
  stored: ConsumerRecord,
): boolean {
  return (
    groupId === letter.groupId &&
    redriveCount === letter.redriveCount + 1 &&
    attempts === letter.attempts &&
    stored.partition === letter.record.partition &&
    textOfRecord(record) === textOfRecord(letter.record)
  )
}

/** All of a record that has to come back. */
function textOfRecord({ topic, partition, offset, timestampMs, key, value, headers }: ConsumerRecord): string {
  const bytes = (content: Uint8Array | null): string | null => content && Buffer.from(content).toString('base64')
  const shown = headers.map((header) => [header.key, bytes(header.value)])
  return JSON.stringify([topic, partition, offset, timestampMs, bytes(key), bytes(value), shown])
}

function placeOf(record: ConsumerRecord): string {
  return `${partitionKey(record)}/${record.offset}`
}

/** Most records that were stored within a second. */
function peakOf(records: readonly ConsumerRecord[]): number {
  const times = records.map(({ timestampMs }) => timestampMs).sort((a, b) => a - b)
  let first = 0
  let peak = 0
  for (const [index, time] of times.entries()) {
    while (time - (times[first] ?? time) >= SECOND_MS) first += 1
    peak = Math.max(peak, index - first + 1)
  }
  return peak
}
