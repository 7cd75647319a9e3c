import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { BrokerError } from '../../src/errors.ts'
import { gatewayApp } from '../../src/gateway/app.ts'
import { headersOf } from '../../src/headers.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { HandlerContext } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import { START_MS } from '../support/clock.ts'
import { openBench, TOPIC, withCalls } from '../support/consumer.ts'
import { until } from '../support/until.ts'

function numbered(count: number, prefix = 'v'): string[] {
  return Array.from({ length: count }, (_, n) => `${prefix}${n}`)
}

describe('a run', () => {
  test('handles every record of every partition in order, commits, and says so', async () => {
    const seen: string[][] = [[], [], []]
    const bench = await openBench({
      partitions: 3,
      handler: (record) => void seen[record.partition]?.push(textOf(record.value)),
    })
    for (const partition of [0, 1, 2]) await bench.produce(numbered(5, `${partition}-`), partition)

    const report = await bench.drain()

    expect(seen).toEqual([0, 1, 2].map((partition) => numbered(5, `${partition}-`)))
    expect(await bench.committed()).toEqual([5, 5, 5])
    expect(report).toMatchObject({
      runId: 'run-1',
      groupId: 'g',
      groupInstanceId: 'i',
      ended: 'drained',
      polled: 15,
      handled: 15,
      unfinished: 0,
      retried: 0,
      skipped: 0,
      deadLettered: {},
      stopped: [],
      uncommitted: [],
    })
    expect(report.committed).toEqual([0, 1, 2].map((partition) => ({ topic: TOPIC, partition, offset: 5 })))
  })

  test('goes on where the last one committed', async () => {
    const seen: string[] = []
    const bench = await openBench({ handler: (record) => void seen.push(textOf(record.value)) })
    await bench.produce(['a', 'b'])
    await bench.drain()
    await bench.produce(['c'])

    const report = await bench.drain()

    expect(seen).toEqual(['a', 'b', 'c'])
    expect(report).toMatchObject({ polled: 1, handled: 1, committed: [{ offset: 3 }] })
  })

  test('gives typed handlers the checked value, and raw ones the bytes', async () => {
    const orders = defineTopic(TOPIC, z.object({ id: z.string(), total: z.coerce.number() }))
    const seen: unknown[] = []
    const router = createRouter()
      .on(orders, (record) => void seen.push(record.value.total))
      .on({ topic: TOPIC, headers: { raw: '1' } }, (record) => void seen.push(textOf(record.value)))
    const bench = await openBench({ app: { router } })
    const value = bytesOf('{"id":"a","total":"7"}')
    await bench.broker.produce([
      { topic: TOPIC, key: null, value },
      { topic: TOPIC, key: null, value, headers: headersOf({ raw: '1' }) },
    ])

    await bench.drain()

    expect(seen).toEqual([7, '{"id":"a","total":"7"}'])
  })

  test('tells a handler where it stands', async () => {
    let seen: HandlerContext | undefined
    const lines: LogEvent[] = []
    const bench = await openBench({
      app: { attemptTimeoutMs: 4_000 },
      consumer: { log: (line) => lines.push(line) },
      handler: (_record, context) => {
        seen = context
        const { log } = context
        log('half way', { part: 0.5 })
      },
    })
    await bench.produce(['a'])

    await bench.drain()

    expect(seen).toMatchObject({ attempt: 1, groupId: 'g', route: TOPIC })
    expect(seen?.deadlineMs).toBeLessThanOrEqual(START_MS + 4_000)
    expect(seen?.signal.aborted).toBe(false)
    expect(lines).toContainEqual({
      level: 'info',
      event: 'log',
      message: 'half way',
      part: 0.5,
      topic: TOPIC,
      partition: 0,
      offset: 0,
      route: TOPIC,
    })
  })

  test('writes one line for each record and one for the run, none of them with a value', async () => {
    const lines: LogEvent[] = []
    const router = createRouter().on({ topic: TOPIC, key: 'k' }, () => undefined)
    const bench = await openBench({ app: { router }, consumer: { log: (line) => lines.push(line) } })
    await bench.broker.produce([
      { topic: TOPIC, key: bytesOf('k'), value: bytesOf('secret') },
      { topic: TOPIC, key: null, value: bytesOf('secret') },
    ])

    await bench.drain()

    expect(lines).toEqual([
      { level: 'info', event: 'handled', topic: TOPIC, partition: 0, offset: 0 },
      { level: 'warn', event: 'dead-lettered', topic: TOPIC, partition: 0, offset: 1, reason: 'unroutable' },
      expect.objectContaining({ event: 'run ended', handled: 1, deadLettered: 1 }),
    ])
    expect(JSON.stringify(lines)).not.toContain('secret')
  })

  test('survives a log that throws', async () => {
    const log = (): never => {
      throw new Error('disk full')
    }
    const bench = await openBench({ consumer: { log } })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ handled: 1 })
  })

  test('fetches the next poll while a batch is handled, one at a time', async () => {
    let polls = 0
    let out = 0
    let mostOut = 0
    const release: (() => void)[] = []
    const bench = await openBench({
      consumer: { maxPollRecords: 2 },
      handler: () => new Promise<void>((resolve) => release.push(resolve)),
      wrap: (broker) =>
        withCalls(broker, {
          poll: async (...args) => {
            polls += 1
            out += 1
            mostOut = Math.max(mostOut, out)
            return await broker.poll(...args).finally(() => (out -= 1))
          },
        }),
    })
    await bench.produce(numbered(10))

    const running = bench.start({ stopWhenEmpty: true })
    await until(() => polls === 2 && release.length === 1)
    await bench.clock.advance(0)
    const whileFirst = polls
    for (let n = 0; n < 10; n++) {
      await until(() => release.length === n + 1)
      release[n]?.()
    }
    const report = await running

    expect(whileFirst).toBe(2)
    expect(mostOut).toBe(1)
    expect(report).toMatchObject({ handled: 10, ended: 'drained' })
  })

  test('does not spend its calls on polls while a slow handler is at work', async () => {
    let polls = 0
    const bench = await openBench({
      handler: () => new Promise<void>((resolve) => void bench.clock.after(8_000, resolve)),
      wrap: (broker) =>
        withCalls(broker, {
          poll: (...args) => {
            polls += 1
            return broker.poll(...args)
          },
        }),
    })
    const running = bench.start({ budget: { runMs: 60_000 } })
    for (let n = 0; n < 40; n++) {
      await bench.produce([`v${n}`])
      await bench.clock.advance(1_000)
    }
    await bench.clock.advance(20_000)
    const report = await running

    expect(report.handled).toBe(7)
    expect(polls).toBeLessThan(12)
  })

  test('listens to other partitions while one of them is held up', async () => {
    const handled: string[] = []
    const bench = await openBench({
      partitions: 2,
      handler: ({ partition, offset }) => {
        if (partition === 0) return new Promise(() => undefined)
        handled.push(`${partition}:${offset}`)
        return undefined
      },
    })
    await bench.produce(numbered(5), 0)
    const running = bench.start({ budget: { runMs: 20_000 } })
    for (let n = 0; n < 5; n++) {
      await bench.clock.advance(1_000)
      await bench.produce(['a'], 1)
      await bench.clock.advance(10)
    }
    const inTime = handled.length
    await bench.clock.advance(20_000)
    await running

    expect(inTime).toBe(5)
  })

  test('handles so many partitions at once as it was told, and one record of each', async () => {
    const running = new Set<number>()
    let most = 0
    const bench = await openBench({
      partitions: 6,
      consumer: { concurrency: 3 },
      handler: async ({ partition }) => {
        expect(running.has(partition)).toBe(false)
        running.add(partition)
        most = Math.max(most, running.size)
        await Promise.resolve()
        running.delete(partition)
      },
    })
    for (let partition = 0; partition < 6; partition++) await bench.produce(numbered(4), partition)

    const report = await bench.drain()

    expect(most).toBe(3)
    expect(report.handled).toBe(24)
  })

  test('waits for records until its time is nearly spent', async () => {
    const bench = await openBench()
    const running = bench.start({ budget: { runMs: 60_000, marginMs: 2_000 } })
    await bench.clock.advance(30_000)
    await bench.produce(['late'])
    await bench.clock.advance(10)
    const inTime = await bench.committed()
    await bench.clock.advance(28_000)

    const report = await running

    expect(inTime).toEqual([1])
    expect(report).toMatchObject({ ended: 'deadline', handled: 1, durationMs: 58_000 })
  })

  test('arms no timer for handlers that answer at once', async () => {
    const bench = await openBench()
    let timers = 0
    const clock = {
      now: () => bench.clock.now(),
      monotonic: () => bench.clock.monotonic(),
      after: (delayMs: number, fire: () => void) => {
        timers += 1
        return bench.clock.after(delayMs, fire)
      },
    }
    await bench.produce(numbered(400))

    const report = await bench.drain({}, { clock })

    expect(report.handled).toBe(400)
    expect(timers).toBeLessThan(10)
  })

  test('leaves no timer behind', async () => {
    const bench = await openBench({ handler: async () => Promise.resolve() })
    await bench.produce(numbered(10))
    const before = bench.clock.pending

    await bench.drain()

    expect(bench.clock.pending).toBeLessThanOrEqual(before)
  })
})

describe('records without a route', () => {
  const router = (): ReturnType<typeof createRouter> => createRouter().on({ topic: TOPIC, key: 'k' }, () => undefined)

  test('become dead letters', async () => {
    const bench = await openBench({ app: { router: router() } })
    await bench.produce(['a', 'b'])

    expect(await bench.drain()).toMatchObject({ deadLettered: { unroutable: 2 }, committed: [{ offset: 2 }] })
    expect((await bench.letters.list()).items).toMatchObject([{ reason: 'unroutable', attempts: 0, route: null }, {}])
  })

  test('are skipped where that is the policy', async () => {
    const bench = await openBench({ app: { router: router().otherwise('skip') } })
    await bench.produce(['a', 'b'])

    expect(await bench.drain()).toMatchObject({ skipped: 2, deadLettered: {}, committed: [{ offset: 2 }] })
  })

  test('stop their partition where that is the policy', async () => {
    const bench = await openBench({ partitions: 2, app: { router: router().otherwise('stop') } })
    const key = bytesOf('k')
    await bench.broker.produce([
      { topic: TOPIC, partition: 0, key, value: null },
      { topic: TOPIC, partition: 0, key: null, value: null },
      { topic: TOPIC, partition: 0, key, value: null },
      { topic: TOPIC, partition: 1, key, value: null },
    ])

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 2, unfinished: 2, stopped: [{ topic: TOPIC, partition: 0, offset: 1 }] })
    expect(await bench.committed()).toEqual([1, 1])
  })

  test('go to a handler where there is one', async () => {
    const seen: string[] = []
    const otherwise = router().otherwise(
      (record, context) => void seen.push(`${context.route} ${textOf(record.value)}`),
    )
    const bench = await openBench({ app: { router: otherwise } })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ handled: 1 })
    expect(seen).toEqual(['otherwise a'])
  })
})

describe('a budget', () => {
  test('of records ends the run when so many were read', async () => {
    const bench = await openBench()
    await bench.produce(numbered(10))

    const report = await bench.drain({ budget: { maxRecords: 4 } })

    expect(report).toMatchObject({ ended: 'records', polled: 4, handled: 4, committed: [{ offset: 4 }] })
  })

  test('of calls is never exceeded, and a backlog is worked off over several runs', async () => {
    let calls = 0
    let most = 0
    const counting =
      <A extends unknown[], R>(call: (...args: A) => R) =>
      (...args: A): R => {
        calls += 1
        return call(...args)
      }
    const bench = await openBench({
      partitions: 2,
      consumer: { maxPollRecords: 10 },
      wrap: (broker) =>
        withCalls(broker, {
          poll: counting(broker.poll.bind(broker)),
          commit: counting(broker.commit.bind(broker)),
          claim: counting(broker.claim.bind(broker)),
          release: counting(broker.release.bind(broker)),
        }),
      wrapLetters: (store) => ({ ...store, put: counting(store.put.bind(store)) }),
      handler: ({ offset }) => {
        if (offset % 50 === 7) throw new Error('poison')
      },
      app: { retry: { maxAttempts: 1 } },
    })
    for (const partition of [0, 1]) await bench.produce(numbered(100), partition)

    let handled = 0
    let dead = 0
    for (let run = 0; run < 40 && handled + dead < 200; run++) {
      calls = 0
      const report = await bench.drain({ budget: { maxCalls: 8 } })
      handled += report.handled
      dead += report.deadLettered.exhausted ?? 0
      most = Math.max(most, calls)
      expect(report.calls).toBe(calls)
      expect(report.uncommitted).toEqual([])
    }

    expect(most).toBeLessThanOrEqual(8)
    expect([handled, dead]).toEqual([196, 4])
    expect(await bench.committed()).toEqual([100, 100])
  })

  test('of calls is not spent on reading while a record hangs that will need some: its dead letter gets its call', async () => {
    const bench = await openBench({
      app: {
        router: createRouter().on(
          { topic: TOPIC },
          ({ offset }) => (offset === 0 ? new Promise(() => {}) : undefined),
          {
            ordering: 'none',
          },
        ),
        attemptTimeoutMs: 600,
        retry: { maxAttempts: 1 },
      },
      consumer: { maxPollRecords: 3 },
    })
    await bench.produce(numbered(60))

    const report = await bench.drain({ budget: { maxCalls: 12, runMs: 3_000 } })

    expect(report).toMatchObject({ ended: 'calls', deadLettered: { timeout: 1 }, unfinished: 0, uncommitted: [] })
    expect(report.calls).toBeLessThanOrEqual(12)
  })

  test('of calls leaves those that a letter needs whose topic is made first', async () => {
    const bench = await openBench({
      openBroker: (clock) => {
        // At once: time must not pass while a platform's digest is made.
        const sha256 = (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest()
        const gateway = gatewayApp(memoryBroker({ clock }), { sha256 })
        const fetch = async (url: string, init: RequestInit): Promise<Response> => await gateway.request(url, init)
        return restBroker({ url: 'http://gateway.test', fetch, clock })
      },
      openLetters: (broker) => topicDeadLetters({ broker }),
      app: {
        router: createRouter().on(
          { topic: TOPIC },
          ({ offset }) => (offset === 0 ? new Promise(() => {}) : undefined),
          { ordering: 'none' },
        ),
        attemptTimeoutMs: 600,
        retry: { maxAttempts: 1 },
      },
      consumer: { maxPollRecords: 3 },
    })
    await bench.produce(numbered(60))

    const report = await bench.drain({ budget: { maxCalls: 16, runMs: 3_000 } })

    expect(report).toMatchObject({ ended: 'calls', deadLettered: { timeout: 1 }, unfinished: 0, uncommitted: [] })
    expect(report.calls).toBeLessThanOrEqual(16)
  })

  test('of calls that leaves none to spare still commits before the session of its instance is over', async () => {
    const bench = await openBench({
      consumer: { concurrency: 1, claimTtlMs: 6_000, sessionTimeoutMs: 2_000, commitIntervalMs: 500 },
      handler: () => new Promise<void>((resolve) => void bench.clock.after(400, resolve)),
    })
    await bench.produce(numbered(50))

    const report = await bench.drain({ budget: { maxCalls: 9, runMs: 6_000 } })

    expect(report.handled).toBeGreaterThan(5)
    expect(await bench.committed()).toEqual([report.handled])
  })

  test('of calls that leaves none to renew the claim ends the run while it has it, and commits', async () => {
    const bench = await openBench({
      consumer: { claimTtlMs: 1_000 },
      handler: () => new Promise<void>((resolve) => void bench.clock.after(300, resolve)),
    })
    await bench.produce(numbered(40))

    const report = await bench.drain({ budget: { maxCalls: 6, runMs: 20_000 } })

    expect(report.uncommitted).toEqual([])
    expect(report.handled).toBeGreaterThan(2)
    expect(report.unfinished).toBe(40 - report.handled)
    expect(await bench.committed()).toEqual([report.handled])
  })

  test('with time for one hanging record gets past one, though several partitions begin with one', async () => {
    const bench = await openBench({
      partitions: 2,
      app: { attemptTimeoutMs: 1_000, retry: { maxAttempts: 3, initialMs: 100, maxMs: 100 } },
      consumer: { concurrency: 1 },
      handler: () => new Promise<void>(() => undefined),
    })
    await bench.produce(['a'], 0)
    await bench.produce(['b'], 1)

    const first = await bench.drain({ budget: { runMs: 6_200, marginMs: 2_200 } })
    const second = await bench.drain({ budget: { runMs: 6_200, marginMs: 2_200 } })

    expect(first.deadLettered).toEqual({ timeout: 1 })
    expect(second.deadLettered).toEqual({ timeout: 1 })
  })

  test('that has passed already begins nothing', async () => {
    const bench = await openBench()
    await bench.produce(['a'])

    const report = await bench.drain({ deadlineMs: START_MS - 1 })

    expect(report).toMatchObject({ ended: 'deadline', polled: 0, handled: 0 })
  })

  test('without an end goes on until the run is aborted', async () => {
    const abort = new AbortController()
    const bench = await openBench()
    const running = bench.start({ budget: { runMs: Number.POSITIVE_INFINITY }, signal: abort.signal })
    await bench.clock.advance(3_600_000)
    await bench.produce(['late'])
    await bench.clock.advance(10)

    abort.abort()

    expect(await running).toMatchObject({ ended: 'aborted', handled: 1 })
  })

  test.each([
    { runMs: -1 },
    { runMs: Number.NaN },
    { marginMs: -1 },
    { maxRecords: 0 },
    { maxCalls: 3 },
    { maxCalls: 4.5 },
    { untilMs: Number.NaN },
  ])('of %o is refused', async (budget) => {
    const bench = await openBench()

    await expect(bench.start({ budget })).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
  })
})

describe('options', () => {
  test.each([
    [{}, 120_000],
    [{ sessionTimeoutMs: 1_200_000 }, 1_200_000],
  ])('of %o make the instance a member for %i ms between two runs', async (consumer, expected) => {
    const seen: (number | undefined)[] = []
    const bench = await openBench({
      consumer,
      wrap: (broker) =>
        withCalls(broker, {
          poll: (...args) => {
            seen.push(args[0].sessionTimeoutMs)
            return broker.poll(...args)
          },
        }),
    })

    await bench.drain()

    expect(new Set(seen)).toEqual(new Set([expected]))
  })

  test.each([
    { concurrency: 0 },
    { maxPollRecords: 1.5 },
    { maxPollBytes: 0 },
    { maxPollWaitMs: -1 },
    { claimTtlMs: 999 },
    { sessionTimeoutMs: 999 },
    { sessionTimeoutMs: 1_800_001 },
    { groupInstanceId: '' },
    { groupInstanceId: '..' },
    { groupInstanceId: 'i'.repeat(250) },
    { commitIntervalMs: Number.NaN },
  ])('of %o are refused', async (consumer) => {
    const bench = await openBench({ consumer })

    expect(() => bench.start()).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test.each(['', 'a b', 'é', 'x'.repeat(129), 'a\n'])('refuse the run id %j', async (runId) => {
    const bench = await openBench()

    await expect(bench.start({ runId })).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
  })

  test('refuse a broker without claims', async () => {
    const bench = await openBench({
      wrap: (broker) => withCalls(broker, { features: { ...broker.features, claims: false } }),
    })

    expect(() => bench.start()).toThrow('no claims')
  })
})

describe('an aborted run', () => {
  test('takes no more, lets what runs end, commits and returns', async () => {
    const abort = new AbortController()
    let end: (() => void) | undefined
    const bench = await openBench({ handler: () => new Promise<void>((resolve) => (end = resolve)) })
    await bench.produce(['a', 'b'])
    const running = bench.start({ signal: abort.signal })
    await until(() => end !== undefined)

    abort.abort()
    await bench.clock.advance(100)
    end?.()
    const report = await running

    expect(report).toMatchObject({ ended: 'aborted', handled: 1, unfinished: 1, committed: [{ offset: 1 }] })
    expect(await bench.committed()).toEqual([1])
  })

  test('gives handlers half of the margin', async () => {
    const abort = new AbortController()
    const bench = await openBench({ handler: () => new Promise(() => undefined) })
    await bench.produce(['a'])
    const running = bench.start({ signal: abort.signal, budget: { runMs: 60_000, marginMs: 2_000 } })
    await bench.clock.advance(10)

    abort.abort()
    await bench.clock.advance(1_000)

    expect(await running).toMatchObject({ ended: 'aborted', unfinished: 1, durationMs: 1_010 })
  })

  test('that was aborted before it began does nothing', async () => {
    const bench = await openBench()
    await bench.produce(['a'])

    expect(await bench.drain({ signal: AbortSignal.abort() })).toMatchObject({ ended: 'aborted', polled: 0 })
  })
})

describe('a failing broker', () => {
  test('is asked again until it answers', async () => {
    let failures = 3
    const bench = await openBench({
      wrap: (broker) =>
        withCalls(broker, {
          poll: async (...args) => {
            if (failures-- > 0) throw new BrokerError('NETWORK', 'gone')
            return await broker.poll(...args)
          },
        }),
    })
    await bench.produce(['a'])

    const report = await bench.drain()

    expect(report).toMatchObject({ ended: 'drained', handled: 1 })
    expect(report.cause).toBeUndefined()
  })

  test('that fails to the end is named in the report', async () => {
    const bench = await openBench({
      wrap: (broker) => withCalls(broker, { poll: () => Promise.reject(new BrokerError('OVERLOADED', 'busy')) }),
    })

    expect(await bench.run({ budget: { runMs: 10_000 } })).toMatchObject({
      ended: 'deadline',
      cause: { code: 'OVERLOADED' },
    })
  })

  test('that refuses for good ends the run', async () => {
    const bench = await openBench()
    await bench.broker.close()

    expect(await bench.drain()).toMatchObject({ ended: 'broker-error', cause: { code: 'CLOSED' }, polled: 0 })
  })

  test('that throws something else ends the run too', async () => {
    const bench = await openBench({
      wrap: (broker) => withCalls(broker, { poll: () => Promise.reject(new TypeError('bug')) }),
    })

    expect(await bench.drain()).toMatchObject({ ended: 'broker-error', cause: { name: 'TypeError', message: 'bug' } })
  })

  test('that does not know a topic is named in the report, and the next run finds the topic', async () => {
    const router = createRouter().on({ topic: 'later' }, () => undefined)
    const bench = await openBench({ app: { router } })

    const before = await bench.drain()
    await bench.broker.createTopic({ topic: 'later' })
    await bench.broker.produce([{ topic: 'later', key: null, value: null }])
    const after = await bench.drain()

    expect(before).toMatchObject({ ended: 'broker-error', cause: { code: 'UNKNOWN_TOPIC_OR_PARTITION' } })
    expect(after).toMatchObject({ handled: 1, committed: [{ topic: 'later', offset: 1 }] })
  })

  test('that fails a commit is asked again', async () => {
    let failures = 2
    const bench = await openBench({
      wrap: (broker) =>
        withCalls(broker, {
          commit: async (...args) => {
            if (failures-- > 0) throw new BrokerError('TIMEOUT', 'slow')
            await broker.commit(...args)
          },
        }),
    })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ handled: 1, committed: [{ offset: 1 }], uncommitted: [] })
  })

  test('that takes no commit to the end makes the report say so', async () => {
    const bench = await openBench({
      wrap: (broker) => withCalls(broker, { commit: () => Promise.reject(new BrokerError('NETWORK', 'gone')) }),
    })
    await bench.produce(['a'])

    const report = await bench.drain({ budget: { runMs: 5_000 } })

    expect(report).toMatchObject({
      handled: 1,
      committed: [],
      uncommitted: [{ offset: 1 }],
      cause: { code: 'NETWORK' },
    })
  })

  test('that lost a topic while its records were handled does not hold up the others', async () => {
    const router = createRouter()
      .on({ topic: TOPIC }, () => undefined)
      .on({ topic: 'gone' }, async () => {
        await bench.broker.deleteTopic('gone')
      })
    const bench = await openBench({ app: { router } })
    await bench.broker.createTopic({ topic: 'gone' })
    await bench.broker.produce([{ topic: 'gone', key: null, value: null }])
    await bench.produce(['a'])

    const report = await bench.run({ budget: { runMs: 20_000 } })

    expect(report.committed).toEqual([{ topic: TOPIC, partition: 0, offset: 1 }])
    expect(report.stopped).toMatchObject([{ topic: 'gone', cause: { code: 'UNKNOWN_TOPIC_OR_PARTITION' } }])
    expect(await bench.committed()).toEqual([1])
  })
})
