/**
 * What networks and brokers do to the driver, one thing at a time: `npm run prove -- kafka-faults` does all of it under load, and
 * for longer. The clusters are their own, with a proxy before each broker.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Broker, PollRequest, PollResult } from '../../src/broker.ts'
import { type KafkaBrokerOptions, kafkaBroker } from '../../src/brokers/kafka.ts'
import { BrokerError } from '../../src/errors.ts'
import type { KafkaNode } from '../../scripts/kafka/cluster.ts'
import { coordinatorOf, untilInSync } from '../../prove/kafka-faults/brokers.ts'
import { joinStuckMember } from '../../prove/kafka-faults/stuck-member.ts'
import { openWorld, type World } from '../../prove/kafka-faults/world.ts'
import type { TcpProxy } from '../support/tcp-proxy.ts'
import { record, series, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'

/** Above the 250 ms that the protocol promises: what two busy cores may add. */
const MOST_OVER_MS = 500
const PLENTY = { maxWaitMs: 1_000, maxRecords: 1_000, maxBytes: 1 << 20 }
const values = (count: number): string[] => Array.from({ length: count }, (_, n) => `v${n}`)

let world: World
let topics = 0

describe('a network before one broker', () => {
  beforeAll(async () => {
    world = await openWorld({ brokers: 1, gateways: 0 })
  })
  afterAll(() => world[Symbol.asyncDispose]())

  it.each<[string, (proxy: TcpProxy) => void, Partial<KafkaBrokerOptions>]>([
    ['cuts every connection', (proxy) => proxy.cut(), {}],
    ['forgets every connection', (proxy) => proxy.halfOpen(), { requestTimeoutMs: 500 }],
    ['answers later than anybody waits for', (proxy) => proxy.delay(300), { requestTimeoutMs: 500 }],
    ['stands still for a while', (proxy) => stallFor(proxy, 700), { requestTimeoutMs: 300 }],
  ])('%s: each record is stored once, in order', async (_name, strike, options) => {
    const { proxy } = first()
    await using broker = open(options)
    const topic = await newTopic()
    const count = 30
    await broker.topics()

    const sends: Promise<unknown>[] = []
    for (let n = 0; n < count; n++) {
      sends.push(broker.produce([record(topic, `v${n}`, { partition: 0 })]))
      if (n % 10 === 4) strike(proxy)
      await sleep(10)
    }
    await sleep(500)
    proxy.delay(0)
    await Promise.all(sends)

    await mend(proxy)
    expect(await logOf(topic)).toEqual(values(count))
  })

  it('forgets every connection: no poll is late, and the next ones go on', async () => {
    const { proxy } = first()
    await using broker = open({ requestTimeoutMs: 1_000 })
    const topic = await newTopic()
    await Promise.all([1, 2, 3].map((n) => pollAs(broker, topic, 100 * n)))
    await broker.produce(series(topic, 0, 3))

    proxy.halfOpen()
    const records: string[] = []
    const overs: number[] = []
    await until(
      async () => {
        const poll = async (): Promise<unknown> => records.push(...valuesOf((await pollAs(broker, topic)).records))
        overs.push(await overMs(poll, 500))
        return records.length >= 3
      },
      { timeoutMs: 15_000 },
    )

    await mend(proxy)
    expect(records).toEqual(['v0', 'v1', 'v2'])
    expect(Math.max(...overs)).toBeLessThan(MOST_OVER_MS)
  })

  it('forgets a join that waits for another member: it is made again', async () => {
    const { proxy } = first()
    await using broker = open({ requestTimeoutMs: 1_000 })
    const topic = await newTopic(2)
    await joinAs(broker, topic)
    const stuck = await joinStuckMember(world.cluster.bootstrapServers, groupOf(topic), topic)
    const waiting = await pollAs(broker, topic, 200, 'b')

    proxy.halfOpen()
    await stuck[Symbol.asyncDispose]()
    const joined = await joinAs(broker, topic, 'b')
    await mend(proxy)

    expect(waiting.retryAfterMs).toBeGreaterThan(0)
    // The other instance, whose join was forgotten too, may have been left out meanwhile.
    expect(joined.assignment.length).toBeGreaterThan(0)
  })

  it('takes 100 ms each way: polls come in time, and with what there is', async () => {
    const { proxy } = first()
    await using broker = open()
    const topic = await newTopic()
    proxy.delay(100)
    try {
      await joinAs(broker, topic)
      await broker.produce(series(topic, 0, 3))
      const { records } = await pollAs(broker, topic, 1_000)
      const over = await overMs(() => pollAs(broker, topic, 1_000), 1_000)

      expect(valuesOf(records)).toEqual(['v0', 'v1', 'v2'])
      expect(over).toBeLessThan(MOST_OVER_MS)
      await broker.produce(series(topic, 0, 1, 'more'))
      expect(valuesOf((await pollAs(broker, topic, 0)).records)).toEqual(['more0'])
    } finally {
      proxy.delay(0)
    }
  })

  it('stands still under more than a process keeps: what is too much is refused at once, everything else is stored', async () => {
    const { proxy } = first()
    await using broker = open()
    const topic = await newTopic()
    await broker.produce([record(topic, 'first')])
    const value = 'x'.repeat(1_000_000)

    proxy.stall()
    const refused: unknown[] = []
    const sends = Array.from({ length: 80 }, async () => {
      await broker.produce([record(topic, value)]).catch((error: unknown) => {
        refused.push(error)
      })
    })
    await until(() => refused.length > 0)
    const atOnce = refused.length
    proxy.flow()
    await Promise.all(sends)

    const [end] = await world.direct.offsets([{ topic, partition: 0 }], 'latest')
    expect(refused.map((error) => (error instanceof BrokerError ? error.code : error))).toEqual(
      Array.from({ length: atOnce }, () => 'OVERLOADED'),
    )
    expect(atOnce).toBeLessThan(20)
    expect(end?.offset).toBe(1 + 80 - atOnce)
  })

  it('refuses connections for a while: what is sent meanwhile is stored when they are taken again', async () => {
    const { proxy } = first()
    await using broker = open()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1))

    proxy.refuse()
    proxy.cut()
    const sends = broker.produce(series(topic, 0, 3, 'late'))
    await sleep(500)
    await proxy.accept()
    await sends

    expect(await logOf(topic)).toEqual(['v0', 'late0', 'late1', 'late2'])
  })
})

describe('a broker', () => {
  beforeAll(async () => {
    world = await openWorld({ brokers: 1, gateways: 0 })
  })
  afterAll(() => world[Symbol.asyncDispose]())

  it('that is killed and comes back has the group as it was, and every record once', async () => {
    const { node } = first()
    await using broker = open()
    const topic = await newTopic()
    const before = await joinAs(broker, topic)
    await broker.produce(series(topic, 0, 3))

    await node.stop('SIGKILL')
    const sends = broker.produce(series(topic, 0, 3, 'late'))
    await node.start()
    await sends

    const records: string[] = []
    let generation = 0
    await until(
      async () => {
        const answer = await pollAs(broker, topic).catch(() => undefined)
        records.push(...valuesOf(answer?.records ?? []))
        generation = answer?.generationId ?? 0
        return records.length >= 6
      },
      { timeoutMs: 20_000 },
    )
    expect(records).toEqual(['v0', 'v1', 'v2', 'late0', 'late1', 'late2'])
    expect(generation).toBe(before.generationId)
  })

  it('that is frozen keeps no poll beyond its time, and loses nothing', async () => {
    const { node } = first()
    await using broker = open()
    const topic = await newTopic()
    await joinAs(broker, topic)

    node.freeze()
    const sends = broker.produce(series(topic, 0, 3))
    const overs: number[] = []
    for (let polls = 0; polls < 3; polls++) overs.push(await overMs(() => pollAs(broker, topic, 400), 400))
    node.thaw()
    await sends

    expect(Math.max(...overs)).toBeLessThan(MOST_OVER_MS)
    const records: string[] = []
    await until(
      async () => {
        records.push(...valuesOf((await pollAs(broker, topic)).records))
        return records.length >= 3
      },
      { timeoutMs: 10_000 },
    )
    expect(records).toEqual(['v0', 'v1', 'v2'])
  })
})

describe('of three brokers', () => {
  beforeAll(async () => {
    world = await openWorld({ brokers: 3, gateways: 0 })
  }, 90_000)
  afterAll(() => world[Symbol.asyncDispose]())

  it.each<[string, (node: KafkaNode) => void, (node: KafkaNode) => Promise<void>]>([
    ['is frozen', (node) => node.freeze(), async (node) => node.thaw()],
    ['is killed', (node) => void node.stop('SIGKILL'), (node) => node.start()],
  ])('the one that coordinates the group %s: the others serve it, and take records', async (_name, strike, restore) => {
    await using broker = open({ requestTimeoutMs: 5_000 })
    const topic = await newTopic(6)
    const before = await joinAs(broker, topic)
    // It has its producer id: those come from the controller, which may be the broker that is struck.
    await broker.produce(series(await newTopic(), 0, 1))
    await untilInSync(world.cluster, topic)
    const nodeId = await coordinatorOf(world.cluster, groupOf(topic))
    const node = world.cluster.nodes.find((one) => one.nodeId === nodeId)
    if (node === undefined) throw new Error(`There is no broker ${nodeId}.`)

    strike(node)
    try {
      await broker.produce([0, 1, 2, 3, 4, 5].flatMap((partition) => series(topic, partition, 1, `${partition}-`)))
      const records: string[] = []
      let generation = 0
      await until(
        async () => {
          const answer = await pollAs(broker, topic).catch(() => undefined)
          records.push(...valuesOf(answer?.records ?? []))
          generation = answer?.generationId ?? 0
          return records.length >= 6
        },
        { timeoutMs: 25_000, what: 'all records' },
      )

      expect(records.sort()).toEqual([0, 1, 2, 3, 4, 5].map((partition) => `${partition}-0`))
      expect(generation).toBe(before.generationId)
    } finally {
      await restore(node)
    }
  })
})

function first(): { proxy: TcpProxy; node: KafkaNode } {
  const [proxy] = world.proxies as [TcpProxy]
  const [node] = world.cluster.nodes as [KafkaNode]
  return { proxy, node }
}

function stallFor(proxy: TcpProxy, ms: number): void {
  proxy.stall()
  setTimeout(() => proxy.flow(), ms)
}

function open(options: Partial<KafkaBrokerOptions> = {}): Broker {
  return kafkaBroker({ bootstrapServers: world.cluster.bootstrapServers.split(','), ...options })
}

async function newTopic(partitions = 1): Promise<string> {
  topics += 1
  const topic = `topic-${topics}`
  await world.direct.createTopic({ topic, partitions })
  return topic
}

/** Polls as an instance of the topic's own group, without a run. */
function pollAs(broker: Broker, topic: string, maxWaitMs = 500, groupInstanceId = 'a'): Promise<PollResult> {
  const group = { groupId: groupOf(topic), groupInstanceId }
  const request: PollRequest = { ...PLENTY, group, topics: [topic], maxWaitMs, autoOffsetReset: 'earliest' }
  return broker.poll(request)
}

function groupOf(topic: string): string {
  return `group of ${topic}`
}

/** Polls until it has joined. */
async function joinAs(broker: Broker, topic: string, instance = 'a'): Promise<PollResult> {
  const answers: PollResult[] = []
  const hasJoined = async (): Promise<boolean> => {
    const answer = await pollAs(broker, topic, 500, instance).catch(() => undefined)
    if (answer?.retryAfterMs === undefined && answer !== undefined) answers.push(answer)
    return answers.length > 0
  }
  await until(hasJoined, { timeoutMs: 20_000, what: 'a join' })
  return answers[0] as PollResult
}

/** Ends the connections that the proxy has forgotten: those of others go through it too. */
async function mend(proxy: TcpProxy): Promise<void> {
  proxy.cut()
  await until(() =>
    world.direct.topics().then(
      () => true,
      () => false,
    ),
  )
}

/** How much longer than `limitMs` a call took, however it ended. */
async function overMs(call: () => Promise<unknown>, limitMs: number): Promise<number> {
  const startedAt = performance.now()
  await call().catch(() => {})
  return performance.now() - startedAt - limitMs
}

async function logOf(topic: string): Promise<string[]> {
  return valuesOf(await world.direct.fetch([{ topic, partition: 0, offset: 0 }], PLENTY))
}
