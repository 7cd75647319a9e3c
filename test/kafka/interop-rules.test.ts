/** The same answers as the Java client's own classes: where keys belong, who gets which partition, how both is written. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { assignRange } from '../../src/brokers/kafka/assignor.ts'
import {
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
  type Subscription,
} from '../../src/brokers/kafka/subscription.ts'
import { partitionForKey } from '../../src/partitioner.ts'
import { bytesOf, type TopicPartition } from '../../src/record.ts'
import { seeded } from '../support/chaos.ts'
import { type Oracle, startRules } from './clients.ts'

/** A topic and a partition, as Java is told and tells. */
type Pair = readonly [topic: string, partition: number]

let java: Oracle

beforeAll(async () => {
  java = await startRules()
})

afterAll(async () => {
  await java[Symbol.asyncDispose]()
})

describe('a key', () => {
  it.each([1, 2, 3, 7, 10, 64, 1_000])(
    'goes to the same one of %i partitions, a thousand of many shapes',
    async (count) => {
      const keys = thousandKeys()

      const asked = { rule: 'partitions', keys: keys.map((key) => Buffer.from(key).toString('hex')), count }
      const expected = await java.ask<number[]>(asked)

      expect(keys.map((key) => partitionForKey(key, count))).toEqual(expected)
    },
  )
})

describe('range', () => {
  const members: [string, RangeCase][] = [
    ['one member, one topic', { partitions: { t: 3 }, members: [['a', null, ['t']]] }],
    ['what divides', { partitions: { t: 4 }, members: plain(['a', 'b'], ['t']) }],
    ['what does not', { partitions: { t: 7 }, members: plain(['a', 'b', 'c'], ['t']) }],
    ['more members than partitions', { partitions: { t: 2 }, members: plain(['d', 'b', 'c', 'a'], ['t']) }],
    ['several topics', { partitions: { t: 5, u: 3, v: 1 }, members: plain(['a', 'b'], ['v', 't', 'u']) }],
    ['topics that are not there', { partitions: { t: 2 }, members: plain(['a', 'b'], ['t', 'missing']) }],
    [
      'members with an instance id go first',
      {
        partitions: { t: 5 },
        members: [
          ['a', null, ['t']],
          ['z', 'instance-2', ['t']],
          ['y', 'instance-10', ['t']],
          ['b', null, ['t']],
        ],
      },
    ],
    [
      'different subscriptions',
      {
        partitions: { t: 4, u: 4, v: 2 },
        members: [
          ['a', null, ['t', 'u']],
          ['b', 'i', ['u']],
          ['c', null, ['v', 't']],
          ['d', 'h', ['t', 'u', 'v']],
        ],
      },
    ],
    [
      'instance ids by their UTF-16',
      {
        partitions: { t: 9 },
        members: ['ü', 'z', 'Z', '10', '9', '', '\u{1F980}', '\uFFFD'].map((id, n) => [`m${n}`, id, ['t']]),
      },
    ],
  ]

  it.each(members)('%s', async (_name, given) => {
    await expectSameRange(given)
  })

  it('two hundred random groups', async () => {
    const random = seeded(4)
    for (let round = 0; round < 200; round++) await expectSameRange(randomGroup(random))
  })

  async function expectSameRange({ partitions, members }: RangeCase): Promise<void> {
    const asked = members.map(([id, instance, topics]) => ({ id, instance, topics }))
    const expected = await java.ask<Record<string, Pair[]>>({ rule: 'range', partitions, members: asked })

    const assigned = assignRange(
      members.map(([memberId, groupInstanceId, topics]) => ({
        memberId,
        groupInstanceId,
        subscription: { topics, state: undefined, owned: [], ownedGeneration: -1 },
      })),
      (topic) => partitions[topic] ?? 0,
    )

    const held = Object.fromEntries([...assigned].map(([id, given]) => [id, given.map(pairOf).sort(byPair)]))
    for (const given of Object.values(expected)) given.sort(byPair)
    expect(held, JSON.stringify({ partitions, members })).toEqual(expected)
  }
})

describe('a subscription', () => {
  const state: Subscription['state'] = {
    sessionTimeoutMs: 120_000,
    autoOffsetReset: 'earliest',
    autoCommit: null,
    claim: { runId: 'run', ttlMs: 60_000, until: 1_800_000_000_000 },
    positions: [{ topic: 'orders', partition: 3, offset: 42, isDelivered: true }],
    positionsGeneration: 7,
    poll: 'poll',
  }
  const ours: [string, Subscription][] = [
    ['of a member that joins', { topics: ['orders'], state, owned: [], ownedGeneration: -1 }],
    [
      'of a member that holds',
      {
        topics: ['a', 'orders', 'ü.x'],
        state,
        owned: [held('a', 0), held('a', 11), held('orders', 3)],
        ownedGeneration: 7,
      },
    ],
  ]

  it.each(ours)('%s is read by Java, and by its sticky assignor', async (_name, subscription) => {
    const bytes = encodeSubscription(subscription, undefined)
    const read = await java.ask<ReadSubscription>({ rule: 'read subscription', bytes: bytes.toString('hex') })

    expect(read.topics).toEqual(subscription.topics)
    expect(read.partitions).toEqual(subscription.owned.map(pairOf))
    expect(read.stickyPartitions).toEqual(subscription.owned.map(pairOf))
    expect(read.stickyGeneration).toBe(subscription.ownedGeneration)
  })

  it.each(ours)('%s is, byte for byte, what Java writes of the same', async (_name, subscription) => {
    const bytes = encodeSubscription(subscription, undefined)
    const { userData } = await java.ask<ReadSubscription>({ rule: 'read subscription', bytes: bytes.toString('hex') })

    const written = await java.ask<string>({
      rule: 'write subscription',
      version: bytes.readInt16BE(0),
      topics: subscription.topics,
      userData,
      partitions: subscription.owned.map(pairOf),
    })

    expect(bytes.toString('hex')).toBe(written)
  })

  it.each([0, 1, 2, 3])('of version %i by Java is read by us', async (version) => {
    const partitions: Pair[] = [
      ['t', 0],
      ['t', 5],
      ['u', 1],
    ]
    for (const userData of [null, '', '00ff10']) {
      const asked = { rule: 'write subscription', version, topics: ['t', 'u'], userData, partitions }
      const written = await java.ask<string>(asked)

      const read = decodeSubscription(Buffer.from(written, 'hex'))

      expect(read.topics).toEqual(['t', 'u'])
      expect(read.state).toBeUndefined()
      // Version 0 had no owned partitions yet.
      expect(read.owned.map(pairOf)).toEqual(version === 0 ? [] : partitions)
    }
  })

  it('is what was written, to us', () => {
    for (const [, subscription] of ours) {
      expect(decodeSubscription(encodeSubscription(subscription, 'nonce'))).toEqual(subscription)
    }
  })
})

describe('an assignment', () => {
  const table: [string, TopicPartition[]][] = [
    ['of nothing', []],
    ['of one partition', [{ topic: 't', partition: 0 }]],
    ['of many', ['a.b', 'orders', 'ü'].flatMap((topic) => [0, 1, 2, 300].map((partition) => ({ topic, partition })))],
  ]

  it.each(table)('%s for a foreign member is, byte for byte, what Java writes', async (_name, partitions) => {
    const bytes = encodeAssignment(
      partitions.map(({ topic, partition }) => held(topic, partition)),
      undefined,
    )

    const written = await java.ask<string>({
      rule: 'write assignment',
      version: bytes.readInt16BE(0),
      partitions: partitions.map(pairOf),
      userData: null,
    })

    expect(bytes.toString('hex')).toBe(written)
  })

  it.each(table)('%s for one of ours is read by Java', async (_name, partitions) => {
    const bytes = encodeAssignment(
      partitions.map(({ topic, partition }) => held(topic, partition)),
      9,
    )

    const read = await java.ask<{ partitions: Pair[] }>({ rule: 'read assignment', bytes: bytes.toString('hex') })

    expect(read.partitions).toEqual(partitions.map(pairOf))
  })

  it.each(table)('%s by Java is read by us', async (_name, partitions) => {
    for (const version of [0, 1, 2, 3]) {
      const asked = { rule: 'write assignment', version, partitions: partitions.map(pairOf), userData: null }
      const written = await java.ask<string>(asked)

      const read = decodeAssignment(Buffer.from(written, 'hex'), 9)

      expect([...read.held.values()].map(pairOf)).toEqual(partitions.map(pairOf))
      expect(read.generationId).toBeUndefined()
    }
  })
})

interface RangeCase {
  readonly partitions: Readonly<Record<string, number>>
  readonly members: readonly (readonly [id: string, instance: string | null, topics: readonly string[]])[]
}

interface ReadSubscription {
  readonly topics: string[]
  readonly partitions: Pair[]
  readonly userData: string
  readonly stickyPartitions: Pair[]
  readonly stickyGeneration: number
}

function plain(ids: readonly string[], topics: readonly string[]): RangeCase['members'] {
  return ids.map((id) => [id, null, topics])
}

function randomGroup(random: () => number): RangeCase {
  const below = (count: number): number => Math.floor(random() * count)
  const topics = ['t', 'u', 'v'].slice(0, 1 + below(3))
  const members = Array.from({ length: 1 + below(6) }, (_, n): RangeCase['members'][number] => {
    const instance = below(2) === 0 ? null : `i${below(1_000)}-${n}`
    const subscribed = topics.filter(() => below(3) > 0)
    return [`m${below(1_000)}-${n}`, instance, subscribed.length === 0 ? ['t'] : subscribed]
  })
  return { partitions: Object.fromEntries(topics.map((topic) => [topic, below(9)])), members }
}

/** Numbers, names, ids, texts of many scripts, nothing at all, bytes that are no text, short and long. */
function thousandKeys(): Uint8Array[] {
  const random = seeded(1)
  const below = (count: number): number => Math.floor(random() * count)
  const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, () => below(256))
  const shapes = [
    (n: number) => bytesOf(String(n * 7_919)),
    (n: number) => bytesOf(`order-${n}`),
    (n: number) => bytesOf(`App\\Http\\Controllers\\C${n}Controller`),
    (n: number) => bytesOf('é漢😀'.repeat(n % 13)),
    () => bytes(16),
    (n: number) => bytes(n % 67),
    (n: number) => new Uint8Array(n % 9).fill(n & 1 ? 0xff : 0),
    () => bytes(1_000 + below(4_000)),
  ]
  return Array.from({ length: 1_000 }, (_, n) => shapes[n % shapes.length]?.(n) ?? new Uint8Array())
}

function held(topic: string, partition: number): TopicPartition & { since: number } {
  return { topic, partition, since: 2 }
}

function pairOf({ topic, partition }: TopicPartition): Pair {
  return [topic, partition]
}

function byPair(a: Pair, b: Pair): number {
  if (a[0] !== b[0]) return a[0] < b[0] ? -1 : 1
  return a[1] - b[1]
}
