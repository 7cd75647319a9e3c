import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { describe, expect, test } from 'vitest'

import type { Broker } from '../../src/broker.ts'
import type { DeadLetter, DeadLetterQuery, DeadLetterStore } from '../../src/dead-letter.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { claimCheck } from '../../src/dead-letters/claim-check.ts'
import { fallbackDeadLetters } from '../../src/dead-letters/fallback.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { type TopicDeadLettersOptions, topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { BrokerError } from '../../src/errors.ts'
import { type ConsumerRecord, bytesOf, textOf } from '../../src/record.ts'
import { type DeadLetterStoreHarness, describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'

const over = (
  openBroker: () => Promise<{ broker: Broker; close: () => Promise<void> }>,
  settings: Pick<TopicDeadLettersOptions, 'topic' | 'headers'> = {},
): DeadLetterStoreHarness => ({
  async open() {
    const { broker, close } = await openBroker()
    const store = topicDeadLetters({ broker, ...settings })
    const reader = topicDeadLetters({ broker, ...settings })
    return { store, stored: async () => (await reader.list({ limit: 1000 })).items, close }
  },
})

const onMemory = async (): Promise<{ broker: Broker; close: () => Promise<void> }> => {
  const broker = memoryBroker()
  return { broker, close: () => broker.close() }
}

const onDisk = async (): Promise<{ broker: Broker; close: () => Promise<void> }> => {
  const dir = await mkdtemp(join(tmpdir(), 'kedge-letters-'))
  const broker = logBroker({ dir })
  return {
    broker,
    async close() {
      await broker.close()
      await rm(dir, { recursive: true })
    },
  }
}

const behindGateway = async (): Promise<{ broker: Broker; close: () => Promise<void> }> => {
  const behind = memoryBroker()
  const server = await startGateway(behind)
  return {
    broker: restBroker({ url: server.url }),
    async close() {
      await server.close()
      await behind.close()
    },
  }
}

const withoutIdempotencyKeys = async (): Promise<{ broker: Broker; close: () => Promise<void> }> => {
  const broker = withoutKeys(memoryBroker())
  return { broker, close: () => broker.close() }
}

describeDeadLetterStore('topic on memory', over(onMemory))
describeDeadLetterStore('topic on memory, one topic', over(onMemory, { topic: 'dead-letters' }))
describeDeadLetterStore('topic on the log on disk', over(onDisk))
describeDeadLetterStore('topic behind a gateway', over(behindGateway))
describeDeadLetterStore('topic on a broker without idempotency keys', over(withoutIdempotencyKeys))
describeDeadLetterStore('topic in a chain', {
  async open() {
    const broker = memoryBroker()
    const store = fallbackDeadLetters([topicDeadLetters({ broker }), memoryDeadLetters()])
    const stored = async (): Promise<readonly DeadLetter[]> => (await store.list({ limit: 1000 })).items
    return { store, stored, close: () => broker.close() }
  },
})
describeDeadLetterStore('claim check of a topic', {
  async open() {
    const broker = memoryBroker()
    const store = claimCheck(topicDeadLetters({ broker }), { objects: memoryDeadLetters(), overBytes: 400 })
    const stored = async (): Promise<readonly DeadLetter[]> => (await store.list({ limit: 1000 })).items
    return { store, stored, close: () => broker.close() }
  },
})
for (const headers of ['connect', 'kip-1191'] as const) {
  describeDeadLetterStore(`topic on memory, headers of ${headers}`, over(onMemory, { headers }))
}

const LIMITS = { maxWaitMs: 0, maxRecords: 100, maxBytes: 10_000_000 }

async function pagesOf(store: DeadLetterStore, query: DeadLetterQuery): Promise<number[][]> {
  const pages: number[][] = []
  let cursor: string | undefined
  do {
    const page = await store.list({ ...query, ...(cursor === undefined ? {} : { cursor }) })
    pages.push(page.items.map(({ record }) => record.offset))
    cursor = page.cursor
  } while (cursor !== undefined)
  return pages
}

function withoutKeys(broker: Broker): Broker {
  return answering(broker, { features: { ...broker.features, idempotencyKeys: false } })
}

/** A broker with an answer of its own to some calls. */
function answering(broker: Broker, others: Partial<Broker>): Broker {
  return new Proxy(broker, {
    get(_, name) {
      const value: unknown = Reflect.get(name in others ? others : broker, name)
      return typeof value === 'function' ? value.bind(broker) : value
    },
  })
}

async function recordsOf(broker: Broker, topic: string): Promise<ConsumerRecord[]> {
  return broker.fetch([{ topic, partition: 0, offset: 0 }], LIMITS)
}

describe('the record of a letter', () => {
  test('has the original first and then what Spring reads, encoded as Spring encodes it', async () => {
    await using broker = memoryBroker()
    const given = letter({
      groupId: 'shop',
      cause: { name: 'TypeError', message: 'no', stack: 'TypeError: no\n    at x' },
      record: {
        topic: 'orders',
        partition: 258,
        offset: 2 ** 40 + 1,
        timestampMs: 1_700_000_000_001,
        headers: [{ key: 'kafka_original', value: bytesOf('1') }],
      },
    })

    await topicDeadLetters({ broker }).put(given)

    const [stored] = await recordsOf(broker, 'orders.shop-dlt')
    const hex = (key: string): string =>
      Buffer.from(stored?.headers.find((header) => header.key === key)?.value ?? []).toString('hex')
    const text = (key: string): string => textOf(stored?.headers.find((header) => header.key === key)?.value ?? null)
    expect(stored).toMatchObject({ key: given.record.key, value: given.record.value })
    expect(stored?.headers[0]).toEqual({ key: 'kafka_original', value: bytesOf('1') })
    expect(text('kafka_dlt-original-topic')).toBe('orders')
    expect(hex('kafka_dlt-original-partition')).toBe('00000102')
    expect(hex('kafka_dlt-original-offset')).toBe('0000010000000001')
    expect(hex('kafka_dlt-original-timestamp')).toBe('0000018bcfe56801')
    expect(text('kafka_dlt-original-timestamp-type')).toBe('CreateTime')
    expect(text('kafka_dlt-original-consumer-group')).toBe('shop')
    expect(text('kafka_dlt-exception-fqcn')).toBe('TypeError')
    expect(text('kafka_dlt-exception-message')).toBe('no')
    expect(text('kafka_dlt-exception-stacktrace')).toBe('TypeError: no\n    at x')
  })

  test.each([
    [
      'connect',
      [
        ['__connect.errors.topic', 'orders'],
        ['__connect.errors.partition', '258'],
        ['__connect.errors.offset', '1099511627777'],
        ['__connect.errors.connector.name', 'shop'],
        ['__connect.errors.stage', 'TASK_PUT'],
        ['__connect.errors.class.name', 'ship'],
        ['__connect.errors.exception.class.name', 'TypeError'],
        ['__connect.errors.exception.message', 'no'],
        ['__connect.errors.exception.stacktrace', 'TypeError: no\n    at x'],
      ],
    ],
    [
      'kip-1191',
      [
        ['__dlq.errors.topic', 'orders'],
        ['__dlq.errors.partition', '258'],
        ['__dlq.errors.offset', '1099511627777'],
        ['__dlq.errors.group', 'shop'],
        ['__dlq.errors.delivery.count', '3'],
        ['__dlq.errors.message', 'no'],
      ],
    ],
  ] as const)('has behind the original what tools for %s read, as text', async (headers, expected) => {
    await using broker = memoryBroker()
    const given = letter({
      route: 'ship',
      cause: { name: 'TypeError', message: 'no', stack: 'TypeError: no\n    at x' },
      record: { partition: 258, offset: 2 ** 40 + 1, headers: [{ key: 'original', value: bytesOf('1') }] },
    })

    await topicDeadLetters({ broker, headers }).put(given)

    const [stored] = await recordsOf(broker, 'orders.shop-dlt')
    const written = stored?.headers.map(({ key, value }) => [key, textOf(value)]) ?? []
    expect(written.slice(0, expected.length + 1)).toEqual([['original', '1'], ...expected])
    expect(written.filter(([key]) => /^(kafka_dlt|__connect|__dlq)/.test(key ?? ''))).toEqual(expected)
  })

  test('of Connect says that a record which its schema refused failed in the converter', async () => {
    await using broker = memoryBroker()
    await topicDeadLetters({ broker, headers: 'connect' }).put(letter({ reason: 'invalid', route: null }))

    const [stored] = await recordsOf(broker, 'orders.shop-dlt')
    const text = (key: string): string | undefined =>
      stored?.headers.filter((header) => header.key === key).map(({ value }) => textOf(value))[0]
    expect([text('__connect.errors.stage'), text('__connect.errors.class.name')]).toEqual([
      'VALUE_CONVERTER',
      undefined,
    ])
  })

  test('is read whatever the dialect of its topic is now, and of a letter of a letter in another one', async () => {
    await using broker = memoryBroker()
    const stores = (['spring', 'connect', 'kip-1191'] as const).map((headers) => topicDeadLetters({ broker, headers }))
    for (const [offset, store] of stores.entries()) await store.put(letterAt(offset))
    const [first] = await recordsOf(broker, 'orders.shop-dlt')
    if (first === undefined) throw new Error('nothing was stored')
    const outer = letter({ groupId: 'repair', record: first })
    await stores[1]?.put(outer)

    for (const store of stores) {
      const { items } = await store.list({ topic: 'orders', groupId: 'shop' })
      expect(plain(items)).toEqual(plain([0, 1, 2].map((offset) => letterAt(offset))))
      expect(plain([(await store.get(outer.id)) ?? letter()])).toEqual(plain([outer]))
    }
  })

  test.each(['__connect.errors.topic', '__dlq.errors.topic'])(
    'that only looks like a letter, for its header %s, is passed over',
    async (key) => {
      await using broker = memoryBroker()
      const store = topicDeadLetters({ broker })
      await store.put(letter())
      await broker.produce([
        { topic: 'orders.shop-dlt', key: null, value: null, headers: [{ key, value: bytesOf('orders') }] },
      ])

      expect(plain((await store.list()).items)).toEqual(plain([letter()]))
    },
  )

  test('a letter read from a dead-letter topic and put again gives both letters back', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker })
    const inner = letter()
    await store.put(inner)
    const [read] = await recordsOf(broker, 'orders.shop-dlt')
    if (read === undefined) throw new Error('nothing was stored')
    const outer = letter({ groupId: 'repair', reason: 'rejected', record: read })

    await store.put(outer)

    expect(plain([(await store.get(outer.id)) ?? inner])).toEqual(plain([outer]))
    expect(plain([(await store.get(inner.id)) ?? outer])).toEqual(plain([inner]))
    expect((await broker.topics()).map(({ topic }) => topic)).toEqual(['orders.shop-dlt', 'orders.shop-dlt.repair-dlt'])
  })

  test('is not taken for another at the same place, as where its source was made anew', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker })
    const [before, after] = [letter({ record: { timestampMs: 1 } }), letter({ record: { timestampMs: 2 } })]

    for (const put of [before, after, after]) await store.put(put)

    expect(before.id).toBe(after.id)
    expect(plain((await store.list()).items)).toEqual(plain([before, after]))
  })
})

describe('the dead-letter topic', () => {
  test('is not opened with headers of no dialect', async () => {
    await using broker = memoryBroker()

    expect(() => topicDeadLetters({ broker, headers: 'camel' as 'spring' })).toThrow(
      'headers is "camel": choose of spring, connect, kip-1191',
    )
  })

  test('is made with one partition, no retention, and room for the largest record of its source', async () => {
    await using broker = memoryBroker()
    await broker.createTopic({ topic: 'orders', partitions: 3, maxRecordBytes: 2_000_000 })
    const value = new Uint8Array(1_999_900).fill(7)

    await topicDeadLetters({ broker }).put(letter({ record: { value } }))

    const made = (await broker.topics()).find(({ topic }) => topic === 'orders.shop-dlt')
    expect(made).toMatchObject({ partitions: 1, retentionMs: null })
    expect(made?.maxRecordBytes).toBeGreaterThan(2_000_000)
  })

  test('is not made where createTopics is off: the put fails by name and is not retriable', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker, createTopics: false })

    await expect(store.put(letter())).rejects.toMatchObject({
      name: 'DeadLetterStoreError',
      code: 'UNKNOWN_TOPIC_OR_PARTITION',
      retriable: false,
    })
    expect(await broker.topics()).toEqual([])
  })

  test('that is too small refuses the letter by name and holds no part of it', async () => {
    await using broker = memoryBroker()
    await broker.createTopic({ topic: 'orders.shop-dlt', maxRecordBytes: 2000 })
    const store = topicDeadLetters({ broker })

    await expect(store.put(letter({ record: { value: new Uint8Array(2000) } }))).rejects.toMatchObject({
      code: 'DEAD_LETTER_TOO_LARGE',
      retriable: false,
    })
    expect(await recordsOf(broker, 'orders.shop-dlt')).toEqual([])
  })

  test('is never the topic that the record was read from', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker, topic: 'letters' })

    await expect(store.put(letter({ record: { topic: 'letters' } }))).rejects.toMatchObject({
      code: 'INVALID_CONFIG',
      retriable: false,
    })
  })

  test('has a legal name whatever the group is called', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker })
    const long = letter({ groupId: 'g'.repeat(255), record: { topic: 't'.repeat(249) } })
    const strange = letter({ groupId: '../größe %00\n' })

    await store.put(long)
    await store.put(strange)

    expect(plain([(await store.get(long.id)) ?? strange])).toEqual(plain([long]))
    expect(plain([(await store.get(strange.id)) ?? long])).toEqual(plain([strange]))
  })

  test('may hold records that are no letters: they are passed over', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker, topic: 'letters' })
    await store.put(letterAt(0))
    const value = bytesOf('not a letter')
    await broker.produce([
      { topic: 'letters', key: null, value },
      { topic: 'letters', key: null, value, headers: [{ key: 'kafka_dlt-original-topic', value: bytesOf('spring') }] },
    ])
    await store.put(letterAt(1))

    expect((await store.list()).items.map(({ record }) => record.offset)).toEqual([0, 1])
    expect(await store.get(letterAt(2).id)).toBeUndefined()
  })

  test('is read on by each call where it has more records than one may read', async () => {
    await using broker = memoryBroker()
    const given = [0, 1, 2, 3, 4].map((offset) => letterAt(offset))
    const writer = topicDeadLetters({ broker })
    for (const one of given) await writer.put(one)
    const store = topicDeadLetters({ broker, maxScanRecords: 2 })

    await expect(store.get(letterAt(4).id)).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED', retriable: true })
    const read: number[] = []
    const pages = await pagesOf(store, { limit: 2 })
    for (const page of pages) read.push(...page)

    expect(read).toEqual([0, 1, 2, 3, 4])
    expect(plain([(await store.get(letterAt(4).id)) ?? letter()])).toEqual(plain([letterAt(4)]))
  })

  test('is listed whole by stores that are opened for a page each, however many records it has', async () => {
    await using broker = memoryBroker()
    const offsets = Array.from({ length: 9 }, (_, offset) => offset)
    for (const offset of offsets) await topicDeadLetters({ broker }).put(letterAt(offset))
    await topicDeadLetters({ broker }).delete(letterAt(4).id)
    const listed: number[] = []
    let [cursor, calls] = [undefined as string | undefined, 0]
    do {
      const store = topicDeadLetters({ broker, maxScanRecords: 2 })
      const page = await store.list({ limit: 3, ...(cursor === undefined ? {} : { cursor }) })
      listed.push(...page.items.map(({ record }) => record.offset))
      ;[cursor, calls] = [page.cursor, calls + 1]
    } while (cursor !== undefined && calls < 50)

    expect(listed).toEqual(offsets.filter((offset) => offset !== 4))
    expect(calls).toBeLessThan(12)
  })

  test('with more letters than are remembered is listed whole, and any of them found and deleted', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker, maxIndexedLetters: 3 })
    for (let offset = 0; offset < 10; offset += 1) await store.put(letterAt(offset))

    expect(await store.delete(letterAt(8).id)).toBe(true)
    expect(await store.delete(letterAt(8).id)).toBe(false)
    expect((await pagesOf(store, { limit: 2 })).flat()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 9])
    expect(await store.delete(letterAt(0).id)).toBe(true)
    expect(await store.get(letterAt(0).id)).toBeUndefined()
    expect((await pagesOf(store, { limit: 4 })).flat()).toEqual([1, 2, 3, 4, 5, 6, 7, 9])
  })

  test('with several partitions is listed whole, each letter once', async () => {
    await using broker = memoryBroker()
    await broker.createTopic({ topic: 'letters', partitions: 4 })
    const store = topicDeadLetters({ broker, topic: 'letters' })
    for (let offset = 0; offset < 20; offset += 1) {
      await store.put(letterAt(offset, { record: { key: bytesOf(`k${offset}`) } }))
    }

    const read: number[] = []
    let cursor: string | undefined
    do {
      const page = await store.list({ limit: 7, ...(cursor === undefined ? {} : { cursor }) })
      read.push(...page.items.map(({ record }) => record.offset))
      cursor = page.cursor
    } while (cursor !== undefined)

    expect(read.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, offset) => offset))
  })
})

describe('a store that is asked for several things at once', () => {
  test('gives every listing all letters, where it remembers few of them', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker, maxIndexedLetters: 3 })
    const offsets = Array.from({ length: 12 }, (_, offset) => offset)
    for (const offset of offsets) await store.put(letterAt(offset))

    const listings = await Promise.all([1, 2, 3, 4, 5].map((limit) => pagesOf(store, { limit })))

    for (const pages of listings) expect(pages.flat()).toEqual(offsets)
  })

  test('reads on where it was while it finds out that a letter is not there any more', async () => {
    await using memory = memoryBroker({ clock: new FakeClock(), retentionCheckMs: 1 })
    await memory.createTopic({ topic: 'orders.shop-dlt' })
    for (const offset of [0, 1, 2, 3, 4, 5]) await topicDeadLetters({ broker: memory }).put(letterAt(offset))
    let isGone = false
    const broker = answering(memory, {
      // As where retention has deleted the letter since its place was found.
      async fetch([from, ...others], limits, call) {
        const isOne = limits.maxRecords === 1
        if (isOne && isGone) throw new BrokerError('OFFSET_OUT_OF_RANGE', 'gone')
        return from === undefined ? [] : await memory.fetch([from, ...others], limits, call)
      },
    })
    const store = topicDeadLetters({ broker })
    await store.get(letterAt(0).id)
    isGone = true
    for (const offset of [6, 7]) await topicDeadLetters({ broker: memory }).put(letterAt(offset))

    const [got, pages] = await Promise.all([store.get(letterAt(0).id), pagesOf(store, {})])

    expect(got).toBeUndefined()
    expect(pages.flat()).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    expect((await pagesOf(store, {})).flat()).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  })
})

describe('a broker that answers nothing although something is there, as while a leader moves', () => {
  test('hides no letter for longer than that', async () => {
    await using memory = memoryBroker()
    for (const offset of [0, 1, 2]) await topicDeadLetters({ broker: memory }).put(letterAt(offset))
    let [fetches, fatal, isMoving] = [0, 0, false]
    const broker = answering(memory, {
      fetch: async (from, limits, call) => {
        fetches += 1
        if (fetches === fatal) isMoving = true
        return isMoving ? [] : await memory.fetch(from, limits, call)
      },
      offsets: async (partitions, at, call) => {
        // Only a leader can say.
        isMoving = false
        return await memory.offsets(partitions, at, call)
      },
    })
    const always = async (work: (store: DeadLetterStore) => Promise<void>): Promise<number> => {
      for (let at = 1; ; at += 1) {
        ;[fetches, fatal, isMoving] = [0, at, false]
        await work(topicDeadLetters({ broker }))
        if (fetches < fatal) return at
      }
    }

    const listed = await always(async (store) => expect((await pagesOf(store, {})).flat()).toEqual([0, 1, 2]))
    const got = await always(async (store) => expect(await store.get(letterAt(1).id)).toBeDefined())
    const deleted = await always(async (store) => {
      expect(await store.delete(letterAt(1).id)).toBe(true)
      expect(await store.get(letterAt(1).id)).toBeUndefined()
      await store.put(letterAt(1))
      expect(await store.get(letterAt(1).id)).toBeDefined()
    })

    for (const calls of [listed, got, deleted]) expect(calls).toBeGreaterThan(2)
  })
})

describe('a letter that is deleted', () => {
  test('has a tombstone behind it, in its partition, named after it', async () => {
    await using broker = memoryBroker()
    await broker.createTopic({ topic: 'letters', partitions: 3 })
    const store = topicDeadLetters({ broker, topic: 'letters' })
    const given = letterAt(7, { record: { key: bytesOf('some key') } })
    await store.put(given)

    await store.delete(given.id)

    const all = await broker.fetch(
      [0, 1, 2].map((partition) => ({ topic: 'letters', partition, offset: 0 })),
      LIMITS,
    )
    const [first, marker] = all
    expect(all).toHaveLength(2)
    expect(marker).toMatchObject({ partition: first?.partition, key: bytesOf(given.id), value: null })
    expect(marker?.headers).toEqual([
      { key: 'kedge-dead-letter-deleted', value: bytesOf(given.id) },
      { key: 'kedge-dead-letter-deleted-timestamp', value: bytesOf(String(given.record.timestampMs)) },
    ])
  })

  test('takes none along that is of another record at the same place, for this store and any other', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker, topic: 'letters' })
    const [before, after] = [letter({ record: { timestampMs: 1 } }), letter({ record: { timestampMs: 2 } })]
    for (const put of [before, after, before]) await store.put(put)

    expect(await store.delete(before.id)).toBe(true)
    const left = [
      plain((await store.list()).items),
      plain((await topicDeadLetters({ broker, topic: 'letters' }).list()).items),
    ]
    await store.put(after)
    expect(await store.delete(before.id)).toBe(true)
    const atLast = [await store.list(), await store.delete(before.id)]

    expect(left).toEqual([plain([after]), plain([after])])
    expect(atLast).toEqual([{ items: [] }, false])
  })

  test('is gone for every other store over the topic', async () => {
    await using broker = memoryBroker()
    const [writer, other] = [topicDeadLetters({ broker }), topicDeadLetters({ broker })]
    for (const offset of [0, 1]) await writer.put(letterAt(offset))
    expect((await pagesOf(other, {})).flat()).toEqual([0, 1])

    await writer.delete(letterAt(0).id)

    expect((await pagesOf(other, {})).flat()).toEqual([1])
    expect(await other.get(letterAt(0).id)).toBeUndefined()
    expect(await other.delete(letterAt(0).id)).toBe(false)
    expect(await recordsOf(broker, 'orders.shop-dlt')).toHaveLength(3)
  })

  test.each([
    ['the same', letter()],
    ['another failure of the record', letter({ attempts: 9, failedAtMs: 1_800_000_000_000 })],
  ])('and put again, %s, by a store that knows nothing of it, is there', async (_what, again) => {
    await using broker = memoryBroker()
    const first = topicDeadLetters({ broker })
    await first.put(letter())
    await first.delete(letter().id)

    for (let times = 0; times < 2; times += 1) await topicDeadLetters({ broker }).put(again)

    const store = topicDeadLetters({ broker })
    for (let times = 0; times < 2; times += 1) {
      expect(plain((await store.list()).items)).toEqual(plain([again]))
      expect(await store.delete(again.id)).toBe(true)
      expect(await pagesOf(store, {})).toEqual([[]])
      await topicDeadLetters({ broker }).put(again)
    }
  })

  test('is deleted with all its records, where a broker without idempotency keys has several', async () => {
    await using memory = memoryBroker()
    const broker = withoutKeys(memory)
    const store = topicDeadLetters({ broker })
    await store.put(letter())
    await store.put(letter())
    expect(await recordsOf(broker, 'orders.shop-dlt')).toHaveLength(2)
    expect((await store.list()).items).toHaveLength(1)

    expect(await store.delete(letter().id)).toBe(true)

    expect((await store.list()).items).toEqual([])
  })

  test('does not take the letter of a marker for a marker', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker })
    await store.put(letter())
    await store.delete(letter().id)
    const [, marker] = await recordsOf(broker, 'orders.shop-dlt')
    if (marker === undefined) throw new Error('there is no marker')
    const outer = letter({ groupId: 'repair', record: marker })

    await store.put(outer)

    expect(plain((await store.list()).items)).toEqual(plain([outer]))
  })

  test('by its topic in time, and put again, is there', async () => {
    const clock = new FakeClock()
    await using broker = memoryBroker({ clock, retentionCheckMs: 1 })
    await broker.createTopic({ topic: 'orders.shop-dlt', retentionMs: 60_000 })
    await topicDeadLetters({ broker }).put(letter())
    await clock.advance(120_000)
    // Retention keeps the newest records, and is looked at by whoever writes.
    for (const offset of [1, 2, 3]) await topicDeadLetters({ broker }).put(letterAt(offset))
    const [start] = await broker.offsets([{ topic: 'orders.shop-dlt', partition: 0 }], 'earliest')
    expect(start?.offset).toBeGreaterThan(0)

    for (let times = 0; times < 2; times += 1) await topicDeadLetters({ broker }).put(letter())

    const ids = (await topicDeadLetters({ broker }).list()).items.map(({ id }) => id)
    expect(ids).toContain(letter().id)
    expect(new Set(ids).size).toBe(ids.length)
  })

  test.each([0, 1, 3])('with its topic, and put again when that has %s others, is there', async (others) => {
    await using broker = memoryBroker()
    for (const offset of [1, 0]) await topicDeadLetters({ broker }).put(letterAt(offset))
    await broker.deleteTopic('orders.shop-dlt')
    await broker.createTopic({ topic: 'orders.shop-dlt' })
    for (let offset = 0; offset < others; offset += 1) await topicDeadLetters({ broker }).put(letterAt(10 + offset))

    for (let times = 0; times < 2; times += 1) await topicDeadLetters({ broker }).put(letterAt(0))

    const store = topicDeadLetters({ broker })
    expect(plain([(await store.get(letterAt(0).id)) ?? letter()])).toEqual(plain([letterAt(0)]))
    expect((await store.list()).items).toHaveLength(others + 1)
  })

  test('leaves the others where they are in a topic that was made anew since it was read', async () => {
    await using broker = memoryBroker()
    const store = topicDeadLetters({ broker })
    for (const offset of [0, 1, 2]) await store.put(letterAt(offset))
    expect((await pagesOf(store, {})).flat()).toEqual([0, 1, 2])
    await broker.deleteTopic('orders.shop-dlt')
    const other = topicDeadLetters({ broker })
    for (const offset of [10, 11]) await other.put(letterAt(offset))

    await store.delete(letterAt(10).id)

    expect((await pagesOf(other, {})).flat()).toEqual([11])
  })
})

describe('a broker that fails', () => {
  test.each([
    ['KAFKA_STORAGE_ERROR', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    ['OVERLOADED', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    ['IDEMPOTENCY_KEY_IN_FLIGHT', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    ['TIMEOUT', 'TIMEOUT', true],
    ['NETWORK', 'NETWORK', true],
    ['TOPIC_AUTHORIZATION_FAILED', 'TOPIC_AUTHORIZATION_FAILED', false],
    ['LIMIT_EXCEEDED', 'DEAD_LETTER_TOO_LARGE', false],
  ] as const)('with %s makes the put fail with %s', async (code, expected, retriable) => {
    await using broker = memoryBroker()
    const cause = new BrokerError(code, 'as told')
    const failing: Broker = Object.assign(Object.create(broker) as Broker, {
      produce: async () => {
        throw cause
      },
    })

    await expect(topicDeadLetters({ broker: failing }).put(letter())).rejects.toMatchObject({
      name: 'DeadLetterStoreError',
      code: expected,
      retriable,
      cause,
    })
  })

  test('that is closed makes the put fail and is not closed by the store', async () => {
    const broker = memoryBroker()
    const store = topicDeadLetters({ broker })
    await store.close()
    expect(await broker.topics()).toEqual([])
    await broker.close()

    await expect(topicDeadLetters({ broker }).put(letter())).rejects.toMatchObject({ code: 'CLOSED' })
  })
})
