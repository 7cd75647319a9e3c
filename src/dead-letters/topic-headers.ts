/**
 * A dead letter as a record: the original's key, value and headers as they are, then a block of headers that says what
 * happened. The block is always the last on the record and starts with the *last* header that begins a dialect
 * (topic-dialects.ts), so a letter of a letter keeps the inner block among its original headers and both can be read back.
 *
 * The dialect's headers come first in the block, so that its tools read these letters; then ours, for what it has no name
 * for.
 */
import { type DeadLetter, isDeadLetterReason } from '../dead-letter.ts'
import { type ConsumerRecord, type Header, type TimestampMs, bytesOf, exactTextOf, textOf } from '../record.ts'
import { decodeCause, encodeCause, withFingerprint } from './codec.ts'
import {
  beginsBlock,
  type HeaderBlock,
  type HeaderDialect,
  headersInDialect,
  integerIn,
  placeIn,
  textHeader,
  textIn,
} from './topic-dialects.ts'

/** Kedge's headers. Their presence tells our letters from other records of the topic. */
const names = {
  id: 'kedge-dead-letter-id',
  reason: 'kedge-dead-letter-reason',
  attempts: 'kedge-dead-letter-attempts',
  failedAt: 'kedge-dead-letter-failed-at',
  route: 'kedge-dead-letter-route',
  group: 'kedge-dead-letter-group',
  cause: 'kedge-dead-letter-cause',
  fingerprint: 'kedge-dead-letter-fingerprint',
  redriveCount: 'kedge-dead-letter-redrive-count',
} as const

/** The header of a marker: a record behind a letter that says that the letter is deleted. */
const DELETED_HEADER = 'kedge-dead-letter-deleted'
/** The time of the letter's record, in a marker: where a topic was made anew, another record has the same place. */
const DELETED_TIME_HEADER = 'kedge-dead-letter-deleted-timestamp'

/** The headers of the letter's record: the original's, then the block. */
export function headersOfLetter(letter: DeadLetter, dialect: HeaderDialect): Header[] {
  return [
    ...letter.record.headers,
    ...headersInDialect(letter, dialect),
    textHeader(names.id, letter.id),
    textHeader(names.reason, letter.reason),
    textHeader(names.attempts, String(letter.attempts)),
    textHeader(names.failedAt, String(letter.failedAtMs)),
    { key: names.route, value: letter.route === null ? null : bytesOf(letter.route) },
    textHeader(names.group, letter.groupId),
    textHeader(names.cause, encodeCause(letter.cause)),
    textHeader(names.fingerprint, letter.fingerprint),
    textHeader(names.redriveCount, String(letter.redriveCount)),
  ]
}

/** What a marker deletes. */
export interface DeletedLetter {
  readonly id: string
  /** The time of its record; undefined in a marker that says nothing of it, which deletes all letters of the id. */
  readonly recordedAtMs: TimestampMs | undefined
}

/** The marker that deletes a letter: a tombstone with the letter's id as its key, and in a header with the time of its record. */
export function markerOf({ id, record }: DeadLetter): Pick<ConsumerRecord, 'key' | 'value' | 'headers'> {
  const headers = [textHeader(DELETED_HEADER, id), textHeader(DELETED_TIME_HEADER, String(record.timestampMs))]
  return { key: bytesOf(id), value: null, headers }
}

/** Which letter a record deletes, or undefined where it is no marker. A letter never is one, whatever its record was. */
export function deletedBy({ value, headers }: ConsumerRecord): DeletedLetter | undefined {
  const header = headers.find(({ key }) => key === DELETED_HEADER)
  if (value !== null || header === undefined || header.value === null || headers.some(beginsBlock)) return undefined
  const id = exactTextOf(header.value)
  const time = headers.find(({ key }) => key === DELETED_TIME_HEADER)?.value
  return id === undefined
    ? undefined
    : { id, recordedAtMs: time === undefined || time === null ? undefined : Number(textOf(time)) }
}

/** The letter in a record of a dead-letter topic, or undefined where the record is none of ours. */
export function letterOfRecord(stored: ConsumerRecord): DeadLetter | undefined {
  const start = stored.headers.findLastIndex(beginsBlock)
  const first = stored.headers[start]
  if (first === undefined) return undefined
  const block = new Map(stored.headers.slice(start).map(({ key, value }) => [key, value]))
  try {
    return letterOfBlock(stored, stored.headers.slice(0, start), first.key, block)
  } catch {
    // Whatever else wrote a header of that name into the topic (Spring itself): not a letter of ours.
    return undefined
  }
}

function letterOfBlock(
  { key, value }: ConsumerRecord,
  headers: readonly Header[],
  first: string,
  block: HeaderBlock,
): DeadLetter {
  const reason = textIn(block, names.reason)
  if (!isDeadLetterReason(reason)) throw new TypeError('reason is unknown')
  return withFingerprint({
    id: textIn(block, names.id),
    record: { ...placeIn(first, block), key, value, headers },
    groupId: textIn(block, names.group),
    reason,
    cause: decodeCause(textIn(block, names.cause)),
    attempts: integerIn(block, names.attempts),
    failedAtMs: integerIn(block, names.failedAt),
    route: block.get(names.route) === null ? null : textIn(block, names.route),
    fingerprint: block.has(names.fingerprint) ? textIn(block, names.fingerprint) : undefined,
    redriveCount: block.has(names.redriveCount) ? integerIn(block, names.redriveCount) : 0,
  })
}
