import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { MAX_CAUSE_BYTES } from '../../src/dead-letter.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { BrokerError, DeadLetterStoreError } from '../../src/errors.ts'
import { headersOf } from '../../src/headers.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ProducerRecord } from '../../src/record.ts'
import { reject } from '../../src/handler-errors.ts'
import { createRouter } from '../../src/router.ts'
import type { Handler } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import type { LogEvent } from '../../src/logger.ts'
import { START_MS } from '../support/clock.ts'
import { openBench, TOPIC } from '../support/consumer.ts'
import { until } from '../support/until.ts'

const forever = (): Promise<never> => new Promise(() => undefined)

function overflow(): number {
  return overflow() + 1
}

/** A record that nothing can make right, by what is wrong with it. */
const poisons: Record<
  string,
  { handler?: Handler<{ n: number }>; value?: Uint8Array | null; reason: string; attempts: number; name: string }
> = {
  'is not JSON': { value: bytesOf('{"n":'), reason: 'invalid', attempts: 0, name: 'RecordError' },
  'is not UTF-8': { value: new Uint8Array([0x7b, 0xff, 0x7d]), reason: 'invalid', attempts: 0, name: 'RecordError' },
  'fails its schema': { value: bytesOf('{"n":"seven"}'), reason: 'invalid', attempts: 0, name: 'RecordError' },
  'has no value': { value: null, reason: 'invalid', attempts: 0, name: 'RecordError' },
  'makes its handler throw': {
    handler: () => {
      throw new RangeError('no')
    },
    reason: 'exhausted',
    attempts: 3,
    name: 'RangeError',
  },
  'makes its handler reject': {
    handler: () => Promise.reject(new RangeError('no')),
    reason: 'exhausted',
    attempts: 3,
    name: 'RangeError',
  },
  'makes its handler throw text': {
    handler: () => {
      throw 'no'
    },
    reason: 'exhausted',
    attempts: 3,
    name: 'string',
  },
  'makes its handler reject with undefined': {
    handler: () => Promise.reject(undefined),
    reason: 'exhausted',
    attempts: 3,
    name: 'undefined',
  },
  'makes its handler throw null': {
    handler: () => {
      throw null
    },
    reason: 'exhausted',
    attempts: 3,
    name: 'null',
  },
  'makes its handler throw a revoked proxy': {
    handler: () => {
      const { proxy, revoke } = Proxy.revocable(new Error('gone'), {})
      revoke()
      throw proxy
    },
    reason: 'exhausted',
    attempts: 3,
    name: 'HandlerError',
  },
  'overflows the stack': { handler: overflow, reason: 'exhausted', attempts: 3, name: 'RangeError' },
  'makes its handler hang': { handler: forever, reason: 'timeout', attempts: 3, name: 'HandlerError' },
  'is rejected by its handler': {
    handler: () => reject('unknown customer'),
    reason: 'rejected',
    attempts: 1,
    name: 'DeadLetterError',
  },
  'makes its handler fail for good': {
    handler: () => {
      throw new BrokerError('MESSAGE_TOO_LARGE', 'big')
    },
    reason: 'exhausted',
    attempts: 3,
    name: 'BrokerError',
  },
}

describe('a record that', () => {
  test.each(Object.entries(poisons))(
    '%s becomes a dead letter, byte for byte, and the rest is handled',
    async (_what, poison) => {
      const at = 4
      const handled: number[] = []
      const numbers = defineTopic(TOPIC, z.object({ n: z.number() }))
      const router = createRouter().on(numbers, (record, context) => {
        if (record.offset === at) return poison.handler?.(record, context)
        handled.push(record.value.n)
        return undefined
      })
      const bench = await openBench({ app: { router, attemptTimeoutMs: 2_000 } })
      const key = new Uint8Array([0, 255])
      const value = poison.value === undefined ? bytesOf(' {"n": 4} ') : poison.value
      const headers = headersOf([
        { key: 'a', value: '1' },
        { key: 'a', value: null },
        { key: '', value: new Uint8Array([128]) },
      ])
      await bench.broker.produce(
        Array.from({ length: 10 }, (_, n): ProducerRecord =>
          n === at
            ? { topic: TOPIC, key, value, headers, timestampMs: 77 }
            : { topic: TOPIC, key: null, value: bytesOf(`{"n":${n}}`) },
        ),
      )

      const report = await bench.drain()

      expect(handled).toEqual([0, 1, 2, 3, 5, 6, 7, 8, 9])
      expect(report).toMatchObject({
        handled: 9,
        deadLettered: { [poison.reason]: 1 },
        unfinished: 0,
        committed: [{ offset: 10 }],
        stopped: [],
      })
      const { items } = await bench.letters.list()
      expect(items).toMatchObject([
        { groupId: 'g', reason: poison.reason, attempts: poison.attempts, route: TOPIC, cause: { name: poison.name } },
      ])
      expect(items[0]?.record).toEqual({ topic: TOPIC, partition: 0, offset: at, timestampMs: 77, key, value, headers })
    },
  )

  test('cannot be routed because its value is not JSON is invalid, not skipped', async () => {
    const router = createRouter()
      .on({ topic: TOPIC, value: { a: 1 } }, () => undefined)
      .otherwise('skip')
    const bench = await openBench({ app: { router } })
    await bench.produce(['not json', '{"a":1}', '{"a":2}'])

    expect(await bench.drain()).toMatchObject({ handled: 1, skipped: 1, deadLettered: { invalid: 1 } })
  })

  test('fails as another did shares its fingerprint, and one that fails otherwise has its own', async () => {
    const numbers = defineTopic(TOPIC, z.object({ n: z.number() }))
    const router = createRouter().on(numbers, ({ value: { n } }) => {
      throw n < 3 ? new RangeError(`no stock of ${n * 1000}`) : new TypeError('the shop is closed')
    })
    const bench = await openBench({ app: { router } })
    await bench.produce(['{"n":1}', '{"n":2}', '{"n":3}'])

    await bench.drain()

    const [one, two, three] = (await bench.letters.list()).items
    expect(one).toMatchObject({ fingerprint: expect.stringMatching(/^[0-9a-f]{16}$/) as string, redriveCount: 0 })
    expect(two?.fingerprint).toBe(one?.fingerprint)
    expect(three?.fingerprint).not.toBe(one?.fingerprint)
  })

  test('is a tombstone reaches its handler as null where the topic has tombstones', async () => {
    const seen: unknown[] = []
    const kept = defineTopic(TOPIC, z.object({}), { tombstones: true })
    const router = createRouter().on(kept, ({ value }) => void seen.push(value))
    const bench = await openBench({ app: { router } })
    await bench.broker.produce([{ topic: TOPIC, key: null, value: null }])

    await bench.drain()

    expect(seen).toEqual([null])
  })

  test('a schema that answers later refuses is invalid', async () => {
    const even = defineTopic(
      TOPIC,
      z.number().refine(async (n) => n % 2 === 0),
    )
    const seen: number[] = []
    const router = createRouter().on(even, ({ value }) => void seen.push(value))
    const bench = await openBench({ app: { router } })
    await bench.produce(['1', '2', '3', '4'])

    const report = await bench.drain()

    expect(seen).toEqual([2, 4])
    expect(report).toMatchObject({ handled: 2, deadLettered: { invalid: 2 }, retried: 0 })
    expect((await bench.letters.list()).items[0]).toMatchObject({ attempts: 0, cause: { name: 'RecordError' } })
  })

  test('is nested deeper than its schema can follow is invalid', async () => {
    const tree: z.ZodType = z.object({ in: z.array(z.lazy(() => tree)) })
    const seen: number[] = []
    const router = createRouter().on(defineTopic(TOPIC, tree), ({ offset }) => void seen.push(offset))
    const bench = await openBench({ app: { router } })
    await bench.produce(['{"in":[]}', `${'{"in":['.repeat(100_000)}${']}'.repeat(100_000)}`, '{"in":[]}'])

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 2, deadLettered: { invalid: 1 }, committed: [{ offset: 3 }] })
    expect(seen).toEqual([0, 2])
    expect((await bench.letters.list()).items).toMatchObject([{ attempts: 0, cause: { code: 'INVALID_RECORD' } }])
  })

  test('a schema never answers for runs into the time limit', async () => {
    const hanging = defineTopic(TOPIC, z.string().refine(forever))
    const bench = await openBench({
      app: { router: createRouter().on(hanging, () => undefined), attemptTimeoutMs: 1_000 },
    })
    await bench.produce(['"a"'])

    expect(await bench.drain()).toMatchObject({ deadLettered: { timeout: 1 } })
  })
})

test('a dead letter has a time that every store can keep, whatever the clock counts in', async () => {
  const bench = await openBench({ handler: () => reject('no') })
  await bench.produce(['a'])
  await bench.clock.advance(0.25)

  await bench.drain()

  const { items } = await bench.letters.list({ limit: 1 })
  expect(items.map(({ failedAtMs }) => Number.isInteger(failedAtMs))).toEqual([true])
})

describe('a retry', () => {
  test('waits longer each time, and its handler is told which attempt it is', async () => {
    const at: [attempt: number, ms: number][] = []
    const bench = await openBench({
      handler: (_record, { attempt }) => {
        at.push([attempt, bench.clock.now() - START_MS])
        if (attempt < 4) throw new Error('again')
      },
      app: { retry: { maxAttempts: 4, initialMs: 1_000, maxMs: 60_000, factor: 3 } },
    })
    await bench.produce(['a'])

    const report = await bench.drain()

    expect(at).toEqual([
      [1, 0],
      [2, 500],
      [3, 2_000],
      [4, 6_500],
    ])
    expect(report).toMatchObject({ handled: 1, retried: 3, deadLettered: {} })
  })

  test('is made where the policy itself fails', async () => {
    const events: LogEvent[] = []
    const bench = await openBench({
      handler: (_record, { attempt }) => {
        if (attempt < 2) throw new Error('again')
      },
      app: {
        retry: {
          when: () => {
            throw new TypeError('a bug of the policy')
          },
        },
      },
      consumer: { log: (event) => void events.push(event) },
    })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ handled: 1, retried: 1 })
    expect(events).toContainEqual(
      expect.objectContaining({ event: 'retry policy failed', cause: 'TypeError: a bug of the policy' }),
    )
  })

  test('waits as long as the other side asked for', async () => {
    const at: number[] = []
    const bench = await openBench({
      handler: () => {
        at.push(bench.clock.now() - START_MS)
        if (at.length === 1) throw new BrokerError('OVERLOADED', 'busy', { retryAfterMs: 3_000 })
      },
    })
    await bench.produce(['a'])

    await bench.drain()

    expect(at).toEqual([0, 3_000])
  })

  test('follows the policy of its route', async () => {
    const router = createRouter()
      .on({ topic: TOPIC }, () => Promise.reject(new Error('no')), { retry: { maxAttempts: 1 } })
      .on({ topic: TOPIC, key: 'k' }, () => Promise.reject(new Error('no')), {
        name: 'keyed',
        retry: { maxAttempts: 2 },
      })
    const bench = await openBench({ app: { router, retry: { maxAttempts: 9 } } })
    await bench.broker.produce([
      { topic: TOPIC, key: null, value: null },
      { topic: TOPIC, key: bytesOf('k'), value: null },
    ])

    await bench.drain()

    expect((await bench.letters.list()).items).toMatchObject([
      { attempts: 1, route: TOPIC },
      { attempts: 2, route: 'keyed' },
    ])
  })

  test('is not made for a record that is older than the policy allows', async () => {
    const bench = await openBench({
      handler: () => Promise.reject(new Error('no')),
      app: { retry: { maxAgeMs: 1_000 } },
    })
    await bench.broker.produce([
      { topic: TOPIC, key: null, value: null, timestampMs: START_MS - 2_000 },
      { topic: TOPIC, key: null, value: null, timestampMs: START_MS },
    ])

    expect(await bench.drain()).toMatchObject({ deadLettered: { 'too-old': 1, exhausted: 1 } })
  })

  test('that does not fit into the run is left to the next one', async () => {
    let calls = 0
    const bench = await openBench({
      handler: () => {
        calls += 1
        if (calls === 1) throw new Error('again')
      },
      app: { retry: { initialMs: 20_000, maxMs: 20_000 } },
    })
    await bench.produce(['a', 'b'])

    const first = await bench.run({ budget: { runMs: 8_000 } })
    const second = await bench.drain()

    expect(first).toMatchObject({ handled: 0, unfinished: 2, committed: [], deadLettered: {} })
    expect(second).toMatchObject({ handled: 2, committed: [{ offset: 2 }] })
  })

  test('that does not fit into the run keeps back what comes later, so that no commit passes the record', async () => {
    const handled: number[] = []
    const bench = await openBench({
      handler: ({ offset }) => {
        if (offset === 1) throw new Error('again')
        handled.push(offset)
      },
      app: { retry: { initialMs: 40_000, maxMs: 40_000 } },
    })
    await bench.produce(['a', 'b'])
    const running = bench.start({ budget: { runMs: 20_000 } })
    await bench.clock.advance(5_000)
    await bench.produce(['c', 'd'])
    await bench.clock.advance(20_000)

    expect(await running).toMatchObject({ handled: 1, unfinished: 3, committed: [{ offset: 1 }] })
    expect(handled).toEqual([0])
    expect(await bench.committed()).toEqual([1])
  })

  test('of one partition does not hold up another, nor pass over what waits behind it', async () => {
    const seen: string[] = []
    const bench = await openBench({
      partitions: 2,
      handler: (record, { attempt }) => {
        if (record.partition === 0 && record.offset === 0 && attempt < 3) throw new Error('again')
        seen.push(`${record.partition}:${record.offset}`)
      },
    })
    await bench.produce(['a', 'b'], 0)
    await bench.produce(['a', 'b'], 1)

    await bench.drain()

    expect(seen).toEqual(['1:0', '1:1', '0:0', '0:1'])
  })
})

describe('an attempt', () => {
  test('is given up after its time, its signal aborted, and a late result ignored', async () => {
    const attempts: { signal: AbortSignal; end: () => void }[] = []
    const bench = await openBench({
      handler: (_record, { signal }) => new Promise<void>((end) => attempts.push({ signal, end })),
      app: { attemptTimeoutMs: 1_000, retry: { maxAttempts: 2 } },
    })
    await bench.produce(['a'])
    const running = bench.start({ stopWhenEmpty: true })
    await until(() => attempts.length === 1)

    await bench.clock.advance(1_100)
    attempts[0]?.end()
    await until(() => attempts.length === 2)
    const second = attempts[1]
    const reasonOfFirst = attempts[0]?.signal.reason as unknown
    await bench.clock.advance(1_100)
    second?.end()
    const report = await running

    expect(reasonOfFirst).toMatchObject({ code: 'HANDLER_TIMEOUT' })
    expect(report).toMatchObject({ handled: 0, retried: 1, deadLettered: { timeout: 1 } })
  })

  test('that takes so long that no run has room for another is the last', async () => {
    const bench = await openBench({ handler: forever, app: { attemptTimeoutMs: 30_000 } })
    await bench.produce(['a', 'b'])

    const report = await bench.run({ budget: { runMs: 50_000 } })

    expect(report).toMatchObject({ deadLettered: { timeout: 1 }, unfinished: 1, committed: [{ offset: 1 }] })
    expect((await bench.letters.list()).items).toMatchObject([{ attempts: 1 }])
  })

  test('with a time limit beyond the run is still seen to time out', async () => {
    const bench = await openBench({ handler: forever, app: { attemptTimeoutMs: 600_000 } })
    await bench.produce(['a'])

    expect(await bench.run({ budget: { runMs: 20_000 } })).toMatchObject({ deadLettered: { timeout: 1 } })
    const [letter] = (await bench.letters.list()).items
    expect(letter?.cause.message).toContain('all that its run has room for: give runs more time')
  })

  test('that the end of the run cuts short counts for nothing', async () => {
    const signals: AbortSignal[] = []
    const bench = await openBench({
      handler: (_record, { signal }) => {
        signals.push(signal)
        return forever()
      },
    })
    const running = bench.start({ budget: { runMs: 40_000 } })
    await bench.clock.advance(30_000)
    await bench.produce(['a'])
    await bench.clock.advance(10_000)

    const report = await running

    expect(report).toMatchObject({ ended: 'deadline', handled: 0, unfinished: 1, deadLettered: {}, committed: [] })
    expect(report.durationMs).toBeLessThanOrEqual(40_000)
    expect(signals[0]?.aborted).toBe(true)
    expect(await bench.committed()).toEqual([-1])
  })
})

describe('a cause', () => {
  test('is cut to its limit, never inside a character, and holds no credentials', async () => {
    const router = createRouter().on({ topic: TOPIC }, () => {
      const error = new Error(`Bearer abcdef123456 at https://user:pass@host/ ${'🚢é'.repeat(5_000)}`)
      error.name = 'é'.repeat(200)
      throw Object.assign(error, { code: 'é'.repeat(200), stack: `${String(error.stack)}${'漢'.repeat(5_000)}` })
    })
    const bench = await openBench({ app: { router, retry: { maxAttempts: 1 } } })
    await bench.produce(['a'])

    await bench.drain()

    const cause = (await bench.letters.list()).items[0]?.cause
    const text = Object.values(cause ?? {}).join('')
    expect(bytesOf(text).length).toBeLessThanOrEqual(MAX_CAUSE_BYTES)
    expect(bytesOf(text).length).toBeGreaterThan(3_000)
    expect(text).not.toMatch(/abcdef123456|user:pass|\uFFFD/)
    expect(cause?.message).toMatch(/^Bearer \[secret\] at https:\/\/\[secret\]@host/)
  })

  test('can be told of errors that do not want to be read', async () => {
    const hostile = new Proxy(
      {},
      {
        get() {
          throw new Error('no')
        },
        has() {
          return false
        },
      },
    )
    const bench = await openBench({
      handler: () => {
        throw hostile
      },
      app: { retry: { maxAttempts: 1 } },
    })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 1 } })
  })
})

describe('a dead-letter store', () => {
  function failing(
    store: DeadLetterStore,
    fail: (letter: DeadLetter) => Error | undefined,
    lost = false,
  ): DeadLetterStore {
    return {
      ...store,
      async put(letter, call) {
        const error = fail(letter)
        if (error === undefined || lost) await store.put(letter, call)
        if (error !== undefined) throw error
      },
    }
  }

  test('that is down stops the partition, not the others, and nothing is lost', async () => {
    let isDown = true
    const bench = await openBench({
      partitions: 2,
      handler: (record) => {
        if (textOf(record.value) === 'poison') throw new Error('no')
      },
      wrapLetters: (store) =>
        failing(store, () => (isDown ? new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', '503') : undefined)),
    })
    await bench.produce(['a', 'poison', 'b'], 0)
    await bench.produce(['a', 'b', 'c'], 1)

    const down = await bench.drain()
    const committedDown = await bench.committed()
    isDown = false
    const up = await bench.drain()

    expect(down).toMatchObject({
      handled: 4,
      unfinished: 2,
      deadLettered: {},
      stopped: [{ partition: 0, offset: 1, cause: { code: 'DEAD_LETTER_STORE_UNAVAILABLE' } }],
    })
    expect(committedDown).toEqual([1, 3])
    expect(up).toMatchObject({ handled: 1, deadLettered: { exhausted: 1 }, stopped: [] })
    expect(await bench.committed()).toEqual([3, 3])
    expect((await bench.letters.list()).items).toHaveLength(1)
  })

  test('that is down for every partition ends the run', async () => {
    const bench = await openBench({
      handler: () => Promise.reject(new Error('no')),
      wrapLetters: (store) => failing(store, () => new DeadLetterStoreError('NETWORK', 'gone')),
    })
    await bench.produce(['a'])

    expect(await bench.run()).toMatchObject({ ended: 'stopped', unfinished: 1 })
  })

  test('that refuses a letter for good is not asked again', async () => {
    let puts = 0
    const bench = await openBench({
      handler: () => Promise.reject(new Error('no')),
      wrapLetters: (store) =>
        failing(store, () => {
          puts += 1
          return new DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', 'big')
        }),
    })
    await bench.produce(['a'])

    const report = await bench.drain()

    expect(puts).toBe(1)
    expect(report).toMatchObject({ stopped: [{ offset: 0, cause: { code: 'DEAD_LETTER_TOO_LARGE' } }] })
  })

  test('that lost its answer is asked again, and holds the letter once', async () => {
    let failures = 2
    const bench = await openBench({
      handler: () => Promise.reject(new Error('no')),
      wrapLetters: (store) =>
        failing(store, () => (failures-- > 0 ? new DeadLetterStoreError('TIMEOUT', 'slow') : undefined), true),
    })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 1 }, committed: [{ offset: 1 }] })
    expect((await bench.letters.list()).items).toHaveLength(1)
  })

  test('that hangs is given up with the run', async () => {
    const bench = await openBench({
      handler: () => Promise.reject(new Error('no')),
      wrapLetters: (store) => ({ ...store, put: forever }),
    })
    await bench.produce(['a'])

    const report = await bench.run({ budget: { runMs: 20_000 } })

    expect(report).toMatchObject({ ended: 'deadline', unfinished: 1, committed: [] })
    expect(report.durationMs).toBeLessThanOrEqual(20_000)
  })
})
