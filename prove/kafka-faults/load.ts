/**
 * Producers and a group of instances at work through the gateways, as functions are: producers that send a record until it is
 * acknowledged, and for each instance one run after the other. Everything they do and see goes into a history.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type App, defineApp } from '../../src/app.ts'
import type { Broker, PollResult } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { KedgeError } from '../../src/errors.ts'
import type { ConsumerRecord, ProducerRecord, TopicPartition } from '../../src/record.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { withCalls } from '../../test/support/consumer.ts'
import { roundRobin } from './balancer.ts'
import type { At, HistoryEvent, Item, Place } from '../history/history.ts'
import type { Pace } from './pace.ts'
import type { World } from './world.ts'

/** What works on a world. */
export interface LoadOptions {
  readonly world: World
  /** Tells what time was lost to the machine. */
  readonly pace: Pace
  readonly groupId: string
  /** Topics that are read. */
  readonly topics: readonly string[]
  /** A topic without records, for the instance that asks how long polls take. */
  readonly probeTopic: string
  readonly instances: readonly string[]
  /** Keys that are written to each topic. */
  readonly keys: number
  /** Between two sends of one key, milliseconds. */
  readonly pauseMs: number
  readonly random: () => number
}

/** Most records in one poll; a run has up to twice as many in hand. */
export const MAX_POLL_RECORDS = 50
const RECORDS_PER_SEND = 3
const RUN_MS = 3_000
const POLL_WAIT_MS = 1_000
const CLAIM_TTL_MS = 6_000
/** So long a gateway tries to deliver a record; then it answers. */
const DELIVERY_MS = 30_000
/** Longer than that: so the outcome of a send is known wherever it can be. */
const PRODUCE_TIMEOUT_MS = 45_000
const RETRY_MS = 100
const OBSERVE_MS = 500
const DRAIN_LIMIT_MS = 60_000
const kafkaFeatures = { atomicProduce: false, idempotencyKeys: false }

/** Producers and consumers, and what became of their calls. */
export class Load {
  readonly history: HistoryEvent[] = []
  readonly #options: LoadOptions
  readonly #fetch: typeof fetch
  readonly #producing = new AbortController()
  readonly #consuming = new AbortController()
  readonly #producers: Promise<void>[] = []
  readonly #consumers: Promise<void>[] = []
  readonly #topicsRead: Set<string>
  #apps = new Map<string, App>()
  #calls = 0
  #acknowledged = new Set<string>()
  #handled = new Set<string>()
  /** What each instance was told newest. */
  readonly #told = new Map<string, Pick<PollResult, 'generationId' | 'assignment'>>()
  /** Runs that ended, by how. */
  readonly ends: Record<string, number> = {}

  constructor(options: LoadOptions) {
    this.#options = options
    this.#fetch = roundRobin(options.world.urls)
    this.#topicsRead = new Set([...options.topics, options.probeTopic])
  }

  /** The instances that consume. */
  get instances(): string[] {
    return [...this.#apps.keys()]
  }

  /** The newest generation that any instance was told. */
  get generation(): number {
    return Math.max(0, ...Array.from(this.#told.values(), ({ generationId }) => generationId))
  }

  /** The generation in which the instances hold all partitions of what they subscribe to, where they were told so. */
  async sharedGeneration(): Promise<number | undefined> {
    const told = [...this.#told.values()]
    const generations = new Set(told.map(({ generationId }) => generationId))
    const [generation] = generations
    if (told.length <= this.#apps.size || generations.size !== 1) return undefined
    const held = new Set(told.flatMap(({ assignment }) => assignment.map(placeOf)))
    const topics = await this.#options.world.direct.topics()
    const subscribed = topics.filter(({ topic }) => this.#topicsRead.has(topic))
    if (subscribed.length < this.#topicsRead.size) return undefined
    const count = subscribed.reduce((sum, { partitions }) => sum + partitions, 0)
    return held.size === count ? generation : undefined
  }

  /** Instances begin to consume. */
  consume(): void {
    for (const instance of this.#options.instances) this.join(instance)
    this.#consumers.push(this.#observe(), this.#probe())
  }

  /** One more instance. */
  join(instance: string, topics: readonly string[] = this.#options.topics): void {
    this.subscribe(instance, topics)
    this.#consumers.push(this.#runs(instance))
  }

  /** What the next run of the instance subscribes to. */
  subscribe(instance: string, topics: readonly string[]): void {
    for (const topic of topics) this.#topicsRead.add(topic)
    const router = createRouter()
    for (const topic of topics) router.on({ topic }, (record) => this.#handle(record))
    this.#apps.set(instance, defineApp({ groupId: this.#options.groupId, router }))
  }

  /** Producers begin to send to a topic. */
  produce(topics: readonly string[] = this.#options.topics): void {
    for (const topic of topics) {
      for (let key = 0; key < this.#options.keys; key++) this.#producers.push(this.#send(topic, `${topic}/k${key}`))
    }
  }

  /** Ends the producers, and resolves when their last records are acknowledged. */
  async stopProducing(): Promise<void> {
    this.#producing.abort()
    await Promise.all(this.#producers)
  }

  /** Waits until everything that was acknowledged is handled, or it is clear that it will not be; ends the consumers. */
  async drain(): Promise<void> {
    const deadline = performance.now() + DRAIN_LIMIT_MS
    while (performance.now() < deadline && !this.#acknowledged.isSubsetOf(this.#handled)) await sleep(50)
    this.#consuming.abort()
    await Promise.all(this.#consumers)
    await this.#look(true)
  }

  /** What the partitions hold. */
  async readLog(): Promise<Map<Place, Item[]>> {
    const { direct } = this.#options.world
    const log = new Map<Place, Item[]>()
    const topics = await direct.topics()
    for (const { topic, partitions } of topics.filter((one) => this.#topicsRead.has(one.topic))) {
      for (let partition = 0; partition < partitions; partition++) {
        const items: Item[] = []
        const [end] = await direct.offsets([{ topic, partition }], 'latest')
        while (items.length < (end?.offset ?? 0)) {
          const from = [{ topic, partition, offset: items.length }]
          const records = await direct.fetch(from, { maxWaitMs: 1_000, maxRecords: 10_000, maxBytes: 8 << 20 })
          if (records[0]?.offset !== items.length) throw new Error(`There is a gap in the log of ${topic}.`)
          items.push(...records.map(itemOf))
        }
        log.set(placeOf({ topic, partition }), items)
      }
    }
    return log
  }

  // --- producing ------------------------------------------------------------------------------------------------------------

  async #send(topic: string, lane: string): Promise<void> {
    const { pauseMs, random } = this.#options
    // One after the other in a lane, which a broker object does by topic.
    const broker = this.#rest()
    for (let seq = 0; !this.#producing.signal.aborted; seq += RECORDS_PER_SEND) {
      const items = Array.from({ length: RECORDS_PER_SEND }, (_, index): Item => ({ lane, seq: seq + index }))
      const records = items.map((item): ProducerRecord => ({
        topic,
        key: bytesOf(lane),
        value: bytesOf(`${item.lane} ${item.seq}`),
      }))
      while (!(await this.#sendOnce(broker, items, records))) await sleep(RETRY_MS * (0.5 + random()))
      await sleep(pauseMs * 2 * random())
    }
  }

  async #sendOnce(broker: Broker, items: readonly Item[], records: readonly ProducerRecord[]): Promise<boolean> {
    for (const item of items) this.#note({ type: 'sent', ...item })
    const startedAt = performance.now()
    try {
      const results = await broker.produce(records, {}, { timeoutMs: PRODUCE_TIMEOUT_MS })
      for (const [index, result] of results.entries()) {
        const item = items[index]
        if (item === undefined || result instanceof Error) throw result
        const at = { place: placeOf(result), offset: result.offset }
        this.#note({ type: 'acknowledged', ...item, ...at })
        this.#acknowledged.add(`${at.place}@${at.offset}`)
      }
      return true
    } catch (error) {
      const overMs = this.#overMs(startedAt, DELIVERY_MS)
      this.#note({ type: 'failed', kind: 'produce', code: codeOf(error), overMs })
      return false
    }
  }

  // --- consuming ------------------------------------------------------------------------------------------------------------

  async #runs(instance: string): Promise<void> {
    const { random } = this.#options
    const broker = this.#recorded(this.#rest(), instance)
    for (let runs = 0; !this.#consuming.signal.aborted; runs++) {
      const app = this.#apps.get(instance)
      if (app === undefined) return
      const consumer = createConsumer(app, {
        broker,
        deadLetters: memoryDeadLetters(),
        groupInstanceId: instance,
        maxPollRecords: MAX_POLL_RECORDS,
        maxPollWaitMs: POLL_WAIT_MS,
        claimTtlMs: CLAIM_TTL_MS,
        commitIntervalMs: 500,
      })
      const { ended, retryAfterMs = 0 } = await consumer.run({
        runId: `${instance}-${runs}`,
        budget: { runMs: RUN_MS * (0.5 + random()) },
        signal: this.#consuming.signal,
      })
      this.ends[ended] = (this.ends[ended] ?? 0) + 1
      await sleep(Math.max(retryAfterMs, 100 * random()))
    }
  }

  /** One more instance of the group, whose polls nobody gives up: runs end with their time, and their last poll with them. */
  async #probe(): Promise<void> {
    const { groupId, probeTopic, random } = this.#options
    const broker = this.#recorded(this.#rest(), 'probe')
    const group = { groupId, groupInstanceId: 'probe' }
    while (!this.#consuming.signal.aborted) {
      const maxWaitMs = Math.round(POLL_WAIT_MS * (1 + random() / 2))
      // Shorter ones may not be long enough for the way to a cluster far away, and then take what they need.
      const request = { group, topics: [probeTopic], maxWaitMs, maxRecords: 1, maxBytes: 1 }
      await broker.poll(request, { timeoutMs: PRODUCE_TIMEOUT_MS }).catch(() => sleep(RETRY_MS))
    }
  }

  #handle(record: ConsumerRecord): void {
    const at = { place: placeOf(record), offset: record.offset }
    this.#note({ type: 'handled', ...at })
    this.#handled.add(`${at.place}@${at.offset}`)
  }

  /** A broker whose polls and commits are noted. */
  #recorded(broker: Broker, instance: string): Broker {
    return withCalls(broker, {
      poll: async (request, call) => {
        const id = this.#ask()
        const startedAt = performance.now()
        const over = (): number => this.#overMs(startedAt, request.maxWaitMs)
        try {
          const result = await broker.poll(request, call)
          this.#notePoll(id, instance, result, over())
          return result
        } catch (error) {
          const code = codeOf(error)
          // The run gave it up, because it ends.
          const overMs = code === 'ABORTED' || call?.signal?.aborted === true ? {} : { overMs: over() }
          this.#note({ type: 'failed', kind: 'poll', code, ...overMs })
          throw error
        }
      },
      commit: async (group, offsets, options, call) => {
        const given =
          offsets === 'polled' ? [] : offsets.map((entry) => ({ place: placeOf(entry), offset: entry.offset }))
        this.#note({ type: 'committing', offsets: given })
        try {
          await broker.commit(group, offsets, options, call)
          this.#note({ type: 'committed', instance, generationId: options?.generationId, offsets: given })
        } catch (error) {
          this.#note({ type: 'failed', kind: 'commit', code: codeOf(error) })
          throw error
        }
      },
    })
  }

  #notePoll(call: number, instance: string, result: PollResult, overMs: number): void {
    const { generationId, assignment, records, retryAfterMs } = result
    if (retryAfterMs === undefined) this.#told.set(instance, result)
    this.#note({
      type: 'polled',
      call,
      instance,
      generationId,
      assignment: retryAfterMs === undefined ? assignment.map(placeOf) : undefined,
      records: records.map((record) => ({ ...itemOf(record), place: placeOf(record), offset: record.offset })),
      overMs,
    })
  }

  /** Somebody else reads the committed offsets now and then. */
  async #observe(): Promise<void> {
    while (!this.#consuming.signal.aborted) {
      // Nothing is seen where it fails.
      await this.#look(false).catch(() => undefined)
      await sleep(OBSERVE_MS)
    }
  }

  async #look(isLast: boolean): Promise<void> {
    const { world, groupId } = this.#options
    const call = this.#ask()
    const committed = await world.direct.committed(groupId, undefined, { timeoutMs: 5_000 })
    const offsets = committed.map((entry): At => ({ place: placeOf(entry), offset: entry.offset }))
    this.#note({ type: 'observed', call, offsets, isLast })
  }

  // --- the rest -------------------------------------------------------------------------------------------------------------

  /** How much longer than its time a call took, without what this process itself was late by. */
  #overMs(startedAt: number, limitMs: number): number {
    const due = startedAt + limitMs
    return performance.now() - due - this.#options.pace.stalledSince(due)
  }

  #rest(): Broker {
    return restBroker({ url: this.#options.world.urls[0] ?? '', fetch: this.#fetch, features: kafkaFeatures })
  }

  #ask(): number {
    this.#calls += 1
    this.#note({ type: 'asked', call: this.#calls })
    return this.#calls
  }

  #note(event: HistoryEvent): void {
    this.history.push(event)
  }
}

function placeOf({ topic, partition }: TopicPartition): Place {
  return `${topic}/${partition}`
}

function itemOf({ value }: ConsumerRecord): Item {
  const [lane = '', seq = ''] = textOf(value ?? new Uint8Array()).split(' ')
  return { lane, seq: Number(seq) }
}

function codeOf(error: unknown): string {
  return error instanceof KedgeError ? error.code : String(error)
}
