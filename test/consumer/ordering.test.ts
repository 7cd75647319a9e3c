import { describe, expect, test } from 'vitest'
import type { AppOptions } from '../../src/app.ts'
import { encodeProgress } from '../../src/consumer/progress.ts'
import { BrokerError } from '../../src/errors.ts'
import { RetryAfterError, SkipError, StopError } from '../../src/handler-errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { Handler, RouteOptions } from '../../src/router.ts'
import { sleep } from '../../src/clock.ts'
import { openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench } from '../support/consumer.ts'

/** A record as `key` and number: `a0` is the first one with key a. `-0` has no key. */
type Name = string

function nameOf({ key, value }: ConsumerRecord): Name {
  return `${key === null ? '-' : textOf(key)}${textOf(value)}`
}

async function produce(bench: Bench, names: readonly Name[], partition = 0): Promise<void> {
  await bench.broker.produce(
    names.map((name) => {
      const key = name.slice(0, 1)
      return { topic: TOPIC, partition, key: key === '-' ? null : bytesOf(key), value: bytesOf(name.slice(1)) }
    }),
  )
}

/** A bench whose one route has these options, and what its handler saw. */
async function openRoute(
  options: RouteOptions,
  handle: (name: Name, bench: Bench, attempt: number) => unknown,
  app: Partial<AppOptions> = {},
): Promise<Bench & { readonly begun: Name[]; readonly ended: Name[] }> {
  const begun: Name[] = []
  const ended: Name[] = []
  const handler: Handler = async (record, { attempt }) => {
    const name = nameOf(record)
    begun.push(name)
    await handle(name, bench, attempt)
    ended.push(name)
  }
  const router = createRouter().on({ topic: TOPIC }, handler, { name: 'route', ...options })
  const bench: Bench = await openBench({ app: { router, ...app }, partitions: 2 })
  return Object.assign(bench, { begun, ended })
}

const failing = (bad: ReadonlySet<Name>) => (name: Name) => {
  if (bad.has(name)) throw new Error(`no ${name}`)
}

describe('ordering by key', () => {
  test('handles one record of a key at a time, and keys side by side', async () => {
    let most = 0
    const running: Name[] = []
    const together: string[] = []
    const route: RouteOptions = { ordering: 'key', concurrency: 10, breaker: null }
    const bench = await openRoute(route, async (name, { clock }) => {
      for (const other of running) if (other[0] === name[0] && name[0] !== '-') together.push(`${other} ${name}`)
      running.push(name)
      most = Math.max(most, running.length)
      await sleep(clock, 50)
      running.splice(running.indexOf(name), 1)
    })
    await produce(bench, ['a0', 'a1', 'b0', 'a2', 'c0', 'b1', '-0', '-1'])

    const report = await bench.drain()

    expect(together).toEqual([])
    expect(most).toBe(5)
    expect(bench.begun).toEqual(['a0', 'b0', 'c0', '-0', '-1', 'a1', 'b1', 'a2'])
    expect(report).toMatchObject({ handled: 8, unfinished: 0, committed: [{ offset: 8 }] })
  })

  test('never has more under way than the route allows, over all partitions', async () => {
    let running = 0
    let most = 0
    const bench = await openRoute({ concurrency: 3 }, async (_name, { clock }) => {
      running += 1
      most = Math.max(most, running)
      await sleep(clock, 10)
      running -= 1
    })
    for (const partition of [0, 1]) await produce(bench, ['a0', 'b0', 'c0', 'd0', 'e0', 'f0'], partition)

    const report = await bench.drain()

    expect(most).toBe(3)
    expect(report.handled).toBe(12)
  })

  test('lets other keys go on while one is put off, and keeps its order', async () => {
    let failures = 2
    const bench = await openRoute({ ordering: 'key', retry: { initialMs: 4_000, maxMs: 4_000 } }, (name) => {
      if (name === 'a0' && failures-- > 0) throw new Error('again')
    })
    await produce(bench, ['a0', 'a1', 'b0', 'b1', 'a2', 'c0'])

    const report = await bench.drain()

    expect(bench.ended).toEqual(['b0', 'c0', 'b1', 'a0', 'a1', 'a2'])
    expect(report).toMatchObject({ handled: 6, retried: 2, committed: [{ offset: 6 }] })
  })

  test('never commits past a record that is put off', async () => {
    const bench = await openRoute(
      { ordering: 'key', retry: { initialMs: 600_000, maxMs: 600_000 } },
      failing(new Set(['a1'])),
    )
    await produce(bench, ['a0', 'a1', 'b0', 'a2', 'c0'])

    const report = await bench.run({ budget: { runMs: 10_000 } })

    expect(bench.ended).toEqual(['a0', 'b0', 'c0'])
    expect(report).toMatchObject({ handled: 3, unfinished: 2, deadLettered: {} })
    expect(await bench.committed()).toEqual([1, -1])
  })

  test('believes nothing of a commit that is ahead of the log: a topic was made anew, and its records are others', async () => {
    const bench = await openRoute({ ordering: 'key' }, () => undefined)
    await produce(bench, ['a0', 'b0', 'c0'])
    const open = [{ offset: 100, attempts: 1, dueAtMs: 0 }]
    const { metadata } = encodeProgress(100, { settledTo: 200, open })
    await bench.broker.commit({ groupId: 'g', groupInstanceId: 'i' }, [
      { topic: TOPIC, partition: 0, offset: 100, metadata },
    ])

    const report = await bench.drain()

    expect(bench.ended).toEqual(['a0', 'b0', 'c0'])
    expect(report).toMatchObject({ handled: 3, remembered: 0 })
  })

  test('does not handle again in the next run what is settled beyond a gap, and counts attempts on', async () => {
    const attempts: number[] = []
    const bench = await openRoute(
      { ordering: 'key', retry: { maxAttempts: 3, initialMs: 60_000, maxMs: 60_000, factor: 1 } },
      (name, _bench, attempt) => {
        if (name !== 'a1') return
        attempts.push(attempt)
        throw new Error('no')
      },
    )
    await produce(bench, ['a0', 'a1', 'b0', 'a2', 'c0'])

    const first = await bench.run({ budget: { runMs: 10_000 } })
    const tooSoon = await bench.run({ budget: { runMs: 10_000 } })
    await bench.clock.advance(30_000)
    const second = await bench.run({ budget: { runMs: 10_000 } })
    await bench.clock.advance(30_000)
    const third = await bench.run({ budget: { runMs: 10_000 } })

    expect(attempts).toEqual([1, 2, 3])
    expect(first).toMatchObject({ handled: 3, unfinished: 2 })
    expect(tooSoon).toMatchObject({ handled: 0, remembered: 2, unfinished: 2, retried: 0 })
    expect(second).toMatchObject({ handled: 0, remembered: 2, unfinished: 2, retried: 1 })
    expect(third).toMatchObject({ handled: 1, remembered: 2, deadLettered: { exhausted: 1 }, unfinished: 0 })
    expect(bench.ended).toEqual(['a0', 'b0', 'c0', 'a2'])
    expect((await bench.letters.list()).items).toMatchObject([{ attempts: 3, record: { offset: 1 } }])
    expect(await bench.committed()).toEqual([5, -1])
  })

  test('goes on with other keys in a run in which one waits from the start', async () => {
    const bench = await openRoute(
      { ordering: 'key', retry: { initialMs: 600_000, maxMs: 600_000 } },
      failing(new Set(['a0'])),
    )
    await produce(bench, ['a0', 'b0'])
    await bench.run({ budget: { runMs: 10_000 } })

    await produce(bench, ['a1', 'b1', 'c0'])
    const report = await bench.run({ budget: { runMs: 10_000 } })

    expect(bench.ended).toEqual(['b0', 'b1', 'c0'])
    expect(report).toMatchObject({ handled: 2, remembered: 1, unfinished: 2 })
  })

  test('loses nothing where more is settled beyond a gap than a commit can remember', async () => {
    const keys = Array.from({ length: 1_500 }, (_, n) => String.fromCharCode(0x4e00 + n))
    const isBad = (name: Name): boolean => (name.charCodeAt(0) - 0x4e00) % 3 === 0
    let mended = false
    const bench = await openRoute(
      { ordering: 'key', concurrency: 100, retry: { maxAttempts: 9, initialMs: 600_000, maxMs: 600_000 } },
      (name) => {
        if (!mended && isBad(name)) throw new Error('no')
      },
      { parking: { maxRecords: 5_000 } },
    )
    await produce(
      bench,
      keys.map((key) => `${key}0`),
    )

    const first = await bench.run({ budget: { runMs: 10_000 } })
    mended = true
    await bench.clock.advance(600_000)
    const second = await bench.drain()

    expect(first).toMatchObject({ handled: 1_000, unfinished: 500 })
    expect(second.remembered).toBeGreaterThan(500)
    expect(second.remembered).toBeLessThan(1_000)
    expect(new Set(bench.ended).size).toBe(1_500)
    expect(await bench.committed()).toEqual([1_500, -1])
  })

  test('commits without what it would remember, where the broker takes less of it', async () => {
    const router = createRouter().on(
      { topic: TOPIC },
      (record) => {
        if (nameOf(record) === 'a0') throw new Error('no')
      },
      { ordering: 'key', retry: { maxAttempts: 2, initialMs: 5_000, maxMs: 5_000 } },
    )
    const bench = await openBench({
      app: { router },
      wrap: (broker) =>
        withCalls(broker, {
          commit: async (group, offsets, ...more) => {
            if (offsets !== 'polled' && offsets.some(({ metadata }) => typeof metadata === 'string')) {
              throw new BrokerError('OFFSET_METADATA_TOO_LARGE', 'too large')
            }
            await broker.commit(group, offsets, ...more)
          },
        }),
    })
    await produce(bench, ['b0', 'a0', 'c0', 'd0'])

    const report = await bench.drain({}, { commitIntervalMs: 100 })

    expect(report).toMatchObject({
      handled: 3,
      deadLettered: { exhausted: 1 },
      committed: [{ offset: 4 }],
      stopped: [],
    })
  })

  test('reads no further where as much is put off as may be, and goes on when some of it is settled', async () => {
    let mended = false
    const bench = await openRoute(
      { ordering: 'key', retry: { maxAttempts: 9, initialMs: 5_000, maxMs: 5_000 } },
      (name) => {
        if (!mended && name.startsWith('a')) throw new Error('no')
      },
      { parking: { maxRecords: 3 } },
    )
    await produce(bench, ['a0', 'a1', 'a2', 'b0'])
    const running = bench.start({ budget: { runMs: 40_000 } }, { maxPollRecords: 4 })
    await bench.clock.advance(1_000)
    // One poll was out already.
    await produce(bench, ['b1'])
    await bench.clock.advance(500)
    await produce(bench, ['b2'])
    await bench.clock.advance(500)
    const meanwhile = [...bench.ended]
    mended = true
    await bench.clock.advance(50_000)

    expect(meanwhile).toEqual(['b0', 'b1'])
    expect(await running).toMatchObject({ handled: 6, committed: [{ offset: 6 }] })
  })

  test('makes room with a dead letter where the app says so', async () => {
    const bench = await openRoute(
      { ordering: 'key', retry: { maxAttempts: 9, initialMs: 600_000, maxMs: 600_000 } },
      failing(new Set(['a0', 'b0', 'c0'])),
      { parking: { maxRecords: 3, whenFull: 'dead-letter' } },
    )
    await produce(bench, ['a0', 'b0', 'c0', 'd0'])

    const report = await bench.run({ budget: { runMs: 10_000 } })

    expect(report).toMatchObject({ handled: 1, deadLettered: { exhausted: 1 }, unfinished: 2 })
    expect((await bench.letters.list()).items).toMatchObject([{ record: { offset: 0 }, attempts: 1 }])
    expect(await bench.committed()).toEqual([1, -1])
  })
})

describe('a full parking', () => {
  const parking = { maxRecords: 3, whenFull: 'dead-letter' } as const
  const retry = { maxAttempts: 9, initialMs: 600_000, maxMs: 600_000 }

  test('makes a dead letter of what has waited longest, from an earlier run too', async () => {
    const bench = await openRoute({ ordering: 'key', retry }, failing(new Set(['a0', 'b0', 'c0'])), { parking })
    await produce(bench, ['a0', 'b0'])
    await bench.run({ budget: { runMs: 10_000 } })
    await produce(bench, ['c0'])

    const report = await bench.run({ budget: { runMs: 10_000 } })

    expect(report).toMatchObject({ deadLettered: { exhausted: 1 }, unfinished: 2 })
    expect((await bench.letters.list()).items).toMatchObject([{ record: { offset: 0 }, attempts: 1 }])
  })

  test('names a record in its dead letter by the place that the consumer gives it', async () => {
    const bench = await openRoute({ ordering: 'key', retry }, failing(new Set(['a0', 'b0', 'c0'])), { parking })
    await produce(bench, ['a0', 'b0', 'c0'])

    await bench.run(
      { budget: { runMs: 10_000 } },
      { placeOf: ({ offset }) => ({ partition: 7, offset: offset + 100 }) },
    )

    expect((await bench.letters.list()).items).toMatchObject([{ record: { partition: 7, offset: 100 } }])
  })

  test('counts those that wait behind another', async () => {
    const bench = await openRoute({ ordering: 'key', retry }, failing(new Set(['a0'])), { parking })
    await produce(bench, ['a0', 'a1', 'a2', 'a3'])

    const report = await bench.run({ budget: { runMs: 10_000 } }, { maxPollRecords: 1 })

    expect(report).toMatchObject({ handled: 3, deadLettered: { exhausted: 1 }, unfinished: 0 })
  })
})

describe('a partition that stopped', () => {
  test('takes no room from the others, however much of it was begun', async () => {
    const bench = await openRoute({ ordering: 'key' }, async (name, { clock }) => {
      if (!name.startsWith('a')) return
      await sleep(clock, 500)
      throw new StopError('not now')
    })
    await produce(bench, ['a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'a9', 'a10'])
    const running = bench.start({ budget: { runMs: 10_000 } }, { maxPollRecords: 2 })
    await bench.clock.advance(1_000)
    await produce(bench, ['b0', 'b1', 'b2'], 1)
    await bench.clock.advance(10_000)

    expect(bench.ended).toEqual(['b0', 'b1', 'b2'])
    expect(await running).toMatchObject({ handled: 3, stopped: [{ partition: 0, offset: 0 }] })
  })

  test('is reported with the record that stopped it, which others may wait before', async () => {
    const bench = await openRoute({ ordering: 'key' }, (name) => {
      if (name === 'a0') throw new RetryAfterError(600_000)
      if (name === 'c0') throw new StopError('not now')
    })
    await produce(bench, ['a0', 'b0', 'c0'])

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 1, unfinished: 2, stopped: [{ partition: 0, offset: 2 }] })
  })

  test('does not end the waits of the others, and is not waited for', async () => {
    const bench = await openRoute({ ordering: 'key', retry: { initialMs: 20_000, maxMs: 20_000 } }, (name) => {
      if (name === 'a0') throw new RetryAfterError(20_000)
      if (name === 'b0') throw new StopError('not now')
    })
    await produce(bench, ['a0', 'b0'])
    await produce(bench, ['c0'], 1)

    const report = await bench.drain()

    expect(report).toMatchObject({ ended: 'drained', handled: 1, unfinished: 2 })
    expect(report.durationMs).toBeLessThan(10_000)
  })

  test('makes room for the others where its commit is refused', async () => {
    let isRefused = false
    const bench = await openBench({
      partitions: 2,
      handler: async (record) => {
        seen.push(nameOf(record))
        if (record.offset > 0) throw new RetryAfterError(20_000)
        await sleep(bench.clock, 500)
      },
      app: { retry: { maxMs: 20_000 } },
      wrap: (broker) =>
        withCalls(broker, {
          commit: (...args) =>
            isRefused ? Promise.reject(new BrokerError('GROUP_AUTHORIZATION_FAILED', 'no')) : broker.commit(...args),
        }),
    })
    const seen: Name[] = []
    await produce(
      bench,
      Array.from({ length: 20 }, (_, n) => `a${n}`),
    )
    const running = bench.start({ budget: { runMs: 30_000 } }, { maxPollRecords: 2, commitIntervalMs: 100 })
    isRefused = true
    await bench.clock.advance(1_000)
    await produce(bench, ['b0'], 1)
    await bench.clock.advance(1_000)

    expect(seen).toEqual(['a0', 'a1', 'b0'])
    await bench.clock.advance(30_000)
    await running
  })
})

describe('no ordering', () => {
  test('waits for nobody, not even for its own key', async () => {
    const bench = await openRoute({ ordering: 'none', concurrency: 10 }, (_name, { clock }) => sleep(clock, 20))
    await produce(bench, ['a0', 'a1', 'a2', 'b0'])

    const report = await bench.drain()

    expect(bench.begun).toEqual(['a0', 'a1', 'a2', 'b0'])
    expect(report.handled).toBe(4)
  })

  test('never commits past a gap', async () => {
    const bench = await openRoute(
      { ordering: 'none', concurrency: 10, retry: { initialMs: 600_000, maxMs: 600_000 } },
      failing(new Set(['a2'])),
    )
    await produce(bench, ['a0', 'a1', 'a2', 'a3'])

    await bench.run({ budget: { runMs: 10_000 } })

    expect(bench.ended).toEqual(['a0', 'a1', 'a3'])
    expect(await bench.committed()).toEqual([2, -1])
  })
})

describe('ordering by partition', () => {
  test('holds up what is behind it, and waits for what is before it, whatever their routes', async () => {
    const seen: string[] = []
    const at = async (name: string, ms: number): Promise<void> => {
      seen.push(`${name} begins`)
      await sleep(bench.clock, ms)
      seen.push(`${name} ends`)
    }
    const router = createRouter()
      .on({ topic: TOPIC }, (record) => at(nameOf(record), 30), { name: 'free', ordering: 'none' })
      .on({ topic: TOPIC, key: 'p' }, (record) => at(nameOf(record), 10), { name: 'strict' })
    const bench = await openBench({ app: { router } })
    await produce(bench, ['a0', 'b0', 'p0', 'c0'])

    await bench.drain()

    expect(seen).toEqual([
      'a0 begins',
      'b0 begins',
      'a0 ends',
      'b0 ends',
      'p0 begins',
      'p0 ends',
      'c0 begins',
      'c0 ends',
    ])
  })

  test('keeps a long wait and the number of attempts over runs', async () => {
    const attempts: number[] = []
    const bench = await openRoute(
      { retry: { maxAttempts: 2, initialMs: 60_000, maxMs: 60_000 } },
      (name, _bench, attempt) => {
        if (name !== 'a0') return
        attempts.push(attempt)
        throw new Error('no')
      },
    )
    await produce(bench, ['a0', 'b0'])

    await bench.run({ budget: { runMs: 10_000 } })
    const early = await bench.run({ budget: { runMs: 10_000 } })
    await bench.clock.advance(20_000)
    const late = await bench.run({ budget: { runMs: 10_000 } })

    expect(attempts).toEqual([1, 2])
    expect(early).toMatchObject({ handled: 0, unfinished: 2 })
    expect(late).toMatchObject({ handled: 1, deadLettered: { exhausted: 1 } })
  })
})

describe('at most once', () => {
  test('commits a record before its handler is called', async () => {
    const committed: number[] = []
    const bench = await openRoute({ delivery: 'at-most-once' }, async (_name, within) => {
      const [offset = -1] = await within.committed()
      committed.push(offset)
    })
    await produce(bench, ['a0', 'a1', 'a2'])

    const report = await bench.drain()

    expect(committed).toEqual([1, 2, 3])
    expect(report).toMatchObject({ handled: 3, lost: 0 })
  })

  test('commits with one call what begins together', async () => {
    const bench = await openRoute({ delivery: 'at-most-once', ordering: 'none', concurrency: 10 }, (_name, { clock }) =>
      sleep(clock, 100),
    )
    await produce(bench, ['a0', 'a1', 'a2', 'a3', 'a4', 'a5'])

    const report = await bench.drain()

    expect(report.handled).toBe(6)
    expect(report.calls).toBeLessThan(8)
  })

  test('calls a handler once, and makes a failure a dead letter', async () => {
    const bench = await openRoute({ delivery: 'at-most-once' }, failing(new Set(['a0'])))
    await produce(bench, ['a0', 'a1'])

    const report = await bench.drain()

    expect(bench.begun).toEqual(['a0', 'a1'])
    expect(report).toMatchObject({ handled: 1, retried: 0, deadLettered: { exhausted: 1 } })
  })

  test('does not take what a commit knew as open for committed', async () => {
    let isDown = false
    const bench = await openBench({
      app: {
        router: createRouter().on(
          { topic: TOPIC },
          async (record) => {
            called.push(nameOf(record))
            await sleep(bench.clock, record.offset === 0 ? 2_000 : 0)
            isDown = true
          },
          { delivery: 'at-most-once', ordering: 'key' },
        ),
      },
      wrap: (broker) =>
        withCalls(broker, {
          commit: (...args) =>
            isDown ? Promise.reject(new BrokerError('KAFKA_STORAGE_ERROR', 'no disk')) : broker.commit(...args),
        }),
    })
    const called: Name[] = []
    await produce(bench, ['a0', 'a1', 'b0'])

    const report = await bench.run({ budget: { runMs: 10_000 } }, { commitIntervalMs: 100 })

    expect(called).toEqual(['a0', 'b0'])
    expect(report).toMatchObject({ handled: 2, lost: 0, unfinished: 1 })
  })

  test('counts as lost what was committed, and given up because its partition moved away', async () => {
    let refusals = 0
    const bench = await openBench({
      app: {
        router: createRouter().on({ topic: TOPIC }, (record) => sleep(bench.clock, record.offset === 0 ? 5_000 : 0), {
          delivery: 'at-most-once',
          ordering: 'key',
        }),
      },
      wrap: (broker) =>
        withCalls(broker, {
          commit: (...args) =>
            refusals-- > 0 ? Promise.reject(new BrokerError('ILLEGAL_GENERATION', 'moved')) : broker.commit(...args),
        }),
    })
    await produce(bench, ['a0'])
    const running = bench.start({ budget: { runMs: 10_000 } })
    await bench.clock.advance(1_000)
    refusals = 1
    await produce(bench, ['b0'])
    await bench.clock.advance(10_000)

    expect(await running).toMatchObject({ polled: 2, handled: 0, lost: 1, unfinished: 1 })
  })

  test('does not handle what could not be committed', async () => {
    const begun: number[] = []
    const router = createRouter().on({ topic: TOPIC }, ({ offset }) => void begun.push(offset), {
      delivery: 'at-most-once',
    })
    const bench = await openBench({
      app: { router },
      wrap: (broker) =>
        withCalls(broker, { commit: () => Promise.reject(new BrokerError('KAFKA_STORAGE_ERROR', 'no disk')) }),
    })
    await bench.produce(['a', 'b'])

    const report = await bench.drain({ budget: { runMs: 10_000 } })

    expect(begun).toEqual([])
    expect(report).toMatchObject({ handled: 0, unfinished: 2, lost: 0 })
  })
})

describe('a handler may say', () => {
  test('that its record needs no handling', async () => {
    const bench = await openRoute({}, (name) => {
      if (name === 'a0') throw new SkipError('old news')
    })
    await produce(bench, ['a0', 'a1'])

    expect(await bench.drain()).toMatchObject({ handled: 1, skipped: 1, committed: [{ offset: 2 }] })
  })

  test('that nothing behind its record may be handled', async () => {
    const bench = await openRoute({}, (name) => {
      if (name === 'a1') throw new StopError('closed')
    })
    await produce(bench, ['a0', 'a1', 'a2'])

    expect(await bench.drain()).toMatchObject({
      handled: 1,
      unfinished: 2,
      stopped: [{ offset: 1, cause: { name: 'StopError', message: 'closed' } }],
    })
    expect(await bench.committed()).toEqual([1, -1])
  })

  test('when to try again', async () => {
    const at: number[] = []
    const bench = await openRoute({}, (_name, { clock }) => {
      at.push(clock.now())
      if (at.length === 1) throw new RetryAfterError(7_000)
    })
    await produce(bench, ['a0'])

    await bench.drain()

    expect((at[1] ?? 0) - (at[0] ?? 0)).toBe(7_000)
  })

  test.each([Number.POSITIVE_INFINITY, Number.MAX_VALUE])(
    'to wait for %d ms, which a commit can remember',
    async (ms) => {
      const bench = await openRoute({ ordering: 'key' }, () => {
        throw new RetryAfterError(ms)
      })
      await produce(bench, ['a0'])

      await bench.drain()
      await bench.drain()

      expect(bench.begun).toEqual(['a0'])
    },
  )

  test.each([
    ['dead-letter', { deadLettered: { rejected: 1 }, handled: 1 }],
    ['skip', { skipped: 1, handled: 1 }],
    ['stop', { stopped: [{ offset: 0 }], handled: 0 }],
    ['retry', { deadLettered: { exhausted: 1 }, retried: 2, handled: 1 }],
  ] as const)('by its class what a failure calls for: %s', async (decision, expected) => {
    const bench = await openRoute(
      { retry: { when: (error) => (error instanceof RangeError ? decision : 'retry') } },
      (name) => {
        if (name === 'a0') throw new RangeError('no')
      },
    )
    await produce(bench, ['a0', 'a1'])

    expect(await bench.drain()).toMatchObject(expected)
  })
})
