/** What a redrive would do: counts of the matching letters by what they have in common. */
import type { DeadLetter } from '../dead-letter.ts'
import { headersBytes } from '../headers.ts'
import type { TimestampMs } from '../record.ts'
import type { RedriveFilter } from '../redrive.ts'
import { lettersOf, MAX_PAGE } from './letters.ts'
import type { LetterSource } from './letters.ts'
import type { RedriveTopics } from './topics.ts'

/** Letters that have something in common. */
export interface RedriveBucket {
  /** What they have in common; null for letters that no route had. */
  readonly value: string | null
  readonly letters: number
  /** The message of one of their causes, secrets left out. */
  readonly example: string
}

/** Letters by what they have in common, most first. */
export interface RedriveHistogram {
  /** The 1000 values that were met first at most. */
  readonly buckets: readonly RedriveBucket[]
  /** Letters with further values. */
  readonly others: number
}

/** What a redrive would do. */
export interface RedrivePlan {
  readonly groupId: string
  /** All that match. The next three add up to it. */
  readonly letters: number
  readonly redrivable: number
  /** Came back too often already. */
  readonly quarantined: number
  /** Their topic is none from which the group reads what comes back. */
  readonly unread: number
  /** Keys, values and headers of all that match. */
  readonly bytes: number
  /** When the first and the last of them failed; absent where none match. */
  readonly oldestMs?: TimestampMs
  readonly newestMs?: TimestampMs
  readonly byTopic: RedriveHistogram
  readonly byReason: RedriveHistogram
  readonly byRoute: RedriveHistogram
  readonly byFingerprint: RedriveHistogram
}

const MAX_BUCKETS = 1_000

/** Counts the matching letters. Writes nothing. */
export async function planOf(
  source: LetterSource & { readonly topics: RedriveTopics },
  filter: RedriveFilter,
): Promise<RedrivePlan> {
  const counts = { redrivable: 0, quarantined: 0, unread: 0 }
  const [byTopic, byReason, byRoute, byFingerprint] = [new Counter(), new Counter(), new Counter(), new Counter()]
  let letters = 0
  let bytes = 0
  let oldestMs = Number.POSITIVE_INFINITY
  let newestMs = Number.NEGATIVE_INFINITY
  for await (const letter of lettersOf(source, filter, MAX_PAGE)) {
    letters += 1
    counts[await source.topics.verdictOf(letter)] += 1
    bytes += bytesOfRecord(letter)
    oldestMs = Math.min(oldestMs, letter.failedAtMs)
    newestMs = Math.max(newestMs, letter.failedAtMs)
    const { message } = letter.cause
    byTopic.add(letter.record.topic, message)
    byReason.add(letter.reason, message)
    byRoute.add(letter.route, message)
    byFingerprint.add(letter.fingerprint, message)
  }
  return {
    groupId: source.groupId,
    letters,
    ...counts,
    bytes,
    ...(letters === 0 ? {} : { oldestMs, newestMs }),
    byTopic: byTopic.histogram(),
    byReason: byReason.histogram(),
    byRoute: byRoute.histogram(),
    byFingerprint: byFingerprint.histogram(),
  }
}

class Counter {
  readonly #buckets = new Map<string | null, { letters: number; readonly example: string }>()
  #others = 0

  add(value: string | null, example: string): void {
    const bucket = this.#buckets.get(value)
    if (bucket !== undefined) bucket.letters += 1
    else if (this.#buckets.size < MAX_BUCKETS) this.#buckets.set(value, { letters: 1, example })
    else this.#others += 1
  }

  histogram(): RedriveHistogram {
    const buckets = Array.from(this.#buckets, ([value, bucket]) => ({ value, ...bucket }))
    return { buckets: buckets.sort((a, b) => b.letters - a.letters), others: this.#others }
  }
}

function bytesOfRecord({ record: { key, value, headers } }: DeadLetter): number {
  return (key?.length ?? 0) + (value?.length ?? 0) + headersBytes(headers)
}
