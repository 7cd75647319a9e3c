import { describe, expect, test } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import type { LogEvent } from '../../src/logger.ts'
import { TOPIC, withCalls } from '../support/consumer.ts'
import { openOperationsBench, systems } from './bench.ts'
import type { OperationsBench } from './bench.ts'

const actor = 'ann'

interface GuardBench extends OperationsBench {
  readonly events: LogEvent[]
  /** Polls that the runs made. */
  polls: number
}

/** A bench with two records in each of two partitions, whose runs guard their offsets. */
async function openGuarded(system: object, onOffsetAnomaly: 'stop' | 'earliest' | 'latest'): Promise<GuardBench> {
  const events: LogEvent[] = []
  const bench: GuardBench = Object.assign(
    await openOperationsBench({
      ...system,
      partitions: 2,
      app: { onOffsetAnomaly, operations: false },
      consumer: { log: (event) => void (event.event === 'offset anomaly' && events.push(event)) },
      wrap: (broker) =>
        withCalls(broker, {
          poll: async (...args) => {
            bench.polls += 1
            return await broker.poll(...args)
          },
        }),
    }),
    { events, polls: 0 },
  )
  await bench.produce(['a', 'b'])
  await bench.produce(['c', 'd'], 1)
  return bench
}

async function commit({ broker }: { readonly broker: Broker }, offset: number): Promise<void> {
  await broker.commit({ groupId: 'g', groupInstanceId: 'somebody' }, [{ topic: TOPIC, partition: 0, offset }])
}

describe.each(systems)('the offset guard ($name)', (system) => {
  test('stops a partition whose offset is ahead of the log, says how to mend it, and leaves the others alone', async () => {
    const bench = await openGuarded(system, 'stop')
    await commit(bench, 7)

    const report = await bench.drain()
    const again = await bench.run({ budget: { runMs: 60_000 } })

    expect(report).toMatchObject({
      ended: 'drained',
      handled: 2,
      unfinished: 0,
      stopped: [{ topic: TOPIC, partition: 0, offset: 7, cause: { code: 'OFFSET_OUT_OF_RANGE' } }],
    })
    expect(again.stopped).toHaveLength(1)
    expect(bench.handled).toEqual(['c', 'd'])
    expect(await bench.committed()).toEqual([7, 2])
    expect(bench.events).toHaveLength(2)
    expect(bench.events[0]).toMatchObject({
      level: 'error',
      offset: 7,
      logStartOffset: 0,
      logEndOffset: 2,
      policy: 'stop',
    })
    expect(bench.events[0]?.['message']).toContain(`npm run operate -- seek --topic ${TOPIC} --partition 0 --to latest`)
  })

  test('never loops over a stopped partition, whatever comes into it', async () => {
    const bench = await openGuarded(system, 'stop')
    await commit(bench, 7)
    const run = bench.start({ budget: { runMs: 60_000 } })
    await bench.clock.advance(1_000)
    await bench.produce(['e'])

    const report = await bench.done(run)

    expect(report).toMatchObject({ ended: 'deadline', handled: 2, unfinished: 1 })
    expect(bench.polls).toBeLessThanOrEqual(6)
    expect(bench.events).toHaveLength(1)
    expect(await bench.committed()).toEqual([7, 2])
  })

  test('goes on when the seek that it proposed was made', async () => {
    const bench = await openGuarded(system, 'stop')
    await commit(bench, 7)
    await bench.drain()

    await bench.done(bench.operations().seek({ actor, topic: TOPIC, partition: 0, to: 'latest' }))
    await bench.produce(['e'])
    const report = await bench.drain()

    expect(report).toMatchObject({ ended: 'drained', handled: 1, stopped: [] })
    expect(bench.events).toHaveLength(1)
  })

  test.each([
    ['earliest', ['a', 'b', 'c', 'd']],
    ['latest', ['c', 'd']],
  ] as const)('follows %s once, whatever the broker would do', async (policy, expected) => {
    const bench = await openGuarded(system, policy)
    await commit(bench, 7)

    const report = await bench.drain()
    const again = await bench.drain()

    expect(report).toMatchObject({ ended: 'drained', stopped: [], unfinished: 0 })
    expect(again).toMatchObject({ ended: 'drained', polled: 0 })
    expect(bench.handled.toSorted()).toEqual(expected)
    expect(await bench.committed()).toEqual([2, 2])
    expect(bench.events).toMatchObject([{ level: 'warn', offset: 7, policy }])
  })

  test('reads on after it set an offset, where nothing else is to be read', async () => {
    const bench = await openGuarded(system, 'earliest')
    await bench.drain()
    await commit(bench, 7)
    bench.handled.length = 0

    const report = await bench.drain()

    expect(report).toMatchObject({ ended: 'drained', handled: 2 })
    expect(bench.handled).toEqual(['a', 'b'])
  })

  test('stops a partition whose records were deleted before they were read', async () => {
    const bench = await openGuarded(system, 'stop')
    await bench.broker.deleteTopic(TOPIC)
    await bench.broker.createTopic({ topic: TOPIC, partitions: 2, retentionMs: 60_000 })
    await bench.produce(['a'])
    await bench.drain()
    await bench.produce(['b'])
    await bench.clock.advance(100_000)
    await bench.produce(['c'])

    const report = await bench.drain()

    expect(report.stopped).toMatchObject([{ partition: 0, offset: 1 }])
    expect(report.stopped[0]?.cause.message).toContain('it is behind the log, which has 2 to 3')
    expect(report.stopped[0]?.cause.message).toContain('--to earliest')
    expect(bench.handled).toEqual(['a'])
  })

  test('costs three calls of a run, and says nothing of offsets that are as they should be', async () => {
    const bench = await openGuarded(system, 'stop')
    await bench.drain()
    const unguarded = await openOperationsBench({ ...system, partitions: 2, app: { operations: false } })
    await unguarded.drain()

    const [guarded, plain] = [await bench.drain(), await unguarded.drain()]

    expect(guarded.calls - plain.calls).toBe(3)
    expect(bench.events).toEqual([])
  })
})

test('a run whose every partition is astray ends', async () => {
  const bench = await openGuarded({}, 'stop')
  await commit(bench, 7)
  await bench.broker.commit({ groupId: 'g', groupInstanceId: 'somebody' }, [{ topic: TOPIC, partition: 1, offset: 9 }])

  const report = await bench.run({ budget: { runMs: 60_000 } })

  expect(report).toMatchObject({ ended: 'stopped', polled: 0, handled: 0 })
  expect(report.stopped).toHaveLength(2)
})
