/** What cannot be served: a named error in time, or the documented policy. Never a hang, and nothing skipped in silence. */
import {
  type Connection,
  consumerGroupHeartbeatV1,
  deleteRecordsV2,
  encodeConsumerProtocolSubscription,
  joinGroupV9,
} from '@platformatic/kafka'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Broker, GroupInstance, NewTopic, PollResult } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { BrokerError, ConfigError } from '../../src/errors.ts'
import { instanceOf, newGroup, refusal, unusedName } from '../conformance/broker/harness.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { record, series, valuesOf } from '../support/records.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { bootstrapServers, connected, type KafkaAdmin, kafkaAdmin } from './admin.ts'

const PLENTY = { maxWaitMs: 5_000, maxRecords: 100, maxBytes: 1_000_000 }
/** How much later than it says a call may end. */
const LATE_MS = 250

let admin: KafkaAdmin
let connection: Connection
let broker: Broker

beforeAll(async () => {
  admin = await kafkaAdmin()
  connection = await connected(bootstrapServers().split(',')[0] ?? '')
})

afterAll(async () => {
  await connection.close()
  await admin[Symbol.asyncDispose]()
})

failOnLeaks()

beforeEach(async () => {
  await admin.wipe()
  broker = kafkaBroker({ bootstrapServers: bootstrapServers().split(','), timeoutMs: 10_000 })
})

afterEach(async () => {
  await broker.close()
})

describe('a wrong bootstrap', () => {
  const limits = { ...PLENTY, maxWaitMs: 300 }
  const uses: [string, (broker: Broker) => Promise<unknown>][] = [
    ['produce', (broker) => broker.produce([record('t', 'v')])],
    ['fetch', (broker) => broker.fetch([{ topic: 't', partition: 0, offset: 0 }], limits)],
    ['poll', (broker) => broker.poll({ group: instanceOf('g'), topics: ['t'], ...limits })],
    ['commit', (broker) => broker.commit(instanceOf('g'), [{ topic: 't', partition: 0, offset: 0 }])],
    ['topics', (broker) => broker.topics()],
  ]

  it.each(uses)('that refuses the connection: %s', async (_name, use) => {
    await using wrong = kafkaBroker({ bootstrapServers: ['127.0.0.1:1'], timeoutMs: 5_000 })

    const error = await within(2_000, refusal(use(wrong), 'NETWORK'))

    expect(error.message).toContain('127.0.0.1:1')
    expect(error.retriable).toBe(true)
  })

  it.each(uses)('whose name nobody knows: %s', async (_name, use) => {
    await using wrong = kafkaBroker({ bootstrapServers: ['broker.invalid:9092'], timeoutMs: 10_000 })

    const error = await within(10_000, refusal(use(wrong), 'NETWORK'))

    expect(error.message).toContain('broker.invalid')
  })

  it.each(uses)('that takes the connection and says nothing: %s', async (_name, use) => {
    await using proxy = await startProxy(Number(bootstrapServers().split(/[:,]/)[1]))
    proxy.stall()
    await using wrong = kafkaBroker({ bootstrapServers: [`127.0.0.1:${proxy.port}`], timeoutMs: 1_000 })

    // A poll's and a fetch's wait comes on top of the call's own limit.
    await within(1_000 + limits.maxWaitMs + LATE_MS, refusal(use(wrong), 'TIMEOUT', 'NETWORK'))
  })

  it('that is no Kafka', async () => {
    const server = createServer((_request, response) => response.end('hello')).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await using wrong = kafkaBroker({ bootstrapServers: [`127.0.0.1:${port}`], timeoutMs: 3_000 })

    await within(3_000 + LATE_MS, refusal(wrong.topics(), 'NETWORK', 'BAD_RESPONSE', 'TIMEOUT'))

    server.closeAllConnections()
    server.close()
  })

  it.each(['', 'host:', ':9092', 'host:0', 'host:65536', 'host:x', 'http://host:9092'])(
    'that is no address is refused at once: %j',
    (address) => {
      expect(() => kafkaBroker({ bootstrapServers: [address] })).toThrow(ConfigError)
    },
  )

  it('is refused at once when it is empty', () => {
    expect(() => kafkaBroker({ bootstrapServers: [] })).toThrow(ConfigError)
  })

  it('does no harm beside a right one', async () => {
    const topic = await newTopic()
    const servers = ['127.0.0.1:1', ...bootstrapServers().split(',')]
    await using some = kafkaBroker({ bootstrapServers: servers, timeoutMs: 5_000 })

    await some.produce([record(topic, 'v')])

    expect(await some.offsets([{ topic, partition: 0 }], 'latest')).toEqual([{ topic, partition: 0, offset: 1 }])
  })
})

describe('an unknown topic', () => {
  it('is refused in time, by every use, and made by none', async () => {
    const topic = unusedName('topic')
    const partition = { topic, partition: 0 }
    const uses = [
      () => broker.produce([record(topic, 'v')]),
      () => broker.produce([record(topic, 'v', { partition: 0 })]),
      () => broker.fetch([{ ...partition, offset: 0 }], PLENTY),
      () => broker.poll({ group: newGroup(), topics: [topic], ...PLENTY }),
      () => broker.offsets([partition], 'earliest'),
      () => broker.commit(newGroup(), [{ ...partition, offset: 0 }]),
      () => broker.deleteTopic(topic),
    ]

    for (const use of uses) await within(3_000, refusal(use(), 'UNKNOWN_TOPIC_OR_PARTITION'))

    expect(await admin.topics()).toEqual([])
  })
})

describe('a record too large', () => {
  it("for the topic is refused by the cluster's own setting, and writes nothing", async () => {
    const topic = await newTopic()
    await admin.configureTopic(topic, { 'max.message.bytes': '10000' })

    const error = await within(2_000, refusal(broker.produce([record(topic, 'x'.repeat(20_000))]), 'MESSAGE_TOO_LARGE'))

    expect(error.retriable).toBe(false)
    expect(error.message).toContain(topic)
    expect(await endOf(topic)).toBe(0)
  })

  it('refuses none of the others that are sent at the same time', async () => {
    const topic = await newTopic()
    await admin.configureTopic(topic, { 'max.message.bytes': '10000' })
    const large = 'x'.repeat(20_000)

    const outcomes = await Promise.allSettled(
      Array.from({ length: 40 }, (_, n) => broker.produce([record(topic, n % 4 === 1 ? large : `v${n}`)])),
    )

    const codes = outcomes.map((outcome) => {
      if (outcome.status === 'fulfilled') return 'taken'
      return outcome.reason instanceof BrokerError ? outcome.reason.code : outcome.reason
    })
    expect(codes).toEqual(codes.map((_, n) => (n % 4 === 1 ? 'MESSAGE_TOO_LARGE' : 'taken')))
    expect(await endOf(topic)).toBe(30)
  })

  it('lets many records that are too large together go one after the other', async () => {
    const topic = await newTopic()
    await admin.configureTopic(topic, { 'max.message.bytes': '10000' })

    await Promise.all(Array.from({ length: 30 }, () => broker.produce([record(topic, 'x'.repeat(4_000))])))

    expect(await endOf(topic)).toBe(30)
  })

  it('is answered at its index with atomic: false', async () => {
    const topic = await newTopic()
    await admin.configureTopic(topic, { 'max.message.bytes': '10000' })

    const results = await broker.produce(
      ['small', 'x'.repeat(20_000), 'small'].map((value) => record(topic, value)),
      { atomic: false },
    )

    expect(results.map((result) => (result instanceof BrokerError ? result.code : result.offset))).toEqual([
      0,
      'MESSAGE_TOO_LARGE',
      1,
    ])
  })
})

describe('an offset out of range', () => {
  it('is refused by a fetch, below and above, in time', async () => {
    const topic = await topicFrom(3, 5)

    for (const offset of [0, 2, 6, Number.MAX_SAFE_INTEGER]) {
      await within(2_000, refusal(broker.fetch([{ topic, partition: 0, offset }], PLENTY), 'OFFSET_OUT_OF_RANGE'))
    }
    expect(valuesOf(await broker.fetch([{ topic, partition: 0, offset: 3 }], PLENTY))).toEqual(['v3', 'v4'])
  })

  it.each(['earliest', 'latest', 'none'] as const)(
    'was committed and is deleted: the member goes on with what is left (%s)',
    async (autoOffsetReset) => {
      const topic = await topicFrom(3, 5)
      const group = newGroup()
      await broker.commit(group, [{ topic, partition: 0, offset: 1 }])

      const { records } = await within(2_000, broker.poll({ group, topics: [topic], ...PLENTY, autoOffsetReset }))

      expect(valuesOf(records)).toEqual(['v3', 'v4'])
    },
  )

  it('comes up under a member that lives: it goes on with what is left', async () => {
    const topic = await newTopic()
    const group = newGroup()
    const request = { group, topics: [topic], ...PLENTY, autoOffsetReset: 'none' as const }
    await broker.produce(series(topic, 0, 6))
    await broker.commit(group, [{ topic, partition: 0, offset: 0 }])
    const first = await broker.poll({ ...request, maxRecords: 2 })

    await deleteBelow(topic, 4)
    const second = await within(2_000, broker.poll(request))

    expect([first, second].map(({ records }) => valuesOf(records))).toEqual([
      ['v0', 'v1'],
      ['v4', 'v5'],
    ])
  })

  it('was committed beyond the end: the reset decides, and none refuses', async () => {
    const topic = await topicFrom(3, 5)
    const pollAt = async (autoOffsetReset: 'earliest' | 'latest' | 'none'): Promise<PollResult> => {
      const group = newGroup()
      await broker.commit(group, [{ topic, partition: 0, offset: 100 }])
      return await broker.poll({ group, topics: [topic], ...PLENTY, maxWaitMs: 300, autoOffsetReset })
    }

    expect(valuesOf((await pollAt('earliest')).records)).toEqual(['v3', 'v4'])
    expect(valuesOf((await pollAt('latest')).records)).toEqual([])
    await within(2_000, refusal(pollAt('none'), 'OFFSET_OUT_OF_RANGE'))
  })
})

describe('a group id that is used otherwise', () => {
  it.each([
    ['by another protocol', 'connect', 'default'],
    ['by consumers with another assignor', 'consumer', 'roundrobin'],
  ])('%s is refused', async (_name, protocolType, protocol) => {
    const topic = await newTopic()
    const group = newGroup()
    // A coordinator is there only when the group was looked for.
    await broker.committed(group.groupId)
    await joinAs(group.groupId, protocolType, protocol, topic)

    const error = await within(
      3_000,
      refusal(broker.poll({ group, topics: [topic], ...PLENTY }), 'INCONSISTENT_GROUP_PROTOCOL'),
    )

    expect(error.message).toContain(group.groupId)
    expect(error.retriable).toBe(false)
  })

  it('by consumers of the newer protocol is refused: they would hide who claims what', async () => {
    const topic = await newTopic()
    const group = newGroup()
    await broker.committed(group.groupId)
    const memberId = 'AAAAAAAAAAAAAAAAAAAAAA'
    await heartbeat(group.groupId, memberId, 0, [topic])

    const polled = broker.poll({ group, topics: [topic], ...PLENTY, maxWaitMs: 1_000 })
    try {
      const error = await within(3_000, refusal(polled, 'INCONSISTENT_GROUP_PROTOCOL'))
      expect(error.message).toContain(group.groupId)
    } finally {
      await heartbeat(group.groupId, memberId, -1, null)
    }
  })

  it('is listed, or left out, but hurts no description of others', async () => {
    const topic = await newTopic()
    const group = newGroup()
    await broker.committed('connect-cluster')
    await joinAs('connect-cluster', 'connect', 'default', topic)
    await broker.poll({ group, topics: [topic], ...PLENTY, maxWaitMs: 0 })

    const described = await within(2_000, broker.groups())

    expect(described.find(({ groupId }) => groupId === group.groupId)?.members).toHaveLength(1)
  })
})

describe('more instances than partitions', () => {
  it('leaves the last ones empty-handed, in time, and every record handled once', async () => {
    const topic = await newTopic({ partitions: 2 })
    const groupId = unusedName('group')
    const instances = ['a', 'b', 'c', 'd'].map((id) => instanceOf(groupId, id))
    const poll = (group: GroupInstance): Promise<PollResult> =>
      within(1_000, broker.poll({ group, topics: [topic], ...PLENTY, maxWaitMs: 300, autoOffsetReset: 'earliest' }))
    for (const group of instances) await poll(group)
    for (const group of instances) await poll(group)
    await broker.produce([...series(topic, 0, 3, 'a'), ...series(topic, 1, 3, 'b')])

    const values: string[] = []
    const held: number[] = []
    for (const group of instances) {
      const { records, assignment } = await poll(group)
      values.push(...valuesOf(records))
      held.push(assignment.length)
    }

    expect(held.sort((a, b) => a - b)).toEqual([0, 0, 1, 1])
    expect(values.sort()).toEqual(['a0', 'a1', 'a2', 'b0', 'b1', 'b2'])
  })
})

/** What a call gives or rejects with, which must be there in time. */
async function within<T>(limitMs: number, call: Promise<T>): Promise<T> {
  const before = performance.now()
  try {
    return await call
  } finally {
    expect(performance.now() - before, 'milliseconds').toBeLessThan(limitMs)
  }
}

async function newTopic(config: Omit<NewTopic, 'topic'> = {}): Promise<string> {
  const topic = unusedName('topic')
  await broker.createTopic({ topic, ...config })
  return topic
}

/** A topic whose records below `start` are deleted, and which ends at `end`. */
async function topicFrom(start: number, end: number): Promise<string> {
  const topic = await newTopic()
  await broker.produce(series(topic, 0, end))
  await deleteBelow(topic, start)
  return topic
}

/** What retention does, at once. */
async function deleteBelow(topic: string, offset: number): Promise<void> {
  const partitions = [{ partitionIndex: 0, offset: BigInt(offset) }]
  await deleteRecordsV2.api.async(connection, [{ name: topic, partitions }], 5_000)
}

async function endOf(topic: string): Promise<number | undefined> {
  const [end] = await broker.offsets([{ topic, partition: 0 }], 'latest')
  return end?.offset
}

/** Joins (epoch 0) or leaves (epoch -1) a group by the protocol of KIP-848. */
async function heartbeat(groupId: string, memberId: string, epoch: number, topics: string[] | null): Promise<void> {
  const partitions = epoch === 0 ? [] : null
  await consumerGroupHeartbeatV1.api.async(
    connection,
    groupId,
    memberId,
    epoch,
    null,
    null,
    30_000,
    topics,
    null,
    null,
    partitions,
  )
}

async function joinAs(groupId: string, protocolType: string, protocol: string, topic: string): Promise<void> {
  const metadata = encodeConsumerProtocolSubscription({ version: 1, topics: [topic], ownedPartitions: [] })
  const protocols = [{ name: protocol, metadata }]
  await joinGroupV9.api.async(connection, groupId, 30_000, 30_000, '', 'foreign', protocolType, protocols, null)
}
