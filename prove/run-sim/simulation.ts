/**
 * One simulated life of a group: the product's consumer runs over the product's broker in memory, both as they are; time, chance,
 * the network, the processes and their platform are made up, all from one seed. First everything fails that can, then the
 * weather clears, and the work must get done.
 *
 * It is one file because whatever a process does passes one place, which notes it and lets it fail.
 */
import { type App, defineApp } from '../../src/app.ts'
import type { Broker, CommitOptions, GroupInstance, OffsetCommit } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { DeadLetterStoreError } from '../../src/errors.ts'
import type { ErrorCode } from '../../src/errors.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { partitionKey, textOf } from '../../src/record.ts'
import { BatchError, reject } from '../../src/handler-errors.ts'
import { createRouter } from '../../src/router.ts'
import type { HandlerContext } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import { seeded } from '../../test/support/chaos.ts'
import { FakeClock } from '../../test/support/clock.ts'
import { withCalls } from '../../test/support/consumer.ts'
import type { Item } from '../history/history.ts'
import { chooseManner, handleTogether, type Manner } from './batch-handler.ts'
import { asStoreError, isAllCommitted, judgeWorld, observe } from './judge.ts'
import type { Remains } from './judge.ts'
import { fairWeather, Network } from './network.ts'
import { type Plan, planOf } from './plan.ts'
import { SimulatedProcess, WorldClock } from './process.ts'
import { chooseFate, failureOf, type Fate, overflow, recordOf, ROUTED, TOPIC } from './records.ts'
import { atOf } from '../history/noted-broker.ts'
import { contentOf, itemOf, Witness } from './witness.ts'

/** How a simulation is made. */
export interface SimulationOptions {
  readonly seed: number
  /** Stands for a bug in the broker: what processes call goes through it. */
  readonly tamper?: (broker: Broker) => Broker
  /** Stands for a bug in the store. */
  readonly tamperLetters?: (store: DeadLetterStore) => DeadLetterStore
}

/** What happened, in numbers that are added up over all seeds. */
export type Counts = Record<string, number>

/** What a simulation found. */
export interface SimulationResult {
  /** One line for each thing that may not be. */
  readonly violations: readonly string[]
  readonly counts: Counts
}

const GROUP = 'g'
const brokerRefusals: readonly ErrorCode[] = [
  'NOT_COORDINATOR',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'OVERLOADED',
  'KAFKA_STORAGE_ERROR',
  'REQUEST_TIMED_OUT',
  'UNKNOWN_SERVER_ERROR',
]
/** So many healthy ticks that commit nothing, one after the other, say that nothing will be. */
const MOST_IDLE_ROUNDS = 40
/** After so many there is only left what a clock that was set put off for longer. */
const SOON_ROUNDS = 30
/** Most healthy ticks until all is done, however few records each has the calls and the time for. */
const MOST_ROUNDS = 200

/** Plays a seed. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  return await new Simulation(options).play()
}

class Simulation {
  readonly #random: () => number
  readonly #plan: Plan
  readonly #fake = new FakeClock()
  readonly #clock = new WorldClock(this.#fake)
  readonly #network: Network
  readonly #broker: Broker
  readonly #letters: DeadLetterStore
  readonly #served: Broker
  readonly #store: DeadLetterStore
  readonly #witness = new Witness()
  readonly #fates = new Map<string, Fate>()
  readonly #seqs = new Map<string, number>()
  readonly #ticks: Promise<void>[] = []
  readonly #counts: Counts = {}
  #isStoreDown = false
  #runs = 0

  constructor({ seed, tamper, tamperLetters }: SimulationOptions) {
    this.#random = seeded(seed)
    this.#plan = planOf(this.#random)
    this.#network = new Network(this.#clock, this.#random)
    this.#broker = memoryBroker({ clock: this.#clock })
    this.#letters = memoryDeadLetters()
    this.#served = tamper?.(this.#broker) ?? this.#broker
    this.#store = tamperLetters?.(this.#letters) ?? this.#letters
  }

  async play(): Promise<SimulationResult> {
    const { partitions, rounds, weather } = this.#plan
    await this.#broker.createTopic({ topic: TOPIC, partitions, retentionMs: null })
    await this.#produce(this.#plan.recordsAtStart)
    this.#network.weather = weather
    for (let round = 0; round < rounds; round++) await this.#round(round)
    await this.#clearUp()
    const result = await this.#judge()
    await this.#broker.close()
    return result
  }

  // --- trouble --------------------------------------------------------------------------------------------------------------

  /** What happens in a while: ticks, on time, late, twice or not; records; members come and go; clocks are set. */
  async #round(round: number): Promise<void> {
    const { instances, tickMs, quietShare, recordsPerRound, leaves, clockSteps, storeOutages } = this.#plan
    this.#isStoreDown = storeOutages.some(([from, to]) => round >= from && round < to)
    for (const [index, instance] of instances.entries()) {
      // Each comes, goes and comes again.
      const isAway = instances.length > 1 && (round + index * 3) % 8 >= 6
      if (isAway || this.#random() < quietShare) this.#count('skippedTicks')
      else {
        this.#tick(instance, Math.floor(this.#random() * tickMs))
        if (this.#random() < 0.15) {
          this.#count('doubledTicks')
          this.#tick(instance, Math.floor(this.#random() * tickMs))
        }
      }
      if (isAway && this.#random() < leaves) {
        this.#count('leaves')
        await this.#broker.leave({ groupId: GROUP, groupInstanceId: instance }).catch(() => undefined)
      }
    }
    if (this.#random() < clockSteps) {
      this.#count('clockSteps')
      this.#clock.step((this.#random() - 0.5) * 7_200_000)
    }
    if (this.#isStoreDown) this.#count('storeOutages')
    await this.#produce(Math.floor(this.#random() * recordsPerRound))
    await this.#fake.advance(tickMs)
    await this.#observe(false)
  }

  async #produce(count: number): Promise<void> {
    for (let index = 0; index < count; index++) {
      const partition = Math.floor(this.#random() * this.#plan.partitions)
      const lane = `p${partition}`
      const seq = this.#seqs.get(lane) ?? 0
      this.#seqs.set(lane, seq + 1)
      const fate = chooseFate(this.#random, this.#plan.poisonShare)
      this.#fates.set(`${lane}#${seq}`, fate)
      const record = recordOf(partition, lane, seq, fate)
      const item: Item = { lane, seq, content: contentOf({ ...record, headers: record.headers ?? [] }) }
      this.#witness.note({ type: 'sent', ...item })
      const [result] = await this.#broker.produce([record])
      if (result === undefined || result instanceof Error) throw result
      this.#witness.note({ type: 'acknowledged', ...item, ...atOf(result) })
      this.#witness.produced(atOf(result), textOf(record.key))
      this.#count('records')
    }
  }

  // --- a tick ---------------------------------------------------------------------------------------------------------------

  /** A platform starts a process for the instance, and ends it at its deadline if it has not ended by then. */
  #tick(instance: string, afterMs: number): void {
    const { runMs, deathShare, mostSteps, freezeShare, freezeMs } = this.#plan
    const freezesAtMs = this.#random() < freezeShare ? Math.floor(this.#random() * runMs) : undefined
    const dies = this.#random() < deathShare
    const diesAtStep = dies ? 1 + Math.floor(this.#random() * mostSteps) : Number.POSITIVE_INFINITY
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#ticks.push(promise)
    this.#clock.after(afterMs, () => {
      this.#count('ticks')
      const process = new SimulatedProcess(this.#clock, diesAtStep)
      const ended = this.#run(process, instance, runMs, this.#plan.stopWhenEmpty)
      if (freezesAtMs !== undefined) {
        this.#count('freezes')
        this.#clock.after(freezesAtMs, () => process.freeze(freezeMs))
      }
      // A dead one never says so.
      this.#clock.after(runMs + 5, () => {
        if (process.isDead) this.#count('crashes')
        process.kill()
        resolve()
      })
      ended.then(resolve, (error: unknown) => {
        this.#witness.complain(`a run threw ${String(error)}`)
        resolve()
      })
    })
  }

  /** A run as a fresh process makes it: nothing is left of the one before. */
  async #run(process: SimulatedProcess, instance: string, runMs: number, stopWhenEmpty: boolean): Promise<void> {
    const { claimTtlMs, sessionTimeoutMs, maxCalls, marginMs, consumer: settings } = this.#plan
    this.#runs += 1
    const runId = `run-${this.#runs}`
    const startedAt = process.monotonic()
    const takeUntil = startedAt + runMs - marginMs
    const consumer = createConsumer(this.#app(process, takeUntil), {
      ...settings,
      broker: this.#witness.noted(this.#reached(process), instance),
      deadLetters: this.#reachedStore(process),
      groupInstanceId: instance,
      claimTtlMs,
      sessionTimeoutMs,
      clock: process,
      random: this.#random,
    })
    const report = await consumer.run({
      runId,
      deadlineMs: process.now() + runMs,
      budget: { marginMs, ...(maxCalls === undefined ? {} : { maxCalls }) },
      stopWhenEmpty,
    })
    if (!process.isDead) this.#judgeReport(report, process, runMs)
  }

  #judgeReport(report: RunReport, process: SimulatedProcess, runMs: number): void {
    const { ended, runId, durationMs, calls, polled, handled, skipped, deadLettered, unfinished } = report
    const { remembered, lost, deferred } = report
    const say = (what: string): void => this.#witness.complain(`${runId} ended ${ended}: ${what}`)
    this.#count(`ended ${ended}`)
    this.#count('calls', calls)
    this.#count('retried', report.retried)
    const letters = Object.values(deadLettered).reduce((sum, count) => sum + count, 0)
    const accounted = handled + skipped + letters + unfinished + remembered + lost + deferred
    this.#count('remembered', remembered)
    if (polled !== accounted) say(`the report does not add up: ${JSON.stringify(report)}`)
    // A last call gets a millisecond at least. What is late because its process stood still is for the platform to end.
    if (durationMs > runMs + 2 && !process.wasFrozen) say(`it took ${durationMs} ms of ${runMs}`)
    const { maxCalls = Number.POSITIVE_INFINITY } = this.#plan
    if (process.calls > maxCalls) say(`it made ${process.calls} calls of ${maxCalls}`)
    if (process.calls !== calls) say(`it made ${process.calls} calls and says ${calls}`)
    if (ended === 'claim-held' && (polled > 0 || report.retryAfterMs === undefined)) say('it was refused, and yet not')
  }

  #app(process: SimulatedProcess, takeUntil: number): App {
    const topic = defineTopic(TOPIC, 'json', { tombstones: true })
    const { attemptTimeoutMs, maxAttempts, ordering, batchRecords: maxBatchRecords, parking } = this.#plan
    const match = { topic, headers: { [ROUTED.name]: ROUTED.value } }
    const router = createRouter()
    if (maxBatchRecords === undefined) {
      router.on(match, (record, context) => this.#handle(process, record, context, takeUntil), { ordering })
    } else {
      router.onBatch(match, (records, context) => this.#handleBatch(process, records, context, takeUntil), {
        ordering,
        maxBatchRecords,
      })
    }
    return defineApp({
      groupId: GROUP,
      router,
      parking,
      attemptTimeoutMs,
      retry: { maxAttempts, initialMs: 20, maxMs: 200 },
    })
  }

  #handle(
    process: SimulatedProcess,
    record: ConsumerRecord<unknown>,
    context: HandlerContext,
    takeUntil: number,
  ): unknown {
    if (!process.passes()) return new Promise(() => {})
    this.#count('attempts')
    this.#witness.handlerStarts(record, this.#plan.ordering)
    // A clock in steps of a millisecond may show the moment itself.
    if (process.monotonic() > takeUntil) this.#witness.complain(`a handler began after the run was to take no more`)
    const fate = this.#fateOf(record)
    if (fate === 'throws') throw new Error('poison')
    if (fate === 'rejects') reject('poison')
    if (fate === 'overflows') return overflow(record.offset)
    if (fate === 'hangs') return new Promise(() => {})
    const chance = this.#random()
    const { slowShare, slowMs, failingShare } = this.#plan
    if (chance >= slowShare) return this.#finish(process, record, context, failingShare)
    const { promise, resolve } = Promise.withResolvers<void>()
    process.after(Math.floor(this.#random() * slowMs), resolve)
    return promise.then(() => this.#finish(process, record, context, failingShare))
  }

  #handleBatch(
    process: SimulatedProcess,
    records: readonly ConsumerRecord<unknown>[],
    context: HandlerContext,
    takeUntil: number,
  ): unknown {
    if (!process.passes()) return new Promise(() => {})
    const { ordering, batchRecords = 1, slowShare, slowMs } = this.#plan
    this.#count('attempts')
    this.#count('batches')
    if (records.length > 1) this.#count('batchesOfMany')
    this.#witness.batchStarts(records, ordering, batchRecords)
    if (process.monotonic() > takeUntil) this.#witness.complain(`a handler began after the run was to take no more`)
    const ended = this.#witness.handed(process, records, context)
    const manner = chooseManner(this.#random)
    if (this.#random() >= slowShare) {
      try {
        const hangs = this.#finishBatch(process, records, context, manner)
        if (hangs === undefined) ended()
        return hangs
      } catch (error) {
        ended()
        throw error
      }
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    process.after(Math.floor(this.#random() * slowMs), resolve)
    return promise.then(() => this.#finishBatch(process, records, context, manner)).finally(ended)
  }

  #finishBatch(
    process: SimulatedProcess,
    records: readonly ConsumerRecord<unknown>[],
    { signal }: HandlerContext,
    manner: Manner,
  ): Promise<never> | undefined {
    const { ordering, failingShare } = this.#plan
    if (!process.passes()) return new Promise(() => {})
    if (signal.aborted) throw new Error('too late')
    try {
      const hangs = handleTogether(records, {
        manner,
        ordering,
        failureOf: (record) =>
          failureOf(this.#fateOf(record)) ??
          (this.#random() < failingShare ? { error: new Error('it happens') } : undefined),
        effect: (record) => {
          this.#witness.handled(record)
          this.#count('handled')
          return process.passes()
        },
      })
      if (hangs !== undefined) this.#count('batchesThatHung')
      return hangs
    } catch (error) {
      this.#count(error instanceof BatchError ? 'batchesWithNames' : 'batchesThatFailed')
      throw error
    }
  }

  /** The effect of a handler, which nobody waits for any more where it comes too late. */
  #finish(
    process: SimulatedProcess,
    record: ConsumerRecord<unknown>,
    { signal }: HandlerContext,
    failingShare: number,
  ): unknown {
    if (!process.passes()) return new Promise(() => {})
    if (signal.aborted) throw new Error('too late')
    if (this.#random() < failingShare) throw new Error('it happens')
    this.#witness.handled(record)
    this.#count('handled')
    return process.passes() ? undefined : new Promise(() => {})
  }

  #fateOf(record: ConsumerRecord<unknown>): Fate {
    const { lane, seq } = itemOf({ key: null, value: null, headers: record.headers })
    return this.#fates.get(`${lane}#${seq}`) ?? 'good'
  }

  // --- what a process reaches -----------------------------------------------------------------------------------------------

  #reached(process: SimulatedProcess): Broker {
    const broker = this.#served
    const refusals = brokerRefusals
    const send = this.#network.send.bind(this.#network)
    return withCalls(broker, {
      poll: (request, call) => send({ process, call, refusals, serve: (_, served) => broker.poll(request, served) }),
      claim: (group, run, call) => send({ process, call, refusals, serve: () => broker.claim(group, run) }),
      committed: (groupId, partitions, call) =>
        send({ process, call, refusals, serve: () => broker.committed(groupId, partitions) }),
      release: (group, runId, call) => send({ process, call, refusals, serve: () => broker.release(group, runId) }),
      commit: (group, offsets, options, call) =>
        send({
          process,
          call,
          refusals,
          serve: (isAwaited) => this.#serveCommit(isAwaited, group, offsets, options),
        }),
    })
  }

  /** The broker takes a commit: the moment at which it counts, whether anybody hears of it or not. */
  async #serveCommit(
    isAwaited: () => boolean,
    group: GroupInstance,
    offsets: readonly OffsetCommit[] | 'polled',
    options: CommitOptions | undefined,
  ): Promise<void> {
    if (offsets === 'polled') throw new Error('A run commits what it names.')
    const before = await this.#broker.committed(GROUP, offsets)
    const wrong = await this.#reasonsAgainst(group, offsets, options)
    await this.#served.commit(group, offsets, options)
    this.#count('commits')
    const stillWrong = await this.#reasonsAgainst(group, offsets, options)
    for (const reason of wrong.intersection(stillWrong)) this.#witness.complain(`a stale commit was taken: ${reason}`)
    const after = await this.#broker.committed(GROUP, offsets)
    for (const [index, { offset, ...partition }] of after.entries()) {
      const at = { place: partitionKey(partition), offset }
      if (!this.#witness.isBehind(at)) this.#witness.complain(`${at.place}@${offset} is committed and not handled`)
      const known = before[index]?.offset ?? -1
      if (offset >= known) continue
      if (isAwaited()) this.#witness.complain(`a commit moved ${at.place} from ${known} back to ${offset}`)
      else {
        // Its run had given it up, sent another, and was overtaken by the one it had given up. The records come again.
        this.#count('overtakenCommits')
        this.#witness.note({ type: 'reset', offsets: [at] })
      }
    }
  }

  /** Why a commit must be refused, as the broker itself describes its group. */
  async #reasonsAgainst(
    { groupInstanceId }: GroupInstance,
    offsets: readonly OffsetCommit[],
    options: CommitOptions | undefined,
  ): Promise<Set<string>> {
    const reasons = new Set<string>()
    const [group] = await this.#broker.groups()
    for (const member of group?.members ?? []) {
      const isIts = member.groupInstanceId === groupInstanceId
      if (isIts && member.runId !== options?.runId) reasons.add(`${groupInstanceId} is claimed by ${member.runId}`)
      const held = new Set(member.assignment.map(partitionKey))
      for (const place of isIts ? [] : offsets.map(partitionKey).filter((key) => held.has(key))) {
        reasons.add(`${place} is held by ${member.groupInstanceId} and not by ${groupInstanceId}`)
      }
    }
    return reasons
  }

  #reachedStore(process: SimulatedProcess): DeadLetterStore {
    const store = this.#store
    return {
      ...store,
      put: (letter, call) =>
        this.#network
          .send({
            process,
            call,
            refusals: ['DEAD_LETTER_STORE_UNAVAILABLE'],
            serve: async () => {
              const isDown = this.#isStoreDown && this.#random() < 0.9
              const isHalf = this.#random() < 0.5
              if (isDown && !isHalf)
                throw new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', 'The store is down.')
              await store.put(letter)
              this.#witness.deadLettered(letter.record)
              this.#count('letters')
              if (isDown) throw new DeadLetterStoreError('TIMEOUT', 'The store is down and has stored it.')
            },
          })
          .catch((error: unknown) => {
            throw asStoreError(error)
          }),
    }
  }

  // --- the end --------------------------------------------------------------------------------------------------------------

  /** All is well again: whoever is still there ends, and ticks of one instance after the other do what is left. */
  async #clearUp(): Promise<void> {
    const { runMs, tickMs, claimTtlMs, sessionTimeoutMs } = this.#plan
    this.#network.weather = fairWeather
    this.#isStoreDown = false
    await this.#fake.advance(runMs + tickMs + 10)
    await Promise.all(this.#ticks)
    await this.#fake.advance(Math.max(claimTtlMs, sessionTimeoutMs) + 20_000)
    let [ticks, idle] = [0, 0]
    let before = await this.#committed()
    while (ticks < MOST_ROUNDS && idle < MOST_IDLE_ROUNDS && !(await this.#isDone())) {
      const process = new SimulatedProcess(this.#clock, Number.POSITIVE_INFINITY)
      const state = { isOver: false }
      const run = this.#run(process, 'last', runMs, true).finally(() => (state.isOver = true))
      run.catch((error: unknown) => this.#witness.complain(`a run threw ${String(error)}`))
      while (!state.isOver) await this.#fake.advance(100)
      this.#count('ticksToTheEnd')
      // What was put off is due some time: by the wall clock, which may have been set since.
      const isLate = idle >= SOON_ROUNDS
      if (isLate) this.#count('hoursLateByTheClock')
      await this.#fake.advance(isLate ? 3_600_000 : 1_000)
      const committed = await this.#committed()
      idle = committed > before ? 0 : idle + 1
      before = Math.max(before, committed)
      ticks += 1
    }
    if (!(await this.#isDone()))
      this.#witness.complain(`all was well, and after ${ticks} ticks, ${idle} of them idle, the work was not done`)
    await this.#observe(true)
  }

  /** How many records are committed, over all partitions. */
  async #committed(): Promise<number> {
    const all = await this.#broker.committed(GROUP)
    return all.reduce((sum, { offset }) => sum + Math.max(0, offset), 0)
  }

  #isDone(): Promise<boolean> {
    return isAllCommitted(this.#remains())
  }

  async #judge(): Promise<SimulationResult> {
    const isOrdered = this.#plan.ordering === 'partition'
    const { violations, figures } = await judgeWorld(this.#witness, this.#remains(), isOrdered)
    this.#count('handledAgain', figures.handledAgain)
    this.#count('polls', figures.polls)
    this.#count('rebalances', figures.generation)
    for (const [failure, count] of Object.entries(figures.failures)) this.#count(`failed ${failure}`, count)
    for (const [fault, count] of Object.entries(this.#network.faults)) this.#count(fault, count)
    return { violations, counts: this.#counts }
  }

  #observe(isLast: boolean): Promise<void> {
    return observe(this.#witness, this.#remains(), isLast)
  }

  #remains(): Remains {
    return { broker: this.#broker, groupId: GROUP, places: this.#places(), letters: this.#letters }
  }

  #places(): { topic: string; partition: number }[] {
    return Array.from({ length: this.#plan.partitions }, (_, partition) => ({ topic: TOPIC, partition }))
  }

  #count(what: string, by = 1): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + by
  }
}
