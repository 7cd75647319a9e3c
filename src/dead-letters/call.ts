/** What every store does with a `Call` and a query before its own work: refuse what is over, bound what is asked. */
import type { Call } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { DEFAULT_LIST_LIMIT, type DeadLetter, type DeadLetterQuery } from '../dead-letter.ts'
import { DeadLetterStoreError, abortError } from '../errors.ts'
import { withinTime } from '../time-limit.ts'
import { type TopicPartitionOffset, exactTextOf } from '../record.ts'

/** Most letters of one page. */
const MAX_LIST_LIMIT = 1000

/**
 * Runs one attempt under the call's signal and time. Settles at once when either ends, whatever the attempt does then;
 * the attempt's own signal is aborted with it.
 * @throws the signal's reason · {DeadLetterStoreError} TIMEOUT
 */
export async function attempt<T>(
  what: string,
  { signal, timeoutMs }: { readonly signal?: AbortSignal | undefined; readonly timeoutMs: number },
  clock: Clock,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const timedOut = (): Error =>
    new DeadLetterStoreError('TIMEOUT', `Cannot ${what}: no answer within ${timeoutMs} ms. The outcome is unknown.`)
  return await withinTime({ signal, timeoutMs, timedOut }, clock, work)
}

/**
 * The time of one call that is made of several: gives, each time it is asked, the call with what is left. `parts` is how
 * many are still to come, each of which gets an equal share.
 */
export function sharedCall(
  call: Call | undefined,
  defaultTimeoutMs: number,
  clock: Clock,
): (parts?: number) => Call & { readonly timeoutMs: number } {
  const startedAt = clock.monotonic()
  const wholeMs = call?.timeoutMs ?? defaultTimeoutMs
  return (parts = 1) => {
    const leftMs = wholeMs - (clock.monotonic() - startedAt)
    const timeoutMs = Math.max(1, Math.floor(leftMs / parts))
    return { ...call, timeoutMs }
  }
}

/** @throws what a call to a closed store, or with an aborted signal, rejects with. */
export function checkCall(store: string, isClosed: boolean, call: Call | undefined): void {
  if (isClosed) throw new DeadLetterStoreError('CLOSED', `Cannot use the dead-letter store ${store}: it is closed.`)
  if (call?.signal?.aborted === true) throw abortError(call.signal)
}

/** The error of a call that a store cannot honour. */
export function unsupported(store: string, what: string): DeadLetterStoreError {
  return new DeadLetterStoreError(
    'UNSUPPORTED',
    `Cannot ${what} in the dead-letter store ${store}: it has no such ability.`,
  )
}

/**
 * Sees to it that what a store has under a letter's id is that letter: where a topic was made anew, another record has the
 * same place.
 * @throws {DeadLetterStoreError} DEAD_LETTER_ID_TAKEN where it is of another record.
 */
export function checkSameRecord(letter: DeadLetter, stored: DeadLetter): void {
  if (stored.record.timestampMs === letter.record.timestampMs) return
  throw new DeadLetterStoreError(
    'DEAD_LETTER_ID_TAKEN',
    `Cannot store dead letter ${letter.id}: the store has one of another record, which was at the same place before the topic was made anew. Redrive or delete that one.`,
  )
}

/** The page size of a query. @throws {DeadLetterStoreError} INVALID_REQUEST outside 1 to 1000. */
export function listLimit({ limit = DEFAULT_LIST_LIMIT }: DeadLetterQuery): number {
  if (Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIST_LIMIT) return limit
  throw new DeadLetterStoreError(
    'INVALID_REQUEST',
    `Cannot list dead letters: the limit is ${limit}. Give a whole number from 1 to ${MAX_LIST_LIMIT}.`,
  )
}

/** The error of a cursor that this store did not hand out. */
export function invalidCursor(): DeadLetterStoreError {
  return new DeadLetterStoreError(
    'INVALID_REQUEST',
    'Cannot list dead letters: the cursor is not one of this store. Start without a cursor.',
  )
}

/** Whether a letter is one that the query asks for. */
export function matches(letter: DeadLetter, query: DeadLetterQuery): boolean {
  return (
    (query.topic === undefined || letter.record.topic === query.topic) &&
    (query.groupId === undefined || letter.groupId === query.groupId) &&
    (query.reason === undefined || letter.reason === query.reason) &&
    (query.fingerprint === undefined || letter.fingerprint === query.fingerprint) &&
    (query.key === undefined || isText(letter.record.key, query.key)) &&
    (query.header === undefined || hasHeader(letter, query.header)) &&
    (query.fromMs === undefined || letter.failedAtMs >= query.fromMs) &&
    (query.untilMs === undefined || letter.failedAtMs < query.untilMs)
  )
}

function hasHeader({ record }: DeadLetter, wanted: { readonly key: string; readonly value: string }): boolean {
  return record.headers.some(({ key, value }) => key === wanted.key && isText(value, wanted.value))
}

function isText(bytes: Uint8Array | null, text: string): boolean {
  return bytes !== null && exactTextOf(bytes) === text
}

/** What an id names: the group, the record's coordinates, and how often it was redriven; undefined where it is no id. */
export function idParts(
  id: string,
): (TopicPartitionOffset & { readonly groupId: string; readonly redriveCount: number }) | undefined {
  const match = /^([^/]*)\/([^/]*)\/(\d{1,10})\/(\d{1,16})(?:\/([1-9]\d{0,8}))?$/.exec(id)
  if (match === null) return undefined
  const [, group = '', topic = '', partition, offset, redriveCount = 0] = match
  try {
    const parts = { partition: Number(partition), offset: Number(offset), redriveCount: Number(redriveCount) }
    return { groupId: decodeURIComponent(group), topic: decodeURIComponent(topic), ...parts }
  } catch {
    // A stray percent sign: not an id that was ever made.
    return undefined
  }
}
