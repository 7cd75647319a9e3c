import { describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import type { Clock } from '../../src/clock.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { fallbackDeadLetters } from '../../src/dead-letters/fallback.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { BrokerError, ConfigError, DeadLetterStoreError, type KedgeError } from '../../src/errors.ts'
import { headersOf } from '../../src/headers.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { RedriveAudit } from '../../src/redrive/audit.ts'
import type { RedriveFilter } from '../../src/redrive.ts'
import { createRouter } from '../../src/router.ts'
import { START_MS } from '../support/clock.ts'
import { finish, TOPIC, withCalls } from '../support/consumer.ts'
import { openRedriveBench, REDRIVE_TOPIC, systems } from './bench.ts'

const actor = 'test'

describe.each(systems)('a redrive ($name)', (system) => {
  test('hands letters back to their group, oldest first, and deletes them', async () => {
    const bench = await openRedriveBench(system)
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()
    bench.isDown = false

    const report = await finish(bench.clock, bench.redrive().run({ actor }))
    await bench.drain()

    expect(report).toMatchObject({ ended: 'done', redriven: 3, quarantined: 0, unread: 0, refused: 0, groupId: 'g' })
    expect(bench.handled.map(({ record }) => [textOf(record.value), record.topic, record.offset])).toEqual([
      ['a', TOPIC, 0],
      ['b', TOPIC, 1],
      ['c', TOPIC, 2],
    ])
    expect(await bench.ids()).toEqual([])
  })

  test('loses no letter of a topic that was made anew, whose records lie where others lay', async () => {
    const bench = await openRedriveBench(system)
    await bench.produce(['before'])
    await bench.drain()
    bench.isDown = false
    const [before] = (await bench.letters.list()).items
    if (before === undefined) throw new Error('nothing failed')
    const record = { ...before.record, timestampMs: before.record.timestampMs + 1, value: bytesOf('after') }
    const after = { ...before, record, failedAtMs: before.failedAtMs + 1 }
    const isRefused = await bench.letters.put(after).then(
      () => false,
      ({ code }: KedgeError) => code === 'DEAD_LETTER_ID_TAKEN',
    )

    await finish(bench.clock, bench.redrive().run({ actor }))
    if (isRefused) await bench.letters.put(after)
    await finish(bench.clock, bench.redrive().run({ actor }))
    await bench.drain()

    expect(bench.handled.map(({ record: { value } }) => textOf(value))).toEqual(['before', 'after'])
    expect(await bench.ids()).toEqual([])
  })

  test('shows another group of the topic nothing new', async () => {
    const bench = await openRedriveBench(system)
    await bench.produce(['a', 'b'])
    await bench.drain()
    const seen: string[] = []
    const router = createRouter().on({ topic: TOPIC }, ({ value }) => void seen.push(textOf(value as Uint8Array)))
    const other = createConsumer(defineApp({ groupId: 'other', router, redrive: true }), {
      broker: bench.broker,
      deadLetters: memoryDeadLetters(),
      groupInstanceId: 'i',
      clock: bench.clock,
    })
    const drainOther = (runId: string): Promise<unknown> =>
      finish(bench.clock, other.run({ runId, stopWhenEmpty: true }))
    await drainOther('before')
    const before = [...seen]

    await finish(bench.clock, bench.redrive().run({ actor }))
    await drainOther('after')

    expect(before).toEqual(['a', 'b'])
    expect(seen).toEqual(before)
    expect(await bench.count(TOPIC)).toBe(2)
    expect(await bench.count(REDRIVE_TOPIC)).toBe(2)
  })

  test('is planned without anything being written', async () => {
    const bench = await openRedriveBench(system)
    await bench.produce(['a', 'bb'])
    await bench.drain()
    await bench.clock.advance(1_000)
    await bench.produce(['c'], 1)
    await bench.drain()
    const [topics, ids] = [await bench.broker.topics(), await bench.ids()]

    const plan = await bench.redrive().plan()

    const all = { letters: 3, example: 'the warehouse is down' }
    expect(plan).toMatchObject({ groupId: 'g', letters: 3, redrivable: 3, quarantined: 0, unread: 0, bytes: 4 })
    expect((plan.newestMs ?? 0) - (plan.oldestMs ?? 0)).toBeGreaterThanOrEqual(1_000)
    expect(plan.byTopic).toEqual({ buckets: [{ value: TOPIC, ...all }], others: 0 })
    expect(plan.byReason.buckets).toEqual([{ value: 'exhausted', ...all }])
    expect(plan.byRoute.buckets).toEqual([{ value: TOPIC, ...all }])
    expect(plan.byFingerprint.buckets).toEqual([{ value: expect.stringMatching(/^[0-9a-f]{16}$/) as string, ...all }])
    expect([await bench.broker.topics(), await bench.ids()]).toEqual([topics, ids])
    expect(await bench.count(REDRIVE_TOPIC)).toBe(0)
  })

  test.each<readonly [string, RedriveFilter, readonly number[]]>([
    ['key', { key: 'k1' }, [1]],
    ['header', { header: { key: 'h', value: '2' } }, [2]],
    ['reason', { reason: 'exhausted' }, [0, 1, 2]],
    ['another reason', { reason: 'timeout' }, []],
    ['another topic', { topic: 'none' }, []],
    ['another fingerprint', { fingerprint: '0'.repeat(16) }, []],
    ['all of them', { topic: TOPIC, reason: 'exhausted', fromMs: 0, untilMs: START_MS * 2 }, [0, 1, 2]],
    ['a time before', { untilMs: START_MS }, []],
  ])('takes letters by %s', async (_name, filter, offsets) => {
    const bench = await openRedriveBench(system)
    const records = [0, 1, 2].map((n) => ({
      topic: TOPIC,
      partition: 0,
      key: bytesOf(`k${n}`),
      value: bytesOf('v'),
      headers: headersOf({ h: String(n) }),
    }))
    await bench.broker.produce(records)
    await bench.drain()
    bench.isDown = false

    const plan = await bench.redrive().plan(filter)
    const report = await finish(bench.clock, bench.redrive().run({ actor, filter }))
    await bench.drain()

    expect(plan.letters).toBe(offsets.length)
    expect(report).toMatchObject({ ended: 'done', redriven: offsets.length })
    expect(bench.handled.map(({ record }) => record.offset).sort((a, b) => a - b)).toEqual(offsets)
    expect(await bench.ids()).toHaveLength(3 - offsets.length)
  })

  test('of a letter that fails again makes a letter of the same record, with all attempts and one redrive more', async () => {
    const bench = await openRedriveBench(system)
    await bench.produce(['a'], 1)
    await bench.drain()

    const ends: number[] = []
    for (let round = 0; round < 4; round++) {
      const { redriven, quarantined } = await finish(bench.clock, bench.redrive().run({ actor }))
      ends.push(redriven - quarantined)
      await bench.drain()
    }

    expect(ends).toEqual([1, 1, 1, -1])
    const { items } = await bench.letters.list()
    const record = { topic: TOPIC, partition: 1, offset: 0 }
    expect(items).toMatchObject([{ id: 'g/t/1/0/3', record, attempts: 4, redriveCount: 3, reason: 'exhausted' }])
    expect(await bench.redrive().plan()).toMatchObject({ letters: 1, redrivable: 0, quarantined: 1 })
    expect(await bench.redrive({ maxRedrives: 4 }).plan()).toMatchObject({ redrivable: 1, quarantined: 0 })
  })

  test('hands back a record that was read again and failed again, though its letter has the old name', async () => {
    const bench = await openRedriveBench(system)
    await bench.produce(['a'])
    await bench.drain()
    await finish(bench.clock, bench.redrive().run({ actor }))
    bench.isDown = false
    await bench.drain()
    const before = bench.handled.length
    await bench.broker.commit({ groupId: 'g', groupInstanceId: 'admin' }, [{ topic: TOPIC, partition: 0, offset: 0 }])
    bench.isDown = true
    await bench.clock.advance(60_000)
    await bench.drain()
    expect(await bench.ids()).toEqual(['g/t/0/0'])
    bench.isDown = false

    await finish(bench.clock, bench.redrive().run({ actor }))
    await bench.drain()

    expect(bench.handled.length - before).toBe(1)
    expect(await bench.ids()).toEqual([])
  })
})

describe('a redrive', () => {
  test('goes no faster than it may, within ten percent', async () => {
    const bench = await openRedriveBench()
    await bench.produce(Array.from({ length: 60 }, (_, n) => String(n)))
    await bench.drain()
    const times: number[] = []
    const startedAt = bench.clock.monotonic()
    // Some calls are slow, so that the redrive has something to make up for.
    const broker = withCalls(bench.broker, {
      async produce(...args) {
        times.push(bench.clock.monotonic() - startedAt)
        if (times.length % 7 === 0) await new Promise<void>((resolve) => void bench.clock.after(450, resolve))
        return await bench.broker.produce(...args)
      },
    })

    const report = await finish(bench.clock, bench.redrive({ broker }).run({ actor, perSecond: 10 }))

    const inSecondFrom = (from: number): number => times.filter((time) => time >= from && time < from + 1_000).length
    expect(report.redriven).toBe(60)
    expect(Math.max(...times.map(inSecondFrom))).toBeLessThanOrEqual(11)
    expect(times.at(-1)).toBeGreaterThanOrEqual(5_300)
  })

  test('reaches the rate it was given', async () => {
    const bench = await openRedriveBench()
    await bench.produce(Array.from({ length: 51 }, (_, n) => String(n)))
    await bench.drain()

    const { durationMs } = await finish(bench.clock, bench.redrive().run({ actor, perSecond: 10 }))

    expect(durationMs).toBeGreaterThanOrEqual(4_500)
    expect(durationMs).toBeLessThanOrEqual(5_500)
  })

  test('ends at the most it may hand back, and says that there are more', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()

    const counts: number[] = []
    const first = await finish(
      bench.clock,
      bench.redrive().run({ actor, maxLetters: 2, onProgress: ({ redriven }) => counts.push(redriven) }),
    )
    const second = await finish(bench.clock, bench.redrive().run({ actor, maxLetters: 1 }))

    expect(first).toMatchObject({ ended: 'max-letters', redriven: 2 })
    expect(counts).toEqual([1, 2])
    expect(second).toMatchObject({ ended: 'done', redriven: 1 })
  })

  test('hands a record back once, however often it fails again meanwhile', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()
    let isFirst = true
    const broker = withCalls(bench.broker, {
      async produce(...args) {
        const results = await bench.broker.produce(...args)
        // The group is as quick as can be: it has failed again before the redrive goes on.
        if (isFirst) await bench.drain()
        isFirst = false
        return results
      },
    })

    // So slow that each letter is read when it is its turn.
    const report = await finish(bench.clock, bench.redrive({ broker }).run({ actor, perSecond: 0.1 }))

    expect(report).toMatchObject({ ended: 'done', redriven: 3 })
    expect(await bench.ids()).toEqual(['g/t/0/0/1'])
  })

  test('that is aborted ends after the letter in hand', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()
    const controller = new AbortController()
    const running = bench.redrive().run({
      actor,
      perSecond: 1,
      signal: controller.signal,
      onProgress: () => controller.abort(new Error('enough')),
    })

    expect(await finish(bench.clock, running)).toMatchObject({ ended: 'aborted', redriven: 1 })
    expect(await bench.ids()).toHaveLength(2)
  })

  test('takes letters in the order of their failures from a store that lists them in another', async () => {
    const bench = await openRedriveBench()
    for (const value of ['a', 'b', 'c', 'd', 'e']) {
      await bench.produce([value])
      await bench.drain()
      await bench.clock.advance(1_000)
    }
    const { letters } = bench
    const backwards = new Proxy(letters, {
      get(target, name) {
        if (name === 'features') return { ...target.features, listOrder: 'none' }
        if (name !== 'list') return Reflect.get(target, name) as unknown
        return async (...args: Parameters<typeof letters.list>) => {
          const page = await letters.list(...args)
          return { ...page, items: page.items.toReversed() }
        }
      },
    })
    bench.isDown = false

    const report = await finish(bench.clock, bench.redrive({ store: backwards }).run({ actor, maxLetters: 2 }))
    await bench.drain()

    expect(report).toMatchObject({ ended: 'max-letters', redriven: 2 })
    expect(bench.handled.map(({ record }) => textOf(record.value))).toEqual(['a', 'b'])
  })

  test('is active once for each group; a second one is told when to come back', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()
    // Each letter takes longer than the lock lives without being renewed.
    const first = bench.redrive().run({ actor, perSecond: 0.01 })
    await bench.clock.advance(90_000)

    const second = await bench
      .redrive()
      .run({ actor })
      .catch((error: unknown) => error)

    expect(second).toBeInstanceOf(BrokerError)
    expect(second).toMatchObject({ code: 'CLAIM_HELD' })
    expect((second as BrokerError).message).toContain('another redrive of it is active')
    expect((second as BrokerError).retryAfterMs).toBeGreaterThan(0)
    expect((second as BrokerError).retryAfterMs).toBeLessThanOrEqual(60_000)
    expect(await finish(bench.clock, first)).toMatchObject({ ended: 'done', redriven: 3 })
    expect(await bench.redrive().run({ actor })).toMatchObject({ ended: 'done', redriven: 0 })
  })

  test('that was held up while another one took over hands nothing back any more', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b'])
    await bench.drain()
    let isHeldUp = true
    const store = new Proxy(bench.letters, {
      get(target, name) {
        if (name !== 'list') return Reflect.get(target, name) as unknown
        return async (...args: Parameters<typeof target.list>) => {
          const page = await target.list(...args)
          if (isHeldUp) await new Promise<void>((resolve) => void bench.clock.after(120_000, resolve))
          return page
        }
      },
    })
    // A process that stands still has no timers either.
    const clock: Clock = {
      now: () => bench.clock.now(),
      monotonic: () => bench.clock.monotonic(),
      after: () => () => undefined,
    }
    const first = bench.redrive({ store, clock }).run({ actor })
    await bench.clock.advance(61_000)
    isHeldUp = false
    const second = bench.redrive({ store }).run({ actor, perSecond: 0.02 })
    await bench.clock.advance(58_000)
    const written = await bench.count(REDRIVE_TOPIC)
    await bench.clock.advance(2_000)

    expect(written).toBe(2)
    expect(await first).toMatchObject({ ended: 'lock-lost', redriven: 0, cause: { code: 'CLAIM_LOST' } })
    expect(await finish(bench.clock, second)).toMatchObject({ ended: 'done', redriven: 2 })
    expect(await bench.count(REDRIVE_TOPIC)).toBe(2)
  })

  test('keeps its lock while a call to the store takes longer than the lock lasts', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b'])
    await bench.drain()
    const store = withList(
      bench.letters,
      () => new Promise<void>((resolve) => void bench.clock.after(200_000, resolve)),
    )
    const first = bench.redrive({ store }).run({ actor })
    await bench.clock.advance(150_000)

    const second = finish(bench.clock, bench.redrive().run({ actor }))

    await expect(second).rejects.toMatchObject({ code: 'CLAIM_HELD' })
    expect(await finish(bench.clock, first)).toMatchObject({ ended: 'done', redriven: 2 })
    expect(await bench.redrive().run({ actor })).toMatchObject({ ended: 'done' })
  })

  test('does not take its lock again when it has given it back, however late a renewal arrives', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a'])
    await bench.drain()
    const after = (ms: number): Promise<void> => new Promise((resolve) => void bench.clock.after(ms, resolve))
    const store = withList(bench.letters, () => after(25_000))
    let claims = 0
    const broker = withCalls(bench.broker, {
      claim: async (...args) => {
        claims += 1
        if (claims > 1) await after(10_000)
        await bench.broker.claim(...args)
      },
    })

    const first = await finish(bench.clock, bench.redrive({ broker, store }).run({ actor, filter: { topic: 'none' } }))
    await bench.clock.advance(10_000)

    expect(first).toMatchObject({ ended: 'done' })
    expect(claims).toBe(2)
    expect(await bench.redrive().run({ actor, filter: { topic: 'none' } })).toMatchObject({ ended: 'done' })
  })

  test('of a group that does not exist is refused by name', async () => {
    const bench = await openRedriveBench()

    const refusal = bench.redrive().run({ actor })

    await expect(refusal).rejects.toMatchObject({ code: 'GROUP_ID_NOT_FOUND' })
    await expect(refusal).rejects.toThrow('group g')
  })

  test('is refused for an app that does not read what comes back, and planned as unread', async () => {
    const bench = await openRedriveBench({ app: { redrive: false } })
    await bench.produce(['a'])
    await bench.drain()

    await expect(bench.redrive().run({ actor })).rejects.toThrow('redrive: true')
    expect(await bench.redrive().plan()).toMatchObject({ letters: 1, unread: 1, redrivable: 0 })
  })

  test('leaves letters of what somebody else put into a redrive topic where they are', async () => {
    const bench = await openRedriveBench()
    await bench.drain()
    await bench.broker.produce([{ topic: REDRIVE_TOPIC, key: null, value: bytesOf('stray') }])
    await bench.drain()

    for (const more of [{}, { app: undefined }] as const) {
      const { broker, letters: store, clock } = bench
      const redrive = bench.redrive({ broker, store, clock, ...(more as object) })
      expect(await finish(clock, redrive.run({ actor }))).toMatchObject({ ended: 'done', redriven: 0, unread: 1 })
    }
    expect(await bench.ids()).toHaveLength(1)
  })

  test('without its app takes letters whose redrive topic is there, and no others', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a'])
    await bench.drain()
    const without = bench.redrive({ ...({ app: undefined } as object) })

    const first = await finish(bench.clock, without.run({ actor }))
    await bench.broker.deleteTopic(REDRIVE_TOPIC)
    await bench.produce(['b'])
    const topicless = defineApp({
      groupId: 'g',
      router: createRouter().on({ topic: TOPIC }, () => Promise.reject(new Error('no'))),
    })
    const consumer = createConsumer(topicless, {
      broker: bench.broker,
      deadLetters: bench.letters,
      groupInstanceId: 'i',
      clock: bench.clock,
    })
    await finish(bench.clock, consumer.run({ runId: 'without', stopWhenEmpty: true }))
    const second = await finish(bench.clock, bench.redrive({ ...({ app: undefined } as object) }).run({ actor }))

    expect(first).toMatchObject({ redriven: 1 })
    expect(second).toMatchObject({ ended: 'done', redriven: 0, unread: 1 })
  })

  test('reaches a group that begins at the end of what it has never read', async () => {
    const handled: string[] = []
    let isDown = true
    const router = createRouter().on(
      { topic: TOPIC },
      ({ value }) => {
        if (isDown) throw new Error('no')
        handled.push(textOf(value))
      },
      { retry: { maxAttempts: 1 } },
    )
    const bench = await openRedriveBench({ app: { router, redrive: false, autoOffsetReset: 'latest' } })
    await bench.drain()
    await bench.produce(['a'])
    await bench.drain()
    isDown = false
    const app = defineApp({ groupId: 'g', router, redrive: true, autoOffsetReset: 'latest' })

    await finish(bench.clock, bench.redrive({ app }).run({ actor }))
    const { broker, letters: deadLetters, clock } = bench
    const consumer = createConsumer(app, { broker, deadLetters, groupInstanceId: 'i', clock })
    await finish(clock, consumer.run({ runId: 'later', stopWhenEmpty: true }))

    expect(handled).toEqual(['a'])
  })

  test('passes a letter that the broker will never take, and names the first', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'big', 'c'])
    await bench.drain()
    const broker = withCalls(bench.broker, {
      produce(records, ...more) {
        if (records.some(({ value }) => value !== null && textOf(value) === 'big')) {
          return Promise.reject(new BrokerError('MESSAGE_TOO_LARGE', 'too large'))
        }
        return bench.broker.produce(records, ...more)
      },
    })

    const report = await finish(bench.clock, bench.redrive({ broker }).run({ actor }))

    expect(report).toMatchObject({ ended: 'done', redriven: 2, refused: 1, cause: { code: 'MESSAGE_TOO_LARGE' } })
    expect(await bench.ids()).toEqual(['g/t/0/1'])
  })

  test.each(['put', 'none'] as const)(
    'is not filled up by letters that the broker refuses (order: %s)',
    async (listOrder) => {
      const bench = await openRedriveBench()
      await bench.produce(['big', 'big', 'big', 'd', 'e', 'f'])
      await bench.drain()
      const broker = withCalls(bench.broker, {
        produce(records, ...more) {
          if (records.some(({ value }) => value !== null && textOf(value) === 'big')) {
            return Promise.reject(new BrokerError('MESSAGE_TOO_LARGE', 'too large'))
          }
          return bench.broker.produce(records, ...more)
        },
      })
      const store = new Proxy(bench.letters, {
        get: (target, name) =>
          name === 'features' ? { ...target.features, listOrder } : (Reflect.get(target, name) as unknown),
      })
      const run = () => finish(bench.clock, bench.redrive({ broker, store }).run({ actor, maxLetters: 2 }))

      const reports = [await run(), await run()]

      expect(reports).toMatchObject([
        { ended: 'max-letters', redriven: 2, refused: 3 },
        { ended: 'done', redriven: 1, refused: 3 },
      ])
      expect(await bench.ids()).toEqual(['g/t/0/0', 'g/t/0/1', 'g/t/0/2'])
    },
  )

  test('tries again what may succeed, and writes no record twice by it', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b'])
    await bench.drain()
    let calls = 0
    const broker = withCalls(bench.broker, {
      async produce(...args) {
        const results = await bench.broker.produce(...args)
        calls += 1
        if (calls < 3) throw new BrokerError('TIMEOUT', 'the answer was lost')
        return results
      },
    })

    expect(await finish(bench.clock, bench.redrive({ broker }).run({ actor }))).toMatchObject({ redriven: 2 })
    expect(await bench.count(REDRIVE_TOPIC)).toBe(2)
  })

  test('ends at a letter that stays where it is, as in a chain of which one store does not delete', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b'])
    await bench.drain()
    const keeps = new Proxy(bench.letters, {
      get: (target, name) =>
        name === 'features' ? { ...target.features, delete: false } : (Reflect.get(target, name) as unknown),
    })
    const store = fallbackDeadLetters([keeps, memoryDeadLetters()], { clock: bench.clock })

    const report = await finish(bench.clock, bench.redrive({ store }).run({ actor }))

    expect(report).toMatchObject({ ended: 'failed', redriven: 0, cause: { code: 'UNSUPPORTED' } })
    expect(report.cause?.message).toContain('g/t/0/0')
    expect(await bench.count(REDRIVE_TOPIC)).toBe(1)
  })

  test('ends with the cause where a call fails for good, and gives its lock back', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a'])
    await bench.drain()
    const store = new Proxy(bench.letters, {
      get: (target, name) =>
        name === 'delete'
          ? () => Promise.reject(new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', 'down', { retriable: true }))
          : (Reflect.get(target, name) as unknown),
    })

    const report = await finish(bench.clock, bench.redrive({ store }).run({ actor }))

    expect(report).toMatchObject({ ended: 'failed', redriven: 0, cause: { code: 'DEAD_LETTER_STORE_UNAVAILABLE' } })
    expect(await finish(bench.clock, bench.redrive().run({ actor }))).toMatchObject({ ended: 'done', redriven: 1 })
    expect(await bench.count(REDRIVE_TOPIC)).toBe(1)
  })

  test.each([
    [{ actor: '' }, 'actor'],
    [{ actor: 'a\nb' }, 'actor'],
    [{ actor, maxLetters: 0 }, 'maxLetters'],
    [{ actor, perSecond: 0 }, 'perSecond'],
    [{ actor, perSecond: Number.NaN }, 'perSecond'],
    [{ actor, filter: { reason: 'bored' as never } }, 'filter.reason'],
    [{ actor, filter: { fromMs: Number.NaN } }, 'filter.fromMs'],
  ])('is refused with %j', async (options, name) => {
    const bench = await openRedriveBench()

    await expect(bench.redrive().run(options)).rejects.toThrow(name)
    await expect(bench.redrive().run(options)).rejects.toBeInstanceOf(ConfigError)
  })

  test('cannot be made of parts that lack what it takes', async () => {
    const bench = await openRedriveBench()
    const lacking = (features: object): never =>
      new Proxy(bench.letters, {
        get: (target, name) =>
          name === 'features' ? { ...target.features, ...features } : (Reflect.get(target, name) as unknown),
      }) as never

    expect(() => bench.redrive({ groupId: 'my group', ...({ app: undefined } as object) })).toThrow('no topic can be')
    expect(() => bench.redrive({ groupId: 'other' })).toThrow('the app is of the group g')
    expect(() => bench.redrive({ store: lacking({ list: false }) })).toThrow('cannot list')
    await expect(bench.redrive({ store: lacking({ delete: false }) }).run({ actor })).rejects.toThrow('cannot delete')
    expect(await bench.redrive({ store: lacking({ delete: false }) }).plan()).toMatchObject({ letters: 0 })
    expect(() => bench.redrive({ store: lacking({ listOrder: 'none', get: false }) })).toThrow('cannot get')
    expect(() => bench.redrive({ maxRedrives: 0 })).toThrow('maxRedrives')
    expect(() => bench.redrive({ claimTtlMs: 10 })).toThrow('claimTtlMs')
  })
})

describe('the audit', () => {
  test('says who did what, with which filter, when and with what result', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a', 'b'])
    await bench.drain()
    const records: RedriveAudit[] = []
    const lines: LogEvent[] = []
    const audit = (record: RedriveAudit): void => void records.push(record)
    const filter = { topic: TOPIC, untilMs: START_MS * 2 }

    const redrive = bench.redrive({ audit, log: (line) => lines.push(line) })
    const report = await finish(bench.clock, redrive.run({ actor: 'ann', filter, perSecond: 1 }))

    const { runId, startedAtMs } = report
    const base = { action: 'run', actor: 'ann', groupId: 'g', runId, startedAtMs, filter }
    expect(records).toEqual([
      { phase: 'started', ...base },
      {
        phase: 'ended',
        ...base,
        endedAtMs: startedAtMs + 1_000,
        result: 'done',
        counts: { redriven: 2, quarantined: 0, unread: 0, refused: 0 },
      },
    ])
    const marked = lines.filter(({ level }) => level === 'info')
    expect(marked.map(({ event, actor: by, result }) => [event, by, result])).toEqual([
      ['redrive started', 'ann', undefined],
      ['redrive ended', 'ann', 'done'],
    ])
  })

  test('has what was refused, and no key or header value in its log lines', async () => {
    const bench = await openRedriveBench()
    const records: RedriveAudit[] = []
    const lines: LogEvent[] = []
    const redrive = bench.redrive({ audit: (record) => void records.push(record), log: (line) => lines.push(line) })

    const filter = { key: 'secret-key', header: { key: 'h', value: 'secret-value' } }
    await redrive.run({ actor, filter }).catch(() => undefined)

    expect(records.at(-1)).toMatchObject({ result: 'refused', cause: { code: 'GROUP_ID_NOT_FOUND' }, filter })
    expect(JSON.stringify(lines)).not.toContain('secret-')
  })

  test('that cannot be written lets nothing begin', async () => {
    const bench = await openRedriveBench()
    await bench.produce(['a'])
    await bench.drain()
    const audit = (): Promise<void> => Promise.reject(new Error('the disk is full'))

    await expect(bench.redrive({ audit }).run({ actor })).rejects.toThrow('the disk is full')
    expect(await bench.count(REDRIVE_TOPIC)).toBe(0)
    expect(await bench.ids()).toHaveLength(1)
  })
})

/** A store whose lists wait for something first. */
function withList(store: DeadLetterStore, before: () => Promise<void>): DeadLetterStore {
  return {
    ...store,
    async list(...args) {
      await before()
      return await store.list(...args)
    },
  }
}
