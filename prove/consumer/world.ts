/**
 * A world for one scenario: the product's consumer over the product's log in memory, both as they are; time, chance, network and
 * processes are those of `run-sim`. A scenario says what happens in it; the world writes a history down and judges it.
 *
 * It is one file because whatever a process does passes one place, which notes it and where the process may die.
 */
import * as z from 'zod'
import type { App, AppOptions } from '../../src/app.ts'
import type { Broker, CommitOptions, GroupInstance, OffsetCommit, PollResult } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { ConsumerOptions, RunOptions } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import type { Clock } from '../../src/clock.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { BrokerError } from '../../src/errors.ts'
import { BatchError } from '../../src/handler-errors.ts'
import type { IdempotencyStore } from '../../src/idempotency.ts'
import { type ConsumerRecord, partitionKey, textOf } from '../../src/record.ts'
import type { HandlerContext, Ordering, RouteOptions } from '../../src/router.ts'
import { seeded } from '../../test/support/chaos.ts'
import { FakeClock } from '../../test/support/clock.ts'
import { withCalls } from '../../test/support/consumer.ts'
import type { Item } from '../history/history.ts'
import { chooseManner, handleTogether, type Manner } from '../run-sim/batch-handler.ts'
import { allLetters, asStoreError, isAllCommitted, judgeWorld, observe, type Remains } from '../run-sim/judge.ts'
import { fairWeather, Network, type Weather } from '../run-sim/network.ts'
import { SimulatedProcess, WorldClock } from '../run-sim/process.ts'
import { failureOf, type Fate, overflow, recordOf, ROUTED, TOPIC } from '../run-sim/records.ts'
import { atOf } from '../history/noted-broker.ts'
import { contentOf, itemOf, Witness } from '../run-sim/witness.ts'
import { type Product, product as own } from './product.ts'
import type { Bugs, Played } from './scenario.ts'

/** What a process does one after the other: between any two of them it may die. */
export const steps = [
  'poll asked',
  'poll served',
  'progress asked',
  'progress served',
  'handler begins',
  'handler works',
  'handler is done',
  'record of a batch is done',
  'attempt failed',
  'letter asked',
  'letter served',
  'commit asked',
  'commit served',
  'commit answered',
  'claim asked',
  'claim served',
  'release asked',
  'release served',
] as const

/** One of them. */
export type Step = (typeof steps)[number]

/** As the wall clocks of platforms, in whole milliseconds, whatever parts of them its timers take. */
class WholeClock extends WorldClock {
  override now(): number {
    return Math.floor(super.now())
  }
}

/** A process that may be told where to die. */
export class Mortal extends SimulatedProcess {
  readonly #death: { readonly step: Step; readonly nth: number } | undefined
  /** How often it came to each step. */
  readonly passed: Map<Step, number> = new Map()
  /** Records whose handler it called to the end. */
  readonly done: ConsumerRecord<unknown>[] = []
  /** Records that failed alone, or by name. */
  readonly failed: Set<string> = new Set()

  constructor(world: WorldClock, death?: { readonly step: Step; readonly nth: number }) {
    super(world, Number.POSITIVE_INFINITY)
    this.#death = death
  }

  /** Passes a step. Says whether it lives. */
  at(step: Step): boolean {
    const times = (this.passed.get(step) ?? 0) + 1
    this.passed.set(step, times)
    if (this.#death?.step === step && this.#death.nth === times) this.kill()
    return !this.isDead
  }
}

/** How a world is made. Times are milliseconds. */
export interface WorldOptions {
  readonly seed: number
  /** @default 1 */
  readonly partitions?: number
  /** @default 'partition' */
  readonly ordering?: Ordering
  readonly route?: RouteOptions
  /** Most records that a handler gets together. @default it gets each alone */
  readonly batchRecords?: number | undefined
  readonly app?: Partial<AppOptions>
  readonly consumer?: Partial<ConsumerOptions>
  readonly weather?: Weather
  /** How long a handler needs. @default 0: it answers at once */
  readonly workMs?: (record: ConsumerRecord<unknown>) => number
  /** What an attempt comes to. @default what the record was produced for */
  readonly fateOf?: (record: ConsumerRecord<unknown>, context: HandlerContext) => Fate
  /** Called when a handler is. */
  readonly onHandler?: (process: Mortal, record: ConsumerRecord<unknown>, context: HandlerContext) => void
  /** Whether the answer to a poll is cut off after it was sent. */
  readonly cuts?: (instance: string, answer: PollResult) => boolean
  /** The store. @default in memory */
  readonly openLetters?: (broker: Broker) => DeadLetterStore
  /** What happens in place of a put, which it is given. */
  readonly putting?: (put: () => Promise<void>) => Promise<void>
  /** For routes that are handled effectively once. @default none */
  readonly openIdempotency?: (clock: Clock) => IdempotencyStore
  /** What a process has loaded, and how it gets to the broker and the store. @default the proof's own, over a network */
  readonly load?: (reached: Broker, process: Mortal) => Loaded
  /** What a handler throws at a record whose fate is `throws`. @default an error */
  readonly thrown?: (record: ConsumerRecord<unknown>, context: HandlerContext, product: Product) => unknown
  readonly bugs?: Bugs | undefined
}

/** What a process has loaded. */
export interface Loaded {
  readonly product: Product
  readonly broker: Broker
  readonly letters: DeadLetterStore
}

/** A run of a process. */
export interface Running {
  readonly process: Mortal
  readonly runId: string
  isOver: boolean
  report: RunReport | undefined
  /** Resolves when the run has said how it ended, which a dead process never does. */
  readonly ended: Promise<void>
}

/** How a run is started. */
export interface StartOptions {
  readonly process?: Mortal
  /** @default 'a' */
  readonly instance?: string
  readonly run?: Partial<RunOptions>
  /** As in `budget`. @default 5000 */
  readonly runMs?: number
  /** The time that its tick is for, which no run is told. @default now */
  readonly scheduledMs?: number
}

/** The group of a world. */
export const GROUP = 'g'
const STEP_MS = 50
const MOST_ROUNDS = 60

const valueSchema = z.object({ fate: z.string(), name: z.string() })

/** One world. */
export class World {
  readonly random: () => number
  readonly time: FakeClock = new FakeClock()
  readonly clock: WorldClock = new WholeClock(this.time)
  readonly broker: Broker
  readonly letters: DeadLetterStore
  readonly witness: Witness = new Witness()
  readonly counts: Record<string, number> = {}
  /** Every run, in the order of their starts. */
  readonly started: Running[] = []
  readonly #options: WorldOptions
  readonly #network: Network
  readonly #served: Broker
  readonly #store: DeadLetterStore
  readonly #idempotency: IdempotencyStore | undefined
  readonly #fates = new Map<string, Fate>()
  readonly #seqs = new Map<number, number>()
  #runs = 0

  constructor(options: WorldOptions) {
    this.#options = options
    this.random = seeded(options.seed)
    this.#network = new Network(this.clock, this.random)
    this.#network.weather = options.weather ?? fairWeather
    this.broker = memoryBroker({ clock: this.clock })
    this.letters = options.openLetters?.(this.broker) ?? memoryDeadLetters()
    this.#served = options.bugs?.broker?.(this.broker) ?? this.broker
    this.#store = options.bugs?.letters?.(this.letters) ?? this.letters
    const idempotency = options.openIdempotency?.(this.clock)
    this.#idempotency = idempotency && (options.bugs?.idempotency?.(idempotency) ?? idempotency)
  }

  /** Makes the topic. Called first. */
  async open(): Promise<void> {
    await this.broker.createTopic({ topic: TOPIC, partitions: this.partitions, retentionMs: null })
  }

  get partitions(): number {
    return this.#options.partitions ?? 1
  }

  get ordering(): Ordering {
    return this.#options.ordering ?? 'partition'
  }

  /** A whole number from 0 to below `count`. */
  below(count: number): number {
    return Math.floor(this.random() * count)
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by
  }

  /** Produces one record for each fate, to a partition or to any. */
  async produce(fates: readonly Fate[], partition?: number): Promise<void> {
    const sent = fates.map((fate) => {
      const to = partition ?? this.below(this.partitions)
      const lane = `p${to}`
      const seq = this.#seqs.get(to) ?? 0
      this.#seqs.set(to, seq + 1)
      this.#fates.set(`${lane}#${seq}`, fate)
      const record = recordOf(to, lane, seq, fate)
      const item: Item = { lane, seq, content: contentOf({ ...record, headers: record.headers ?? [] }) }
      this.witness.note({ type: 'sent', ...item })
      return { record, item }
    })
    const results = await this.broker.produce(sent.map(({ record }) => record))
    for (const [index, { record, item }] of sent.entries()) {
      const result = results[index]
      if (result === undefined || result instanceof Error) throw new Error('Cannot produce in the world.')
      this.witness.note({ type: 'acknowledged', ...item, ...atOf(result) })
      this.witness.produced(atOf(result), textOf(record.key))
    }
    this.count('records', fates.length)
  }

  // --- runs -------------------------------------------------------------------------------------------------------------------

  /** Starts a run as a fresh process does it: nothing is left of the one before. */
  start({
    process = new Mortal(this.clock),
    instance = 'a',
    run = {},
    runMs = 5_000,
    ...tick
  }: StartOptions = {}): Running {
    this.#runs += 1
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    const running: Running = { process, runId: `run-${this.#runs}`, isOver: false, report: undefined, ended }
    const reached = this.#reached(process, instance)
    const loaded = this.#options.load?.(reached, process)
    const { product, broker } = loaded ?? { product: own, broker: reached }
    const consumer = product.createConsumer(this.#app(process, product), {
      random: this.random,
      ...this.#options.consumer,
      broker: this.witness.noted(broker, instance),
      deadLetters: loaded === undefined ? this.#reachedStore(process) : this.#noted(loaded.letters),
      ...(this.#idempotency === undefined ? {} : { idempotency: this.#idempotency }),
      groupInstanceId: instance,
      clock: process,
    })
    const options = { runId: running.runId, deadlineMs: process.now() + runMs, ...run }
    this.count('runs')
    this.started.push(running)
    const { scheduledMs = process.now() } = tick
    void this.#see(running, consumer.run(this.#options.bugs?.run?.(options, scheduledMs) ?? options), resolve)
    return running
  }

  /** A dead process says nothing. */
  async #see(running: Running, ended: Promise<RunReport>, tell: () => void): Promise<void> {
    try {
      const report = await ended
      if (running.process.isDead) return
      running.report = report
      running.isOver = true
      this.#judgeReport(report)
      tell()
    } catch (error) {
      this.witness.complain(`${running.runId} threw ${String(error)}`)
    }
  }

  /** Lets time pass until a run is over or its process dead, or so long has passed. */
  async finish(running: Running, mostMs = 600_000): Promise<void> {
    for (let passedMs = 0; passedMs < mostMs && !running.isOver && !running.process.isDead; passedMs += STEP_MS) {
      await this.time.advance(STEP_MS)
    }
  }

  /** One tick after the other, nothing failing any more, until all is handled and committed. */
  async drain(start: StartOptions = {}, gapMs = 1_000): Promise<number> {
    this.#network.weather = fairWeather
    let ticks = 0
    for (; ticks < MOST_ROUNDS && !(await this.isDone()); ticks++) {
      await this.finish(this.start({ ...start, run: { stopWhenEmpty: true, ...start.run } }))
      await this.time.advance(gapMs)
    }
    if (!(await this.isDone())) this.witness.complain(`in ${MOST_ROUNDS} ticks the work was not done`)
    return ticks
  }

  isDone(): Promise<boolean> {
    return isAllCommitted(this.#remains())
  }

  places(): { topic: string; partition: number }[] {
    return Array.from({ length: this.partitions }, (_, partition) => ({ topic: TOPIC, partition }))
  }

  /** What the dead-letter store holds. */
  allLetters(): Promise<DeadLetter[]> {
    return allLetters(this.letters)
  }

  /** What a record was produced for. */
  fateOf(record: Pick<ConsumerRecord<unknown>, 'headers'>): Fate {
    const { lane, seq } = itemOf({ key: null, value: null, headers: record.headers })
    return this.#fates.get(`${lane}#${seq}`) ?? 'good'
  }

  // --- the end ----------------------------------------------------------------------------------------------------------------

  /** Judges all that happened. Called last. */
  async judge(): Promise<Played> {
    await observe(this.witness, this.#remains(), true)
    const isOrdered = this.ordering === 'partition'
    const { violations, figures } = await judgeWorld(this.witness, this.#remains(), isOrdered)
    this.count('handledAgain', figures.handledAgain)
    for (const [failure, times] of Object.entries(figures.failures)) this.count(`failed ${failure}`, times)
    await this.broker.close()
    return { violations, counts: this.counts }
  }

  #remains(): Remains {
    return { broker: this.broker, groupId: GROUP, places: this.places(), letters: this.letters }
  }

  #judgeReport(report: RunReport): void {
    const { polled, handled, skipped, deadLettered, unfinished, remembered, lost, deferred, ended } = report
    const letters = Object.values(deadLettered).reduce((sum, each) => sum + each, 0)
    if (polled !== handled + skipped + letters + unfinished + remembered + lost + deferred) {
      this.witness.complain(`a report does not add up: ${JSON.stringify(report)}`)
    }
    this.count(`ended ${ended}`)
    this.count('retried', report.retried)
  }

  // --- handlers ---------------------------------------------------------------------------------------------------------------

  #app(process: Mortal, product: Product): App {
    const topic = product.defineTopic(TOPIC, valueSchema, { tombstones: true })
    const { bugs, batchRecords: maxBatchRecords, route } = this.#options
    const options = { ordering: bugs?.ordering ?? this.ordering, ...route }
    const match = { topic, headers: { [ROUTED.name]: ROUTED.value } }
    const router = product.createRouter()
    if (maxBatchRecords === undefined)
      router.on(match, (record, context) => this.#handle(process, record, context, product), options)
    else
      router.onBatch(match, (records, context) => this.#handleBatch(process, records, context, maxBatchRecords), {
        ...options,
        maxBatchRecords,
      })
    return product.defineApp({
      groupId: GROUP,
      router,
      attemptTimeoutMs: 500,
      retry: { maxAttempts: 3, initialMs: 20, maxMs: 200 },
      breaker: null,
      ...this.#options.app,
    })
  }

  #handle(process: Mortal, record: ConsumerRecord<unknown>, context: HandlerContext, product: Product): unknown {
    if (!process.at('handler begins')) return new Promise(() => {})
    this.witness.handlerStarts(record, this.ordering)
    this.#options.onHandler?.(process, record, context)
    const fate = this.#options.fateOf?.(record, context) ?? this.fateOf(record)
    const workMs = this.#options.workMs?.(record) ?? 0
    if (workMs === 0) return this.#end(process, record, context, fate, product)
    const { promise, resolve } = Promise.withResolvers<void>()
    process.after(Math.ceil(workMs / 2), () => {
      if (process.at('handler works')) process.after(Math.ceil(workMs / 2), resolve)
    })
    return promise.then(() => this.#end(process, record, context, fate, product))
  }

  #end(
    process: Mortal,
    record: ConsumerRecord<unknown>,
    context: HandlerContext,
    fate: Fate,
    product: Product,
  ): unknown {
    if (context.signal.aborted) throw new Error('too late')
    if (fate === 'ends its process') process.kill()
    if (fate === 'hangs' || process.isDead) return new Promise(() => {})
    if (fate !== 'good' && fate !== 'tombstone') {
      if (!process.at('attempt failed')) return new Promise(() => {})
      if (fate === 'overflows') return overflow(record.offset)
      if (fate === 'rejects') product.reject('poison')
      throw this.#options.thrown?.(record, context, product) ?? new Error('poison')
    }
    this.witness.handled(record)
    process.done.push(record)
    this.count('handled')
    return process.at('handler is done') ? undefined : new Promise(() => {})
  }

  #handleBatch(
    process: Mortal,
    records: readonly ConsumerRecord<unknown>[],
    context: HandlerContext,
    most: number,
  ): unknown {
    const [first] = records
    if (first === undefined || !process.at('handler begins')) return new Promise(() => {})
    this.witness.batchStarts(records, this.ordering, most)
    for (const record of records) {
      this.#options.onHandler?.(process, record, context)
      if (records.length > 1 && process.failed.has(nameOf(record)))
        this.witness.complain(`${nameOf(record)} had failed, and was called with others again`)
    }
    if (records.length > 1) this.count('batches of several')
    const ended = this.witness.handed(process, records, context)
    const manner = chooseManner(this.random)
    const end = async (): Promise<void> => await this.#endBatch(process, records, context, manner)
    const workMs = this.#options.workMs?.(first) ?? 0
    if (workMs === 0) return end().finally(ended)
    const { promise, resolve } = Promise.withResolvers<void>()
    process.after(Math.ceil(workMs / 2), () => {
      if (process.at('handler works')) process.after(Math.ceil(workMs / 2), resolve)
    })
    return promise.then(end).finally(ended)
  }

  #endBatch(
    process: Mortal,
    records: readonly ConsumerRecord<unknown>[],
    context: HandlerContext,
    manner: Manner,
  ): Promise<never> | undefined {
    if (context.signal.aborted) throw new Error('too late')
    try {
      const hangs = handleTogether(records, {
        manner,
        ordering: this.ordering,
        failureOf: (record) => failureOf(this.#options.fateOf?.(record, context) ?? this.fateOf(record)),
        effect: (record) => {
          this.witness.handled(record)
          process.done.push(record)
          this.count('handled')
          return process.at('record of a batch is done')
        },
      })
      return hangs ?? (process.at('handler is done') ? undefined : new Promise(() => {}))
    } catch (error) {
      if (!process.at('attempt failed')) return new Promise(() => {})
      this.#noteFailure(process, records, error)
      throw error
    }
  }

  /** What failed by name, or alone, is not called with others again. */
  #noteFailure(process: Mortal, records: readonly ConsumerRecord<unknown>[], error: unknown): void {
    const named = error instanceof BatchError ? error.failures.map(({ record }) => record) : []
    const failed = named.map((one) => (typeof one === 'number' ? records[one] : one))
    for (const record of records.length === 1 ? records : failed) {
      if (record !== undefined && !failed.includes(undefined)) process.failed.add(nameOf(record))
    }
    if (records.length > 1) this.count(failed.length > 0 ? 'batches with names' : 'batches that failed')
  }

  // --- what a process reaches -------------------------------------------------------------------------------------------------

  #reached(process: Mortal, instance: string): Broker {
    const broker = this.#served
    return withCalls(broker, {
      poll: (request, call) =>
        this.#send(process, 'poll', call, async (served) => {
          const answer = await broker.poll(request, served)
          if (this.#options.cuts?.(instance, answer) !== true) return answer
          this.count('cut')
          throw new BrokerError('NETWORK', 'The connection was cut.')
        }),
      claim: (group, run, call) => this.#send(process, 'claim', call, () => broker.claim(group, run)),
      committed: (groupId, partitions, call) =>
        this.#send(process, 'progress', call, () => broker.committed(groupId, partitions)),
      release: (group, runId, call) => this.#send(process, 'release', call, () => broker.release(group, runId)),
      commit: async (group, offsets, options, call) => {
        await this.#send(process, 'commit', call, () => this.#serveCommit(group, offsets, options))
        if (!process.at('commit answered')) await new Promise(() => {})
      },
    })
  }

  async #send<R>(
    process: Mortal,
    kind: 'poll' | 'claim' | 'progress' | 'release' | 'commit' | 'letter',
    call: Parameters<Broker['poll']>[1],
    serve: (served: NonNullable<Parameters<Broker['poll']>[1]>) => Promise<R>,
  ): Promise<R> {
    if (!process.at(`${kind} asked`)) return await new Promise<R>(() => {})
    return await this.#network.send({
      process,
      call,
      refusals: kind === 'letter' ? ['DEAD_LETTER_STORE_UNAVAILABLE'] : ['NOT_COORDINATOR', 'OVERLOADED'],
      serve: async (_, served) => {
        const result = await serve(served)
        process.at(`${kind} served`)
        return result
      },
    })
  }

  /** A commit counts from here on, whether anybody hears of it or not. */
  async #serveCommit(
    group: GroupInstance,
    offsets: readonly OffsetCommit[] | 'polled',
    options: CommitOptions | undefined,
  ): Promise<void> {
    const before = await this.#claimant(group)
    await this.#served.commit(group, offsets, options)
    this.count('commits')
    const after = await this.#claimant(group)
    if (before === after && before !== undefined && before !== options?.runId) {
      this.witness.complain(`a commit of ${options?.runId ?? 'nobody'} was taken while ${before} has the claim`)
    }
    for (const at of (await this.broker.committed(GROUP)).map(atOf)) {
      if (!this.witness.isBehind(at)) this.witness.complain(`${at.place}@${at.offset} is committed and not handled`)
    }
  }

  /** The run that has the claim on an instance. */
  async #claimant({ groupInstanceId }: GroupInstance): Promise<string | undefined> {
    const [group] = await this.broker.groups()
    return group?.members.find((member) => member.groupInstanceId === groupInstanceId)?.runId ?? undefined
  }

  /** A store whose letters are written down when it says that it has them. */
  #noted(store: DeadLetterStore): DeadLetterStore {
    return {
      features: store.features,
      list: (query, call) => store.list(query, call),
      get: (id, call) => store.get(id, call),
      delete: (id, call) => store.delete(id, call),
      close: () => store.close(),
      [Symbol.asyncDispose]: () => store.close(),
      put: async (letter, call) => {
        await store.put(letter, call)
        this.witness.deadLettered(letter.record)
        this.count('letters')
      },
    }
  }

  #reachedStore(process: Mortal): DeadLetterStore {
    const store = this.#store
    const { putting = (put) => put() } = this.#options
    return {
      ...store,
      put: async (letter, call) => {
        try {
          await this.#send(process, 'letter', call, () =>
            putting(async () => {
              await store.put(letter)
              this.witness.deadLettered(letter.record)
              this.count('letters')
            }),
          )
        } catch (error) {
          throw asStoreError(error)
        }
      },
    }
  }
}

/** A record by its place. */
export function nameOf(record: ConsumerRecord<unknown>): string {
  return `${partitionKey(record)}@${record.offset}`
}
