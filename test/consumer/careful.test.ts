/**
 * Records that end their process. A process here is a clock and a way to the broker; when it dies, none of its timers fires and
 * nothing that it waits for comes.
 */
import { describe, expect, test } from 'vitest'
import type { AppOptions } from '../../src/app.ts'
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import type { ConsumerOptions, RunOptions } from '../../src/consumer.ts'
import { decodeProgress } from '../../src/consumer/progress.ts'
import type { SuspectRecord } from '../../src/consumer/progress.ts'
import { BrokerError, ConfigError, DeadLetterStoreError } from '../../src/errors.ts'
import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { returning } from '../../src/return-topic.ts'
import { createRouter } from '../../src/router.ts'
import type { RouteOptions } from '../../src/router.ts'
import { SimulatedProcess, WorldClock } from '../../prove/run-sim/process.ts'
import { finish, openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench, BenchOptions } from '../support/consumer.ts'

const TTL_MS = 10_000

/** What a handler does with a record: comes back, or takes its process with it. */
type Handle = (value: string, process: SimulatedProcess) => unknown

interface World extends Bench {
  /** What handlers were called with, for each start. */
  readonly called: string[][]
  readonly logged: LogEvent[]
  /** One process: a run until nothing is left, or until it dies; then time passes until its claim has lapsed. */
  live(run?: Partial<RunOptions>, consumer?: Partial<ConsumerOptions>): ReturnType<Bench['drain']>
  die(run?: Partial<RunOptions>, consumer?: Partial<ConsumerOptions>): Promise<void>
  /** Whom the commits name or suspect. */
  suspects(): Promise<SuspectRecord[]>
}

/** Takes the process with it, and never comes back. */
function kill(process: SimulatedProcess): Promise<never> {
  process.kill()
  return new Promise(() => {})
}

/** A world whose route kills its process at the value `bad`, unless its test says otherwise. */
async function openWorld(
  route: RouteOptions = {},
  handle: Handle = (value, process) => (value === 'bad' ? kill(process) : undefined),
  { app, ...more }: BenchOptions = {},
): Promise<World> {
  const called: string[][] = []
  const logged: LogEvent[] = []
  let process: SimulatedProcess
  const call = (value: string): unknown => {
    called.at(-1)?.push(value)
    return handle(value, process)
  }
  const router = createRouter().on({ topic: TOPIC }, ({ value }: ConsumerRecord) => call(textOf(value)), {
    name: 'route',
    ...route,
  })
  const bench = await openBench({ partitions: 2, app: { router, ...app }, ...more })
  const clock = new WorldClock(bench.clock)
  const log = (event: LogEvent): void => void logged.push(event)
  const broker = more.wrap?.(bench.broker) ?? bench.broker
  const begin = (run: Partial<RunOptions>, consumer: Partial<ConsumerOptions>): ReturnType<Bench['drain']> => {
    const mine = (process = new SimulatedProcess(clock, Number.POSITIVE_INFINITY))
    called.push([])
    return bench.start(
      { stopWhenEmpty: true, ...run },
      { claimTtlMs: TTL_MS, clock: mine, broker: reached(broker, mine), log, ...consumer },
    )
  }
  return Object.assign(bench, {
    called,
    logged,
    live: async (run = {}, consumer = {}) => await finish(bench.clock, begin(run, consumer)),
    async die(run: Partial<RunOptions> = {}, consumer: Partial<ConsumerOptions> = {}) {
      void begin(run, consumer)
      for (let step = 0; !process.isDead && step < 1_000; step++) await bench.clock.advance(step < 20 ? 0 : 100)
      expect(process.isDead).toBe(true)
      await bench.clock.advance(TTL_MS)
    },
    async suspects() {
      const all = await bench.broker.committed('g')
      return all.flatMap(({ offset, metadata }) => decodeProgress(offset, metadata)?.suspects ?? [])
    },
  })
}

/** The broker as a process reaches it: nothing comes back to a dead one, and nothing goes out of it. */
function reached(broker: Broker, process: SimulatedProcess): Broker {
  const through = async <T>(make: () => Promise<T>): Promise<T> => {
    if (process.isDead) return await new Promise<T>(() => {})
    const result = await make()
    return process.isDead ? await new Promise<T>(() => {}) : result
  }
  return withCalls(broker, {
    poll: (request, call) => through(() => broker.poll(request, call)),
    claim: (group, run, call) => through(() => broker.claim(group, run, call)),
    release: (group, runId, call) => through(() => broker.release(group, runId, call)),
    commit: (group, offsets, options, call) => through(() => broker.commit(group, offsets, options, call)),
    committed: (groupId, places, call) => through(() => broker.committed(groupId, places, call)),
    produce: (records, options, call) => through(() => broker.produce(records, options, call)),
  })
}

const lettersOf = async (bench: Bench) => (await bench.letters.list({})).items

describe('a record that ends its process', () => {
  const routes: readonly RouteOptions[] = [
    {},
    { ordering: 'key', concurrency: 4 },
    { ordering: 'none', concurrency: 4, retry: { maxMs: 60_000 } },
  ]
  test.each(routes)('is a dead letter at the third start, and nothing else is: %j', async (route) => {
    const world = await openWorld(route)
    await world.produce(['a', 'bad', 'b'], 0)
    await world.produce(['c', 'd'], 1)

    await world.die()
    await world.die()
    const report = await world.live()

    expect(report).toMatchObject({ ended: 'drained', deadLettered: { crashed: 1 }, unfinished: 0, stopped: [] })
    expect(world.called.flat().filter((value) => value === 'bad')).toHaveLength(2)
    expect(new Set(world.called.flat())).toEqual(new Set(['a', 'b', 'c', 'd', 'bad']))
    const [letter, ...others] = await lettersOf(world)
    expect(others).toEqual([])
    expect(letter).toMatchObject({
      reason: 'crashed',
      attempts: 2,
      route: 'route',
      record: { topic: TOPIC, partition: 0, offset: 1, value: bytesOf('bad') },
      cause: { name: 'HandlerError', code: 'HANDLER_FAILED' },
    })
    expect(letter?.cause.message).toContain('its process died 2 times')
    expect(await world.committed()).toEqual([3, 2])
  })

  test('costs a run after one that ended in order nothing: not a call more, and no metadata', async () => {
    const world = await openWorld()
    const calls: number[] = []
    for (let start = 0; start < 2; start++) {
      await world.produce(['a', 'b', 'c'])
      calls.push((await world.live()).calls)
    }

    expect(calls).toEqual([4, 4])
    const [committed] = await world.broker.committed('g')
    expect(committed?.metadata).toBeNull()
    expect(world.logged.filter(({ event }) => event === 'careful')).toEqual([])
  })

  test('is named durably before its handler is called, with the offset where it was, and not after', async () => {
    const seen: [string, SuspectRecord[], number[]][] = []
    const world: World = await openWorld({}, async (value, process) => {
      seen.push([value, await world.suspects(), await world.committed()])
      if (seen.length === 1) await kill(process)
    })
    await world.produce(['a', 'b', 'c'])

    await world.die()
    const report = await world.live()

    const called = (offset: number): SuspectRecord[] => [{ offset, strikes: 1, isCalled: true }]
    expect(seen).toEqual([
      ['a', [], [-1, -1]],
      ['a', called(0), [0, -1]],
      ['b', called(1), [1, -1]],
      ['c', called(2), [2, -1]],
    ])
    expect(await world.suspects()).toEqual([])
    expect(report).toMatchObject({ ended: 'drained', handled: 3 })
    expect(world.logged.filter(({ event }) => event === 'careful')).toHaveLength(1)
  })

  test('is looked for one record at a time over the whole run, whatever may go on at once', async () => {
    let running = 0
    let most = 0
    const world = await openWorld({ ordering: 'none', concurrency: 8 }, async (value, process) => {
      if (value === 'bad' && world.called.length === 1) return await kill(process)
      running += 1
      most = Math.max(most, running)
      await new Promise<void>((resolve) => void process.after(10, resolve))
      running -= 1
      return undefined
    })
    await world.produce(['bad', 'a', 'b'], 0)
    await world.produce(['c', 'd', 'e'], 1)
    await world.die()
    ;[running, most] = [0, 0]

    const careful = await world.live()
    const mostWhenCareful = most
    await world.produce(['f', 'g', 'h', 'i'])
    most = 0
    await world.live()

    expect(careful.handled).toBeGreaterThan(0)
    expect([mostWhenCareful, most]).toEqual([1, 3])
  })

  test('is acquitted when it was called and its process lived: all its strikes are gone', async () => {
    const outcomes = ['dies', 'dies', 'throws', 'dies', 'dies', 'dies'] as const
    let calls = 0
    const dayMs = 86_400_000
    const world = await openWorld(
      { retry: { maxAttempts: 9, initialMs: dayMs, maxMs: dayMs } },
      (_, process) => {
        if (outcomes[calls++] !== 'throws') return kill(process)
        throw new Error('no')
      },
      { app: { maxCrashes: 3 } },
    )
    await world.produce(['bad'])
    await world.die()
    await world.die()
    await world.live()
    await world.clock.advance(dayMs)

    for (let death = 0; death < 3; death++) await world.die()
    await world.live()

    expect(calls).toBe(outcomes.length)
    expect(await lettersOf(world)).toMatchObject([{ reason: 'crashed', attempts: 4 }])
  })

  test('takes no blame for a death that another one was named for', async () => {
    const world = await openWorld({}, (value, process) => (value.startsWith('bad') ? kill(process) : undefined))
    await world.produce(['bad'], 0)
    await world.die()
    await world.die()
    await world.produce(['bad too'], 1)

    const blamed = async (): Promise<unknown> => (await lettersOf(world)).map(({ record }) => textOf(record.value))
    for (let death = 0; death < 2; death++) {
      expect(await blamed()).not.toContain('bad too')
      await world.die()
    }
    await world.live()

    expect(world.called.flat().toSorted()).toEqual(['bad', 'bad', 'bad too', 'bad too'])
    expect((await lettersOf(world)).map(({ attempts }) => attempts)).toEqual([2, 2])
  })

  test('is set aside after as many deaths as the app says', async () => {
    const world = await openWorld({}, undefined, { app: { maxCrashes: 4 } })
    await world.produce(['bad', 'a'])

    for (let death = 0; death < 4; death++) await world.die()
    const report = await world.live()

    expect(report).toMatchObject({ handled: 1, deadLettered: { crashed: 1 } })
    expect(await lettersOf(world)).toMatchObject([{ attempts: 4 }])
  })

  test.each([1, 0, 101, 2.5, Number.NaN])('cannot be looked for with maxCrashes %d', (maxCrashes) => {
    const options: AppOptions = {
      groupId: 'g',
      router: createRouter().on({ topic: TOPIC }, () => undefined),
      maxCrashes,
    }
    expect(() => defineApp(options)).toThrow(ConfigError)
    expect(() => defineApp(options)).toThrow('give an integer from 2 to 100')
  })

  test('stops its partition while its letter cannot be stored, and is remembered until it can', async () => {
    let isDown = true
    const world = await openWorld({}, undefined, {
      wrapLetters: (store) => ({
        ...store,
        put: async (letter, call) => {
          if (isDown) throw new DeadLetterStoreError('UNSUPPORTED', 'The store takes none.')
          await store.put(letter, call)
        },
      }),
    })
    await world.produce(['bad', 'a'], 0)
    await world.produce(['b'], 1)
    await world.die()
    await world.die()

    const stopped = await world.live()
    const tooSoon = await world.live()
    await world.clock.advance(TTL_MS)
    isDown = false
    const report = await world.live()

    expect(stopped.stopped).toMatchObject([{ partition: 0, offset: 0 }])
    expect(tooSoon.ended).toBe('claim-held')
    expect(report).toMatchObject({ handled: 1, deadLettered: { crashed: 1 } })
    expect(world.called.flat().filter((value) => value === 'bad')).toHaveLength(2)
    expect(await world.committed()).toEqual([2, 1])
  })

  test('is called alone on a batch route, and others are not blamed with it', async () => {
    const batches: string[][] = []
    let process: SimulatedProcess | undefined
    const router = createRouter().onBatch({ topic: TOPIC }, (batch: readonly ConsumerRecord[]) => {
      const values = batch.map(({ value }) => textOf(value))
      batches.push(values)
      return values.includes('bad') && process !== undefined ? kill(process) : undefined
    })
    const world = await openWorld({}, undefined, { app: { router, breaker: null } })
    await world.produce(['a', 'b', 'bad', 'c', 'd'])
    const start = (isLast: boolean): Promise<unknown> => {
      process = new SimulatedProcess(new WorldClock(world.clock), Number.POSITIVE_INFINITY)
      const settings = { clock: process, broker: reached(world.broker, process) }
      return isLast ? world.live({}, settings) : dieAs(world, process, settings)
    }

    await start(false)
    await start(false)
    await start(true)

    expect(batches).toEqual([['a', 'b', 'bad', 'c', 'd'], ['a'], ['b'], ['bad'], ['c'], ['d']])
    expect(await lettersOf(world)).toMatchObject([{ reason: 'crashed', record: { offset: 2 } }])
  })

  test('is found in a retry topic, and its letter has where it was read first', async () => {
    const world = await openWorld(
      { ordering: 'none', retry: { maxAttempts: 1, topicDelaysMs: [3_600_000] } },
      (value, process) => {
        if (value !== 'bad') return undefined
        if (world.called.length === 1) throw new Error('later')
        return kill(process)
      },
    )
    await world.produce(['a', 'bad'], 1)
    await world.live()
    await world.clock.advance(3_600_000)

    await world.die()
    await world.die()
    await world.live()

    expect(await lettersOf(world)).toMatchObject([
      { reason: 'crashed', attempts: 3, record: { topic: TOPIC, partition: 1, offset: 1, value: bytesOf('bad') } },
    ])
  })

  test('is found in a redrive topic, and its letter is that of the redrive', async () => {
    const world = await openWorld({}, undefined, { app: { redrive: true } })
    const record = {
      topic: TOPIC,
      partition: 1,
      offset: 7,
      timestampMs: 5,
      key: null,
      value: bytesOf('bad'),
      headers: [],
    }
    await world.live()
    await world.broker.produce([
      returning(`${TOPIC}.g-redrive`, { groupId: 'g', record, attempts: 0, dueAtMs: 0, redriveCount: 1 }),
    ])

    await world.die()
    await world.die()
    await world.live()

    expect(await lettersOf(world)).toMatchObject([
      { reason: 'crashed', redriveCount: 1, record: { topic: TOPIC, partition: 1, offset: 7 } },
    ])
  })

  test('is gone after its first death where it is delivered at most once', async () => {
    const world = await openWorld({ delivery: 'at-most-once' })
    await world.produce(['bad', 'a'])

    await world.die()
    const report = await world.live()

    expect(report).toMatchObject({ handled: 1, deadLettered: {} })
    expect(world.called).toEqual([['bad'], ['a']])
  })

  test('is found under a lock that its dead process left', async () => {
    const clock = { now: 0 }
    const idempotency = memoryIdempotency({
      clock: { now: () => clock.now, monotonic: () => clock.now, after: () => () => {} },
    })
    const world = await openWorld({ delivery: 'effectively-once', attemptTimeoutMs: 5_000 }, undefined, {
      consumer: { idempotency },
    })
    await world.produce(['bad', 'a'])
    for (let death = 0; death < 2; death++) {
      await world.die()
      clock.now += 60_000
    }

    const report = await world.live()

    expect(report).toMatchObject({ handled: 1, deadLettered: { crashed: 1 } })
  })
})

describe('a careful run', () => {
  test.each([8, 9, 12, 16])('keeps to %d calls, and gets the record set aside within them', async (maxCalls) => {
    const world = await openWorld()
    await world.produce(['bad', 'a', 'b', 'c', 'd', 'e'])
    const budget = { maxCalls, runMs: 2_000 }
    await world.die()
    await world.die({ budget })

    let most = 0
    for (let start = 0; start < 8; start++) most = Math.max(most, (await world.live({ budget })).calls)

    expect(most).toBeLessThanOrEqual(maxCalls)
    expect(await lettersOf(world)).toMatchObject([{ reason: 'crashed' }])
    expect(await world.committed()).toEqual([6, -1])
  })

  test.each([4, 5, 6, 7])('calls nothing that it has no calls to name and to set aside: %d', async (maxCalls) => {
    const world = await openWorld()
    await world.produce(['bad', 'a'])
    await world.die()

    const report = await world.live({ budget: { maxCalls, runMs: 2_000 } })

    expect(world.called.at(-1)).toEqual([])
    expect(report.handled).toBe(0)
    expect(report.calls).toBeLessThanOrEqual(maxCalls)
  })

  test('begins nothing that it has no time for: naming counts', async () => {
    let isSlow = false
    const begun: number[] = []
    const world: World = await openWorld(
      {},
      (value, process) => {
        begun.push(process.monotonic())
        return value === 'bad' && world.called.length === 1 ? kill(process) : undefined
      },
      {
        wrap: (broker) =>
          withCalls(broker, {
            commit: async (...args) => {
              if (isSlow) await new Promise<void>((resolve) => void world.clock.after(700, resolve))
              await broker.commit(...args)
            },
          }),
      },
    )
    await world.produce(['bad', 'a', 'b', 'c', 'd', 'e'])
    await world.die()
    isSlow = true
    begun.length = 0
    const startedAt = world.clock.monotonic()

    const report = await world.live({ budget: { runMs: 4_000, marginMs: 1_500 } })

    expect(begun.length).toBeGreaterThan(0)
    for (const at of begun) expect(at - startedAt).toBeLessThan(2_500)
    expect(report.durationMs).toBeLessThanOrEqual(4_000)
    expect(report.unfinished).toBeGreaterThan(0)
    expect(await world.suspects()).toEqual([])
  })

  test('that is told to end leaves nobody named, and the next one is not careful', async () => {
    const stop = new AbortController()
    const world = await openWorld({}, (value, process) => {
      if (value === 'bad') return world.called.length === 1 ? kill(process) : new Promise(() => stop.abort())
      return undefined
    })
    await world.produce(['bad', 'a'])
    await world.die()

    const report = await world.live({ signal: stop.signal, stopWhenEmpty: false })
    const left = await world.suspects()
    const next = await world.live({ budget: { runMs: 1_000 } })

    expect(report).toMatchObject({ ended: 'aborted', unfinished: 2 })
    expect(left).toEqual([])
    expect(next.ended).not.toBe('claim-held')
    expect(world.logged.filter(({ event }) => event === 'careful')).toHaveLength(1)
  })

  test('whose broker has little room for metadata names whom it calls, and nothing else', async () => {
    const world = await openWorld(
      { ordering: 'none', retry: { initialMs: 600_000, maxMs: 600_000 } },
      (value, process) => {
        if (value === 'bad') return kill(process)
        throw new Error('not now')
      },
      {
        wrap: (broker) =>
          withCalls(broker, {
            commit: async (group, offsets, options, call) => {
              if (offsets !== 'polled' && offsets.some(({ metadata }) => (metadata?.length ?? 0) > 16)) {
                throw new BrokerError('OFFSET_METADATA_TOO_LARGE', 'Too much.')
              }
              await broker.commit(group, offsets, options, call)
            },
          }),
      },
    )
    await world.produce(['a', 'b', 'c', 'd', 'bad', 'e'])

    await world.die()
    await world.die()
    await world.live({ budget: { runMs: 5_000 } })

    expect(await lettersOf(world)).toMatchObject([{ reason: 'crashed', record: { offset: 4 } }])
  })

  test('whose broker has no room for metadata at all handles its records all the same', async () => {
    const world = await openWorld({}, (_, process) => (world.called.length === 1 ? kill(process) : undefined), {
      wrap: (broker) =>
        withCalls(broker, {
          commit: async (group, offsets, options, call) => {
            if (offsets !== 'polled' && offsets.some(({ metadata }) => metadata !== undefined)) {
              throw new BrokerError('OFFSET_METADATA_TOO_LARGE', 'Too much.')
            }
            await broker.commit(group, offsets, options, call)
          },
        }),
    })
    await world.produce(['a', 'b'])
    await world.die()

    expect(await world.live()).toMatchObject({ handled: 2, ended: 'drained' })
  })
})

async function dieAs(world: World, process: SimulatedProcess, settings: Partial<ConsumerOptions>): Promise<void> {
  void world.start({ stopWhenEmpty: true }, { claimTtlMs: TTL_MS, ...settings })
  for (let step = 0; !process.isDead && step < 1_000; step++) await world.clock.advance(0)
  await world.clock.advance(TTL_MS)
}
