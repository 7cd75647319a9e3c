/**
 * One run. Three things go on at once: the reading loop keeps one poll out while records are being handled; each open
 * lane hands its records to their handlers one after the other; the committer follows behind. They end in this order
 * when the budget is spent: no more polls and records, running handlers given up, last commit, claim released.
 *
 * It is one file because reading, handling and ending share one state: whether the run still takes work.
 *
 * Nothing is kept that a lost answer could falsify: every poll names the offsets the run wants, and a commit names only
 * what is handled.
 */
import type { App } from '../app.ts'
import { backoffMs } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Broker, GroupInstance, PollRequest, PollResult } from '../broker.ts'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { BrokerError, KedgeError } from '../errors.ts'
import type { IdempotencyStore } from '../idempotency.ts'
import type { Log } from '../logger.ts'
import type { Random } from '../random.ts'
import { partitionKey } from '../record.ts'
import type { ConsumerRecord } from '../record.ts'
import type { Budget } from './budget.ts'
import { Calls } from './calls.ts'
import { Careful } from './careful.ts'
import { runCauseOf } from './cause.ts'
import { Claim, isClaimLost, renewalMs } from './claim.ts'
import { Committer } from './committer.ts'
import { Dispatch } from './dispatch.ts'
import { Handling } from './handling.ts'
import type { Place } from './handling.ts'
import type { Lane } from './lane.ts'
import { Lanes } from './lanes.ts'
import type { Asked } from './lanes.ts'
import { OffsetGuard } from './offset-guard.ts'
import type { OffsetAnomaly } from './offset-guard.ts'
import { Orders } from './orders.ts'
import { keepsProgress } from './plan.ts'
import type { Progress } from './progress.ts'
import { recall } from './recall.ts'
import type { RunCause, RunEnd, RunReport } from './report.ts'
import { makeReturnTopics } from './return-topics.ts'
import { Tally } from './tally.ts'
import { Watchdog } from './watchdog.ts'

/** Everything a run needs, with no default left open. */
export interface RunScope {
  readonly app: App
  readonly broker: Broker
  readonly deadLetters: DeadLetterStore
  readonly idempotency: IdempotencyStore | undefined
  readonly placeOf: ((record: ConsumerRecord) => Place) | undefined
  readonly countsAttempts: boolean
  readonly group: GroupInstance
  readonly runId: string
  readonly concurrency: number
  readonly maxPollRecords: number
  readonly maxPollBytes: number
  readonly maxPollWaitMs: number
  readonly claimTtlMs: number
  readonly sessionTimeoutMs: number
  readonly commitIntervalMs: number
  readonly callTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log | undefined
  readonly budget: Budget
  readonly signal: AbortSignal | undefined
  readonly stopWhenEmpty: boolean
}

/** Beside the letter itself: what topics there are, the topic, the letter again, and a look at what is behind it. */
const CALLS_FOR_TOPIC = 4
/** Of a session: who says nothing for so long had better commit before it is over. */
const SILENT_PART = 1 / 3
/** So many full answers may wait where handlers have nothing to do. */
const HUNGRY_ANSWERS = 4
const brokerBackoff: Backoff = { initialMs: 100, maxMs: 5_000, factor: 2 }

/** One run of an app. */
export class Run {
  readonly #scope: RunScope
  readonly #calls: Calls
  readonly #watchdog: Watchdog
  readonly #handling: Handling
  readonly #committer: Committer
  readonly #dispatch: Dispatch
  readonly #keepsProgress: boolean
  readonly #careful: Careful
  readonly #claim: Claim
  readonly #orders: Orders
  readonly #guard: OffsetGuard
  readonly #tally: Tally
  readonly #lanes = new Lanes()
  readonly #cancels: (() => void)[] = []
  /** Aborted when the poll that is out is not wanted any more. */
  readonly #reading = new AbortController()
  /** Aborted when handlers, waits and dead letters are given up. */
  readonly #ending = new AbortController()
  #ended: RunEnd | undefined
  #cause: RunCause | undefined
  #retryAfterMs: number | undefined
  /** Monotonic: when a breaker that opened is to be half open again. */
  #probeAt: number | undefined
  /** A bug: thrown to the caller at the end. */
  #crash: { readonly error: unknown } | undefined
  /** The newest answer said that the join still waits for other members. */
  #isJoining = false
  /** Records in the newest answer that had any. */
  #newestAnswer = 0
  #hasTriedTopics = false
  #hasPolled = false
  #wakers: (() => void)[] = []

  constructor(scope: RunScope) {
    this.#scope = scope
    const { clock, budget, app } = scope
    const ending = this.#ending.signal
    this.#keepsProgress = scope.countsAttempts || keepsProgress(app)
    this.#tally = new Tally(scope.log)
    this.#calls = new Calls(clock, budget, scope.callTimeoutMs)
    this.#watchdog = new Watchdog(clock)
    const parts = { ...scope, calls: this.#calls, ending, backoff: brokerBackoff }
    const log: Log = (event) => this.#tally.log(event)
    this.#careful = new Careful({ ...parts, maxCrashes: app.maxCrashes, log })
    const shared = { ...parts, careful: this.#careful }
    const onClaimLost = (error: KedgeError): void => this.#loseClaim(error)
    const onSpent = (isLast: boolean): void => {
      this.#stopTaking('calls')
      if (isLast) this.#giveUp()
    }
    this.#claim = new Claim({ ...shared, onSpent, onClaimLost })
    this.#orders = new Orders({
      ...shared,
      onPaused: (retryAfterMs) => this.#bePaused(retryAfterMs),
      log,
    })
    this.#guard = new OffsetGuard({ ...shared, reading: this.#reading.signal, log })
    this.#handling = new Handling({
      ...shared,
      watchdog: this.#watchdog,
      onBusy: (busyMs) => this.#dispatch.onBusy(busyMs),
      groupId: app.groupId,
      handleUntil: budget.handleUntil,
      log: scope.log === undefined ? undefined : log,
    })
    this.#committer = new Committer({
      ...shared,
      lanes: this.#lanes,
      keepsProgress: this.#keepsProgress,
      everyRecords: scope.maxPollRecords,
      everyMs: scope.commitIntervalMs,
      isSilent: () => this.#claim.silentMs > scope.sessionTimeoutMs * SILENT_PART,
      onContact: (startedAt) => this.#claim.renewed(startedAt),
      onClaimLost,
      onRefused: (lane, error) => this.#refuse(lane, error),
    })
    this.#dispatch = new Dispatch({
      ...shared,
      lanes: this.#lanes,
      handling: this.#handling,
      committer: this.#committer,
      tally: this.#tally,
      parking: app.parking,
      keepsProgress: this.#keepsProgress,
      isPaused: (record) => this.#orders.isPaused(record),
      onOver: (why) => this.#stopTaking(why),
      onStopped: (lane) => this.#onStopped(lane),
      onOpened: (openMs) => this.#onOpened(openMs),
      onShut: () => this.#endWhereAllIsClosed(),
      onCrash: (error) => {
        this.#crash ??= { error }
        this.#stopTaking('broker-error')
      },
      onChange: () => {
        if (this.#wakers.length > 0) this.#wake()
      },
    })
    this.#calls.neededForHandling = () => this.#callsForHandling()
  }

  /** Does the run. Called once. */
  async execute(): Promise<RunReport> {
    this.#arm()
    try {
      await this.#takeOrders()
      await this.#read()
      await this.#waitForLanes()
      this.#giveUp()
      await this.#finish()
    } finally {
      for (const cancel of this.#cancels) cancel()
      this.#orders.close()
      this.#claim.close()
      this.#committer.close()
      this.#watchdog.close()
    }
    if (this.#crash !== undefined) throw this.#crash.error
    return this.#report()
  }

  #arm(): void {
    const { clock, budget, signal } = this.#scope
    const untilTake = Math.max(0, budget.takeUntil - budget.startedAt)
    const untilHandle = Math.max(0, budget.handleUntil - budget.startedAt)
    this.#cancels.push(clock.after(untilTake, () => this.#stopTaking('deadline')))
    this.#cancels.push(clock.after(untilHandle, () => this.#giveUp()))
    if (signal === undefined) return
    const onAbort = (): void => {
      this.#stopTaking('aborted')
      this.#cancels.push(clock.after(budget.deadline - budget.handleUntil, () => this.#giveUp()))
    }
    if (signal.aborted) onAbort()
    else {
      signal.addEventListener('abort', onAbort, { once: true })
      this.#cancels.push(() => signal.removeEventListener('abort', onAbort))
    }
  }

  /** Asks what an operator has paused, before anything is read. Without an answer nothing is. */
  async #takeOrders(): Promise<void> {
    for (let failures = 1; this.#ended === undefined; failures++) {
      try {
        await this.#orders.read()
        this.#cause = undefined
        return
      } catch (error) {
        if (!(await this.#survives(error, failures))) return
      }
    }
  }

  /** Keeps one poll out as long as there is room for its answer and the run may read. */
  async #read(): Promise<void> {
    let failures = 0
    while (await this.#mayRead()) {
      const asked = this.#lanes.ask()
      const startedAt = this.#scope.clock.monotonic()
      const answer = this.#poll(asked, startedAt)
      // Only now: the poll is on its way while the records of the one before are handled.
      this.#dispatch.start()
      try {
        const result = await answer
        failures = 0
        if (result.retryAfterMs === undefined) await this.#takeAnswer(result, asked, startedAt)
        else if (!(await this.#waitsToJoin(result.retryAfterMs))) break
      } catch (error) {
        failures += 1
        if (!(await this.#survives(error, failures))) break
      }
    }
    this.#dispatch.start()
  }

  #poll(asked: Asked, startedAt: number): Promise<PollResult> {
    const { app, broker, group, runId, budget, claimTtlMs, sessionTimeoutMs, maxPollRecords, maxPollBytes } =
      this.#scope
    const waitMs = this.#scope.stopWhenEmpty
      ? 0
      : Math.max(0, Math.floor(Math.min(this.#scope.maxPollWaitMs, budget.takeUntil - startedAt)))
    const { generationId, positions } = asked
    this.#hasPolled = true
    const request: PollRequest = {
      group,
      topics: this.#orders.subscription,
      run: { runId, claimTtlMs, positions, ...(generationId === undefined ? {} : { generationId }) },
      autoOffsetReset: app.autoOffsetReset,
      sessionTimeoutMs,
      maxWaitMs: waitMs,
      maxRecords: Math.min(maxPollRecords, budget.maxRecords - this.#tally.polled),
      maxBytes: maxPollBytes,
    }
    return this.#calls.make((call) => broker.poll(request, call), { signal: this.#reading.signal, waitMs })
  }

  /** What earlier commits know beyond their offsets, of partitions from which this run has the first records. */
  async #recall(answer: PollResult): Promise<ReadonlyMap<string, Progress>> {
    const isTold = this.#keepsProgress || this.#careful.isOn
    const places = this.#careful.asks(answer) ?? (isTold ? this.#lanes.unknown(answer) : [])
    const parts = { calls: this.#calls, careful: this.#careful, reading: this.#reading.signal }
    return await recall({ ...this.#scope, ...parts }, answer, places)
  }

  async #takeAnswer(result: PollResult, asked: Asked, startedAt: number): Promise<void> {
    const anomalies = await this.#guard.check(result)
    if (anomalies.length === 0) return this.#take(result, asked, startedAt, await this.#recall(result))
    // Read from where the broker saw fit.
    const astray = new Set(anomalies.map(partitionKey))
    const answer = { ...result, records: result.records.filter((record) => !astray.has(partitionKey(record))) }
    this.#take(answer, asked, startedAt, await this.#recall(answer), anomalies)
  }

  #take(
    answer: PollResult,
    asked: Asked,
    startedAt: number,
    recalled: ReadonlyMap<string, Progress>,
    anomalies: readonly OffsetAnomaly[] = [],
  ): void {
    if (this.#ended === 'claim-lost') return
    this.#claim.renewed(startedAt)
    // An answer that was so long under way came to a run that may have been overtaken.
    this.#claim.checkLapse()
    if (this.#isClaimLost()) return
    this.#cause = undefined
    this.#isJoining = false
    this.#tally.polled += answer.records.length
    if (answer.records.length > 0) this.#newestAnswer = answer.records.length
    this.#lanes.take(answer, asked, recalled)
    for (const one of anomalies) this.#lanes.stop(one)
    if (this.#tally.polled >= this.#scope.budget.maxRecords) this.#stopReading('records')
    const isDrained = answer.records.length === 0 && anomalies.length === 0
    if (isDrained && this.#scope.stopWhenEmpty) this.#stopReading('drained')
    this.#endWhereAllIsClosed()
  }

  /** Whether the run goes on reading after a failed poll. */
  async #survives(error: unknown, failures: number): Promise<boolean> {
    const { random } = this.#scope
    if (this.#ended !== undefined) return false
    if (isClaimLost(error)) {
      if (this.#claim.wasHeld) this.#loseClaim(error)
      else this.#meetClaim(error)
      return false
    }
    if (await this.#hasMadeTopics(error)) return true
    this.#cause = runCauseOf(error)
    this.#tally.log({ level: 'warn', event: 'poll failed', code: this.#cause.code, cause: this.#cause.message })
    if (!(error instanceof KedgeError) || !error.retriable) {
      this.#stopTaking('broker-error')
      return false
    }
    return await this.#pause(backoffMs(brokerBackoff, failures, random, error.retryAfterMs))
  }

  /** Whether a poll failed because topics were missing that bring records back, and are there now. Tried once a run. */
  async #hasMadeTopics(error: unknown): Promise<boolean> {
    const { app, broker } = this.#scope
    const isUnknown = error instanceof KedgeError && error.code === 'UNKNOWN_TOPIC_OR_PARTITION'
    if (!isUnknown || app.returnTopics.size === 0 || this.#hasTriedTopics || !this.#calls.mayMake) return false
    this.#hasTriedTopics = true
    try {
      return await this.#calls.make((call) => makeReturnTopics(app, broker, call), { signal: this.#reading.signal })
    } catch (failure) {
      const { code, message } = runCauseOf(failure)
      this.#tally.log({ level: 'error', event: 'topics missing', code, cause: message })
      return false
    }
  }

  /**
   * The poll ended before the member has joined. Nobody knows of a partition that moved, so all lanes go on; that there
   * are no records does not mean that there are none; and whether the claim was taken is not known either.
   */
  async #waitsToJoin(retryAfterMs: number): Promise<boolean> {
    this.#cause = undefined
    if (!this.#isJoining) this.#tally.log({ level: 'info', event: 'joining', message: 'the group is rebalancing' })
    this.#isJoining = true
    return await this.#pause(Math.max(retryAfterMs, brokerBackoff.initialMs))
  }

  /** Waits before the next poll. False where the run polls no more. */
  async #pause(waitMs: number): Promise<boolean> {
    const { clock, budget } = this.#scope
    if (clock.monotonic() + waitMs >= budget.takeUntil) {
      // There is no time for another poll, but what was read before is still worth handling.
      this.#stopReading('deadline')
      return false
    }
    try {
      await sleep(clock, waitMs, this.#reading.signal)
      return true
    } catch {
      return false
    }
  }

  /** A dead letter for each record that is being handled, its topic where that may be missing, and the claim until then. */
  #callsForHandling(): number {
    const { clock, budget, claimTtlMs } = this.#scope
    const { active } = this.#dispatch
    if (active === 0) return 0
    const mayMakeTopic = this.#calls.isTold && !this.#handling.setAside.hasStored
    const renewals = Math.ceil(Math.max(0, budget.takeUntil - clock.monotonic()) / renewalMs(claimTtlMs))
    // A careful run names its one record first.
    return active + (this.#careful.isOn ? 1 : 0) + (mayMakeTopic ? CALLS_FOR_TOPIC : 0) + renewals
  }

  /** Waits until there is room for an answer. False where the run reads no more. */
  async #mayRead(): Promise<boolean> {
    while (this.#ended === undefined && !this.#hasRoom()) {
      this.#dispatch.start()
      if (this.#ended !== undefined || this.#hasRoom()) break
      await this.#change()
    }
    this.#claim.checkLapse()
    if (this.#ended !== undefined) return false
    if (this.#scope.clock.monotonic() >= this.#scope.budget.takeUntil) this.#stopTaking('deadline')
    else if (!this.#calls.maySpare) this.#stopReading('calls')
    return this.#ended === undefined
  }

  /**
   * At most one answer waits while another one is handled, so that a slow handler does not spend the calls of a run on
   * polls; unless what waits is held up behind a few records while other partitions have nothing to do.
   */
  #hasRoom(): boolean {
    const { waiting, waitingBytes, assigned } = this.#lanes
    const { maxPollRecords, maxPollBytes, concurrency } = this.#scope
    if (waitingBytes > maxPollBytes || this.#dispatch.isFull) return false
    // What is here may be of few keys or partitions only, and more of it let handlers begin that have nothing to do.
    const isHungry = this.#keepsProgress && this.#dispatch.active < concurrency
    if (isHungry) return waiting <= maxPollRecords * HUNGRY_ANSWERS
    if (waiting > maxPollRecords) return false
    return waiting <= this.#newestAnswer || this.#dispatch.active < Math.min(this.#scope.concurrency, assigned)
  }

  #onStopped({ topic, partition, next, stopCause, stoppedAt: offset = next }: Lane): void {
    const { code, message: cause } = stopCause ?? {}
    this.#tally.log({ level: 'error', event: 'stopped', topic, partition, offset, code, cause })
    this.#endWhereAllIsClosed()
  }

  /** A breaker opened: the run ends when it is time to probe again, so that a long one does not put that off. */
  #onOpened(openMs: number): void {
    const { clock } = this.#scope
    this.#probeAt = Math.min(this.#probeAt ?? Number.POSITIVE_INFINITY, clock.monotonic() + openMs)
    this.#cancels.push(clock.after(openMs, () => this.#stopTaking('breaker-open')))
  }

  #endWhereAllIsClosed(): void {
    if (this.#lanes.areAllStopped) this.#stopTaking('stopped')
    else if (this.#probeAt !== undefined && this.#lanes.areAllClosed) this.#stopTaking('breaker-open')
  }

  /** A commit of one partition was refused for good. */
  #refuse(lane: Lane, error: unknown): void {
    const cause = runCauseOf(error)
    if (cause.code === 'ILLEGAL_GENERATION') this.#lanes.remove(lane, asError(error))
    else {
      lane.stopCause = cause
      this.#dispatch.clear(lane)
      this.#onStopped(lane)
    }
    this.#wake()
  }

  /** An operator paused all there is, or something else than what this run goes by. */
  #bePaused(retryAfterMs: number): void {
    this.#retryAfterMs = retryAfterMs
    this.#stopTaking('paused')
  }

  #meetClaim(error: KedgeError): void {
    this.#retryAfterMs = error.retryAfterMs
    this.#stopTaking('claim-held')
    this.#giveUp()
  }

  #loseClaim(error: KedgeError): void {
    if (this.#ended === 'claim-lost') return
    this.#ended = undefined
    this.#cause = runCauseOf(error)
    this.#stopTaking('claim-lost')
    this.#giveUp(error)
  }

  /** No more polls; records that are here already are still handled. */
  #stopReading(why: RunEnd): void {
    this.#ended ??= why
    this.#reading.abort(new BrokerError('ABORTED', `The run reads no more: ${why}.`))
    this.#wake()
  }

  /** No more polls and no more records; those being handled go on. */
  #stopTaking(why: RunEnd): void {
    this.#dispatch.stop()
    this.#stopReading(why)
  }

  /** Nothing is waited for any longer. */
  #giveUp(
    reason: Error = new BrokerError('ABORTED', 'The run is over: the record comes again in the next run.'),
  ): void {
    if (this.#ending.signal.aborted) return
    this.#dispatch.stop()
    this.#ending.abort(reason)
    for (const lane of this.#lanes.all) lane.giveUp(reason)
    this.#wake()
  }

  async #waitForLanes(): Promise<void> {
    while (this.#dispatch.isBusy && !this.#ending.signal.aborted) await this.#change()
  }

  async #finish(): Promise<void> {
    const { broker, group, runId, budget, clock } = this.#scope
    this.#claim.close()
    if (this.#ended === 'claim-held' || this.#isClaimLost()) return
    // A poll without an answer may have taken the claim.
    if (this.#ended === 'paused' && !this.#hasPolled) return
    // What a handler that gave nobody a turn has made too late is still worth one commit.
    this.#calls.checkOverdue()
    await this.#committer.finish(Math.max(budget.deadline, clock.monotonic() + 1))
    // A record that no process survives, and that could not be set aside, is one that the next run has to be careful of.
    if (this.#isClaimLost() || this.#careful.isOwing) return
    try {
      await this.#calls.make((call) => broker.release(group, runId, call))
    } catch {
      // The claim lapses by itself; the next run only has to wait for it.
    }
  }

  /** Asked anew after every wait: a commit may have found out. */
  #isClaimLost(): boolean {
    return this.#ended === 'claim-lost'
  }

  /** Resolves when something happened that a waiting part of the run may want to know. */
  #change(): Promise<void> {
    return new Promise((resolve) => this.#wakers.push(resolve))
  }

  #wake(): void {
    const wakers = this.#wakers
    this.#wakers = []
    for (const wake of wakers) wake()
  }

  #report(): RunReport {
    const { app, group, runId, clock, budget } = this.#scope
    const { lastError } = this.#committer
    const cause = this.#cause ?? (lastError === undefined ? undefined : runCauseOf(lastError))
    if (this.#ended === 'breaker-open') this.#retryAfterMs = Math.max(0, (this.#probeAt ?? 0) - clock.monotonic())
    return this.#tally.report({
      runId,
      groupId: app.groupId,
      groupInstanceId: group.groupInstanceId,
      ended: this.#ended ?? 'deadline',
      ...(this.#retryAfterMs === undefined ? {} : { retryAfterMs: this.#retryAfterMs }),
      ...(cause === undefined ? {} : { cause }),
      calls: this.#calls.made,
      durationMs: clock.monotonic() - budget.startedAt,
      lanes: this.#lanes.all,
    })
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new BrokerError('ABORTED', 'The call was refused.', { cause: error })
}
