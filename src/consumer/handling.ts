/**
 * What becomes of one record at one attempt: it is handled; or it is put off, as long as its retry policy allows; or it is a
 * dead letter; and where that cannot be stored, its partition stops.
 */
import type { App } from '../app.ts'
import { appendOnce } from '../append-once.ts'
import { backoffMs } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Clock } from '../clock.ts'
import { sleep } from '../clock.ts'
import type { Broker, Call, NewTopic } from '../broker.ts'
import { deadLetterFingerprint } from '../dead-letter-fingerprint.ts'
import { deadLetterId } from '../dead-letter.ts'
import type { DeadLetter, DeadLetterReason, DeadLetterStore } from '../dead-letter.ts'
import { digestOf } from '../digest.ts'
import { ConfigError, HandlerError, KedgeError, RecordError } from '../errors.ts'
import type { IdempotencyStore } from '../idempotency.ts'
import type { Log } from '../logger.ts'
import type { Random } from '../random.ts'
import type { ConsumerRecord } from '../record.ts'
import { DeadLetterError, RetryAfterError, SkipError, StopError } from '../handler-errors.ts'
import { retryTopicName, returned, returning } from '../return-topic.ts'
import type { ReturnedRecord } from '../return-topic.ts'
import { unread } from '../route-table.ts'
import type { Matched } from '../route-table.ts'
import type { Handler, OnceOptions } from '../router.ts'
import { checkValue, readValue } from '../topic.ts'
import { Attempt } from './attempt.ts'
import type { AttemptResult, AttemptScope, AttemptWork } from './attempt.ts'
import type { Budget } from './budget.ts'
import type { Calls } from './calls.ts'
import { deadLetterCauseOf, runCauseOf } from './cause.ts'
import { EffectivelyOnce } from './effectively-once.ts'
import type { MakeCall } from './effectively-once.ts'
import type { Lane } from './lane.ts'
import { keepsProgress, Plans } from './plan.ts'
import type { Plan } from './plan.ts'
import { longestWaitMs, returnTopicLike } from './return-topics.ts'
import type { RunCause } from './report.ts'

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
export interface HandlingScope extends AttemptScope {
  readonly app: App
  readonly broker: Broker
  readonly deadLetters: DeadLetterStore
  readonly idempotency: IdempotencyStore | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Log | undefined
  readonly budget: Budget
  readonly calls: Calls
  /** Aborted when nothing may wait any longer. */
  readonly ending: AbortSignal
  /** As in `ConsumerOptions`. */
  readonly placeOf: ((record: ConsumerRecord) => Place) | undefined
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

/** Marks what a schema that answers later refused, so that it is not taken for a failure of the handler. */
class InvalidValue {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
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
const deferred: Outcome = { kind: 'deferred' }

/** Tries to store one dead letter. More would spend the run on a store that is down. */
const MAX_PUTS = 4
const putBackoff: Backoff = { initialMs: 100, maxMs: 2_000, factor: 3 }
/** Of an idempotency key. */
const MAX_KEY_LENGTH = 255
/** A deadline must be a date that a commit can remember, whatever the other side asks for. */
const MAX_RETRY_AFTER_MS = 86_400_000
/** The part of a run that one record may need; the rest is for finding it and getting to it. */
const USABLE_PART = 0.9

/** The handling of records in one run. */
export class Handling {
  readonly #scope: HandlingScope
  readonly #plans: Plans
  readonly #found = new Map<Matched | 'unreadable' | undefined, Found>()
  readonly #usableMs: number
  /** The next run knows how often a record was tried. */
  readonly #isCounting: boolean
  /** What is known of records that came back, for the letters they may become. */
  readonly #returned = new WeakMap<ConsumerRecord, ReturnedRecord>()

  constructor(scope: HandlingScope) {
    this.#scope = scope
    this.#usableMs = (scope.budget.handleUntil - scope.budget.startedAt) * USABLE_PART
    this.#plans = new Plans(scope.app, this.#usableMs, (options) => this.#onceOf(options))
    this.#isCounting = keepsProgress(scope.app)
  }

  /** What the routes say of a record. */
  find(record: ConsumerRecord): Found {
    const { returnTopics } = this.#scope.app
    const back = returnTopics.size > 0 && returnTopics.has(record.topic) ? returned(record) : undefined
    if (back !== undefined) {
      this.#returned.set(back.record, back)
      return { ...this.#foundFor(back.record), returned: back, origin: back.record }
    }
    const { placeOf } = this.#scope
    return placeOf === undefined
      ? this.#foundFor(record)
      : { ...this.#foundFor(record), origin: { ...record, ...placeOf(record) } }
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
    return this.deadLetter(record, 'invalid', error, 0, null)
  }

  /** Makes the next attempt of a record that was put off. */
  again(work: Work, number: number, now: number): Outcome | Promise<Outcome> {
    return this.#attempt(work, number, now)
  }

  #routed(work: Work, { route, json }: Matched, number: number, now: number): Outcome | Promise<Outcome> {
    const { record, plan } = work
    if (plan.once !== undefined) work.handler = this.#underLock(plan.once, work, route.handler)
    const { topic } = route.match
    if (typeof topic === 'string') return this.#attempt(work, number, now)
    try {
      const value = checkValue(topic, json === unread || record.value === null ? readValue(topic, record.value) : json)
      if (value instanceof Promise) work.handler = handlerAfter(value, work.handler)
      else work.typed = withValue(record, value)
    } catch (error) {
      return this.deadLetter(record, 'invalid', error, 0, route.name)
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
    return this.deadLetter(record, 'unroutable', error, 0, null)
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
    const { record, plan } = work
    const { error } = result
    if (error instanceof BlockedError) return blockedBy(error, work)
    if (error instanceof InvalidValue) return this.deadLetter(record, 'invalid', error.error, 0, plan.route)
    if (error instanceof DeadLetterError) return this.deadLetter(record, 'rejected', error, number, plan.route)
    if (error instanceof SkipError) return skipped
    if (error instanceof StopError) return { kind: 'stopped', cause: runCauseOf(error) }
    if (!(error instanceof RetryAfterError)) {
      const decision = plan.retry.when(error)
      if (decision === 'skip') return skipped
      if (decision === 'stop') return { kind: 'stopped', cause: runCauseOf(error) }
      if (decision === 'dead-letter') return this.deadLetter(record, 'rejected', error, number, plan.route)
    }
    const reason = this.#giveUpReason(work, number, result.kind)
    if (reason === undefined) return this.#retry(work, number, error)
    const stage = this.#stageAfter(work)
    return stage === undefined || reason === 'too-old'
      ? this.deadLetter(record, reason, error, number, plan.route)
      : this.#defer(work, stage, number, error)
  }

  /** Why there is no further attempt, or undefined where there is one. */
  #giveUpReason(work: Work, number: number, kind: 'failed' | 'timeout'): DeadLetterReason | undefined {
    const { clock } = this.#scope
    const spent = kind === 'timeout' ? 'timeout' : 'exhausted'
    if (number - (work.returned?.attempts ?? 0) >= work.plan.retry.maxAttempts) return spent
    const { maxAgeMs } = work.plan.retry
    if (maxAgeMs !== null && clock.now() - work.record.timestampMs > maxAgeMs) return 'too-old'
    if (this.#isCounting) return undefined
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

  /** The stage of the retry topic that comes next; undefined where there is none. */
  #stageAfter({ plan, lane }: Work): number | undefined {
    const { topicDelaysMs } = plan.retry
    const stage = (this.#scope.app.returnTopics.get(lane.topic)?.stage ?? 0) + 1
    return stage <= topicDelaysMs.length ? stage : undefined
  }

  /** Puts a record into a retry topic. */
  async #defer({ record, plan, returned }: Work, stage: number, attempts: number, error: unknown): Promise<Outcome> {
    const { app, broker, clock, log } = this.#scope
    const { topic: source, partition, offset, timestampMs } = record
    const name = retryTopicName(source, app.groupId, stage) ?? ''
    const delayMs = Math.max(plan.retry.topicDelaysMs[stage - 1] ?? 0, retryAfterOf(error))
    const redriveCount = returned?.redriveCount ?? 0
    const { groupId } = app
    const back = returning(name, { groupId, record, attempts, dueAtMs: clock.now() + delayMs, redriveCount })
    // The source's length tells two apart whose topics have one name, and the time those of a topic that was made anew.
    const place = `${name}/${source.length}/${partition}/${offset}/${timestampMs}/${redriveCount}`
    const idempotencyKey = place.length <= MAX_KEY_LENGTH ? place : await digestOf(place)
    const create = (through: Broker, call: Call | undefined): Promise<NewTopic> =>
      returnTopicLike(through, { source, name, longestMs: longestWaitMs(app) }, call)
    const failure = await this.#store((call) => appendOnce({ broker, records: [back], idempotencyKey, create }, call))
    if (failure !== undefined)
      return failure === unfinished ? unfinished : { kind: 'stopped', cause: runCauseOf(failure) }
    const { name: cause, code } = runCauseOf(error)
    const { route } = plan
    log?.({
      level: 'warn',
      event: 'retry later',
      topic: source,
      partition,
      offset,
      route,
      waitMs: delayMs,
      cause,
      code,
    })
    return deferred
  }

  /** Makes a record a dead letter. What was tried before it came back counts, also where its value is refused now. */
  async deadLetter(
    record: ConsumerRecord,
    reason: DeadLetterReason,
    error: unknown,
    attempts: number,
    route: string | null,
  ): Promise<Outcome> {
    const { app, clock } = this.#scope
    const cause = deadLetterCauseOf(error)
    const back = this.#returned.get(record)
    const redriveCount = back?.redriveCount ?? 0
    const letter: DeadLetter = {
      id: deadLetterId(app.groupId, record, redriveCount),
      record,
      groupId: app.groupId,
      reason,
      cause,
      attempts: Math.max(attempts, back?.attempts ?? 0),
      failedAtMs: clock.now(),
      route,
      fingerprint: deadLetterFingerprint({ record, route, reason, cause }),
      redriveCount,
    }
    const { deadLetters } = this.#scope
    const failure = await this.#store((call) => deadLetters.put(letter, call))
    if (failure === undefined) return { kind: 'dead-lettered', reason }
    return failure === unfinished ? unfinished : { kind: 'stopped', cause: runCauseOf(failure) }
  }

  /** Makes something durable. Gives what failed, `unfinished` where the run ended before that was clear, or undefined. */
  async #store(put: (call: Call) => Promise<void>): Promise<unknown> {
    const { calls, random, ending } = this.#scope
    for (let tries = 1; ; tries++) {
      if (!calls.mayMake || ending.aborted) return unfinished
      try {
        await calls.make(put, { signal: ending })
        return undefined
      } catch (error) {
        if (ending.aborted) return unfinished
        if (!(error instanceof KedgeError) || !error.retriable || tries >= MAX_PUTS) return error
        const waitMs = backoffMs(putBackoff, tries, random, error.retryAfterMs)
        // A store that is busy for longer than the run lasts is as good as down.
        if (this.#scope.clock.monotonic() + waitMs >= this.#scope.budget.handleUntil) return error
        if (!(await this.#waited(waitMs))) return unfinished
      }
    }
  }

  /** Waits, and says whether the run is still there. */
  async #waited(waitMs: number): Promise<boolean> {
    try {
      await sleep(this.#scope.clock, waitMs, this.#scope.ending)
      return true
    } catch {
      return false
    }
  }
}

/** Put off without an attempt being counted; where waiting does not help, the partition stops. */
function blockedBy({ cause, retryAfterMs }: BlockedError, work: Work): Outcome {
  if (!cause.retriable) return { kind: 'stopped', cause: runCauseOf(cause) }
  return { kind: 'retry', waitMs: retryAfterMs, work, error: cause, isAttempt: false }
}

/** For a schema that answers later: its answer counts as part of the first attempt, time limit included. */
function handlerAfter(value: Promise<unknown>, handler: Handler<never>): Handler<never> {
  const checked = value.catch((error: unknown) => {
    throw new InvalidValue(error)
  })
  return async (record: ConsumerRecord<never>, context) => {
    const typed = withValue(record, await checked)
    if (!context.signal.aborted) await (handler as Handler<unknown>)(typed, context)
  }
}

function withValue(
  { topic, partition, offset, timestampMs, key, headers }: ConsumerRecord<unknown>,
  value: unknown,
): ConsumerRecord<unknown> {
  return { topic, partition, offset, timestampMs, key, value, headers }
}

/** How long a failing other side asked to be left alone. */
function retryAfterOf(error: unknown): number {
  const cause = error instanceof HandlerError ? error.cause : error
  const askedMs =
    error instanceof RetryAfterError ? error.delayMs : cause instanceof KedgeError ? cause.retryAfterMs : 0
  return Math.min(askedMs ?? 0, MAX_RETRY_AFTER_MS)
}
