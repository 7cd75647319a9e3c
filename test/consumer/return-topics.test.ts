import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { defineApp } from '../../src/app.ts'
import type { AppOptions } from '../../src/app.ts'
import { createConsumer } from '../../src/consumer.ts'
import { BrokerError } from '../../src/errors.ts'
import { RetryAfterError } from '../../src/handler-errors.ts'
import { headersOf } from '../../src/headers.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { returned, returning } from '../../src/return-topic.ts'
import { createRouter } from '../../src/router.ts'
import type { RouteOptions } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import { finish, openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench, BenchOptions } from '../support/consumer.ts'

const HOUR_MS = 3_600_000

interface Seen {
  readonly record: ConsumerRecord
  readonly attempt: number
}

/** A bench whose records fail as long as `isFailing` says so. */
async function openFailing(
  isFailing: (value: string) => boolean,
  route: RouteOptions,
  app: Partial<AppOptions> = {},
  more: Partial<BenchOptions> = {},
): Promise<Bench & { readonly seen: Seen[] }> {
  const seen: Seen[] = []
  const router = createRouter().on(
    { topic: TOPIC },
    (record, { attempt }) => {
      seen.push({ record, attempt })
      if (isFailing(textOf(record.value))) throw new Error('no')
    },
    route,
  )
  return Object.assign(await openBench({ app: { router, ...app }, partitions: 2, ...more }), { seen })
}

const later = { ordering: 'none', retry: { maxAttempts: 2, topicDelaysMs: [HOUR_MS, 2 * HOUR_MS] } } as const

describe('a retry topic', () => {
  test('brings a record back when it is due, as it was, and lets the others pass meanwhile', async () => {
    let isDown = true
    const bench = await openFailing((value) => isDown && value === 'bad', later)
    const headers = headersOf([{ key: 'a', value: '1' }])
    const bad = { topic: TOPIC, partition: 1, key: bytesOf('k'), value: bytesOf('bad'), headers, timestampMs: 77 }
    await bench.broker.produce([bad, { ...bad, value: bytesOf('good') }])

    const first = await bench.drain()
    const tooSoon = await bench.run({ budget: { runMs: 10_000 } })
    isDown = false
    await bench.clock.advance(HOUR_MS)
    const second = await bench.drain()

    expect(first).toMatchObject({ handled: 1, deferred: 1, deadLettered: {}, unfinished: 0 })
    expect(await bench.committed()).toEqual([-1, 2])
    expect(tooSoon).toMatchObject({ handled: 0, unfinished: 1 })
    expect(second).toMatchObject({ handled: 1, deferred: 0, unfinished: 0 })
    const { record, attempt } = bench.seen.at(-1) ?? {}
    expect(attempt).toBe(3)
    expect(record).toEqual({ ...bad, offset: 0 })
  })

  test.each([
    { maxAttempts: 1, asks: 1 },
    { maxAttempts: 2, asks: 3 },
  ])('holds nothing up behind a record whose handler asked for more (%j)', async ({ maxAttempts, asks }) => {
    const calls: string[] = []
    const router = createRouter().on(
      { topic: TOPIC },
      ({ value }, { attempt }) => {
        const name = textOf(value)
        calls.push(`${name} ${attempt}`)
        if (name === 'slow' && attempt === asks) throw new RetryAfterError(20 * HOUR_MS)
        if (attempt <= maxAttempts) throw new Error('down')
      },
      { ordering: 'none', retry: { maxAttempts, topicDelaysMs: [HOUR_MS] } },
    )
    const bench = await openBench({ app: { router, breaker: null } })
    for (const name of ['slow', 'a', 'b']) await bench.produce([name])

    await bench.drain()
    await bench.clock.advance(HOUR_MS)
    const second = await bench.drain()
    const before = calls.filter((call) => call.startsWith('slow'))
    await bench.clock.advance(20 * HOUR_MS)
    const last = await bench.drain()

    expect(second).toMatchObject({ handled: 2, unfinished: 1 })
    expect(before).toHaveLength(asks)
    expect(last).toMatchObject({ handled: 1, remembered: 2, unfinished: 0 })
    expect(calls.filter((call) => call.startsWith('slow'))).toHaveLength(asks + 1)
  })

  test('is followed by the next one, and then by a dead letter with all attempts and the first coordinates', async () => {
    const bench = await openFailing(() => true, later)
    await bench.produce(['bad'], 1)

    const stages: number[] = []
    for (let hour = 0; hour < 5; hour++) {
      const { deferred } = await bench.drain()
      stages.push(deferred)
      await bench.clock.advance(HOUR_MS)
    }

    expect(stages).toEqual([1, 1, 0, 0, 0])
    expect(bench.seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4, 5, 6])
    expect((await bench.letters.list()).items).toMatchObject([
      { attempts: 6, reason: 'exhausted', record: { topic: TOPIC, partition: 1, offset: 0 } },
    ])
    const names = (await bench.broker.topics()).map(({ topic }) => topic)
    expect(names).toEqual(['t', 't.g-retry-1', 't.g-retry-2'])
  })

  test('holds a record back until it is due, and those behind it, which are due later', async () => {
    const bench = await openFailing(({ length }) => length > 0 && bench.seen.length <= 4, later)
    await bench.broker.produce([{ topic: TOPIC, partition: 0, key: bytesOf('k'), value: bytesOf('a') }])
    await bench.drain()
    await bench.clock.advance(HOUR_MS / 2)
    await bench.broker.produce([{ topic: TOPIC, partition: 0, key: bytesOf('k'), value: bytesOf('b') }])
    await bench.drain()

    await bench.clock.advance(HOUR_MS / 2)
    const first = await bench.drain()
    await bench.clock.advance(HOUR_MS / 2)
    const second = await bench.drain()

    expect([first.handled, second.handled]).toEqual([1, 1])
    expect(bench.seen.slice(4).map(({ record }) => textOf(record.value))).toEqual(['a', 'b'])
  })

  test('counts attempts on, and keeps to deadlines, over runs that are too short for a second one', async () => {
    const retry = { maxAttempts: 2, initialMs: HOUR_MS, maxMs: HOUR_MS, topicDelaysMs: [HOUR_MS] }
    const bench = await openFailing(() => true, { ordering: 'none', retry })
    await bench.produce(['bad'], 1)

    const attempts: number[][] = []
    for (let quarter = 0; quarter < 12; quarter++) {
      await bench.run({ budget: { runMs: 10_000 } })
      attempts.push(bench.seen.splice(0).map(({ attempt }) => attempt))
      await bench.clock.advance(HOUR_MS / 4)
    }

    // Half an hour to each second attempt, and an hour in the topic.
    expect(attempts).toEqual([[1], [], [2], [], [], [], [3], [], [4], [], [], []])
    expect((await bench.letters.list()).items).toMatchObject([{ attempts: 4, reason: 'exhausted' }])
  })

  test('gives a dead letter its first coordinates when it has to make room', async () => {
    const retry = { maxAttempts: 2, initialMs: HOUR_MS, maxMs: HOUR_MS, topicDelaysMs: [HOUR_MS] }
    const bench = await openFailing(() => true, { ordering: 'none', retry: { ...retry, maxAttempts: 1 } })
    await bench.produce(['bad'], 1)
    await bench.drain()
    await bench.clock.advance(HOUR_MS)

    const router = createRouter().on({ topic: TOPIC }, () => Promise.reject(new Error('no')), {
      ordering: 'none',
      retry,
    })
    const app = defineApp({ groupId: 'g', router, parking: { maxRecords: 1, whenFull: 'dead-letter' } })
    const { broker, letters: deadLetters, clock } = bench
    const consumer = createConsumer(app, { broker, deadLetters, groupInstanceId: 'i', clock })
    await finish(clock, consumer.run({ runId: 'full', budget: { runMs: 10_000 } }))

    const { items } = await bench.letters.list()
    expect(items).toMatchObject([{ attempts: 2, record: { topic: TOPIC, partition: 1, offset: 0, headers: [] } }])
  })

  test('keeps a record for as long as its handler asked for, where that is longer', async () => {
    const bench = await openBench({
      app: {
        router: createRouter().on(
          { topic: TOPIC },
          () => {
            calls += 1
            throw new RetryAfterError(2 * HOUR_MS)
          },
          { ordering: 'none', retry: { maxAttempts: 1, topicDelaysMs: [HOUR_MS] } },
        ),
      },
    })
    let calls = 0
    await bench.produce(['busy'])

    const seen: number[] = []
    for (let hour = 0; hour < 3; hour++) {
      await bench.drain()
      seen.push(calls)
      await bench.clock.advance(HOUR_MS)
    }

    expect(seen).toEqual([1, 1, 2])
  })

  test('that takes nothing stops the partition, and the offset stays', async () => {
    const bench = await openFailing(
      () => true,
      later,
      {},
      {
        wrap: (broker) =>
          withCalls(broker, { produce: () => Promise.reject(new BrokerError('KAFKA_STORAGE_ERROR', 'no disk')) }),
      },
    )
    await bench.produce(['bad'])

    const report = await bench.drain()

    expect(report).toMatchObject({ deferred: 0, unfinished: 1, stopped: [{ offset: 0 }] })
    expect(await bench.committed()).toEqual([0, -1])
  })

  test('has a record once, where the answer to its produce was lost', async () => {
    let losses = 1
    const bench = await openFailing(
      () => true,
      later,
      {},
      {
        wrap: (broker) =>
          withCalls(broker, {
            async produce(...args) {
              const results = await broker.produce(...args)
              if (losses-- > 0) throw new BrokerError('TIMEOUT', 'lost')
              return results
            },
          }),
      },
    )
    await bench.produce(['bad'])
    await bench.drain()

    const [end] = await bench.broker.offsets([{ topic: 't.g-retry-1', partition: 0 }], 'latest')
    const [other] = await bench.broker.offsets([{ topic: 't.g-retry-1', partition: 1 }], 'latest')
    expect((end?.offset ?? 0) + (other?.offset ?? 0)).toBe(1)
  })

  test.each([
    ['partition', /retry topics keep no order/],
    ['key', /retry topics keep no order/],
  ] as const)('is refused for a route ordered by %s', (ordering, message) => {
    const router = createRouter().on({ topic: 't' }, () => undefined, { ...later, ordering })
    expect(() => defineApp({ groupId: 'g', router })).toThrow(message)
  })

  test('has nothing of records without a route, which keep their order, and whose topic may have none', async () => {
    const router = createRouter()
      .on({ topic: TOPIC, key: 'k' }, () => undefined, { ordering: 'none' })
      .otherwise(() => Promise.reject(new Error('no')))
    const bench = await openBench({ app: { router, retry: later.retry } })
    await bench.produce(['bad'])

    expect(await bench.drain()).toMatchObject({ deferred: 0, deadLettered: { exhausted: 1 } })
  })

  test('has the records of a topic that was made anew, though they lie where others lay', async () => {
    const bench = await openFailing(() => true, later)
    const bad = { topic: TOPIC, partition: 0, key: null, value: bytesOf('old') }
    await bench.broker.produce([bad])
    await bench.drain()
    await bench.broker.deleteTopic(TOPIC)
    await bench.broker.createTopic({ topic: TOPIC, partitions: 2 })
    // The member is forgotten, and joins anew.
    await bench.clock.advance(200_000)
    await bench.broker.produce([{ ...bad, value: bytesOf('new') }])

    expect(await bench.drain()).toMatchObject({ deferred: 1 })
    const both = [0, 1].map((partition) => ({ topic: 't.g-retry-1', partition }))
    const ends = await bench.broker.offsets(both, 'latest')
    expect(ends.reduce((sum, { offset }) => sum + offset, 0)).toBe(2)
  })

  test('is refused where no topic can be called after the group', () => {
    const router = createRouter().on({ topic: 't' }, () => undefined, later)
    expect(() => defineApp({ groupId: 'my group', router })).toThrow(/choose a group id/)
  })

  test.each([[[999]], [[1.5e3, 604_800_001]], [Array.from({ length: 11 }, () => 1_000)]])(
    'is refused with waits of %j',
    (topicDelaysMs) => {
      const router = createRouter().on({ topic: 't' }, () => undefined, { ordering: 'none', retry: { topicDelaysMs } })
      expect(() => defineApp({ groupId: 'g', router })).toThrow(/topicDelaysMs/)
    },
  )
})

describe('a redrive topic', () => {
  test('brings a record back to its group, where its handler sees it as it was', async () => {
    const bench = await openFailing(() => false, {}, { redrive: true })
    await bench.drain()
    const record = { topic: TOPIC, partition: 1, offset: 5, timestampMs: 7, key: null, value: null, headers: [] }
    await bench.broker.produce([
      returning('t.g-redrive', { groupId: 'g', record, attempts: 0, dueAtMs: 0, redriveCount: 1 }),
    ])

    expect(await bench.drain()).toMatchObject({ handled: 1 })
    expect(bench.seen).toEqual([{ record, attempt: 1 }])
  })

  test('tells how often a record came back, when it becomes a dead letter again', async () => {
    const bench = await openFailing(() => true, { retry: { maxAttempts: 1 } }, { redrive: true })
    await bench.drain()
    const record = { topic: TOPIC, partition: 1, offset: 5, timestampMs: 7, key: null, value: null, headers: [] }
    await bench.broker.produce([
      returning('t.g-redrive', { groupId: 'g', record, attempts: 0, dueAtMs: 0, redriveCount: 2 }),
    ])

    expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 1 } })
    expect((await bench.letters.list()).items).toMatchObject([{ id: 'g/t/1/5/2', redriveCount: 2 }])
  })

  test('counts the attempts of before, where the value is refused now', async () => {
    const router = createRouter().on(defineTopic(TOPIC, z.object({ total: z.number() })), () => undefined)
    const bench = await openBench({ app: { router, redrive: true } })
    await bench.drain()
    const value = bytesOf('{"total":"9"}')
    const record = { topic: TOPIC, partition: 0, offset: 5, timestampMs: 7, key: null, value, headers: [] }
    await bench.broker.produce([
      returning('t.g-redrive', { groupId: 'g', record, attempts: 3, dueAtMs: 0, redriveCount: 1 }),
    ])

    expect(await bench.drain()).toMatchObject({ deadLettered: { invalid: 1 } })
    expect((await bench.letters.list()).items).toMatchObject([{ attempts: 3, redriveCount: 1 }])
  })

  test('brings a record back once to a handler that is called at most once, however often it was tried', async () => {
    const bench = await openFailing(() => true, { delivery: 'at-most-once' }, { redrive: true })
    await bench.drain()
    const record = {
      topic: TOPIC,
      partition: 1,
      offset: 5,
      timestampMs: 7,
      key: null,
      value: bytesOf('v'),
      headers: [],
    }
    const back = { groupId: 'g', record, attempts: 2, dueAtMs: 0, redriveCount: 1 }
    await bench.broker.produce([returning('t.g-redrive', back)])

    await bench.drain()

    expect(bench.seen).toEqual([{ record, attempt: 3 }])
    expect((await bench.letters.list()).items).toMatchObject([{ attempts: 3, record: { offset: 5 } }])
  })

  test('has no say over records that somebody else puts there', async () => {
    const bench = await openFailing(() => false, {}, { redrive: true })
    await bench.drain()
    await bench.broker.produce([{ topic: 't.g-redrive', key: null, value: bytesOf('stray') }])

    expect(await bench.drain()).toMatchObject({ handled: 0, deadLettered: { unroutable: 1 } })
  })

  test('leaves alone what comes back to another group', async () => {
    const bench = await openFailing(() => false, {}, { redrive: true })
    await bench.drain()
    const record = { topic: TOPIC, partition: 1, offset: 5, timestampMs: 7, key: null, value: null, headers: [] }
    const other = { groupId: 'other', record, attempts: 0, dueAtMs: 0, redriveCount: 1 }
    await bench.broker.produce([returning('t.g-redrive', other)])

    expect(await bench.drain()).toMatchObject({ handled: 0, skipped: 1 })
  })

  test('that cannot be made is named, and nothing is read', async () => {
    const bench = await openFailing(
      () => false,
      {},
      { redrive: true },
      {
        wrap: (broker) =>
          withCalls(broker, {
            createTopic: () => Promise.reject(new BrokerError('TOPIC_AUTHORIZATION_FAILED', 'not allowed')),
          }),
      },
    )

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 0, cause: { code: 'UNKNOWN_TOPIC_OR_PARTITION' } })
    expect(report.cause?.message).toContain('t.g-redrive')
  })
})

test('a record that comes back is the same in every byte', () => {
  const record = {
    topic: 'süß',
    partition: 3,
    offset: 2 ** 50,
    timestampMs: 1,
    key: new Uint8Array([0, 255]),
    value: new Uint8Array(),
    headers: headersOf([
      { key: 'a', value: null },
      { key: 'kedge-returned', value: 'not ours' },
    ]),
  }
  const back = { groupId: 'g', record, attempts: 4, dueAtMs: 99, redriveCount: 2 }
  const { topic, key, value, headers = [] } = returning('there', back)

  expect(returned({ topic, partition: 0, offset: 0, timestampMs: 0, key, value, headers })).toEqual(back)
  expect(returned({ ...record, offset: 0 })).toBeUndefined()
})
