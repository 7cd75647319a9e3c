import { describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { ConfigError } from '../../src/errors.ts'
import { createRouter } from '../../src/router.ts'
import { START_MS } from '../support/clock.ts'
import { TOPIC, withCalls } from '../support/consumer.ts'
import { until } from '../support/until.ts'
import { openOperationsBench, systems } from './bench.ts'

const actor = 'ann'

describe.each(systems)('seek ($name)', (system) => {
  test('to the earliest offset hands every record out again, and to the latest none', async () => {
    const bench = await openOperationsBench({ ...system, partitions: 2 })
    await bench.produce(['a', 'b'])
    await bench.produce(['c'], 1)
    await bench.drain()
    const { handled } = bench
    const first = [...handled]

    const moved = await bench.done(bench.operations().seek({ actor, topic: TOPIC, to: 'earliest' }))
    await bench.drain()
    const again = handled.slice(first.length)
    await bench.produce(['d'])
    await bench.done(bench.operations().seek({ actor, topic: TOPIC, to: 'latest' }))
    const last = await bench.drain()

    expect(moved).toEqual([
      { topic: TOPIC, partition: 0, before: 2, after: 0, logStartOffset: 0, logEndOffset: 2 },
      { topic: TOPIC, partition: 1, before: 1, after: 0, logStartOffset: 0, logEndOffset: 1 },
    ])
    expect(again.toSorted()).toEqual(['a', 'b', 'c'])
    expect(last.polled).toBe(0)
  })

  test('of one partition leaves the others where they are', async () => {
    const bench = await openOperationsBench({ ...system, partitions: 2 })
    await bench.produce(['a', 'b'])
    await bench.produce(['c'], 1)
    await bench.drain()

    await bench.done(bench.operations().seek({ actor, topic: TOPIC, partition: 0, to: 1 }))

    expect(await bench.committed()).toEqual([1, 1])
  })

  test('to a time begins with the first record at or after it', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a'])
    await bench.clock.advance(1_000)
    await bench.produce(['b'])
    await bench.drain()

    await bench.done(bench.operations().seek({ actor, topic: TOPIC, to: { timeMs: START_MS + 1 } }))

    expect(await bench.committed()).toEqual([1])
  })

  test('beyond the ends of the log is refused with what is there, and changes nothing', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a', 'b'])
    await bench.drain()

    const refusal = await bench.refusal(bench.operations().seek({ actor, topic: TOPIC, to: 3 }))

    expect(refusal).toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' })
    expect(refusal.message).toContain('the log has 0 to 2')
    expect(await bench.committed()).toEqual([2])
    expect(bench.audits.at(-1)).toMatchObject({
      phase: 'ended',
      result: 'refused',
      cause: { code: 'OFFSET_OUT_OF_RANGE' },
    })
  })

  test('is refused while a run is on, which goes on unharmed', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a', 'b'])
    const run = bench.start({ budget: { runMs: 20_000 } })
    await bench.clock.advance(100)

    const refusal = await bench.refusal(bench.operations().seek({ actor, topic: TOPIC, to: 'earliest' }))
    const report = await bench.done(run)

    expect(refusal).toMatchObject({ code: 'CLAIM_HELD' })
    expect(refusal.message).toContain('a run of its instance i is active')
    expect(report).toMatchObject({ ended: 'deadline', handled: 2 })
    expect(await bench.committed()).toEqual([2])
  })

  test('waits for a run where it is told to, and is not written over by it', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a', 'b'])
    const run = bench.start({ budget: { runMs: 20_000 } })
    await bench.clock.advance(100)

    const seek = bench.operations().seek({ actor, topic: TOPIC, to: 'earliest', waitMs: 60_000 })
    await bench.done(run)
    await bench.done(seek)

    expect(await bench.committed()).toEqual([0])
    expect((await bench.drain()).handled).toBe(2)
  })

  test('keeps runs out while it is at it', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a', 'b'])
    await bench.drain()
    const during: unknown[] = []
    const broker = withCalls(bench.broker, {
      commit: async (...args) => {
        if (args[0].groupId === 'g') during.push((await bench.start({ stopWhenEmpty: true })).ended)
        return await bench.broker.commit(...args)
      },
    })

    await bench.done(bench.operations({ broker }).seek({ actor, topic: TOPIC, to: 'earliest' }))

    expect(during).toEqual(['claim-held'])
    expect(await bench.committed()).toEqual([0])
  })

  describe('when an instance joins while it is at it', () => {
    /** A bench, the verbs over a broker at whose first commit another instance begins a run, and that run. */
    async function openJoined(runMs: number) {
      const bench = await openOperationsBench(system)
      await bench.produce(['a', 'b'])
      const runs: Promise<unknown>[] = []
      const end = new AbortController()
      const broker = withCalls(bench.broker, {
        commit: async (...args) => {
          if (args[0].groupId === 'g' && runs.length === 0) {
            runs.push(bench.start({ budget: { runMs }, signal: end.signal }, { groupInstanceId: 'newcomer' }))
            const members = async (): Promise<number> => (await bench.broker.groups())[0]?.members.length ?? 0
            await until(async () => (await members()) > 0)
          }
          await bench.broker.commit(...args)
        },
      })
      return { bench, verbs: bench.operations({ broker }), runs, end }
    }

    test('wins over its run, where it may wait for it', async () => {
      const { bench, verbs, runs } = await openJoined(20_000)

      await bench.done(verbs.seek({ actor, topic: TOPIC, to: 1, waitMs: 60_000 }))
      await Promise.all(runs)

      expect(runs).toHaveLength(1)
      expect(bench.handled).toEqual(['a', 'b'])
      expect(await bench.committed()).toEqual([1])
    })

    test('says that it is not certain, where it may not', async () => {
      const { bench, verbs, runs, end } = await openJoined(800_000)

      const refusal = await bench.refusal(verbs.seek({ actor, topic: TOPIC, to: 1 }))
      end.abort()
      await bench.done(Promise.all(runs))

      expect(refusal).toMatchObject({ code: 'REBALANCE_IN_PROGRESS' })
      expect(bench.audits.at(-1)).toMatchObject({ result: 'failed' })
    })
  })

  test('tells what it would do in a dry run, and does nothing', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a', 'b'])
    await bench.drain()

    const moved = await bench.done(bench.operations().seek({ actor, topic: TOPIC, to: 'earliest', dryRun: true }))

    expect(moved).toMatchObject([{ before: 2, after: 0 }])
    expect(await bench.committed()).toEqual([2])
    expect(bench.audits).toEqual([])
  })

  test('leaves an audit in the operations topic, in the log and where the caller says', async () => {
    const bench = await openOperationsBench(system)
    await bench.produce(['a'])
    await bench.drain()

    await bench.done(bench.operations().seek({ actor, reason: 'a bad deploy', topic: TOPIC, to: 'earliest' }))

    const records = await bench.broker.fetch([{ topic: 'g.operations', partition: 0, offset: 0 }], {
      maxWaitMs: 0,
      maxRecords: 10,
      maxBytes: 1_000_000,
    })
    const written = records.map(({ value }) => JSON.parse(Buffer.from(value ?? []).toString()) as { audit: unknown })
    const place = { topic: TOPIC, partition: 0 }
    const expected = [
      { phase: 'started', verb: 'seek', actor, reason: 'a bad deploy', groupId: 'g' },
      { phase: 'ended', result: 'done', before: [{ ...place, offset: 1 }], after: [{ ...place, offset: 0 }] },
    ]
    expect(written.map(({ audit }) => audit)).toMatchObject(expected)
    expect(bench.audits).toMatchObject(expected)
    expect(bench.lines).toMatchObject([
      { event: 'operation started', actor },
      { event: 'operation ended', before: 't[0] 1', after: 't[0] 0', result: 'done' },
    ])
  })
})

test('seek of a topic that the app does not read, of no partition and of no group is refused by name', async () => {
  const bench = await openOperationsBench()
  await bench.broker.createTopic({ topic: 'theirs' })

  const theirs = await bench.refusal(bench.operations().seek({ actor, topic: 'theirs', to: 'earliest' }))
  const partition = await bench.refusal(bench.operations().seek({ actor, topic: TOPIC, partition: 1, to: 'earliest' }))
  const group = await bench.refusal(
    // A verb over HTTP knows of no app.
    bench.tool().seek({ actor, topic: TOPIC, to: 'earliest' }),
  )

  expect(theirs).toMatchObject({ code: 'INVALID_REQUEST' })
  expect(partition).toMatchObject({ code: 'UNKNOWN_TOPIC_OR_PARTITION' })
  expect(group).toMatchObject({ code: 'GROUP_ID_NOT_FOUND' })
})

test('verbs refuse an actor, a target and an app that make no sense, and a second verb at once', async () => {
  const bench = await openOperationsBench()
  const other = defineApp({ groupId: 'h', router: createRouter().on({ topic: TOPIC }, () => undefined) })
  await bench.broker.claim({ groupId: 'g-operations', groupInstanceId: 'operate' }, { runId: 'another' })

  const seek = (options: object): Promise<unknown> =>
    bench.operations().seek({ actor, topic: TOPIC, to: 'earliest', ...options })

  await expect(seek({ actor: '' })).rejects.toThrow('actor: say who')
  await expect(seek({ reason: 'a\nb' })).rejects.toThrow('reason: say why')
  await expect(seek({ to: -1 })).rejects.toThrow('to is -1')
  await expect(seek({ to: { timeMs: Number.NaN } })).rejects.toThrow('to.timeMs is NaN')
  await expect(seek({ waitMs: 0.5 })).rejects.toThrow('waitMs is 0.5')
  expect(() => bench.operations({ app: other })).toThrow(ConfigError)
  expect(await bench.refusal(seek({}))).toMatchObject({ code: 'CLAIM_HELD' })
})

test('an audit that cannot be written refuses the verb before anything is done', async () => {
  const bench = await openOperationsBench()
  await bench.produce(['a'])
  await bench.drain()
  const audit = (): never => {
    throw new Error('the disk is full')
  }

  const refusal = await bench.refusal(bench.operations({ audit }).seek({ actor, topic: TOPIC, to: 'earliest' }))

  expect(refusal.message).toBe('the disk is full')
  expect(await bench.committed()).toEqual([1])
})
