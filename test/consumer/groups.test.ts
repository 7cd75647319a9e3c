import { describe, expect, test } from 'vitest'
import type { Broker, OffsetCommit, PollRequest } from '../../src/broker.ts'
import { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import { finish, openBench, TOPIC, withCalls } from '../support/consumer.ts'
import { until } from '../support/until.ts'

const group = { groupId: 'g', groupInstanceId: 'i' }

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, n) => `v${n}`)
}

describe('two runs of one instance', () => {
  test('exclude each other: the second is told when to come again, and reads nothing', async () => {
    let end: (() => void) | undefined
    const bench = await openBench({ handler: () => new Promise<void>((resolve) => (end = resolve)) })
    await bench.produce(['a'])
    const first = bench.start({ stopWhenEmpty: true })
    await until(() => end !== undefined)

    const second = await bench.start()
    end?.()

    expect(second).toMatchObject({ ended: 'claim-held', polled: 0, calls: 1, durationMs: 0 })
    expect(second.retryAfterMs).toBeGreaterThan(0)
    expect(await first).toMatchObject({ ended: 'drained', handled: 1 })
  })

  test('follow each other at once, for a run gives its claim back', async () => {
    const bench = await openBench()
    await bench.drain()

    expect(await bench.drain()).toMatchObject({ ended: 'drained' })
  })

  test('of which the first died leave its claim to lapse', async () => {
    const bench = await openBench()
    await bench.broker.claim(group, { runId: 'dead', claimTtlMs: 5_000 })

    const early = await bench.start({ stopWhenEmpty: true })
    await bench.clock.advance(early.retryAfterMs ?? 0)

    expect(early).toMatchObject({ ended: 'claim-held', retryAfterMs: 5_000 })
    expect(await bench.drain()).toMatchObject({ ended: 'drained' })
  })

  test('of which the first was overtaken: it stops at once, commits nothing, and says so', async () => {
    const handled: string[] = []
    const aborted: unknown[] = []
    const bench = await openBench({
      handler: (record, { signal }) => {
        handled.push(textOf(record.value))
        if (handled.length !== 2) return undefined
        signal.addEventListener('abort', () => aborted.push(signal.reason))
        return new Promise(() => undefined)
      },
      wrap: (broker) => withCalls(broker, { claim: () => Promise.reject(new BrokerError('NETWORK', 'cut off')) }),
      consumer: { claimTtlMs: 6_000, commitIntervalMs: 60_000 },
      app: { attemptTimeoutMs: 200_000 },
    })
    await bench.produce(['a', 'b', 'c'])
    const running = bench.start({ budget: { runMs: 300_000 } })
    await until(() => handled.length === 2)
    // The poll that is out would renew the claim; the run is cut off from the broker altogether.
    await bench.broker.release(group, 'run-1')
    await bench.broker.claim(group, { runId: 'other' })
    await bench.clock.advance(60_000)
    const report = await running

    expect(report).toMatchObject({
      ended: 'claim-lost',
      handled: 1,
      unfinished: 2,
      committed: [],
      uncommitted: [{ offset: 1 }],
    })
    expect(handled).toEqual(['a', 'b'])
    expect(aborted).toMatchObject([{ code: expect.stringMatching(/CLAIM_(LOST|HELD)/) as unknown }])
    expect(await bench.committed()).toEqual([-1])
  })

  test('renew the claim while a long handler runs, so that it is not taken', async () => {
    let end: (() => void) | undefined
    let claims = 0
    const bench = await openBench({
      handler: () => new Promise<void>((resolve) => (end = resolve)),
      wrap: (broker) =>
        withCalls(broker, {
          claim: async (...args) => {
            claims += 1
            await broker.claim(...args)
          },
        }),
      app: { attemptTimeoutMs: 900_000 },
      // No room for a second answer, so that no poll renews the claim in passing.
      consumer: { maxPollRecords: 1, claimTtlMs: 30_000 },
    })
    await bench.produce(['a', 'b', 'c'])
    const running = bench.start({ budget: { runMs: 800_000 }, stopWhenEmpty: true })
    await until(() => end !== undefined)
    const others: unknown[] = []
    for (let minute = 0; minute < 5; minute++) {
      await bench.clock.advance(60_000)
      others.push(
        await bench.broker.claim(group, { runId: 'other' }).catch((error: unknown) => (error as BrokerError).code),
      )
    }
    const groups = await bench.broker.groups()
    for (let n = 0; n < 3; n++) {
      const ending = end
      ending?.()
      await until(() => end !== ending || n === 2)
    }

    expect(others).toEqual(Array.from({ length: 5 }, () => 'CLAIM_HELD'))
    expect(claims).toBeGreaterThan(20)
    expect(groups[0]?.members).toHaveLength(1)
    expect(await running).toMatchObject({ handled: 3, committed: [{ offset: 3 }] })
  })
})

describe('a rebalance in the middle of a run', () => {
  test('takes partitions away: what waited there is not handled and not committed, the rest goes on', async () => {
    const handled: string[] = []
    const gates: (() => void)[] = []
    const bench = await openBench({
      partitions: 2,
      handler: (record) => {
        handled.push(`${record.partition}:${record.offset}`)
        return new Promise<void>((resolve) => gates.push(resolve))
      },
    })
    await bench.produce(numbered(3), 0)
    await bench.produce(numbered(3), 1)
    const running = bench.start({ budget: { runMs: 60_000 } })
    await until(() => gates.length === 2)
    // The waiting poll of the run is answered as soon as the group changes or a record comes.
    const joined = await bench.broker.poll({
      group: { groupId: 'g', groupInstanceId: 'j' },
      topics: [TOPIC],
      maxWaitMs: 0,
      maxRecords: 10,
      maxBytes: 1e6,
      autoOffsetReset: 'earliest',
    })
    const [moved] = joined.assignment
    await bench.produce(['more'], moved?.partition === 0 ? 1 : 0)
    await bench.clock.advance(100)
    for (let n = 0; n < 10; n++) {
      for (const open of gates.splice(0)) open()
      await bench.clock.advance(10)
    }
    await bench.clock.advance(60_000)
    const report = await running

    const kept = moved?.partition === 0 ? 1 : 0
    expect(joined.records).toHaveLength(3)
    expect(report).toMatchObject({ handled: 4, unfinished: 3, committed: [{ partition: kept, offset: 4 }] })
    expect(handled.filter((at) => at.startsWith(`${kept}:`))).toEqual([0, 1, 2, 3].map((offset) => `${kept}:${offset}`))
    expect(handled.filter((at) => at.startsWith(`${1 - kept}:`))).toEqual([`${1 - kept}:0`])
    expect((await bench.committed())[1 - kept]).toBe(-1)
  })

  test('that the run sees only at its commit refuses the commit and drops the partition', async () => {
    const commits: (readonly OffsetCommit[])[] = []
    const bench = await openBench({
      partitions: 2,
      wrap: (broker) =>
        withCalls(broker, {
          commit: async (at, offsets, ...rest) => {
            if (commits.length === 0) await rebalance(broker)
            commits.push(offsets === 'polled' ? [] : offsets)
            await broker.commit(at, offsets, ...rest)
          },
        }),
    })
    async function rebalance(broker: Broker): Promise<void> {
      const request: PollRequest = {
        group: { groupId: 'g', groupInstanceId: 'j' },
        topics: [TOPIC],
        maxWaitMs: 0,
        maxRecords: 1,
        maxBytes: 1,
      }
      await broker.poll(request)
    }
    await bench.produce(numbered(2), 0)
    await bench.produce(numbered(2), 1)

    const report = await bench.drain({}, { maxPollRecords: 4 })

    expect(commits.map((offsets) => offsets.length)).toEqual([2, 1, 1])
    expect(report.committed).toHaveLength(1)
    expect(report.uncommitted).toHaveLength(1)
    expect((await bench.committed()).toSorted((a, b) => a - b)).toEqual([-1, 2])
  })

  test.each([
    { othersOffset: 10, what: 'further than this run had read' },
    { othersOffset: 2, what: 'less than this run had read' },
  ])('that the run misses, while another member gets $what, moves no offset back', async ({ othersOffset }) => {
    const gates: (() => void)[] = []
    let failures = 1
    const offsets: number[] = []
    const bench = await openBench({
      handler: ({ offset }) => {
        const isGate = (offset === 0 && gates.length === 0) || (offset === 3 && gates.length === 1)
        return isGate ? new Promise<void>((resolve) => gates.push(resolve)) : undefined
      },
      consumer: { maxPollRecords: 2 },
      wrap: (broker) =>
        withCalls(broker, {
          commit: async (...args) => {
            // The first commit fails, so that the next one comes after a poll of the new generation.
            if (failures-- > 0) throw new BrokerError('NETWORK', 'lost')
            await broker.commit(...args)
            offsets.push((await broker.committed('g'))[0]?.offset ?? -1)
          },
        }),
    })
    await bench.produce(numbered(20))
    const running = bench.start({ stopWhenEmpty: true })
    await until(() => gates.length === 1)
    await bench.clock.advance(10)
    const other = { groupId: 'g', groupInstanceId: 'other' }
    await bench.broker.leave(group)
    await bench.broker.commit(other, [{ topic: TOPIC, partition: 0, offset: othersOffset }])

    gates[0]?.()
    await bench.clock.advance(10_000)
    gates[1]?.()
    await finish(bench.clock, running)

    expect(await bench.committed()).toEqual([20])
    expect(Math.min(...offsets)).toBeGreaterThan(othersOffset)
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b))
  })

  test('that takes a partition away and brings it back unseen moves no offset back and loses nothing', async () => {
    const handled: string[] = []
    const gates: (() => void)[] = []
    const bench = await openBench({
      handler: (record) => {
        handled.push(textOf(record.value))
        return handled.length === 1 ? new Promise<void>((resolve) => gates.push(resolve)) : undefined
      },
    })
    await bench.produce(numbered(6))
    const running = bench.start({ budget: { runMs: 60_000 } })
    await until(() => gates.length === 1)
    // Out of the run's sight the instance leaves, another one handles the first three records, and goes.
    const other = { groupId: 'g', groupInstanceId: 'other' }
    await bench.broker.leave(group)
    await bench.broker.poll({
      group: other,
      topics: [TOPIC],
      maxWaitMs: 0,
      maxRecords: 3,
      maxBytes: 1e6,
      autoOffsetReset: 'earliest',
    })
    await bench.broker.commit(other, [{ topic: TOPIC, partition: 0, offset: 3 }])
    await bench.broker.leave(other)
    await bench.clock.advance(100)
    gates[0]?.()
    await bench.clock.advance(70_000)
    const report = await running

    expect(await bench.committed()).toEqual([6])
    expect(handled).toEqual(expect.arrayContaining(['v0', 'v3', 'v4', 'v5']))
    expect(report.committed).toEqual([{ topic: TOPIC, partition: 0, offset: 6 }])
  })
})
