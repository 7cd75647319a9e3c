import { describe, expect, test } from 'vitest'
import { START_MS } from '../support/clock.ts'
import { TOPIC } from '../support/consumer.ts'
import { deaths, Killer } from '../support/killer.ts'
import { moving, openOperationsBench, systems } from './bench.ts'
import type { OperationsBench } from './bench.ts'

const actor = 'ann'
const app = { redrive: true }

/** A bench whose group has handled ten records of one partition. */
async function openHandled(system: object = {}): Promise<OperationsBench> {
  const bench = await openOperationsBench({ ...system, app })
  await bench.produce(Array.from({ length: 10 }, (_, index) => String(index)))
  await bench.drain()
  bench.handled.length = 0
  return bench
}

describe.each(systems)('a backfill ($name)', (system) => {
  test('hands a range to its group again, in its order, and nothing to another group', async () => {
    const bench = await openHandled(system)
    const before = await bench.readByOther()

    const report = await bench.done(bench.operations().backfill({ actor, topic: TOPIC, from: 2, until: 6 }))
    await bench.drain()
    const after = await bench.readByOther()

    expect(report).toMatchObject({ ended: 'done', replayed: 4, left: 0, groupId: 'g', topic: TOPIC })
    expect(bench.handled).toEqual(['2', '3', '4', '5'])
    expect(before).toHaveLength(10)
    expect(after).toEqual([])
    expect(await bench.committed()).toEqual([10])
    expect((await bench.done(bench.operations().status())).backfills).toEqual([])
  })

  test('takes times and every partition, and leaves out what came after it began', async () => {
    const bench = await openOperationsBench({ ...system, partitions: 2, app })
    await bench.produce(['old'])
    await bench.clock.advance(1_000)
    await bench.produce(['a'])
    await bench.produce(['b'], 1)
    await bench.drain()
    bench.handled.length = 0

    const late: Promise<void>[] = []
    const onProgress = ({ replayed }: { readonly replayed: number }): void => {
      if (replayed === 1) late.push(bench.produce(['late']))
    }
    const from = { timeMs: START_MS + 1 }
    await bench.done(bench.operations().backfill({ actor, topic: TOPIC, from, perSecond: 1, onProgress }))
    await Promise.all(late)
    await bench.drain()

    expect(bench.handled.toSorted()).toEqual(['a', 'b', 'late'])
  })

  test('passes nothing over where fetches come back empty while a leader moves', async () => {
    const bench = await openHandled(system)

    const verbs = bench.operations({ broker: moving(bench.broker) })
    const report = await bench.done(verbs.backfill({ actor, topic: TOPIC, from: 'earliest', perSecond: 20 }))
    await bench.drain()

    expect(report).toMatchObject({ ended: 'done', replayed: 10, left: 0 })
    expect(bench.handled).toHaveLength(10)
  })

  test('keeps its rate', async () => {
    const bench = await openHandled(system)
    const startedAt = bench.clock.monotonic()

    await bench.done(bench.operations().backfill({ actor, topic: TOPIC, from: 'earliest', perSecond: 2 }))

    expect(bench.clock.monotonic() - startedAt).toBeGreaterThanOrEqual(4_500)
  })

  test('ends where its signal is aborted, and goes on from there', async () => {
    const bench = await openHandled(system)
    const stop = new AbortController()
    const onProgress = ({ replayed }: { readonly replayed: number }): void => {
      if (replayed === 3) stop.abort()
    }
    const asked = { actor, topic: TOPIC, from: 'earliest', perSecond: 10, signal: stop.signal, onProgress } as const

    const first = await bench.done(bench.operations().backfill(asked))
    const status = await bench.done(bench.operations().status())
    const rest = await bench.done(bench.tool().resumeBackfill({ actor: 'bob', topic: TOPIC }))
    await bench.drain()

    expect(first).toMatchObject({ ended: 'aborted', replayed: 3, left: 7 })
    expect(status.backfills).toMatchObject([{ topic: TOPIC, ranges: [{ partition: 0, from: 0, until: 10 }] }])
    expect(rest).toMatchObject({ ended: 'done', replayed: 7 })
    expect(bench.handled).toEqual(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
  })

  test('is stopped by somebody else while it is at it, and cannot be resumed then', async () => {
    const bench = await openHandled(system)
    const stops: Promise<unknown>[] = []
    const onProgress = ({ replayed }: { readonly replayed: number }): void => {
      if (replayed === 2) stops.push(bench.operations().stopBackfill({ actor: 'bob', topic: TOPIC }))
    }

    const asked = { actor, topic: TOPIC, from: 'earliest', perSecond: 1, onProgress } as const
    const report = await bench.done(bench.operations().backfill(asked))
    await Promise.all(stops)
    const resumed = await bench.refusal(bench.operations().resumeBackfill({ actor, topic: TOPIC }))

    expect(report.ended).toBe('stopped')
    expect(report.replayed).toBeLessThan(6)
    expect(resumed).toMatchObject({ code: 'INVALID_REQUEST' })
  })

  test('begun again after it ended replays all of it again', async () => {
    const bench = await openHandled(system)
    await bench.done(bench.operations().backfill({ actor, topic: TOPIC, from: 8 }))

    await bench.done(bench.operations().backfill({ actor, topic: TOPIC, from: 8 }))
    await bench.drain()

    expect(bench.handled).toEqual(['8', '9', '8', '9'])
  })

  test('is one of a topic at a time', async () => {
    const bench = await openHandled(system)
    const others: Promise<unknown>[] = []
    const onProgress = ({ replayed }: { readonly replayed: number }): void => {
      if (replayed !== 1) return
      const second = bench.operations().backfill({ actor, topic: TOPIC, from: 'earliest' })
      const failed = second.catch((error: unknown) => error)
      others.push(failed)
      others.push(
        failed.then(() => bench.operations().resumeBackfill({ actor, topic: TOPIC })).catch((error: unknown) => error),
      )
    }
    const asked = { actor, topic: TOPIC, from: 'earliest', perSecond: 1, onProgress } as const
    await bench.done(bench.operations().backfill(asked))
    const [second, beside] = await Promise.all(others)

    expect(second).toMatchObject({ code: 'INVALID_REQUEST' })
    expect(beside).toMatchObject({ code: 'CLAIM_HELD' })
  })

  test('passes over what retention deleted before it came there', async () => {
    const bench = await openOperationsBench({ ...system, app })
    await bench.broker.deleteTopic(TOPIC)
    await bench.broker.createTopic({ topic: TOPIC, retentionMs: 60_000 })
    await bench.produce(['a', 'b'])
    await bench.clock.advance(30_000)
    await bench.produce(['c'])
    await bench.drain()
    bench.handled.length = 0
    const stop = new AbortController()
    const signal = stop.signal
    stop.abort()
    await bench.done(bench.operations().backfill({ actor, topic: TOPIC, from: 'earliest', until: 3, signal }))
    await bench.clock.advance(40_000)
    await bench.produce(['d'])

    const report = await bench.done(bench.operations().resumeBackfill({ actor, topic: TOPIC }))

    expect(report).toMatchObject({ ended: 'done', replayed: 1, left: 0 })
    expect(bench.lines).toContainEqual(expect.objectContaining({ event: 'backfill deleted by retention', offset: 0 }))
  })

  test.each([
    ['offsets', { from: 3, until: 2 }],
    ['times', { from: { timeMs: 2 }, until: { timeMs: 1 } }],
    ['ends of the log', { from: 'latest', until: 'earliest' }],
  ] as const)('is refused where its range ends before it begins: %s', async (_name, range) => {
    const bench = await openHandled(system)

    const refusal = await bench.refusal(bench.operations().backfill({ actor, topic: TOPIC, ...range }))

    expect(refusal).toMatchObject({
      code: 'INVALID_REQUEST',
      message: expect.stringContaining('ends before it begins') as string,
    })
  })

  test.each([
    ['the order stands before it is replayed', { from: 3, until: 11 }],
    ['a range that the log does not have', { from: 11 }],
  ])('is refused outside of the log: %s', async (_name, range) => {
    const bench = await openHandled(system)

    const refusal = await bench.refusal(bench.operations().backfill({ actor, topic: TOPIC, ...range }))

    expect(refusal).toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' })
    expect((await bench.done(bench.operations().status())).backfills).toEqual([])
  })

  describe.each(deaths)('that dies $how', (death) => {
    test.each([
      ['keys', {}, 0],
      ['no keys', { idempotencyKeys: false }, 5],
    ] as const)('is resumed, loses nothing, and does at most a page twice (%s)', async (_name, features, maxTwice) => {
      let fatal = 1
      for (; ; fatal++) {
        const bench = await openHandled(system)
        const killer = new Killer(fatal, death)
        const state = { isOver: false }
        const over = (): void => {
          state.isOver = true
        }
        const broker = killer.watch(bench.broker, features)
        bench.operations({ broker }).backfill({ actor, topic: TOPIC, from: 'earliest', perSecond: 50 }).then(over, over)
        while (!state.isOver && !killer.hasKilled) await bench.clock.advance(50)
        await bench.clock.advance(1)
        if (!killer.hasKilled) break
        // Its locks, where it has any, lapse by themselves.
        await bench.clock.advance(60_000)
        const { backfills } = await bench.done(bench.operations().status())

        const goOn = bench.operations()
        // It died before it was in force, or after its end was written down.
        const isOver = backfills.length === 0
        const isBegun = bench.audits.some(
          ({ phase, verb, result }) => verb === 'backfill' && phase === 'ended' && result === 'done',
        )
        if (!isOver) await bench.done(goOn.resumeBackfill({ actor, topic: TOPIC }))
        else if (!isBegun) await bench.done(goOn.backfill({ actor, topic: TOPIC, from: 'earliest' }))
        await bench.drain()

        expect(new Set(bench.handled).size, `call ${fatal}`).toBe(10)
        expect(bench.handled.length - 10).toBeLessThanOrEqual(maxTwice)
      }
      // The order, the topic, two pages, their places and the end.
      expect(fatal).toBeGreaterThan(15)
    })
  })
})

test('a backfill is refused where the group reads nothing back, and where it could not be remembered', async () => {
  const unread = await openOperationsBench()
  const deaf = await openOperationsBench({ app: { redrive: true, operations: false } })

  const first = await unread.refusal(unread.operations().backfill({ actor, topic: TOPIC, from: 'earliest' }))
  const second = await deaf.refusal(deaf.operations().backfill({ actor, topic: TOPIC, from: 'earliest' }))

  expect(first).toMatchObject({ code: 'INVALID_REQUEST' })
  expect(first.message).toContain('Set redrive: true')
  expect(second.message).toContain('Set operations: true')
  await expect(unread.operations().backfill({ actor, topic: TOPIC, from: 0, perSecond: 0 })).rejects.toThrow(
    'perSecond is 0',
  )
})

test('a plan counts and writes nothing', async () => {
  const bench = await openHandled()

  const plan = await bench.done(bench.operations().planBackfill({ actor, topic: TOPIC, from: 4, until: 'latest' }))

  expect(plan).toEqual({ topic: TOPIC, ranges: [{ partition: 0, from: 4, until: 10 }], records: 6 })
  expect(bench.audits).toEqual([])
})
