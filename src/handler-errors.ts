/**
 * What a handler can say about its record besides "handled" and "failed": throw one of these. Any other error leaves it to
 * the route's retry policy.
 */
import type { ConsumerRecord } from './record.ts'

/** The record can never be handled: it becomes a dead letter (`rejected`) without a retry. */
export class DeadLetterError extends Error {
  override readonly name = 'DeadLetterError' as const
}

/** The record needs no handling: it counts as skipped, and its offset is committed. */
export class SkipError extends Error {
  override readonly name = 'SkipError' as const
}

/**
 * Nothing behind this record may be handled either: its partition stops for this run, and the offset stays. The next run
 * tries the record again.
 */
export class StopError extends Error {
  override readonly name = 'StopError' as const
}

/**
 * The attempt failed, and another makes sense after `delayMs` at the earliest, of which a day counts at most. It counts
 * as an attempt.
 */
export class RetryAfterError extends Error {
  override readonly name = 'RetryAfterError' as const
  readonly delayMs: number

  /** @throws {TypeError} for a delay that is no number of milliseconds from 0 on */
  constructor(delayMs: number, message: string = `Try again after ${delayMs} ms.`, options?: ErrorOptions) {
    super(message, options)
    if (!(delayMs >= 0)) throw new TypeError(`RetryAfterError takes milliseconds from 0 on, and got ${delayMs}.`)
    this.delayMs = delayMs
  }
}

/** One record of a batch that was not handled. */
export interface BatchFailure {
  /** The record, or its index in the array that the handler got. */
  readonly record: ConsumerRecord<unknown> | number
  /** Why: what a handler of this record alone would have thrown. */
  readonly error: unknown
}

/**
 * For batch handlers: these records were not handled, each for a reason of its own, and all others were. Nothing is split
 * then. One that names a record that the handler did not get is taken for any other error.
 */
export class BatchError extends Error {
  override readonly name = 'BatchError' as const
  readonly failures: readonly BatchFailure[]

  /** @throws {TypeError} where no record is named, or one by something that is neither an index nor a record. */
  constructor(failures: readonly BatchFailure[], message?: string, options?: ErrorOptions) {
    super(message ?? `Of a batch ${failures.length} records failed.`, options)
    if (failures.length === 0) throw new TypeError('BatchError takes the records that failed, and got none.')
    for (const { record } of failures) {
      const isIndex = typeof record === 'number' && Number.isInteger(record) && record >= 0
      if (!isIndex && (typeof record !== 'object' || record === null)) {
        throw new TypeError(`BatchError names a record by itself or its index, and got ${String(record)}.`)
      }
    }
    this.failures = [...failures]
  }
}

/**
 * For handlers: says that this record can never be handled. It becomes a dead letter with reason `rejected` at once.
 * @throws {DeadLetterError} always.
 */
export function reject(reason: string, options?: { readonly cause?: unknown }): never {
  throw new DeadLetterError(reason, options)
}
