/** What a run tells its caller when it ends. */
import type { DeadLetterReason } from '../dead-letter.ts'
import type { Offset, TopicPartition, TopicPartitionOffset } from '../record.ts'

/**
 * Why a run ended.
 * - `deadline`: its time was spent, which is how a run ends when all is well
 * - `drained`: it was told to stop when there is nothing more to read, and there was nothing
 * - `records`, `calls`: that budget was spent
 * - `aborted`: its signal was aborted
 * - `stopped`: every partition it holds is stopped
 * - `breaker-open`: a route's breaker opened, and it is time to probe again, or no partition is left that is not shut
 * - `paused`: an operator paused the group or all its topics, or changed what is paused: the next run goes by that
 * - `claim-held`: another run works on this instance; nothing was read
 * - `claim-lost`: another run took the instance over, or may have: the claim was not renewed for its whole life; what was not
 *   committed comes again there
 * - `broker-error`: the broker refused a call in a way that waiting does not cure; see `cause`
 */
export type RunEnd =
  | 'deadline'
  | 'drained'
  | 'records'
  | 'calls'
  | 'aborted'
  | 'stopped'
  | 'breaker-open'
  | 'paused'
  | 'claim-held'
  | 'claim-lost'
  | 'broker-error'

/** What went wrong, as data. */
export interface RunCause {
  readonly name: string
  readonly message: string
  readonly code?: string
}

/** A partition that got no further: `offset` is the record that could neither be handled nor dead-lettered. */
export interface StoppedPartition extends TopicPartition {
  readonly offset: Offset
  readonly cause: RunCause
}

/** A route that took nothing more, because its first records or too many of a window became dead letters. */
export interface OpenedBreaker {
  readonly route: string
  /** Of the records settled within the window, so many became dead letters. */
  readonly deadLettered: number
  readonly settled: number
}

/**
 * `polled` is the sum of `handled`, `skipped`, the counts in `deadLettered`, `remembered`, `lost`, `deferred` and
 * `unfinished`: every record that was read is in exactly one of them.
 */
export interface RunReport {
  readonly runId: string
  readonly groupId: string
  readonly groupInstanceId: string
  readonly ended: RunEnd
  /** Records that were read. */
  readonly polled: number
  /** Records whose handler returned or resolved. */
  readonly handled: number
  /** Records that were passed over: by `otherwise('skip')`, by a handler's `SkipError`, or by the retry policy. */
  readonly skipped: number
  /** Attempts beyond the first. */
  readonly retried: number
  /** Records that became dead letters, by reason; reasons without any are absent. */
  readonly deadLettered: Readonly<Partial<Record<DeadLetterReason, number>>>
  /** Records that an earlier run has settled, beyond one that it has not. */
  readonly remembered: number
  /** Records of routes with at-most-once that were committed, and not handled because the run ended. They do not come again. */
  readonly lost: number
  /** Records that went to a retry topic, to be tried later. */
  readonly deferred: number
  /** Records that were read and left as they are: they come again in the next run. */
  readonly unfinished: number
  /** The newest offset that this run committed, for each partition. */
  readonly committed: readonly TopicPartitionOffset[]
  /** Offsets of handled records that could not be committed: the records before them come again. */
  readonly uncommitted: readonly TopicPartitionOffset[]
  readonly stopped: readonly StoppedPartition[]
  /** Routes whose breaker opened. Their offsets stay; the next run tries them again. */
  readonly breakers: readonly OpenedBreaker[]
  /** With `claim-held`, `breaker-open` and `paused`: when another try is worth it. */
  readonly retryAfterMs?: number
  /** With `broker-error`, and with `deadline` where the broker was failing to the end. */
  readonly cause?: RunCause
  /** Calls to the broker and the dead-letter store, failed ones included. */
  readonly calls: number
  readonly durationMs: number
}
