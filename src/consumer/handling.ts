/**
 * What becomes of one record at one attempt: it is handled; or it is put off, as long as its retry policy allows; or it is a
 * dead letter; and where that cannot be stored, its partition stops.
 */
import { backoffMs } from '../backoff.ts'
import type { DeadLetterReason } from '../dead-letter.ts'
import { ConfigError, RecordError } from '../errors.ts'
import type { KedgeError } from '../errors.ts'
import type { IdempotencyStore } from '../idempotency.ts'
import type { ConsumerRecord, TimestampMs } from '../record.ts'
import { DeadLetterError, RetryAfterError, SkipError, StopError } from '../handler-errors.ts'
import { returned } from '../return-topic.ts'
import type { ReturnedRecord } from '../return-topic.ts'
import { unread } from '../route-table.ts'
import type { Matched } from '../route-table.ts'
import type { Handler, OnceOptions, RetryDecision } from '../router.ts'
import { Attempt } from './attempt.ts'
import type { AttemptResult, AttemptScope, AttemptWork } from './attempt.ts'
import { Batch, itemOf, ownErrorOf } from './batch.ts'
import type { BatchHost } from './batch.ts'
import { runCauseOf } from './cause.ts'
import { EffectivelyOnce } from './effectively-once.ts'
import type { MakeCall } from './effectively-once.ts'
import type { Entry, Lane } from './lane.ts'
import { Plans } from './plan.ts'
import type { Plan } from './plan.ts'
import type { RunCause } from './report.ts'
import { retryAfterOf, SetAside } from './set-aside.ts'
import type { SetAsideScope } from './set-aside.ts'
import { handlerAfter, InvalidValue, valueOf, withValue } from './typed-value.ts'

/** What became of a record. `deferred`: it is durable in a retry topic. After `retry`, `stopped` and `unfinished` its offset stays uncommitted. */
export type Outcome =
  | { readonly kind: 'handled' }
  | { readonly kind: 'skipped' }
  | { readonly kind: 'unfinished' }
  | { readonly kind: 'deferred' }
  | {
      readonly kind: 'retry'
      /** Not before, milliseconds from now. */
      readonly waitMs: number
      /** For `again`. */
      readonly work: Work
      readonly error: unknown
      /** It counts as an attempt. */
      readonly isAttempt: boolean
    }
  | { readonly kind: 'dead-lettered'; readonly reason: DeadLetterReason }
  | { readonly kind: 'stopped'; readonly cause: RunCause }

/** What handling needs of its run. */
export interface HandlingScope extends AttemptScope, SetAsideScope {
  readonly idempotency: IdempotencyStore | undefined
  /** As in `ConsumerOptions`. */
  readonly placeOf: ((record: ConsumerRecord) => Place) | undefined
  /** The next run knows how often a record was tried. */
  readonly countsAttempts: boolean
}

/** What names a record within its topic. */
export interface Place {
  readonly partition: number
  readonly offset: number
}

/** What the routes say of a record. */
export interface Found {
  readonly matched: Matched | 'unreadable' | undefined
  readonly plan: Plan
  /** The record came back through a topic of the group. */
  readonly returned?: ReturnedRecord
  /** In a retry topic: who is due by then is so before those behind it. */
  readonly inTurnMs?: TimestampMs
  /** The record as its handler and its dead letter see it, where that is not as it was read. */
  readonly origin?: ConsumerRecord
}

/** A record with the handler that is to have it. */
export interface Work extends AttemptWork {
  typed: ConsumerRecord<unknown>
  handler: Handler<never>
  readonly lane: Lane
  /** As it was read, for a dead letter. */
  readonly record: ConsumerRecord
  readonly plan: Plan
  readonly returned: ReturnedRecord | undefined
  /** Monotonic time of its first attempt in this run. */
  readonly startedAt: number
}

/** Thrown past a handler that was not called, or whose outcome somebody else will store: not the record's doing. */
class BlockedError extends Error {
  override readonly cause: KedgeError
  readonly retryAfterMs: number

  constructor(cause: KedgeError, retryAfterMs: number) {
    super(cause.message)
    this.cause = cause
    this.retryAfterMs = retryAfterMs
  }
}

const handled: Outcome = { kind: 'handled' }
const skipped: Outcome = { kind: 'skipped' }
const unfinished: Outcome = { kind: 'unfinished' }

/** The part of a run that one record may need; the rest is for finding it and getting to it. */
const USABLE_PART = 0.9
/** How far the clocks of a broker and of those who produce to it may be apart. */
const CLOCKS_DIFFER_MS = 60_000

/** The handling of records in one run. */
export class Handling {
  /** Makes durable elsewhere what is not handled here. */
  readonly setAside: SetAside
  readonly #scope: HandlingScope
  readonly #plans: Plans
  readonly #found = new Map<Matched | 'unreadable' | undefined, Found>()
  readonly #usableMs: number

  constructor(scope: HandlingScope) {
    this.#scope = scope
    this.setAside = new SetAside(scope)
    this.#usableMs = (scope.budget.handleUntil - scope.budget.startedAt) * USABLE_PART
    this.#plans = new Plans(scope.app, this.#usableMs, (options) => this.#onceOf(options))
  }

  /** What the routes say of a record. */
  find(record: ConsumerRecord): Found {
    const { returnTopics } = this.#scope.app
    const through = returnTopics.size > 0 ? returnTopics.get(record.topic) : undefined
    const back = through === undefined ? undefined : returned(record)
    if (through !== undefined && back !== undefined) {
      const found = { ...this.#foundFor(back.record), returned: back, origin: back.record }
      const delayMs = found.plan.retry.topicDelaysMs[through.stage - 1]
      return delayMs === undefined ? found : { ...found, inTurnMs: record.timestampMs + delayMs + CLOCKS_DIFFER_MS }
    }
    const { placeOf } = this.#scope
    return placeOf === undefined
      ? this.#foundFor(record)
      : { ...this.#foundFor(record), origin: { ...record, ...placeOf(record) } }
  }

  /** Whether a handler will be called, or a schema, which is as much the app's. */
  callsFor({ matched }: Found): boolean {
    return matched === undefined ? typeof this.#scope.app.otherwise === 'function' : matched !== 'unreadable'
  }

  #foundFor(record: ConsumerRecord): Found {
    const matched = this.#scope.app.table.find(record)
    // Nearly all look-ups find one of a few routes; those that read the value give an object of their own.
    const known = this.#found.get(matched)
    if (known !== undefined) return known
    const isRoute = matched !== undefined && matched !== 'unreadable'
    const found = { matched, plan: isRoute ? this.#plans.of(matched.route) : this.#plans.otherwise }
    if (!isRoute || matched.json === unread) this.#found.set(matched, found)
    return found
  }

  /**
   * Handles a record, at once where its handler and schema answer at once. `number` is 1 on the first attempt; `now` is the
   * present monotonic time.
   */
  handle(lane: Lane, read: ConsumerRecord, found: Found, number: number, now: number): Outcome | Promise<Outcome> {
    const { matched, plan, returned, origin } = found
    if (returned !== undefined && returned.groupId !== this.#scope.groupId) return skipped
    const record = origin ?? read
    if (matched === undefined) return this.#otherwise(lane, record, found, number, now)
    if (matched !== 'unreadable') {
      // One object, filled in later: this is made for every record.
      const { handler } = matched.route
      const work: Work = { lane, record, typed: record, handler, plan, returned, startedAt: now }
      return this.#routed(work, matched, number, now)
    }
    const error = new RecordError(
      `A record of ${record.topic} cannot be routed: its routes ask for fields of the value, which is not JSON.`,
    )
    return this.setAside.deadLetter({ record, returned, route: null }, 'invalid', error, 0)
  }

  /** Makes the next attempt of a record that was put off. */
  again(work: Work, number: number, now: number): Outcome | Promise<Outcome> {
    return this.#attempt(work, number, now)
  }

  /**
   * Handles records of one lane and batch route together, none of which was tried before. What becomes of each is told as soon
   * as it is known.
   */
  handleBatch(entries: readonly Entry[], host: BatchHost, now: number): Promise<void> {
    const scope = {
      ...this.#scope,
      one: (work: Work, number: number, at: number) => this.#attempt(work, number, at),
      after: (work: Work, number: number, result: AttemptResult) => this.#after(work, number, result),
      refuse: (work: Work, error: unknown) => this.#deadLetter(work, 'invalid', error, 0),
    }
    return new Batch(
      scope,
      host,
      entries.map((entry) => itemOf(entry, now)),
      now,
    ).run()
  }

  #routed(work: Work, { route, json }: Matched, number: number, now: number): Outcome | Promise<Outcome> {
    const { record, returned, plan } = work
    if (plan.once !== undefined) work.handler = this.#underLock(plan.once, work, route.handler)
    const { topic } = route.match
    if (typeof topic === 'string') return this.#attempt(work, number, now)
    try {
      const value = valueOf(topic, record, json)
      if (value instanceof Promise) work.handler = handlerAfter(value, work.handler)
      else work.typed = withValue(record, value)
    } catch (error) {
      return this.setAside.deadLetter({ record, returned, route: route.name }, 'invalid', error, 0)
    }
    return this.#attempt(work, number, now)
  }

  /** The handler, called under the lock on its record's key. */
  #underLock(once: EffectivelyOnce, { record, plan }: Work, handler: Handler<never>): Handler<never> {
    const { groupId } = this.#scope.app
    return async (typed: ConsumerRecord<never>, context) => {
      const { signal } = context
      const call = (): unknown => handler(typed, context)
      const outcome = await once.run({ groupId, record, typed, timeoutMs: plan.timeoutMs, signal, call })
      if (outcome.kind === 'failed') throw outcome.error
      if (outcome.kind === 'blocked') throw new BlockedError(outcome.error, outcome.retryAfterMs)
    }
  }

  #onceOf(options: OnceOptions): EffectivelyOnce {
    const { idempotency, calls, clock, random, log } = this.#scope
    if (idempotency === undefined) throw new ConfigError('Cannot run: there is no idempotency store.')
    const makeCall: MakeCall = (run, limits) => calls.make(run, limits)
    return new EffectivelyOnce({ ...options, store: idempotency, makeCall, clock, random, log })
  }

  #otherwise(
    lane: Lane,
    record: ConsumerRecord,
    { plan, returned }: Found,
    number: number,
    now: number,
  ): Outcome | Promise<Outcome> {
    const { otherwise } = this.#scope.app
    if (otherwise === 'skip') return skipped
    if (typeof otherwise === 'function') {
      const work = { lane, record, typed: record, handler: otherwise, plan, returned, startedAt: now }
      return this.#attempt(work, number, now)
    }
    const error = new RecordError(`No route takes a record of ${record.topic}: add a route or set otherwise.`)
    if (otherwise === 'stop') return { kind: 'stopped', cause: runCauseOf(error) }
    return this.setAside.deadLetter({ record, returned, route: null }, 'unroutable', error, 0)
  }

  #attempt(work: Work, number: number, now: number): Outcome | Promise<Outcome> {
    const attempt = new Attempt(this.#scope, work, number, now)
    const result = attempt.call()
    if (!(result instanceof Promise)) return this.#after(work, number, result)
    work.lane.running.add(attempt)
    return result.then((later) => {
      work.lane.running.delete(attempt)
      return this.#after(work, number, later)
    })
  }

  #after(work: Work, number: number, result: AttemptResult): Outcome | Promise<Outcome> {
    if (result.kind === 'handled') return handled
    if (result.kind === 'given-up') return unfinished
    const error = work.plan.batch === undefined ? result.error : ownErrorOf(result.error, work.typed)
    if (error instanceof BlockedError) return blockedBy(error, work)
    if (error instanceof InvalidValue) return this.#deadLetter(work, 'invalid', error.error, 0)
    if (error instanceof DeadLetterError) return this.#deadLetter(work, 'rejected', error, number)
    if (error instanceof SkipError) return skipped
    if (error instanceof StopError) return { kind: 'stopped', cause: runCauseOf(error) }
    if (!(error instanceof RetryAfterError)) {
      const decision = this.#decide(work, error)
      if (decision === 'skip') return skipped
      if (decision === 'stop') return { kind: 'stopped', cause: runCauseOf(error) }
      if (decision === 'dead-letter') return this.#deadLetter(work, 'rejected', error, number)
    }
    const reason = this.#giveUpReason(work, number, result.kind)
    if (reason === undefined) return this.#retry(work, number, error)
    const stage = this.setAside.stageAfter(work)
    return stage === undefined || reason === 'too-old'
      ? this.#deadLetter(work, reason, error, number)
      : this.setAside.defer(work, stage, number, error)
  }

  #deadLetter(
    { record, returned, plan }: Work,
    reason: DeadLetterReason,
    error: unknown,
    attempts: number,
  ): Promise<Outcome> {
    return this.setAside.deadLetter({ record, returned, route: plan.route }, reason, error, attempts)
  }

  /** What the route's policy says of a failure. One that fails itself says nothing: what it was asked about is tried again. */
  #decide({ record, plan }: Work, error: unknown): RetryDecision {
    try {
      return plan.retry.when(error)
    } catch (failure) {
      const { topic, partition, offset } = record
      const { name, message } = runCauseOf(failure)
      const cause = `${name}: ${message}`
      this.#scope.log?.({
        level: 'warn',
        event: 'retry policy failed',
        topic,
        partition,
        offset,
        route: plan.route,
        cause,
      })
      return 'retry'
    }
  }

  /** Why there is no further attempt, or undefined where there is one. */
  #giveUpReason(work: Work, number: number, kind: 'failed' | 'timeout'): DeadLetterReason | undefined {
    const { clock, countsAttempts } = this.#scope
    const spent = kind === 'timeout' ? 'timeout' : 'exhausted'
    if (number - (work.returned?.attempts ?? 0) >= work.plan.retry.maxAttempts) return spent
    const { maxAgeMs } = work.plan.retry
    if (maxAgeMs !== null && clock.now() - work.record.timestampMs > maxAgeMs) return 'too-old'
    if (countsAttempts) return undefined
    // Attempts that take so long that no run has room for another would begin anew in every run, and the partition
    // would never get past the record.
    const spentMs = clock.monotonic() - work.startedAt
    return (spentMs * (number + 1)) / number > this.#usableMs ? spent : undefined
  }

  #retry(work: Work, number: number, error: unknown): Outcome {
    const { random, log } = this.#scope
    const waitMs = backoffMs(work.plan.retry, number, random, retryAfterOf(error))
    const { topic, partition, offset } = work.record
    const { name, code } = runCauseOf(error)
    const { route } = work.plan
    log?.({
      level: 'warn',
      event: 'retry',
      topic,
      partition,
      offset,
      route,
      attempt: number,
      waitMs,
      cause: name,
      code,
    })
    return { kind: 'retry', waitMs, work, error, isAttempt: true }
  }
}

/** Put off without an attempt being counted; where waiting does not help, the partition stops. */
function blockedBy({ cause, retryAfterMs }: BlockedError, work: Work): Outcome {
  if (!cause.retriable) return { kind: 'stopped', cause: runCauseOf(cause) }
  return { kind: 'retry', waitMs: retryAfterMs, work, error: cause, isAttempt: false }
}
