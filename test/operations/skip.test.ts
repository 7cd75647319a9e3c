import { describe, expect, test } from 'vitest'
import { decodeProgress, encodeProgress } from '../../src/consumer/progress.ts'
import { StopError } from '../../src/handler-errors.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { TOPIC } from '../support/consumer.ts'
import { openOperationsBench, systems } from './bench.ts'
import type { OperationsBench } from './bench.ts'

const actor = 'ann'
const reason = 'nobody can read it'
const place = { topic: TOPIC, partition: 0 }

/** A bench whose route keeps the order of keys only, so that commits remember what is settled behind a gap. */
async function openKeyed(system: object): Promise<OperationsBench> {
  const bench: OperationsBench = await openOperationsBench({
    ...system,
    app: {
      router: createRouter().on(
        { topic: TOPIC },
        ({ value }) => {
          const text = textOf(value)
          if (bench.poison.has(text)) throw new StopError('it cannot be')
          bench.handled.push(text)
        },
        { ordering: 'key', concurrency: 1 },
      ),
    },
  })
  return bench
}

describe.each(systems)('skip ($name)', (system) => {
  test('passes the record over that blocks its partition, and no other', async () => {
    const bench = await openOperationsBench(system)
    bench.poison.add('b')
    await bench.produce(['a', 'b', 'c'])
    const blocked = await bench.drain()

    const moved = await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 1 }))
    const after = await bench.drain()

    expect(blocked).toMatchObject({ ended: 'stopped', stopped: [{ offset: 1 }] })
    expect(moved).toMatchObject({ before: 1, after: 2 })
    expect(after).toMatchObject({ ended: 'drained', handled: 1 })
    expect(bench.handled).toEqual(['a', 'c'])
    expect(bench.audits.at(-1)).toMatchObject({ verb: 'skip', reason, result: 'done' })
  })

  test('passes the very first record over, of which nothing is committed', async () => {
    const bench = await openOperationsBench(system)
    bench.poison.add('a')
    await bench.produce(['a', 'b'])
    await bench.drain()

    await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 0 }))
    await bench.drain()

    expect(bench.handled).toEqual(['b'])
  })

  test('behind open records is remembered where commits remember: it is not handled, and they are', async () => {
    const bench = await openKeyed(system)
    bench.poison.add('a')
    await bench.produce(['a', 'b', 'c', 'd'])
    await bench.drain()

    await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 2 }))
    bench.poison.clear()
    await bench.drain()

    expect(await bench.committed()).toEqual([4])
    expect(bench.handled.toSorted()).toEqual(['a', 'b', 'd'])
  })

  test('of the first open record moves on to the next that is open', async () => {
    const bench = await openKeyed(system)
    bench.poison.add('a')
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()
    await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 1 }))

    const moved = await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 0 }))
    await bench.drain()

    expect(moved).toMatchObject({ after: 2 })
    expect(bench.handled).toEqual(['c'])
  })

  test('takes the suspicion of ending its process from the record, and from no other', async () => {
    const bench = await openKeyed(system)
    await bench.produce(['a', 'b', 'c'])
    const open = [0, 1, 2].map((offset) => ({ offset, attempts: 0, dueAtMs: 0 }))
    const suspects = [1, 2].map((offset) => ({ offset, strikes: 1, isCalled: false }))
    const { metadata } = encodeProgress(0, { settledTo: 3, open, suspects })
    await bench.broker.commit({ groupId: 'g', groupInstanceId: 'i' }, [{ ...place, offset: 0, metadata }])

    await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 1 }))

    const [committed] = await bench.broker.committed('g', [place])
    expect(decodeProgress(0, committed?.metadata ?? null)).toMatchObject({
      open: [{ offset: 0 }, { offset: 2 }],
      suspects: [{ offset: 2, strikes: 1 }],
    })
  })

  test('behind open records is refused where the app handles them in their order', async () => {
    const bench = await openOperationsBench(system)
    bench.poison.add('a')
    await bench.produce(['a', 'b', 'c'])
    await bench.drain()

    const refusal = await bench.refusal(bench.operations().skip({ actor, reason, ...place, offset: 2 }))

    expect(refusal).toMatchObject({ code: 'INVALID_REQUEST' })
    expect(refusal.message).toContain('records before it are not handled, from 0 on')
  })

  test('is refused for a record that is handled, and for one that is not there', async () => {
    const bench = await openKeyed(system)
    await bench.produce(['a', 'b'])
    await bench.drain()

    const handled = await bench.refusal(bench.operations().skip({ actor, reason, ...place, offset: 1 }))
    const absent = await bench.refusal(bench.operations().skip({ actor, reason, ...place, offset: 2 }))

    expect(handled).toMatchObject({ code: 'INVALID_REQUEST' })
    expect(handled.message).toContain('it stands at 2')
    expect(absent).toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' })
    expect(await bench.committed()).toEqual([2])
  })

  test('is refused where more records before it are open than a commit remembers', async () => {
    const bench = await openKeyed(system)
    bench.poison.add('0')
    await bench.produce(Array.from({ length: 2_000 }, (_, index) => String(index)))
    await bench.drain({ budget: { maxRecords: 1 } })

    const open = Array.from({ length: 400 }, (_, offset) => ({ offset, attempts: 1, dueAtMs: bench.clock.now() }))
    const { metadata } = encodeProgress(0, { settledTo: 400, open })

    const far = await bench.refusal(bench.operations().skip({ actor, reason, ...place, offset: 1_900 }))
    const plan = await bench.done(bench.operations().skip({ actor, reason, ...place, offset: 900, dryRun: true }))

    expect(far).toMatchObject({ code: 'INVALID_REQUEST' })
    expect(far.message).toContain('than a commit remembers')
    expect(plan).toMatchObject({ after: 0 })

    // Records that are put off take more room.
    await bench.broker.commit({ groupId: 'g', groupInstanceId: 'i' }, [{ ...place, offset: 0, metadata }])
    const full = await bench.refusal(bench.operations().skip({ actor, reason, ...place, offset: 900 }))

    expect(full.message).toContain('than a commit remembers')
  })

  test('is refused while a run is on, in whatever partition it is', async () => {
    const bench = await openOperationsBench({ ...system, partitions: 2 })
    bench.poison.add('a')
    await bench.produce(['a', 'b'])
    const run = bench.start({ budget: { runMs: 20_000 } })
    await bench.clock.advance(100)

    const refusal = await bench.refusal(bench.operations().skip({ actor, reason, ...place, offset: 0 }))
    const report = await bench.done(run)

    expect(refusal).toMatchObject({ code: 'CLAIM_HELD' })
    expect(report).toMatchObject({ ended: 'deadline', stopped: [{ offset: 0 }] })
    expect(await bench.committed()).toEqual([-1, -1])
  })
})

test('skip wants a reason', async () => {
  const bench = await openOperationsBench()

  await expect(bench.operations().skip({ actor, reason: '', ...place, offset: 0 })).rejects.toThrow('reason: say why')
})
