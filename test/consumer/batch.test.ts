import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { AppOptions } from '../../src/app.ts'
import { defineApp } from '../../src/app.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { DeadLetterStoreError } from '../../src/errors.ts'
import { BatchError, DeadLetterError, RetryAfterError, SkipError, StopError } from '../../src/handler-errors.ts'
import type { BatchFailure } from '../../src/handler-errors.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { BatchHandler, BatchRouteOptions, HandlerContext } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import { finish, openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench, BenchOptions } from '../support/consumer.ts'
import { until } from '../support/until.ts'

/** A record as `key` and number: `a0` is the first one with key a. `-0` has no key. */
type Name = string

function nameOf({ key, value }: ConsumerRecord): Name {
  return `${key === null ? '-' : textOf(key)}${textOf(value)}`
}

function namesOf(first: number, end: number, key = '-'): Name[] {
  return Array.from({ length: end - first }, (_, index) => `${key}${first + index}`)
}

async function produce(bench: Bench, names: readonly Name[], partition = 0): Promise<void> {
  await bench.broker.produce(
    names.map((name) => {
      const key = name.slice(0, 1)
      return { topic: TOPIC, partition, key: key === '-' ? null : bytesOf(key), value: bytesOf(name.slice(1)) }
    }),
  )
}

interface Batches extends Bench {
  /** The names in each call of the handler. */
  readonly calls: Name[][]
}

/** A bench with one batch route. */
async function openBatches(
  handle: (names: readonly Name[], context: HandlerContext, records: readonly ConsumerRecord[]) => unknown,
  options: BatchRouteOptions = {},
  { app, ...bench }: BenchOptions = {},
): Promise<Batches> {
  const calls: Name[][] = []
  const handler: BatchHandler = async (records, context) => {
    const names = records.map(nameOf)
    calls.push(names)
    await handle(names, context, records)
  }
  const router = createRouter().onBatch({ topic: TOPIC }, handler, { name: 'route', breaker: null, ...options })
  return Object.assign(await openBench({ ...bench, app: { router, ...app } }), { calls })
}

/** Fails for a batch that holds one of these. */
const failing =
  (...bad: readonly Name[]) =>
  (names: readonly Name[]) => {
    const found = names.filter((name) => bad.includes(name))
    if (found.length > 0) throw new RangeError(`no ${found.join(' ')}`)
  }

async function lettersOf(bench: Bench): Promise<{ name: Name; reason: string; attempts: number; cause: string }[]> {
  const { items } = await bench.letters.list()
  return items.map(({ record, reason, attempts, cause }) => ({
    name: nameOf(record),
    reason,
    attempts,
    cause: cause.message,
  }))
}

describe('a batch', () => {
  test('is what waits, in order, and no more than the route allows', async () => {
    const bench = await openBatches(() => undefined, { maxBatchRecords: 4 })
    await produce(bench, namesOf(0, 10))

    const report = await bench.drain()

    expect(bench.calls).toEqual([namesOf(0, 4), namesOf(4, 8), namesOf(8, 10)])
    expect(report).toMatchObject({ polled: 10, handled: 10, unfinished: 0, committed: [{ offset: 10 }] })
  })

  test('does not wait for more than is there', async () => {
    const bench = await openBatches(() => undefined)
    await produce(bench, ['-0'])

    await bench.drain()

    expect(bench.calls).toEqual([['-0']])
  })

  test('is of one partition, and takes the room of one record', async () => {
    let most = 0
    let running = 0
    const bench = await openBatches(
      async (_names, { signal }) => {
        running += 1
        most = Math.max(most, running)
        await new Promise((resolve) => bench.clock.after(500, () => resolve(signal)))
        running -= 1
      },
      { concurrency: 2, ordering: 'partition', maxBatchRecords: 5 },
      { partitions: 4 },
    )
    for (let partition = 0; partition < 4; partition++) await produce(bench, namesOf(0, 10), partition)

    await bench.drain()

    expect(most).toBe(2)
    expect(bench.calls).toHaveLength(8)
  })

  test('is of one route', async () => {
    const calls: string[] = []
    const bench = await openBench({
      app: {
        breaker: null,
        router: createRouter()
          .onBatch({ topic: TOPIC }, (records) => void calls.push(records.map(nameOf).join(' ')))
          .on({ topic: TOPIC, key: 'x' }, (record) => void calls.push(`alone ${nameOf(record)}`)),
      },
    })
    await produce(bench, ['a0', 'b1', 'x2', 'a3'])

    await bench.drain()

    expect(calls).toEqual(['a0 b1', 'alone x2', 'a3'])
  })

  test('has values that were checked, and tells its handler where it stands', async () => {
    const seen: unknown[] = []
    const events: LogEvent[] = []
    const numbers = defineTopic(TOPIC, z.object({ n: z.number() }))
    const router = createRouter().onBatch(
      numbers,
      (records, { attempt, maxAttempts, route, groupId, signal, deadlineMs, log }) => {
        seen.push({ values: records.map(({ value }) => value.n), attempt, maxAttempts, route, groupId })
        seen.push(signal.aborted, deadlineMs - bench.clock.now())
        log('hello', { more: true })
      },
      { name: 'route', breaker: null, attemptTimeoutMs: 700 },
    )
    const bench = await openBench({ app: { router }, consumer: { log: (event) => void events.push(event) } })
    await bench.produce(['{"n":1}', '{"n":2}'])

    await bench.drain()

    expect(seen).toEqual([{ values: [1, 2], attempt: 1, maxAttempts: 3, route: 'route', groupId: 'g' }, false, 700])
    const line = { event: 'log', message: 'hello', more: true, topic: TOPIC, partition: 0, offset: 0, records: 2 }
    expect(events).toContainEqual(expect.objectContaining(line))
  })

  test('of a route whose breaker probes is no larger than what would open it', async () => {
    const bench = await openBatches(() => undefined, { breaker: { probes: 2 } })
    await produce(bench, namesOf(0, 6))

    await bench.drain()

    expect(bench.calls).toEqual([namesOf(0, 2), namesOf(2, 6)])
  })
})

describe('a batch that fails', () => {
  test('is split until the record is found, which is tried again and becomes a dead letter', async () => {
    const bench = await openBatches(failing('-5'), { ordering: 'none' })
    await produce(bench, namesOf(0, 8))

    const report = await bench.drain()

    expect(bench.calls).toEqual([
      namesOf(0, 8),
      namesOf(0, 4),
      namesOf(4, 8),
      ['-4', '-5'],
      ['-4'],
      ['-5'],
      ['-6', '-7'],
      ['-5'],
      ['-5'],
    ])
    expect(report).toMatchObject({ handled: 7, deadLettered: { exhausted: 1 }, retried: 2, committed: [{ offset: 8 }] })
    expect(await lettersOf(bench)).toEqual([{ name: '-5', reason: 'exhausted', attempts: 3, cause: 'no -5' }])
  })

  test('of a partition keeps what lies behind the record until that is settled', async () => {
    const bench = await openBatches(failing('-1'), { ordering: 'partition' })
    await produce(bench, namesOf(0, 6))

    const report = await bench.drain()

    expect(bench.calls).toEqual([
      namesOf(0, 6),
      namesOf(0, 3),
      ['-0', '-1'],
      ['-0'],
      ['-1'],
      ['-1'],
      ['-1'],
      namesOf(2, 6),
    ])
    expect(report).toMatchObject({ handled: 5, deadLettered: { exhausted: 1 }, committed: [{ offset: 6 }] })
  })

  test('by key keeps what has the key of the record, and lets the others go on', async () => {
    const bench = await openBatches(failing('a0'), { ordering: 'key', concurrency: 2 })
    await produce(bench, ['a0', 'b1', 'a2', 'b3'])

    await bench.drain()

    expect(bench.calls).toEqual([
      ['a0', 'b1', 'a2', 'b3'],
      ['a0', 'b1'],
      ['a0'],
      ['b1'],
      ['b3'],
      ['a0'],
      ['a0'],
      ['a2'],
    ])
  })

  test('for too long is split, and the record that hangs is a dead letter for its time', async () => {
    const bench = await openBatches(
      async (names, { signal }) => {
        if (!names.includes('-2')) return
        await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('late'))))
      },
      { attemptTimeoutMs: 1_000 },
    )
    await produce(bench, namesOf(0, 4))

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 3, deadLettered: { timeout: 1 }, committed: [{ offset: 4 }] })
    expect(await lettersOf(bench)).toMatchObject([{ name: '-2', reason: 'timeout', attempts: 3 }])
  })

  test('that hangs as long as a run lasts does not hang every run', async () => {
    const bench = await openBatches((names) => (names.includes('-0') ? new Promise(() => undefined) : undefined), {
      attemptTimeoutMs: 900_000,
      retry: { maxAttempts: 2 },
    })
    await produce(bench, namesOf(0, 100))

    const first = await bench.run({ budget: { runMs: 20_000 } })
    const second = await bench.run({ budget: { runMs: 20_000 } })

    expect(first).toMatchObject({ handled: 0, unfinished: 100 })
    expect(second).toMatchObject({ handled: 99, deadLettered: { timeout: 1 }, committed: [{ offset: 100 }] })
  })

  test('leaves what was not finished to the next run, which tries the record that failed alone', async () => {
    const bench = await openBatches(failing('-1'), {
      retry: { maxAttempts: 2, initialMs: 3_600_000, maxMs: 3_600_000 },
    })
    await produce(bench, namesOf(0, 4))

    const first = await bench.drain()
    const committed = await bench.committed()
    await bench.clock.advance(1_800_000)
    bench.calls.length = 0
    const second = await bench.drain()

    expect(first).toMatchObject({ handled: 1, unfinished: 3 })
    expect(committed).toEqual([1])
    expect(bench.calls).toEqual([['-1'], ['-2', '-3']])
    expect(second).toMatchObject({ handled: 2, deadLettered: { exhausted: 1 }, committed: [{ offset: 4 }] })
  })

  test('in an earlier run is not joined to what that run did not finish', async () => {
    let isHanging = true
    const bench = await openBatches(
      async (names, { signal }) => {
        if (names.includes('-2')) throw new RetryAfterError(3_600_000)
        if (isHanging && names.includes('-0')) await new Promise((resolve) => signal.addEventListener('abort', resolve))
      },
      { ordering: 'none' },
    )
    const stop = new AbortController()
    await produce(bench, namesOf(0, 2))
    const run = bench.start({ signal: stop.signal })
    await until(() => bench.calls.length === 1)
    await produce(bench, namesOf(2, 4))
    await until(() => bench.calls.length === 4)
    stop.abort()
    const first = await finish(bench.clock, run)
    isHanging = false
    bench.calls.length = 0
    const second = await bench.drain()

    expect(first).toMatchObject({ handled: 1, unfinished: 3, committed: [] })
    expect(bench.calls).toEqual([['-0', '-1']])
    expect(second).toMatchObject({ handled: 2, remembered: 1, unfinished: 1, committed: [{ offset: 2 }] })
  })

  test('is logged with what was split', async () => {
    const events: LogEvent[] = []
    const consumer = { log: (event: LogEvent): void => void events.push(event) }
    const bench = await openBatches(failing('-1'), { ordering: 'none' }, { consumer })
    await produce(bench, namesOf(0, 2))

    await bench.drain()

    const split = { level: 'warn', event: 'batch split', offset: 0, records: 2, route: 'route', cause: 'RangeError' }
    expect(events.filter(({ event }) => event === 'batch split')).toEqual([expect.objectContaining(split)])
  })

  test('goes into a retry topic record by record, and comes back alone', async () => {
    const options: BatchRouteOptions = { ordering: 'none', retry: { maxAttempts: 1, topicDelaysMs: [1_000] } }
    const bench = await openBatches(failing('-1'), options)
    await produce(bench, namesOf(0, 4))

    const report = await bench.run()

    expect(report).toMatchObject({ handled: 3, deferred: 1, deadLettered: { exhausted: 1 } })
    expect(bench.calls.at(-1)).toEqual(['-1'])
    expect(await lettersOf(bench)).toMatchObject([{ name: '-1', attempts: 2 }])
  })
})

describe('a record alone in a failed batch', () => {
  const cases: Record<string, { error: unknown; report: object }> = {
    'is skipped by SkipError': { error: new SkipError('no'), report: { handled: 3, skipped: 1 } },
    'is a dead letter by DeadLetterError': {
      error: new DeadLetterError('no'),
      report: { handled: 3, deadLettered: { rejected: 1 } },
    },
    'stops its partition by StopError': {
      error: new StopError('no'),
      report: { handled: 1, unfinished: 3, committed: [{ offset: 1 }], stopped: [{ offset: 1 }] },
    },
  }

  test.each(Object.entries(cases))('%s', async (_what, { error, report }) => {
    const bench = await openBatches((names) => {
      if (names.includes('-1')) throw error
    })
    await produce(bench, namesOf(0, 4))

    expect(await bench.drain()).toMatchObject(report)
    expect(bench.calls.flat().filter((name) => name === '-0')).toHaveLength(3)
  })

  test('waits as long as RetryAfterError says', async () => {
    const times: number[] = []
    const bench = await openBatches((names, { attempt }) => {
      if (names.length === 1 && names[0] === '-0') times.push(bench.clock.now())
      if (names.includes('-0') && attempt < 2) throw new RetryAfterError(7_000)
    })
    await produce(bench, namesOf(0, 2))

    await bench.run()

    expect((times[1] ?? 0) - (times[0] ?? 0)).toBe(7_000)
    expect(bench.calls).toEqual([['-0', '-1'], ['-0'], ['-0'], ['-1']])
  })

  test('asks the policy of its route, with what was thrown for it alone', async () => {
    const asked: unknown[] = []
    const when = (error: unknown): 'skip' => {
      asked.push(error)
      return 'skip'
    }
    const bench = await openBatches(failing('-1', '-2'), { retry: { when } })
    await produce(bench, namesOf(0, 4))

    expect(await bench.drain()).toMatchObject({ handled: 2, skipped: 2 })
    expect(asked.map(String)).toEqual(['RangeError: no -1', 'RangeError: no -2'])
  })
})

describe('BatchError', () => {
  const named =
    (bad: Readonly<Record<Name, unknown>>) =>
    (names: readonly Name[], _context: HandlerContext, records: readonly ConsumerRecord[]) => {
      const failures = names.flatMap((name, index): BatchFailure[] => {
        const record = records[index]
        if (!Object.hasOwn(bad, name) || record === undefined) return []
        return [{ record: index % 2 === 0 ? index : record, error: bad[name] }]
      })
      if (failures.length > 0) throw new BatchError(failures)
    }

  test('may name one with an error that cannot even be asked what it is', async () => {
    const { proxy, revoke } = Proxy.revocable(new Error('gone'), {})
    revoke()
    const bench = await openBatches(named({ '-1': proxy }), { ordering: 'none', retry: { maxAttempts: 1 } })
    await produce(bench, namesOf(0, 3))

    expect(await bench.drain()).toMatchObject({ handled: 2, deadLettered: { exhausted: 1 } })
  })

  test('names what failed, each with its error, and nothing is split', async () => {
    const bad = {
      '-1': new DeadLetterError('bad one'),
      '-2': new SkipError('odd one'),
      '-4': new RangeError('late one'),
    }
    const bench = await openBatches(named(bad), { ordering: 'none', retry: { maxAttempts: 2 } })
    await produce(bench, namesOf(0, 6))

    const report = await bench.drain()

    expect(bench.calls).toEqual([namesOf(0, 6), ['-4']])
    expect(report).toMatchObject({ handled: 3, skipped: 1, deadLettered: { rejected: 1, exhausted: 1 } })
    expect(await lettersOf(bench)).toEqual([
      { name: '-1', reason: 'rejected', attempts: 1, cause: 'bad one' },
      { name: '-4', reason: 'exhausted', attempts: 2, cause: 'late one' },
    ])
  })

  test('of a partition has the records tried again one after the other, in order', async () => {
    const bench = await openBatches(named({ '-1': new RangeError('one'), '-3': new RangeError('three') }))
    await produce(bench, namesOf(0, 6))

    const report = await bench.drain()

    expect(bench.calls).toEqual([namesOf(0, 6), ['-1'], ['-1'], ['-3'], ['-3']])
    expect(report).toMatchObject({ handled: 4, deadLettered: { exhausted: 2 }, committed: [{ offset: 6 }] })
    expect(await lettersOf(bench)).toMatchObject([
      { name: '-1', attempts: 3, cause: 'one' },
      { name: '-3', attempts: 3, cause: 'three' },
    ])
  })

  test('may settle a record behind one that is put off, and no commit passes that', async () => {
    const bad = { '-1': new RetryAfterError(3_600_000), '-3': new DeadLetterError('three') }
    const bench = await openBatches(named(bad))
    await produce(bench, namesOf(0, 6))

    const first = await bench.drain()
    const committed = await bench.committed()
    await bench.clock.advance(3_600_000)
    bench.calls.length = 0
    const second = await bench.drain()

    expect(first).toMatchObject({ handled: 4, deadLettered: { rejected: 1 }, unfinished: 1 })
    expect(committed).toEqual([1])
    expect(bench.calls).toEqual([['-1']])
    expect(second).toMatchObject({ remembered: 4, unfinished: 1 })
  })

  test('has each record wait as long as its own error says', async () => {
    const times = new Map<Name, number>()
    const first = named({ '-1': new RetryAfterError(1_000), '-3': new RetryAfterError(9_000) })
    const bench = await openBatches((names, context, records) => {
      if (names.length > 1) first(names, context, records)
      else for (const name of names) times.set(name, bench.clock.monotonic() - startedAt)
    })
    const startedAt = bench.clock.monotonic()
    await produce(bench, namesOf(0, 6))

    expect(await bench.run()).toMatchObject({ handled: 6, retried: 2 })
    expect(times).toEqual(
      new Map([
        ['-1', 1_000],
        ['-3', 9_000],
      ]),
    )
  })

  test('gives the room back of a record that is done with behind one that is put off', async () => {
    const bad = { '-1': new RetryAfterError(1_000), '-3': new DeadLetterError('three') }
    const bench = await openBatches(
      (names, context, records) => {
        if (names.length > 1) named(bad)(names, context, records)
      },
      {},
      { app: { parking: { maxRecords: 1 } }, consumer: { maxPollRecords: 4 } },
    )
    await produce(bench, namesOf(0, 16))

    expect(await bench.run()).toMatchObject({ polled: 16, handled: 15, deadLettered: { rejected: 1 } })
  })

  test('has each record wait as long as its own error says in the next run too', async () => {
    const times = new Map<Name, number>()
    const first = named({ a0: new RetryAfterError(20_000), a1: new RetryAfterError(60_000) })
    const bench = await openBatches(
      (names, context, records) => {
        if (names.length > 1) first(names, context, records)
        else for (const name of names) times.set(name, bench.clock.monotonic() - startedAt)
      },
      { ordering: 'key' },
    )
    const startedAt = bench.clock.monotonic()
    await produce(bench, ['a0', 'a1'])

    await bench.run({ budget: { runMs: 10_000 } })
    await bench.run({ budget: { runMs: 200_000 } })

    expect(times).toEqual(
      new Map([
        ['a0', 20_000],
        ['a1', 60_000],
      ]),
    )
  })

  test('leaves its room to a run that goes on with other partitions', async () => {
    const bad = {
      '-0': new RetryAfterError(3_600_000),
      '-1': new RetryAfterError(3_600_000),
      '-2': new DeadLetterError('two'),
      '-3': new DeadLetterError('three'),
      '-4': new DeadLetterError('four'),
    }
    const polled = new Set<string>()
    const bench = await openBatches(
      async (names, context, records) => {
        if (records[0]?.partition !== 2) return named(bad)(names, context, records)
        return await new Promise(() => undefined)
      },
      { maxBatchRecords: 5, attemptTimeoutMs: 100_000 },
      {
        partitions: 3,
        consumer: { concurrency: 1, maxPollRecords: 5 },
        wrap: (broker) =>
          withCalls(broker, {
            poll: async (request, call) => {
              const answer = await broker.poll(request, call)
              for (const { partition, offset } of answer.records) polled.add(`${partition}@${offset}`)
              return answer
            },
          }),
      },
    )
    await produce(bench, namesOf(0, 5))
    await produce(bench, namesOf(0, 5), 1)
    const run = bench.start({ budget: { runMs: 20_000 } })
    await until(() => bench.calls.length === 2)
    await produce(bench, namesOf(0, 40), 2)
    await bench.clock.advance(2_000)
    const read = polled.size - 10
    await finish(bench.clock, run)

    // One answer with its handler, and one that waits.
    expect(read).toBe(10)
  })

  test('of more than may be put off makes no record a dead letter twice', async () => {
    const names = ['a0', 'a1', 'b2', 'b3', 'a4']
    const bad = Object.fromEntries(names.map((name) => [name, new RetryAfterError(5_000)]))
    const parking = { maxRecords: 1, whenFull: 'dead-letter' } as const
    const bench = await openBatches(named(bad), { ordering: 'key' }, { app: { parking } })
    await produce(bench, [...names, 'a5'])

    const report = await bench.run()

    const letters = await lettersOf(bench)
    expect(new Set(letters.map(({ name }) => name)).size).toBe(letters.length)
    expect(report).toMatchObject({ deadLettered: { exhausted: letters.length }, handled: 6 - letters.length })
    expect(report).toMatchObject({ unfinished: 0, committed: [{ offset: 6 }] })
  })

  test('with StopError for one stops the partition, and what else is named comes again', async () => {
    const bench = await openBatches(named({ '-1': new StopError('now'), '-3': new DeadLetterError('three') }))
    await produce(bench, namesOf(0, 6))

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 4, unfinished: 2, committed: [{ offset: 1 }], stopped: [{ offset: 1 }] })
    expect(await lettersOf(bench)).toEqual([])
  })

  test('that names a record of another batch splits as any other error does', async () => {
    const bench = await openBatches((names) => {
      if (names.includes('-1')) throw new BatchError([{ record: 7, error: new Error('who?') }])
    })
    await produce(bench, namesOf(0, 2))

    expect(await bench.drain()).toMatchObject({ handled: 1, deadLettered: { exhausted: 1 } })
    expect(await lettersOf(bench)).toMatchObject([{ name: '-1', cause: 'Of a batch 1 records failed.' }])
  })

  test('takes at least one record, by index or itself', () => {
    expect(() => new BatchError([])).toThrow(TypeError)
    expect(() => new BatchError([{ record: -1, error: 'no' }])).toThrow(TypeError)
    expect(() => new BatchError([{ record: 0.5, error: 'no' }])).toThrow(TypeError)
    expect(new BatchError([{ record: 0, error: 'no' }]).failures).toEqual([{ record: 0, error: 'no' }])
  })
})

describe('a record that its schema refuses', () => {
  const numbers = defineTopic(TOPIC, z.object({ n: z.number() }))
  const slow = defineTopic(
    TOPIC,
    z.object({ n: z.number() }).refine(async ({ n }) => {
      if (n === 99) await new Promise(() => undefined)
      return n !== 2
    }),
  )

  async function openTyped(topic: typeof numbers, options: BatchRouteOptions = {}, more: BenchOptions = {}) {
    const calls: number[][] = []
    const router = createRouter().onBatch(topic, (records) => void calls.push(records.map(({ value: { n } }) => n)), {
      breaker: null,
      ...options,
    })
    return { calls, ...(await openBench({ ...more, app: { router } })) }
  }

  test.each([
    ['none', [[0, 1, 3]]],
    ['partition', [[0, 1], [3]]],
  ] as const)('never reaches the handler, and the rest goes on (ordering %s)', async (ordering, expected) => {
    const { calls, ...bench } = await openTyped(numbers, { ordering })
    await bench.produce(['{"n":0}', '{"n":1}', '{"n":"two"}', '{"n":3}'])

    const report = await bench.drain()

    expect(calls).toEqual(expected)
    expect(report).toMatchObject({ handled: 3, deadLettered: { invalid: 1 }, committed: [{ offset: 4 }] })
    expect((await bench.letters.list()).items).toMatchObject([
      { reason: 'invalid', attempts: 0, record: { offset: 2 } },
    ])
  })

  test('later, is treated as one that is refused at once', async () => {
    const { calls, ...bench } = await openTyped(slow, { ordering: 'none' })
    await bench.produce(['{"n":0}', '{"n":1}', '{"n":2}', '{"n":3}'])

    expect(await bench.drain()).toMatchObject({ handled: 3, deadLettered: { invalid: 1 } })
    expect(calls).toEqual([[0, 1, 3]])
  })

  test('never, runs into the time limit alone', async () => {
    const { calls, ...bench } = await openTyped(slow, { ordering: 'none', attemptTimeoutMs: 1_000 })
    await bench.produce(['{"n":0}', '{"n":99}', '{"n":3}'])

    expect(await bench.drain()).toMatchObject({ handled: 2, deadLettered: { timeout: 1 } })
    expect(calls).toEqual([[0, 3]])
  })

  test('stops its partition where no letter can be stored, and nothing behind it is handled', async () => {
    const wrapLetters = (store: DeadLetterStore): DeadLetterStore => ({
      ...store,
      put: () => Promise.reject(new DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', 'big')),
    })
    const { calls, ...bench } = await openTyped(numbers, {}, { wrapLetters })
    await bench.produce(['{"n":0}', '{"n":"one"}', '{"n":2}'])

    expect(await bench.drain()).toMatchObject({ handled: 1, unfinished: 2, stopped: [{ offset: 1 }] })
    expect(calls).toEqual([[0]])
  })
})

describe('a run that ends in the middle of a batch', () => {
  test('leaves all of it, and begins no other half', async () => {
    const bench = await openBatches((_names, { signal }) => {
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('given up'))))
    })
    await produce(bench, namesOf(0, 4))

    const report = await bench.run({ budget: { runMs: 5_000 } })

    expect(bench.calls.length).toBeGreaterThan(0)
    expect(report).toMatchObject({ handled: 0, ended: 'deadline', committed: [], uncommitted: [] })
    expect(report.unfinished + Object.values(report.deadLettered).length).toBe(4)
  })

  test('by its signal commits what was handled before', async () => {
    const stop = new AbortController()
    const bench = await openBatches((names) => {
      if (names.includes('-3')) {
        if (names.length === 1) stop.abort()
        throw new Error('no')
      }
    })
    await produce(bench, namesOf(0, 8))

    const report = await bench.run({ signal: stop.signal })

    expect(report).toMatchObject({ ended: 'aborted', handled: 3, unfinished: 5, committed: [{ offset: 3 }] })
    expect(bench.calls.flat()).not.toContain('-9')
  })
})

describe('a breaker', () => {
  test('that opens keeps the rest of the batch', async () => {
    const bench = await openBatches(
      () => {
        throw new Error('down')
      },
      { ordering: 'none', concurrency: 1, retry: { maxAttempts: 1 }, breaker: { probes: 3 } },
    )
    await produce(bench, namesOf(0, 50))

    const report = await bench.drain()

    expect(report).toMatchObject({ deadLettered: { exhausted: 3 }, unfinished: 47, breakers: [{ route: 'route' }] })
    expect(await bench.committed()).toEqual([3])
  })

  test('that probes has no more records with handlers, of all partitions, than would open it', async () => {
    const bench = await openBatches(
      async (_names, { signal }, records) => {
        await new Promise((resolve) => bench.clock.after(100, () => resolve(signal)))
        throw new BatchError(records.map((record) => ({ record, error: new Error('down') })))
      },
      { retry: { maxAttempts: 1 }, breaker: { probes: 3 } },
      { partitions: 4 },
    )
    for (let partition = 0; partition < 4; partition++) await produce(bench, namesOf(0, 10), partition)

    const report = await bench.drain()

    expect(report).toMatchObject({ deadLettered: { exhausted: 3 }, breakers: [{ route: 'route' }] })
    expect(bench.calls.flat()).toHaveLength(3)
  })

  test('that opens in the middle of a batch ends it', async () => {
    const bench = await openBatches(
      (names) => {
        if (names.some((name) => Number(name.slice(1)) >= 3)) throw new Error('down')
      },
      { retry: { maxAttempts: 1 }, breaker: { probes: 3, minDeadLetters: 5, share: 0.01 } },
    )
    await produce(bench, namesOf(0, 50))

    const report = await bench.run()

    expect(report).toMatchObject({ handled: 3, deadLettered: { exhausted: 5 }, unfinished: 42 })
    expect(report).toMatchObject({ ended: 'breaker-open', committed: [{ offset: 8 }] })
  })

  test.each([
    ['rejected', () => new DeadLetterError('no'), 3],
    ['exhausted', () => new Error('down'), 1],
  ] as const)(
    'that opens among the records that BatchError names keeps the others (%s)',
    async (reason, error, maxAttempts) => {
      const bench = await openBatches(
        (_names, _context, records) => {
          const failures = records.flatMap((record, index) => (index < 5 ? [] : [{ record, error: error() }]))
          if (failures.length > 0) throw new BatchError(failures)
        },
        { retry: { maxAttempts }, breaker: { probes: 100, minDeadLetters: 20, share: 0.5 } },
      )
      await produce(bench, namesOf(0, 80))

      const report = await bench.drain()

      expect(report).toMatchObject({
        breakers: [{ route: 'route' }],
        deadLettered: { [reason]: 20 },
      })
      expect(await bench.committed()).toEqual([20 + report.handled])
      expect(report.unfinished).toBeGreaterThan(20)
      expect(await lettersOf(bench)).toHaveLength(20)
    },
  )
})

describe('a batch route', () => {
  const define =
    (options: BatchRouteOptions, app: Partial<AppOptions> = {}) =>
    () =>
      defineApp({
        groupId: 'g',
        router: createRouter().onBatch({ topic: TOPIC }, () => undefined, { name: 'r', ...options }),
        ...app,
      })

  test.each(['at-most-once', 'effectively-once'] as const)('is refused with delivery %s', (delivery) => {
    expect(define({ delivery })).toThrow(
      `Route r: a batch that fails is called again in parts, so it cannot be ${delivery}`,
    )
  })

  test.each([0, 10_001, 1.5, Number.NaN])('is refused with %s records in a batch', (maxBatchRecords) => {
    expect(define({ maxBatchRecords })).toThrow('Route r: maxBatchRecords')
  })

  test.each([1, 10_000])('takes %s records in a batch', (maxBatchRecords) => {
    expect(define({ maxBatchRecords, delivery: 'at-least-once' })).not.toThrow()
  })

  test('needs a handler', () => {
    expect(() => createRouter().onBatch({ topic: TOPIC }, undefined as never)).toThrow(TypeError)
  })
})
