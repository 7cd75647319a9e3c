/**
 * Makes a record durable elsewhere, so that its partition may go on: as a dead letter, or in a retry topic that brings it back
 * to its group. A store that fails is tried a few times; then the partition stops.
 */
import type { App } from '../app.ts'
import { appendOnce } from '../append-once.ts'
import { backoffMs, MAX_WAIT_MS } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Broker, Call, NewTopic } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { sleep } from '../clock.ts'
import { deadLetterFingerprint } from '../dead-letter-fingerprint.ts'
import { deadLetterId } from '../dead-letter.ts'
import type { DeadLetter, DeadLetterReason, DeadLetterStore } from '../dead-letter.ts'
import { digestOf } from '../digest.ts'
import { HandlerError, KedgeError } from '../errors.ts'
import { RetryAfterError } from '../handler-errors.ts'
import type { Log } from '../logger.ts'
import type { Random } from '../random.ts'
import type { ConsumerRecord } from '../record.ts'
import { retryTopicName, returning } from '../return-topic.ts'
import type { ReturnedRecord } from '../return-topic.ts'
import type { Budget } from './budget.ts'
import type { Calls } from './calls.ts'
import { deadLetterCauseOf, runCauseOf } from './cause.ts'
import type { Outcome, Work } from './handling.ts'
import { longestWaitMs, returnTopicLike } from './return-topics.ts'

/** What setting aside needs of its run. */
export interface SetAsideScope {
  readonly app: App
  readonly broker: Broker
  readonly deadLetters: DeadLetterStore
  readonly clock: Clock
  readonly random: Random
  readonly log: Log | undefined
  readonly budget: Budget
  readonly calls: Calls
  /** Aborted when nothing may wait any longer. */
  readonly ending: AbortSignal
}

/** A record that becomes a dead letter. */
export interface DeadLetterSubject {
  /** As it was read first. */
  readonly record: ConsumerRecord
  /** How it came back, where it did. */
  readonly returned: ReturnedRecord | undefined
  /** The route that had it; null where none did. */
  readonly route: string | null
}

const unfinished: Outcome = { kind: 'unfinished' }
const deferred: Outcome = { kind: 'deferred' }

/** Tries to store one dead letter. More would spend the run on a store that is down. */
const MAX_PUTS = 4
const putBackoff: Backoff = { initialMs: 100, maxMs: 2_000, factor: 3 }
/** Of an idempotency key. */
const MAX_KEY_LENGTH = 255

/** Sets records of one run aside. */
export class SetAside {
  /** Something was made durable, so its topic is there. */
  hasStored = false
  readonly #scope: SetAsideScope

  constructor(scope: SetAsideScope) {
    this.#scope = scope
  }

  /** Makes a record a dead letter. What was tried before it came back counts, also where its value is refused now. */
  async deadLetter(
    { record, returned, route }: DeadLetterSubject,
    reason: DeadLetterReason,
    error: unknown,
    attempts: number,
  ): Promise<Outcome> {
    const { app, clock } = this.#scope
    const cause = deadLetterCauseOf(error)
    const redriveCount = returned?.redriveCount ?? 0
    const letter: DeadLetter = {
      id: deadLetterId(app.groupId, record, redriveCount),
      record,
      groupId: app.groupId,
      reason,
      cause,
      attempts: Math.max(attempts, returned?.attempts ?? 0),
      // Stores keep whole milliseconds, and some cannot read back anything else.
      failedAtMs: Math.floor(clock.now()),
      route,
      fingerprint: deadLetterFingerprint({ record, route, reason, cause }),
      redriveCount,
    }
    const { deadLetters } = this.#scope
    const failure = await this.#store((call) => deadLetters.put(letter, call))
    if (failure === undefined) return { kind: 'dead-lettered', reason }
    return failure === unfinished ? unfinished : { kind: 'stopped', cause: runCauseOf(failure) }
  }

  /** The stage of the retry topic that comes next; undefined where there is none. */
  stageAfter({ plan, lane }: Work): number | undefined {
    const { topicDelaysMs } = plan.retry
    const stage = (this.#scope.app.returnTopics.get(lane.topic)?.stage ?? 0) + 1
    return stage <= topicDelaysMs.length ? stage : undefined
  }

  /** Puts a record into a retry topic. */
  async defer({ record, plan, returned }: Work, stage: number, attempts: number, error: unknown): Promise<Outcome> {
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
    const failure = await this.#store(async (call) => {
      await appendOnce({ broker, records: [back], idempotencyKey, create }, call)
    })
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

  /** Makes something durable. Gives what failed, `unfinished` where the run ended before that was clear, or undefined. */
  async #store(put: (call: Call) => Promise<void>): Promise<unknown> {
    const { calls, random, ending } = this.#scope
    for (let tries = 1; ; tries++) {
      if (!calls.mayMake || ending.aborted) return unfinished
      try {
        await calls.make(put, { signal: ending })
        this.hasStored = true
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

/** How long a failing other side asked to be left alone, milliseconds. */
export function retryAfterOf(error: unknown): number {
  const cause = error instanceof HandlerError ? error.cause : error
  const askedMs =
    error instanceof RetryAfterError ? error.delayMs : cause instanceof KedgeError ? cause.retryAfterMs : 0
  return Math.min(askedMs ?? 0, MAX_WAIT_MS)
}
