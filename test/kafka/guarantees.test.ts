/**
 * What routes, dead letters and operators are promised, over a real cluster: each run and each verb is a process of its own, as
 * functions are, straight to the cluster or through replicas of a gateway.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'
import { type App, type AppOptions, defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import type { RunOptions } from '../../src/consumer.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { RetryAfterError, StopError } from '../../src/handler-errors.ts'
import { createOperations } from '../../src/operations.ts'
import type { Operations } from '../../src/operations.ts'
import { type ConsumerRecord, type ProducerRecord, textOf } from '../../src/record.ts'
import { createRedrive } from '../../src/redrive.ts'
import { createRouter } from '../../src/router.ts'
import type { RouteOptions } from '../../src/router.ts'
import { refusal } from '../conformance/broker/harness.ts'
import { expectSetAside } from '../support/crashing.ts'
import { startGateway } from '../support/gateway.ts'
import { record, series } from '../support/records.ts'
import { until } from '../support/until.ts'
import { startKcat } from './clients.ts'
import { openKafka, ownCluster } from './conformance-kafka.ts'

const TOPIC = 'orders'
const GROUP = 'shop'
const actor = 'ann'

const cluster = ownCluster()
beforeEach(() => cluster.wipe())

describe.each<{ name: string; open: () => Promise<Site> }>([
  { name: 'the cluster', open: () => Promise.resolve(new Site()) },
  { name: 'two replicas of a gateway', open: () => Site.withReplicas(2) },
])('over $name', ({ open }) => {
  test('a key that fails is parked, over runs: the others go on, and nothing is handled twice', async () => {
    await using site = await open()
    const app = site.app({ ordering: 'key', concurrency: 8 }, { operations: true })
    // Longer than a run, so that it is a later one that tries again.
    const budget = { runMs: 3_000 }
    site.failing.set('a0', () => new RetryAfterError(4_000))
    await site.produce(
      [0, 1].flatMap((n) => ['a', 'b', 'c'].map((key) => record(TOPIC, `${key}${n}`, { key, partition: 0 }))),
    )

    const first = await site.run(app, { budget })
    const committed = await site.committed()
    await site.run(app, { budget })
    const others = [...site.handled]
    site.failing.clear()
    await site.runUntil(app, () => site.handled.length === 6)

    expect(first).toMatchObject({ handled: 4, unfinished: 2 })
    expect(committed).toEqual([0])
    expect(others.toSorted()).toEqual(['b0', 'b1', 'c0', 'c1'])
    expect(site.handled.slice(4)).toEqual(['a0', 'a1'])
    expect(await site.committed()).toEqual([6])
  })

  test('a record that fails goes through its retry topic to the dead letters, and comes back to its group only', async () => {
    await using site = await open()
    const retry = { maxAttempts: 1, topicDelaysMs: [1_000] }
    const app = site.app({ ordering: 'none', retry, breaker: null }, { redrive: true })
    site.failing.set('bad', () => new Error('the warehouse is down'))
    await site.produce(['bad', 'good'].map((value) => record(TOPIC, value, { key: 'k', partition: 0 })))
    const deadLetters = topicDeadLetters({ broker: site.broker() })
    const letters = async () => (await deadLetters.list()).items

    const first = await site.run(app)
    await site.runUntil(app, async () => (await letters()).length === 1)
    const items = await letters()
    site.failing.clear()
    const redrive = createRedrive({ broker: site.broker(), store: deadLetters, groupId: GROUP, app })
    const plan = await redrive.plan()
    const redriven = await redrive.run({ actor })
    await site.runUntil(app, () => site.handled.length === 2)

    expect(first).toMatchObject({ handled: 1, deferred: 1 })
    expect(items).toMatchObject([
      { attempts: 2, reason: 'exhausted', record: { topic: TOPIC, partition: 0, offset: 0 } },
    ])
    expect(plan.letters).toBe(1)
    expect(redriven).toMatchObject({ ended: 'done', redriven: 1 })
    expect(site.handled).toEqual(['good', 'bad'])
    expect(site.places.at(-1)).toBe(`${TOPIC}[0]@0`)
    expect(await letters()).toEqual([])
    expect(await site.readByOther()).toEqual(['bad', 'good'])
  })

  test('seek goes to an offset, a time and the ends, and is refused while a run is on', async () => {
    await using site = await open()
    const app = site.app({}, { operations: true })
    await site.produce(series(TOPIC, 0, 2, 'old'))
    await sleep(20)
    const timeMs = Date.now()
    await sleep(20)
    await site.produce(series(TOPIC, 0, 3, 'new'))
    await site.run(app)

    const moves: unknown[] = []
    for (const to of ['earliest', { timeMs }, 4, 'latest'] as const) {
      await site.verbs(app).seek({ actor, topic: TOPIC, to })
      site.handled.length = 0
      await site.run(app)
      moves.push([...site.handled])
    }
    const end = new AbortController()
    const run = site.run(app, { stopWhenEmpty: false, signal: end.signal })
    await until(async () => (await site.verbs(app).status()).members[0]?.runId !== null, { timeoutMs: 20_000 })
    const held = await refusal(site.verbs(app).seek({ actor, topic: TOPIC, to: 'earliest' }), 'CLAIM_HELD')
    end.abort()
    await run
    const beyond = await refusal(site.verbs().seek({ actor, topic: TOPIC, to: 6 }), 'OFFSET_OUT_OF_RANGE')

    expect(moves).toEqual([['old0', 'old1', 'new0', 'new1', 'new2'], ['new0', 'new1', 'new2'], ['new2'], []])
    expect(held.message).toContain('a run of its instance one is active')
    expect(beyond.message).toContain('the log has 0 to 5')
    expect(await site.committed()).toEqual([5])
  })

  test('skip passes over the record that blocks its partition, and no other', async () => {
    await using site = await open()
    const app = site.app({}, { operations: true })
    site.failing.set('v1', () => new StopError('it cannot be'))
    await site.produce(series(TOPIC, 0, 3))

    const blocked = await site.run(app)
    const verbs = site.verbs(app)
    const moved = await verbs.skip({ actor, reason: 'nobody can read it', topic: TOPIC, partition: 0, offset: 1 })
    await site.run(app)

    expect(blocked).toMatchObject({ ended: 'stopped', stopped: [{ offset: 1 }] })
    expect(moved).toMatchObject({ before: 1, after: 2 })
    expect(site.handled).toEqual(['v0', 'v2'])
    expect(await site.committed()).toEqual([3])
  })

  test('a pause of the group and of a key keep their records back until they are resumed', async () => {
    await using site = await open()
    const app = site.app({ ordering: 'key' }, { operations: true })
    await site.produce(['a', 'b'].map((key) => record(TOPIC, key, { key, partition: 0 })))

    await site.verbs(app).pause({ actor })
    const paused = await site.run(app)
    await site.verbs(app).resume({ actor })
    await site.verbs(app).pause({ actor, topic: TOPIC, key: 'a' })
    await site.run(app, { budget: { runMs: 20_000 } })
    const status = await site.verbs(app).status()
    const whilePaused = [...site.handled]
    await site.verbs(app).resume({ actor, topic: TOPIC, key: 'a' })
    await site.runUntil(app, () => site.handled.length === 2)

    expect(paused).toMatchObject({ ended: 'paused', polled: 0 })
    expect(whilePaused).toEqual(['b'])
    expect(status).toMatchObject({
      isHeeded: true,
      paused: { group: false, keys: [{ topic: TOPIC, key: 'a' }] },
      partitions: [{ committedOffset: 0, logEndOffset: 2, lag: 2 }],
    })
    expect(site.handled).toEqual(['b', 'a'])
  })

  test('a backfill that is broken off goes on where it was, at its rate, and reaches no other group', async () => {
    await using site = await open()
    const app = site.app({}, { operations: true, redrive: true })
    await site.produce(series(TOPIC, 0, 20))
    await site.run(app)
    site.handled.length = 0
    const off = new AbortController()

    const onProgress = ({ replayed }: { readonly replayed: number }): void => {
      if (replayed >= 4) off.abort()
    }
    const range = { topic: TOPIC, from: 5, until: 15, perSecond: 20 }
    const broken = await site.verbs(app).backfill({ actor, ...range, signal: off.signal, onProgress })
    const rest = await site.verbs(app).resumeBackfill({ actor, topic: TOPIC })
    await site.runUntil(app, () => site.handled.length === 10)

    expect(broken).toMatchObject({ ended: 'aborted' })
    expect(rest).toMatchObject({ ended: 'done', left: 0 })
    expect(broken.replayed + rest.replayed).toBe(10)
    expect(site.handled).toEqual(Array.from({ length: 10 }, (_, n) => `v${n + 5}`))
    expect(await site.committed()).toEqual([20])
    expect(await site.readByOther()).toHaveLength(20)
  })
})

test('seek is refused while clients of another kind consume as the group, and done when they are gone', async () => {
  await using site = new Site()
  await site.produce(series(TOPIC, 0, 2))
  await using member = startKcat(['-G', GROUP, '-X', 'auto.offset.reset=earliest', TOPIC])
  await until(async () => (await cluster.members(GROUP)).length === 1, { timeoutMs: 30_000 })

  const refused = await refusal(site.verbs().seek({ actor, topic: TOPIC, to: 'earliest' }), 'UNKNOWN_MEMBER_ID')
  await member.kill('SIGTERM')
  await site.verbs().seek({ actor, topic: TOPIC, to: 1 })

  expect(refused.message).toContain('Stop them first')
  expect(await site.committed()).toEqual([1])
})

test('a record that ends its process is set aside by the third', async () => {
  await using broker = openKafka()
  await using gateway = await startGateway(broker)
  await expectSetAside({ broker, url: gateway.url, how: 'signal' })
})

/** The topic, and what its handlers did, for processes that know nothing of each other. */
class Site implements AsyncDisposable {
  /** What the handler rejects with, by value. */
  readonly failing = new Map<string, () => Error>()
  readonly handled: string[] = []
  /** The coordinates of what was handled. */
  readonly places: string[] = []
  readonly #stack = new AsyncDisposableStack()
  /** Of the gateways; none where processes reach the cluster itself. */
  readonly #urls: string[] = []
  #opened = 0
  #runs = 0

  /** A site whose processes come through gateways, each through the next. */
  static async withReplicas(count: number): Promise<Site> {
    const site = new Site()
    for (let n = 0; n < count; n++) {
      const gateway = site.#stack.use(await startGateway(site.#stack.use(openKafka())))
      site.#urls.push(gateway.url)
    }
    return site
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }

  /** What another process opens. */
  broker(): Broker {
    const url = this.#urls[this.#opened++ % Math.max(1, this.#urls.length)]
    return this.#stack.use(url === undefined ? openKafka() : restBroker({ url }))
  }

  /** The app with one route. */
  app(route: RouteOptions, more: Partial<AppOptions>): App {
    const handle = ({ topic, partition, offset, value }: ConsumerRecord): void => {
      const text = textOf(value)
      const failure = this.failing.get(text)?.()
      if (failure !== undefined) throw failure
      this.handled.push(text)
      this.places.push(`${topic}[${partition}]@${offset}`)
    }
    const router = createRouter().on({ topic: TOPIC }, handle, route)
    return defineApp({ groupId: GROUP, router, autoOffsetReset: 'earliest', ...more })
  }

  /** One run, in a process of its own, until nothing is left to read. */
  async run(app: App, options: Partial<RunOptions> = {}): Promise<RunReport> {
    const broker = this.broker()
    const deadLetters = topicDeadLetters({ broker })
    const consumer = createConsumer(app, { broker, deadLetters, groupInstanceId: 'one' })
    const runId = `run-${++this.#runs}`
    return await consumer.run({ runId, stopWhenEmpty: true, budget: { runMs: 30_000 }, ...options })
  }

  /** One run after the other. */
  async runUntil(app: App, condition: () => boolean | Promise<boolean>): Promise<void> {
    const done = async (): Promise<boolean> => {
      await this.run(app)
      return await condition()
    }
    await until(done, { timeoutMs: 30_000 })
  }

  /** The verbs of an operator, with the app or as a tool that knows none. */
  verbs(app?: App): Operations {
    return createOperations({ broker: this.broker(), groupId: GROUP, ...(app === undefined ? {} : { app }) })
  }

  async produce(records: readonly ProducerRecord[]): Promise<void> {
    const broker = this.broker()
    if (!(await broker.topics()).some(({ topic }) => topic === TOPIC)) await broker.createTopic({ topic: TOPIC })
    await broker.produce(records)
  }

  /** The committed offset of the topic's only partition. */
  async committed(): Promise<number[]> {
    const found = await this.broker().committed(GROUP, [{ topic: TOPIC, partition: 0 }])
    return found.map(({ offset }) => offset)
  }

  /** What a group of its own, which takes records back as well, reads of the topic. */
  async readByOther(): Promise<string[]> {
    const seen: string[] = []
    const router = createRouter().on({ topic: TOPIC }, ({ value }) => void seen.push(textOf(value as Uint8Array)))
    await this.run(defineApp({ groupId: 'other', router, autoOffsetReset: 'earliest', redrive: true }))
    return seen
  }
}
