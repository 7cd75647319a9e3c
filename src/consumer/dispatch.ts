/**
 * Hands records to their handlers, in the order that their routes ask for and as many at once as they allow, and writes down
 * what became of each. A record that is put off takes no room among those that are being handled.
 *
 * Records of a partition are begun one after the other, each as soon as its route's ordering lets it: one ordered by its
 * partition when everything before it is settled, one ordered by its key when those with the same key are. On a batch route,
 * those that may be begun now are begun together.
 *
 * It is one file because each outcome of a record decides what may begin, what is put off and what is left to the next run.
 */
import type { Parking } from '../app.ts'
import { MAX_WAIT_MS } from '../backoff.ts'
import type { Clock } from '../clock.ts'
import { HandlerError } from '../errors.ts'
import type { ConsumerRecord, Offset } from '../record.ts'
import { entriesBehind, mayJoin, takeBatch } from './batch-entries.ts'
import type { Budget } from './budget.ts'
import type { Careful } from './careful.ts'
import type { Committer } from './committer.ts'
import { DueQueue } from './due-queue.ts'
import type { Found, Handling, Outcome } from './handling.ts'
import { chainKeyOf } from './lane.ts'
import type { Entry, Lane } from './lane.ts'
import type { Lanes } from './lanes.ts'
import { hasRoom } from './plan.ts'
import type { Plan } from './plan.ts'
import type { RunCause } from './report.ts'
import type { SettledOutcome, Tally } from './tally.ts'

/** What handing out needs of its run. */
export interface DispatchScope {
  readonly lanes: Lanes
  readonly handling: Handling
  readonly committer: Committer
  readonly tally: Tally
  readonly clock: Clock
  readonly budget: Budget
  /** Most records at once. */
  readonly concurrency: number
  readonly parking: Parking
  readonly careful: Careful
  /** Commits carry what is settled and put off behind their offsets. */
  readonly keepsProgress: boolean
  /** Whether a record, as it was read first, has a key that is not handled now. */
  readonly isPaused: (record: ConsumerRecord) => boolean
  /** Aborted when nothing may wait any longer. */
  readonly ending: AbortSignal
  /** There is no time, or are no calls, left to begin anything. */
  readonly onOver: (why: 'deadline' | 'calls') => void
  /** A partition stopped. */
  readonly onStopped: (lane: Lane) => void
  /** A route's breaker opened, and the run may go on for so long. */
  readonly onOpened: (openMs: number) => void
  /** A partition is left to the next run because a breaker is open. */
  readonly onShut: () => void
  /** Something failed that is not a record's fault. */
  readonly onCrash: (error: unknown) => void
  /** Something changed that a waiting part of the run may want to know. */
  readonly onChange: () => void
}

/** When handlers have kept the event loop to themselves for so long, timers and answers have a turn, milliseconds. */
const MAX_BUSY_MS = 100
/** So much may be put off beside records of retry topics that go on; what is more waits in its place, and others with it. */
const MAX_OUT_OF_TURN = 100

/** The handling of one run's records. */
export class Dispatch {
  /** Records that are being handled. */
  active = 0
  readonly #scope: DispatchScope
  readonly #due: DueQueue<Entry>
  /** Those that wait longest come first. */
  readonly #parked = new Set<Entry>()
  /**
   * Records that hung and will be tried again in this run, where the next run does not know of it. Their room is kept: if those
   * of several partitions took turns, none of them might get through its attempts before the run ends, in every run.
   */
  readonly #holding = new Set<Entry>()
  #isTaking = true
  #busyMs = 0
  /** Set while nothing is begun so that others have a turn. */
  #cancelTurn: (() => void) | undefined
  /** Which lane comes first, so that a busy one starves no other. */
  #turn = 0

  constructor(scope: DispatchScope) {
    this.#scope = scope
    this.#due = new DueQueue(scope.clock, (entry) => this.#onDue(entry))
  }

  /** Whether something is being handled, or will be before the run ends. */
  get isBusy(): boolean {
    // Of what is due, some may have been left to the next run since.
    const isWaiting = this.#parked.size > 0 && this.#due.nextDueAt !== undefined
    return this.active > 0 || (this.#isTaking && (isWaiting || this.#cancelTurn !== undefined))
  }

  /** Whether as much is put off as may be. */
  get isFull(): boolean {
    const { lanes, parking } = this.#scope
    return lanes.parked >= parking.maxRecords || lanes.parkedBytes >= parking.maxBytes
  }

  /** Most records at once. */
  get #most(): number {
    return this.#scope.careful.isOn ? 1 : this.#scope.concurrency
  }

  /** Begins nothing any more; what is being handled goes on. */
  stop(): void {
    this.#isTaking = false
    this.#due.close()
    this.#cancelTurn?.()
    this.#cancelTurn = undefined
  }

  /**
   * A handler has kept the event loop to itself for so long. One after the other would let no timer fire and no answer in: the
   * claim lapses, and what was handled is never committed.
   */
  onBusy(busyMs: number): void {
    this.#busyMs += busyMs
    if (this.#busyMs < MAX_BUSY_MS || this.#cancelTurn !== undefined || !this.#isTaking) return
    this.#busyMs = 0
    this.#cancelTurn = this.#scope.clock.after(0, () => {
      this.#cancelTurn = undefined
      this.start()
      this.#scope.onChange()
    })
  }

  /** Begins what may be begun. */
  start(): void {
    if (!this.#isTaking || this.active >= this.#most) return
    const open = this.#scope.lanes.open
    const first = this.#turn++
    for (let index = 0; index < open.length && this.active < this.#most; index++) {
      const lane = open[(first + index) % open.length]
      if (lane !== undefined) this.#pump(lane)
    }
    this.#rest()
  }

  #rest(): void {
    const { lanes, committer } = this.#scope
    if (this.active === 0 && lanes.waiting === 0) committer.idle()
  }

  #pump(lane: Lane): void {
    try {
      while (this.#mayBegin(lane) && this.#step(lane));
    } catch (error) {
      this.#scope.onCrash(error)
    }
  }

  #mayBegin(lane: Lane): boolean {
    return this.#isTaking && lane.isOpen && this.active < this.#most && this.#cancelTurn === undefined
  }

  /** Begins one record of a lane. False where none may be begun now. */
  #step(lane: Lane): boolean {
    const { clock, budget, handling, careful, isPaused } = this.#scope
    const now = clock.monotonic()
    if (now >= budget.takeUntil || !careful.mayBegin) {
      this.#scope.onOver(now >= budget.takeUntil ? 'deadline' : 'calls')
      return false
    }
    const ready = takeReady(lane)
    if (ready !== undefined) {
      if (ready.found.plan.breaker?.isOpen === true) return this.#shut(lane)
      if (this.#isAlone(ready)) this.#attempt(ready, now)
      else this.#together(entriesBehind(ready), now)
      return true
    }
    const record = lane.first
    if (record === undefined || this.active + this.#held >= this.#most) return false
    if (lane.isSettled(record.offset)) {
      this.#passOver(lane, record)
      return true
    }
    const found = (lane.found ??= handling.find(record))
    const { plan, origin = record } = found
    if (plan.breaker?.isOpen === true) return this.#shut(lane)
    if (!hasRoom(plan) || !isNext(lane, found)) return false
    const key = chainKeyOf(record, plan)
    const known = lane.known(record, found)
    const before = key === undefined ? undefined : lane.firstOf(key)
    if (before !== undefined) {
      const entry = lane.begin(record, found, key)
      if (before.isParked) {
        this.#park(entry)
        this.#makeRoom()
      } else if (before.isLeft) this.#leaveAlone(entry)
    } else if (isPaused(origin)) this.#wait(lane.begin(record, found, key))
    else if (plan.batch !== undefined && !careful.isOn && mayJoin(lane, record, found))
      this.#together(this.#takeBatch(lane, plan), now)
    else if (known !== undefined || plan.isAtMostOnce || careful.isOn) this.#resume(lane.begin(record, found, key), now)
    else this.#first(lane, record, found, key, now)
    return true
  }

  /** Whether a record whose turn has come is called without others. */
  #isAlone({ lane, record, found, attempts }: Entry): boolean {
    if (found.plan.batch === undefined || attempts > 0) return true
    return this.#scope.careful.isOn || lane.strikesOf(record.offset) > 0
  }

  /** An earlier run has settled the first record that waits. */
  #passOver(lane: Lane, record: ConsumerRecord): void {
    const { lanes, tally } = this.#scope
    lane.pass()
    lanes.release(record)
    tally.countRemembered()
  }

  #takeBatch(lane: Lane, plan: Plan): readonly Entry[] {
    const { handling, isPaused } = this.#scope
    const passOver = (record: ConsumerRecord): void => this.#passOver(lane, record)
    return takeBatch(lane, plan, { find: (record) => handling.find(record), passOver, isPaused })
  }

  /** Begins records of one lane and route together. They take the room of one. */
  #together(entries: readonly Entry[], now: number): void {
    const [first] = entries
    if (first === undefined) return
    for (const entry of entries) entry.isActive = true
    this.#track(first, this.#handleBatch(first, entries, now), entries.length)
  }

  async #handleBatch({ lane, found }: Entry, entries: readonly Entry[], now: number): Promise<void> {
    const { handling, clock, budget } = this.#scope
    const { breaker } = found.plan
    const isShut = (): boolean => breaker?.isOpen === true
    await handling.handleBatch(
      entries,
      {
        mayGoOn: () => this.#isTaking && lane.isOpen && !isShut() && clock.monotonic() < budget.takeUntil,
        tell: (entry, outcome, number) => this.#after(entry, outcome, number),
      },
      now,
    )
    if (isShut() && !lane.isGone && entries.some(({ isLeft }) => isLeft)) this.#shut(lane)
  }

  /** How much room is kept. */
  get #held(): number {
    if (this.#holding.size === 0) return 0
    let held = 0
    for (const { lane } of this.#holding) if (lane.isOpen) held += 1
    return held
  }

  /** The first attempt of a record of which nothing else is known: most of them are settled as soon as it returns. */
  #first(lane: Lane, record: ConsumerRecord, found: Found, key: string | undefined, now: number): void {
    const outcome = this.#scope.handling.handle(lane, record, found, 1, now)
    if (!(outcome instanceof Promise) && isSettled(outcome)) {
      lane.pass()
      this.#count(record, found, outcome, now)
      return
    }
    this.#await(lane.begin(record, found, key), outcome, 1)
  }

  /** A record that was put off in an earlier run, or is to be committed first. */
  #resume(entry: Entry, now: number): void {
    const dueAt = this.#dueAtOf(entry, now)
    if (dueAt > now) this.#putOff(entry, dueAt, entry.dueAtMs)
    else this.#attempt(entry, now)
  }

  /** When a record may be tried (monotonic): as this run has put it off, or an earlier one. */
  #dueAtOf({ dueAt, dueAtMs }: Entry, now: number): number {
    if (dueAt > 0 || dueAtMs === 0) return dueAt
    // A wall clock that was set back must not put a record off for longer than a policy, or another side, may ask for.
    return now + Math.min(dueAtMs - this.#scope.clock.now(), MAX_WAIT_MS)
  }

  #attempt(entry: Entry, now: number): void {
    const { handling, tally, careful, committer } = this.#scope
    const { lane, record, found, work } = entry
    const number = entry.attempts + 1
    this.#holding.delete(entry)
    if (careful.isCondemned(entry)) {
      this.#await(entry, careful.setAside(entry, handling.setAside), number)
      return
    }
    if (number > 1) tally.countRetry()
    if (found.plan.isAtMostOnce) {
      this.#await(entry, this.#once(entry, number), number)
      return
    }
    const handle = (at: number): Outcome | Promise<Outcome> =>
      work === undefined ? handling.handle(lane, record, found, number, at) : handling.again(work, number, at)
    const { clock } = this.#scope
    const isNamed = careful.isOn && handling.callsFor(found)
    const outcome = isNamed ? careful.call(entry, committer, () => handle(clock.monotonic())) : handle(now)
    this.#await(entry, outcome, number)
  }

  /** Commits a record, and handles it when that is durable. */
  async #once(entry: Entry, number: number): Promise<Outcome> {
    const { committer, handling, clock, ending } = this.#scope
    const { lane, record, found } = entry
    entry.isSpent = true
    lane.version += 1
    const { version } = lane
    await committer.flush(lane)
    const { offset } = record
    // A commit from before may reach beyond the record, and call it open.
    const isCommitted = lane.committedVersion >= version
    const isDurable = isCommitted && (offset < lane.committedTo || offset < lane.rememberedTo)
    if (!isDurable || ending.aborted || lane.isGone) {
      entry.isSpent = isDurable
      return { kind: 'unfinished' }
    }
    return await handling.handle(lane, record, found, number, clock.monotonic())
  }

  #await(entry: Entry, outcome: Outcome | Promise<Outcome>, number: number): void {
    if (!(outcome instanceof Promise)) {
      this.#after(entry, outcome, number)
      return
    }
    entry.isActive = true
    const done = outcome.then((settled) => this.#after(entry, settled, number))
    this.#track(entry, done, 1)
  }

  /** Counts what takes room until it is done. */
  #track({ lane, found: { plan } }: Entry, done: Promise<void>, records: number): void {
    this.active += 1
    plan.active += 1
    plan.records += records
    done
      .catch((error: unknown) => this.#scope.onCrash(error))
      .finally(() => {
        this.active -= 1
        plan.active -= 1
        plan.records -= records
        this.#pump(lane)
        if (this.active < this.#most) this.start()
        this.#scope.onChange()
      })
  }

  #after(entry: Entry, outcome: Outcome, number: number): void {
    const { clock, lanes } = this.#scope
    const { lane, record } = entry
    entry.isActive = false
    // The partition moved away while the record was being handled: what became of it is not this run's to tell, unless
    // nobody else will have it.
    if (lane.isGone) {
      if (entry.isSpent && outcome.kind === 'unfinished') this.#scope.tally.countLost(record)
      return
    }
    if (isSettled(outcome)) {
      // Failed in a batch behind one that is put off or left, and is done with sooner.
      if (entry.isParked) this.#unparkOne(entry)
      lanes.takeBack(entry)
      this.#advance(lane.settle(entry))
      this.#count(record, entry.found, outcome, clock.monotonic())
      return
    }
    if (outcome.kind === 'retry') {
      if (outcome.isAttempt) entry.attempts = number
      entry.work = outcome.work
      entry.error = outcome.error
      this.#putOff(entry, clock.monotonic() + outcome.waitMs, clock.now() + outcome.waitMs)
      return
    }
    if (entry.isSpent) this.#lose(entry)
    else this.#leave(entry)
    if (outcome.kind === 'stopped') this.#stopLane(lane, outcome.cause, record.offset)
    else if (isStrict(entry.found)) this.#hold(lane)
  }

  /** Committed, and not handled: that is what at-most-once may cost. */
  #lose(entry: Entry): void {
    const { lanes, tally } = this.#scope
    this.#advance(entry.lane.settle(entry))
    lanes.release(entry.record)
    tally.countLost(entry.record)
  }

  /** What comes later in the partition is left to the next run. */
  #hold(lane: Lane): void {
    lane.isHeld = true
    this.#scope.lanes.clear(lane)
  }

  /** A route takes nothing more: the partitions where it has something to do are left as they are. */
  #shut(lane: Lane): false {
    lane.isHeld = true
    this.clear(lane)
    this.#scope.onShut()
    return false
  }

  /** Leaves to the next run what a lane has that is not being handled. It must not keep others out meanwhile. */
  clear(lane: Lane): void {
    this.#scope.lanes.clear(lane)
    for (const entry of lane.entries) if (!entry.isActive) this.#leaveAlone(entry)
  }

  /** Leaves a record to the next run, and those behind it. */
  #leave(entry: Entry): void {
    for (const one of entry.lane.chainOf(entry)) this.#leaveAlone(one)
  }

  #leaveAlone(entry: Entry): void {
    this.#scope.lanes.leave(entry)
    this.#parked.delete(entry)
    this.#holding.delete(entry)
  }

  #count(record: ConsumerRecord, { plan, origin }: Found, outcome: SettledOutcome, now: number): void {
    const { lanes, tally, committer } = this.#scope
    lanes.release(record)
    tally.count(origin ?? record, outcome)
    const { breaker } = plan
    if (breaker?.count(outcome, now) === true) {
      tally.countOpened({ route: plan.route, ...breaker.counts })
      this.#scope.onOpened(breaker.openMs)
    }
    committer.note()
    this.#scope.onChange()
  }

  /** The next one of a key may be begun. */
  #advance(entry: Entry | undefined): void {
    if (entry === undefined || entry.isLeft || entry.isActive) return
    const now = this.#scope.clock.monotonic()
    const dueAt = this.#dueAtOf(entry, now)
    if (dueAt > now) {
      this.#putOff(entry, dueAt, entry.dueAtMs)
      return
    }
    this.#unpark(entry)
    entry.lane.ready.push(entry)
  }

  /** Puts a record off, and with it those behind it. */
  #putOff(entry: Entry, dueAt: number, dueAtMs: number): void {
    const { budget, keepsProgress, committer } = this.#scope
    const { lane } = entry
    entry.dueAt = dueAt
    entry.dueAtMs = dueAtMs
    if (keepsProgress) lane.version += 1
    for (const one of lane.chainOf(entry)) {
      // Those that came in a batch with it are not called with what is left of that.
      one.isActive = false
      if (lane.isOpen) this.#park(one)
      else this.#leaveAlone(one)
    }
    // It waits for one before it, which failed in the same batch.
    if (!lane.isFirst(entry)) return
    if (dueAt < budget.takeUntil && this.#isTaking && lane.isOpen) {
      if (!keepsProgress && hasHung(entry)) this.#holding.add(entry)
      this.#due.add(entry)
    } else {
      if (keepsProgress) committer.note()
      if (isStrict(entry.found) && !this.#isPassed(entry)) this.#hold(lane)
    }
    this.#makeRoom()
  }

  /** Whether what is behind a record of a retry topic need not wait for it, and there is room to put it off. */
  #isPassed(entry: Entry): boolean {
    const { lanes, parking } = this.#scope
    const isRoomy = lanes.parked <= parking.maxRecords / 2 && lanes.parkedBytes <= parking.maxBytes / 2
    return isRoomy && lanes.parked <= MAX_OUT_OF_TURN && isOutOfTurn(entry)
  }

  /** Puts a record off until a run that may handle it, whenever it is due. */
  #wait(entry: Entry): void {
    this.#putOff(entry, Number.POSITIVE_INFINITY, entry.dueAtMs)
  }

  #park(entry: Entry): void {
    this.#scope.lanes.park(entry)
    this.#parked.add(entry)
  }

  #unpark(entry: Entry): void {
    for (const one of entry.lane.chainOf(entry)) this.#unparkOne(one)
  }

  #unparkOne(entry: Entry): void {
    this.#scope.lanes.unpark(entry)
    this.#parked.delete(entry)
  }

  #onDue(entry: Entry): void {
    const { lane } = entry
    if (this.#isTaking && lane.isOpen && entry.isParked) {
      this.#unpark(entry)
      lane.ready.push(entry)
      this.#pump(lane)
      this.#rest()
    }
    this.#scope.onChange()
  }

  /** Where as much is put off as may be, and the app says so, what has waited longest becomes a dead letter. */
  #makeRoom(): void {
    if (this.#scope.parking.whenFull !== 'dead-letter' || !this.isFull) return
    for (const entry of this.#parked) {
      const { lane, record, found, attempts } = entry
      if (this.#scope.isPaused(found.origin ?? record)) continue
      // What waits in a retry topic has not failed there yet.
      const error = entry.error ?? (found.returned === undefined && attempts > 0 ? putOffBefore() : undefined)
      if (lane.isGone) this.#parked.delete(entry)
      if (lane.isGone || !lane.isFirst(entry) || error === undefined) continue
      this.#unparkOne(entry)
      const { plan, origin = record } = found
      const subject = { record: origin, returned: found.returned, route: plan.route }
      const outcome = this.#scope.handling.setAside.deadLetter(subject, 'exhausted', error, attempts)
      this.#await(entry, outcome, attempts)
      return
    }
  }

  #stopLane(lane: Lane, cause: RunCause, offset: Offset): void {
    lane.stopCause ??= cause
    lane.stoppedAt ??= offset
    this.clear(lane)
    this.#scope.onStopped(lane)
  }
}

/** Stands for a failure that only an earlier run has seen. */
function putOffBefore(): HandlerError {
  const message =
    'A handler failed in an earlier run, whose logs say how: as many records are put off as parking allows.'
  return new HandlerError('HANDLER_FAILED', message)
}

/** An outcome after which the record is behind its lane. */
function isSettled(outcome: Outcome): outcome is SettledOutcome {
  const { kind } = outcome
  return kind === 'handled' || kind === 'skipped' || kind === 'dead-lettered' || kind === 'deferred'
}

/** Whether the first record that waits may be begun beside those that are not settled. */
function isNext(lane: Lane, found: Found): boolean {
  if (lane.openCount === 0) return true
  if (found.inTurnMs !== undefined) {
    for (const one of lane.entries) if (!one.isParked || !isOutOfTurn(one)) return false
    return true
  }
  if (isStrict(found)) return false
  for (const first of lane.entries) return !isStrict(first.found)
  return true
}

/** Whether the last attempt came to no end. */
function hasHung({ error }: Entry): boolean {
  return error instanceof HandlerError && error.code === 'HANDLER_TIMEOUT'
}

/** What waits for everything before it. Records of a retry topic are due in the order in which they lie. */
function isStrict({ plan, returned }: Found): boolean {
  return plan.ordering === 'partition' || returned !== undefined
}

/** Whether a record of a retry topic is due later than its place there says: its handler asked for more. */
function isOutOfTurn({ found: { inTurnMs }, dueAtMs }: Entry): boolean {
  return inTurnMs !== undefined && dueAtMs > inTurnMs
}

/** An entry whose turn has come and whose route has room. */
function takeReady({ ready }: Lane): Entry | undefined {
  if (ready.length === 0) return undefined
  const at = ready.findIndex(({ found: { plan } }) => hasRoom(plan))
  return at === -1 ? undefined : ready.splice(at, 1)[0]
}
