/**
 * Handling effectively once: a handler is called under the lock on its record's idempotency key, and not at all where an
 * outcome is stored under that key.
 *
 * What is promised: as long as outcomes are kept, a handler that returned and whose outcome was stored is not called for
 * that key again, by whatever run; and two handlers are not at work on one key at once, unless one outlives its lock. What
 * is not promised: a process that dies between a handler's effect and the stored outcome leaves a lock that lapses, and
 * then the handler is called again. Only an effect that is itself keyed is safe from that.
 *
 * This knows nothing of retry policies or dead letters: it says how one attempt went, and whether that is the record's
 * doing or the store's.
 */
import { type Backoff, backoffMs } from '../backoff.ts'
import type { Call } from '../broker.ts'
import { type Clock, sleep, systemClock } from '../clock.ts'
import { ConfigError, IdempotencyError, KedgeError, RecordError, abortError } from '../errors.ts'
import {
  type BeginResult,
  type IdempotencyKey,
  type IdempotencyStore,
  MAX_KEEP_MS,
  MAX_KEY_BYTES,
  MAX_LOCK_MS,
} from '../idempotency.ts'
import type { Log, LogLevel, LogValue } from '../logger.ts'
import { type Random, randomId, systemRandom } from '../random.ts'
import { type ConsumerRecord, type TimestampMs, bytesOf, textOf } from '../record.ts'

/** Makes the business key of a record: what two records have in common that ask for one effect. */
export type BusinessKey = (record: ConsumerRecord<unknown>) => string

/** Makes a store's call with what the run allows it: time, and a place in its count. */
export type MakeCall = <T>(run: (call: Call) => Promise<T>, limits: { readonly signal?: AbortSignal }) => Promise<T>

/** Options of `EffectivelyOnce`. */
export interface EffectivelyOnceOptions {
  readonly store: IdempotencyStore
  /**
   * The business key, from the record as its handler gets it. It counts within the group and topic.
   * @default the record's own place: group, topic, partition, offset
   */
  readonly key?: BusinessKey
  /** How long an outcome is kept, milliseconds. @default 604800000 (a week), legal 1 to 31622400000 */
  readonly keepMs?: number
  /**
   * How much longer than its attempt a lock lasts, milliseconds: for storing the outcome, and for clocks that differ where
   * the store has none of its own. @default 15000, legal 0 to 3600000
   */
  readonly marginMs?: number
  /**
   * The longest wait before a key that is in progress is looked at again, milliseconds: who holds it is mostly done long
   * before its lock lapses. @default 1000, legal 1 to 3600000
   */
  readonly lookAgainMs?: number
  /** Takes a store that is not linearizable, with which two attempts may run at once and repeat an effect. @default false */
  readonly allowNonLinearizable?: boolean
  /** @default a call within 5 seconds */
  readonly makeCall?: MakeCall
  readonly clock?: Clock
  readonly random?: Random
  /** Makes the owner of each lock: unique. @default a random id */
  readonly newOwner?: () => string
  readonly log?: Log | undefined
}

/** One attempt at a record. */
export interface OnceAttempt {
  readonly groupId: string
  /** As it was read: names the place. */
  readonly record: ConsumerRecord
  /** As the handler gets it: makes the business key. @default `record` */
  readonly typed?: ConsumerRecord<unknown>
  /** The longest time that the attempt may take, milliseconds; whole after rounding up, at most 82800000 (23 hours). */
  readonly timeoutMs: number
  /** Aborted when the attempt is given up: its time is over, the run ends, the partition moved away. */
  readonly signal: AbortSignal
  /** Calls the handler. */
  readonly call: () => unknown
}

/** How an attempt went. */
export type OnceOutcome =
  /**
   * The handler returned. `isRecorded` is false where its outcome could not be stored: the record is handled, and a repeat
   * of it would not be recognised.
   */
  | { readonly kind: 'handled'; readonly isRecorded: boolean }
  /** Handled before, under the same key: nothing was called, and nothing is left to do. Counts as handled. */
  | { readonly kind: 'duplicate'; readonly handledAtMs: TimestampMs | undefined }
  /** The handler, or the business key, threw this. The lock is freed, so that the next attempt need not wait. */
  | { readonly kind: 'failed'; readonly error: unknown }
  /**
   * Not the record's doing: its key is in progress elsewhere, its lock was lost, or the store failed. It must not count
   * against the record's attempts or make it a dead letter. Where `error.retriable`, try again after `retryAfterMs`, in
   * this run or a later one; else the partition has to stop until somebody has repaired what the error names.
   */
  | { readonly kind: 'blocked'; readonly error: KedgeError; readonly retryAfterMs: number }
  /**
   * The signal was aborted before the attempt ended. A handler that is still at work keeps its lock, and when it returns
   * after all its outcome is stored.
   */
  | { readonly kind: 'given-up' }

const DEFAULT_KEEP_MS = 7 * 86_400_000
const DEFAULT_MARGIN_MS = 15_000
const DEFAULT_LOOK_AGAIN_MS = 1_000
const MAX_OPTION_MS = 3_600_000
const STORE_TIMEOUT_MS = 5_000
/** Tries of one call to the store. More would spend the attempt on a store that is down. */
const MAX_TRIES = 3
const tryBackoff: Backoff = { initialMs: 100, maxMs: 1_000, factor: 3 }

/** Wraps attempts at records. One for each run and kind of key; attempts may overlap. */
export class EffectivelyOnce {
  readonly #store: IdempotencyStore
  readonly #key: BusinessKey | undefined
  readonly #keepMs: number
  readonly #marginMs: number
  readonly #lookAgainMs: number
  readonly #makeCall: MakeCall
  readonly #clock: Clock
  readonly #random: Random
  readonly #newOwner: () => string
  readonly #log: Log | undefined

  /** @throws {ConfigError} for a store that is not linearizable, where that is not allowed; for options out of range */
  constructor(options: EffectivelyOnceOptions) {
    checkOptions(options)
    this.#store = options.store
    this.#key = options.key
    this.#keepMs = options.keepMs ?? DEFAULT_KEEP_MS
    this.#marginMs = options.marginMs ?? DEFAULT_MARGIN_MS
    this.#lookAgainMs = options.lookAgainMs ?? DEFAULT_LOOK_AGAIN_MS
    this.#makeCall = options.makeCall ?? ((run, limits) => run({ timeoutMs: STORE_TIMEOUT_MS, ...limits }))
    this.#clock = options.clock ?? systemClock
    this.#random = options.random ?? systemRandom
    this.#newOwner = options.newOwner ?? randomId
    this.#log = options.log
  }

  /** Makes one attempt. Never rejects. */
  async run(attempt: OnceAttempt): Promise<OnceOutcome> {
    let key: IdempotencyKey
    try {
      key = idempotencyKeyOf(attempt.groupId, attempt.typed ?? attempt.record, this.#key)
    } catch (error) {
      return { kind: 'failed', error }
    }
    const lock = { key, owner: this.#newOwner() }
    const found = await this.#begin(lock, attempt)
    if (found.kind === 'started') return await this.#underLock(lock, attempt)
    if (found.kind !== 'done') return found
    const handledAtMs = handledAtOf(found.outcome)
    this.#say('info', 'duplicate', attempt, { handledAtMs })
    return { kind: 'duplicate', handledAtMs }
  }

  async #begin(lock: Lock, attempt: OnceAttempt): Promise<Exclude<BeginResult, { kind: 'in-progress' }> | OnceOutcome> {
    const { signal } = attempt
    const lockMs = Math.min(MAX_LOCK_MS, Math.ceil(attempt.timeoutMs) + this.#marginMs)
    const askedAt = this.#clock.monotonic()
    try {
      const result = await this.#tried(signal, (call) =>
        this.#store.begin(lock.key, { owner: lock.owner, lockMs }, call),
      )
      if (result.kind === 'done') return result
      if (result.kind === 'started') {
        // An answer may come so late that another attempt has the lock by now, or has handled the record.
        if (this.#clock.monotonic() - askedAt < lockMs) return result
        void this.#free(lock, attempt)
        return this.#blocked(lateFor(attempt), attempt)
      }
      const error = new IdempotencyError(
        'RECORD_IN_PROGRESS',
        `Cannot handle ${placeOf(attempt)} now: another attempt holds the lock on its idempotency key. Try again later.`,
        { retryAfterMs: Math.min(result.retryAfterMs, this.#lookAgainMs) },
      )
      return this.#blocked(error, attempt)
    } catch (error) {
      const failure = asStoreError(error)
      // The lock may be taken all the same, and would stand in the way of the next attempt until it lapses.
      if (signal.aborted || failure.retriable) void this.#free(lock, attempt)
      return signal.aborted ? { kind: 'given-up' } : this.#blocked(failure, attempt)
    }
  }

  async #underLock(lock: Lock, attempt: OnceAttempt): Promise<OnceOutcome> {
    const { signal } = attempt
    if (signal.aborted) {
      void this.#free(lock, attempt)
      return { kind: 'given-up' }
    }
    const { promise: givenUp, resolve } = Promise.withResolvers<OnceOutcome>()
    const onAbort = (): void => resolve({ kind: 'given-up' })
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      // A handler may go on after its attempt was given up. Its lock then stays until it has ended, so that the next
      // attempt does not overlap with it; `#work` sees to that by itself.
      return await Promise.race([this.#work(lock, attempt), givenUp])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Calls the handler and settles the lock, however long that takes. Never rejects. */
  async #work(lock: Lock, attempt: OnceAttempt): Promise<OnceOutcome> {
    try {
      await attempt.call()
    } catch (error) {
      await this.#free(lock, attempt)
      return { kind: 'failed', error }
    }
    return await this.#complete(lock, attempt)
  }

  /** Not under the attempt's signal: the effect has happened, and that must be known. */
  async #complete(lock: Lock, attempt: OnceAttempt): Promise<OnceOutcome> {
    const outcome = bytesOf(JSON.stringify({ handledAtMs: this.#clock.now() }))
    try {
      await this.#tried(undefined, (call) =>
        this.#store.complete(lock.key, lock.owner, outcome, { keepMs: this.#keepMs }, call),
      )
      return { kind: 'handled', isRecorded: true }
    } catch (error) {
      const failure = asStoreError(error)
      // Somebody else has begun, so there is an outcome to wait for. Where the store failed there is nobody: a failed
      // attempt would make certain the repeat that a handled one only leaves possible.
      if (failure.code === 'LOCK_LOST') return this.#blocked(lostTo(failure, attempt), attempt)
      this.#say('error', 'outcome not stored', attempt, { code: failure.code, message: failure.message })
      return { kind: 'handled', isRecorded: false }
    }
  }

  /** Frees a lock, or leaves it to lapse. Never rejects. */
  async #free(lock: Lock, attempt: OnceAttempt): Promise<void> {
    try {
      await this.#makeCall((call) => this.#store.abandon(lock.key, lock.owner, call), {})
    } catch (error) {
      const { code, message } = asStoreError(error)
      this.#say('warn', 'lock not freed', attempt, { code, message })
    }
  }

  /** A call that is repeated while that may help: each is the same for the store, however often it arrives. */
  async #tried<T>(signal: AbortSignal | undefined, run: (call: Call) => Promise<T>): Promise<T> {
    const limits = signal === undefined ? {} : { signal }
    for (let tries = 1; ; tries += 1) {
      if (signal?.aborted === true) throw abortError(signal)
      try {
        return await this.#makeCall(run, limits)
      } catch (error) {
        if (!(error instanceof KedgeError) || !error.retriable || tries >= MAX_TRIES) throw error
        const waitMs = backoffMs(tryBackoff, tries, this.#random, error.retryAfterMs)
        // A store that is busy for longer than a lock's margin is as good as down.
        if (waitMs > this.#marginMs) throw error
        await sleep(this.#clock, waitMs, signal)
      }
    }
  }

  #blocked(error: KedgeError, attempt: OnceAttempt): OnceOutcome {
    const { code, message } = error
    const retryAfterMs = error.retryAfterMs ?? this.#lookAgainMs
    if (code === 'RECORD_IN_PROGRESS') this.#say('info', 'in progress', attempt, { retryAfterMs })
    else this.#say('warn', 'not handled for its store', attempt, { code, retryAfterMs, message })
    return { kind: 'blocked', error, retryAfterMs }
  }

  #say(
    level: LogLevel,
    event: string,
    { record: { topic, partition, offset } }: OnceAttempt,
    fields: Readonly<Record<string, LogValue>>,
  ): void {
    try {
      this.#log?.({ level, event, topic, partition, offset, ...fields })
    } catch {
      // A log that fails must not cost a record.
    }
  }
}

interface Lock {
  readonly key: IdempotencyKey
  readonly owner: string
}

/**
 * The key of a record in a group: `groupId/topic/partition/offset`, or with a business key `groupId/topic/key`; each part
 * percent-encoded, so that no key of one kind is one of the other.
 * @throws {RecordError} INVALID_RECORD for a business key that is no text, empty, not well-formed or too long · what `key` throws
 */
export function idempotencyKeyOf(groupId: string, record: ConsumerRecord<unknown>, key?: BusinessKey): IdempotencyKey {
  const { topic, partition, offset } = record
  if (key === undefined) return joined(groupId, topic, String(partition), String(offset))
  const own: unknown = key(record)
  if (typeof own === 'string' && own !== '' && own.isWellFormed()) {
    const whole = joined(groupId, topic, own)
    if (whole.length <= MAX_KEY_BYTES) return whole
  }
  throw new RecordError(
    `Cannot make the idempotency key of ${topic}[${partition}] offset ${offset}: give a text, not empty, that has at most ${MAX_KEY_BYTES} bytes when it is percent-encoded together with group and topic.`,
  )
}

function joined(...parts: string[]): string {
  return parts.map(encodeURIComponent).join('/')
}

function placeOf({ record: { topic, partition, offset } }: OnceAttempt): string {
  return `${topic}[${partition}] offset ${offset}`
}

function lateFor(attempt: OnceAttempt): IdempotencyError {
  const message = `Cannot handle ${placeOf(attempt)}: the idempotency store answered when the lock it gave had lapsed. Try again.`
  return new IdempotencyError('LOCK_LOST', message, { retriable: true })
}

/** Another look may find the outcome that the other one stored, so this attempt may be repeated. */
function lostTo(cause: KedgeError, attempt: OnceAttempt): IdempotencyError {
  const message = `Cannot settle ${placeOf(attempt)}: its handler returned after its lock had lapsed and was lost. The effect may happen twice; give the attempt less to do or the lock a larger margin.`
  return new IdempotencyError('LOCK_LOST', message, { cause, retriable: true })
}

/** Drivers reject with errors of ours; what else comes is a fault, which waiting does not mend. */
function asStoreError(error: unknown): KedgeError {
  if (error instanceof KedgeError) return error
  return new IdempotencyError(
    'IDEMPOTENCY_STORE_UNAVAILABLE',
    `Cannot use the idempotency store: ${error instanceof Error ? error.message : String(error)}`,
    { cause: error, retriable: false },
  )
}

/** When the stored outcome says that the record was handled; undefined for an outcome that somebody else stored. */
function handledAtOf(outcome: Uint8Array): TimestampMs | undefined {
  try {
    const { handledAtMs } = Object(JSON.parse(textOf(outcome)) as unknown) as { readonly handledAtMs?: unknown }
    return typeof handledAtMs === 'number' ? handledAtMs : undefined
  } catch {
    return undefined
  }
}

function checkOptions(options: EffectivelyOnceOptions): void {
  const { store, allowNonLinearizable = false, keepMs, marginMs, lookAgainMs } = options
  if (!store.features.linearizable && !allowNonLinearizable) {
    throw new ConfigError(
      'Cannot handle effectively once: the idempotency store is not linearizable, so two attempts may run at once and repeat an effect. Use another store, or set allowNonLinearizable where a repeat now and then is harmless.',
    )
  }
  checkRange('keepMs', keepMs, 1, MAX_KEEP_MS)
  checkRange('marginMs', marginMs, 0, MAX_OPTION_MS)
  checkRange('lookAgainMs', lookAgainMs, 1, MAX_OPTION_MS)
}

function checkRange(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most)) return
  throw new ConfigError(
    `Cannot handle effectively once: ${name} is ${String(value)}. Give a whole number from ${least} to ${most}.`,
  )
}
