/** A pause of one key: its records wait, those of other keys are handled, over runs and restarts. */
import { describe, expect, test } from 'vitest'
import { RetryAfterError } from '../../src/handler-errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { returning } from '../../src/return-topic.ts'
import { createRouter } from '../../src/router.ts'
import type { BatchRouteOptions, RouteOptions } from '../../src/router.ts'
import { TOPIC } from '../support/consumer.ts'
import type { BenchOptions } from '../support/consumer.ts'
import { openOperationsBench, systems } from './bench.ts'
import type { OperationsBench } from './bench.ts'

const actor = 'ann'
const x = { actor, topic: TOPIC, key: 'x' }

/** Values are a key and a number: `x1`. */
async function openKeys(
  options: BenchOptions,
  route: RouteOptions & { readonly fails?: () => unknown } = {},
): Promise<OperationsBench> {
  const { fails, ...rest } = route
  const bench: OperationsBench = await openOperationsBench({
    ...options,
    app: {
      ...options.app,
      router: createRouter().on(
        { topic: TOPIC },
        ({ value }) => {
          const text = textOf(value)
          if (bench.poison.has(text)) throw fails?.() ?? new Error('no')
          bench.handled.push(text)
        },
        { ordering: 'key', concurrency: 4, ...rest },
      ),
    },
  })
  return bench
}

async function produce(bench: OperationsBench, ...values: string[]): Promise<void> {
  await bench.broker.produce(
    values.map((value) => ({ topic: TOPIC, key: bytesOf(value.slice(0, 1)), value: bytesOf(value) })),
  )
}

describe.each(systems)('pause of a key ($name)', (system) => {
  test('has its records wait in their order, in each run until it is resumed, and no others', async () => {
    const bench = await openKeys(system)
    await produce(bench, 'x1', 'y1', 'x2', 'y2')
    expect(await bench.done(bench.operations().pause(x))).toMatchObject({ keys: [{ topic: TOPIC, key: 'x' }] })

    const first = await bench.drain()
    await produce(bench, 'x3', 'y3')
    await bench.drain()
    const whilePaused = [...bench.handled]
    const committed = await bench.committed()
    expect(await bench.done(bench.operations().resume(x))).toMatchObject({ keys: [] })
    await bench.drain()

    expect(first).toMatchObject({ ended: 'drained', handled: 2 })
    expect(whilePaused).toEqual(['y1', 'y2', 'y3'])
    expect(committed).toEqual([0])
    expect(bench.handled).toEqual(['y1', 'y2', 'y3', 'x1', 'x2', 'x3'])
    expect(await bench.committed()).toEqual([6])
  })

  test('reaches a run that is on within 15 seconds', async () => {
    const bench = await openKeys(system)
    await bench.drain()
    const run = bench.start({ budget: { runMs: 60_000 } })
    await bench.clock.advance(1_000)
    await bench.operations().pause(x)

    expect(await bench.done(run)).toMatchObject({ ended: 'paused', retryAfterMs: 0 })

    await produce(bench, 'x1', 'y1')
    await bench.drain()
    expect(bench.handled).toEqual(['y1'])
  })

  test('keeps it where it is: a record that was tried before is tried again when it is due and resumed', async () => {
    const bench = await openKeys(system, { fails: () => new RetryAfterError(30_000) })
    bench.poison.add('x1')
    await produce(bench, 'x1', 'x2')
    await bench.drain()
    await bench.done(bench.operations().pause(x))
    bench.poison.clear()
    await bench.clock.advance(60_000)

    await bench.drain()
    const whilePaused = [...bench.handled]
    await bench.done(bench.operations().resume(x))
    await bench.drain()

    expect(whilePaused).toEqual([])
    expect(bench.handled).toEqual(['x1', 'x2'])
  })

  test('keeps it out of batches', async () => {
    const batches: string[][] = []
    const options: BatchRouteOptions = { ordering: 'key', maxBatchRecords: 10 }
    const router = createRouter().onBatch(
      { topic: TOPIC },
      (records) => void batches.push(records.map(({ value }) => textOf(value))),
      options,
    )
    const bench = await openOperationsBench({ ...system, app: { router } })
    await produce(bench, 'y1', 'x1', 'y2', 'z1')
    await bench.done(bench.operations().pause(x))

    await bench.drain()
    const whilePaused = batches.flat()
    await bench.done(bench.operations().resume(x))
    await bench.drain()

    expect(whilePaused.toSorted()).toEqual(['y1', 'y2', 'z1'])
    expect(batches.flat().slice(3)).toEqual(['x1'])
  })

  test('holds up what comes back with it too', async () => {
    const bench = await openKeys({ ...system, app: { redrive: true } })
    const record = { topic: TOPIC, partition: 0, offset: 7, timestampMs: 1, key: bytesOf('x'), value: bytesOf('x9') }
    await bench.drain()
    const back = returning(`${TOPIC}.g-redrive`, {
      groupId: 'g',
      record: { ...record, headers: [] },
      attempts: 1,
      dueAtMs: 0,
      redriveCount: 1,
    })
    await bench.broker.produce([back])
    await bench.done(bench.operations().pause(x))

    await bench.drain()
    const whilePaused = [...bench.handled]
    await bench.done(bench.operations().resume(x))
    await bench.drain()

    expect(whilePaused).toEqual([])
    expect(bench.handled).toEqual(['x9'])
  })
})

test('a paused record makes no room by becoming a dead letter', async () => {
  const parking = { maxRecords: 2, whenFull: 'dead-letter' } as const
  const bench = await openKeys({ app: { parking } }, { fails: () => new RetryAfterError(30_000) })
  bench.poison.add('x1')
  await produce(bench, 'x1')
  await bench.drain()
  await bench.done(bench.operations().pause(x))
  await produce(bench, 'x2', 'x3', 'y1')

  const report = await bench.drain({ budget: { runMs: 20_000 } })

  expect(report.deadLettered).toEqual({})
  expect(bench.handled).not.toContain('x2')
})

test('a key is paused only where it can be alone, and with its topic', async () => {
  const byPartition = await openKeys({}, { ordering: 'partition', concurrency: 1 })

  const refused = await byPartition.refusal(byPartition.operations().pause(x))
  const nowhere = await byPartition.refusal(byPartition.operations().pause({ actor, key: 'x' }))

  expect(refused).toMatchObject({ code: 'INVALID_REQUEST' })
  expect(refused.message).toContain('ordered by partition')
  expect(nowhere).toMatchObject({ code: 'INVALID_CONFIG' })
})

test('a pause of the empty key is none of keys that are no text', async () => {
  const bench = await openKeys({})
  await bench.broker.produce([
    { topic: TOPIC, key: new Uint8Array([0xff]), value: bytesOf('binary') },
    { topic: TOPIC, key: new Uint8Array(), value: bytesOf('empty') },
  ])
  await bench.done(bench.operations().pause({ ...x, key: '' }))

  await bench.drain()

  expect(bench.handled).toEqual(['binary'])
})

test('a key stands in the audit, and in no log line', async () => {
  const bench = await openKeys({})
  await bench.done(bench.operations().pause({ ...x, key: 'secret-key' }))

  expect(bench.audits).toContainEqual(
    expect.objectContaining({ phase: 'started', target: { topic: TOPIC, key: 'secret-key' } }),
  )
  expect(JSON.stringify(bench.lines)).not.toContain('secret-key')
  expect(bench.lines.length).toBeGreaterThan(0)
})

test('what an older Kedge wrote into the operations topic has no keys, and is read', async () => {
  const bench = await openKeys({})
  await bench.drain()
  const paused = { group: false, topics: [TOPIC] }
  const state = { kedge: 'kedge-operations-1', audit: {}, paused, backfills: [] }
  await bench.broker.produce([{ topic: 'g.operations', key: null, value: bytesOf(JSON.stringify(state)) }])
  await produce(bench, 'x1')

  expect((await bench.drain()).ended).toBe('paused')
})
