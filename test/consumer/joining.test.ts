/** Polls that end before the member has joined: they say nothing of records, partitions or the claim. */
import { describe, expect, test } from 'vitest'
import type { Broker, PollResult } from '../../src/broker.ts'
import { BrokerError } from '../../src/errors.ts'
import type { LogEvent } from '../../src/logger.ts'
import { finish, openBench, withCalls } from '../support/consumer.ts'

function joining(retryAfterMs: number): PollResult {
  return { records: [], generationId: 0, assignment: [], retryAfterMs }
}

/** A broker whose polls of these numbers, counted from 1, end before the member has joined. */
function joiningAt(polls: readonly number[], retryAfterMs: number, seen: unknown[] = []): (broker: Broker) => Broker {
  let count = 0
  return (broker) =>
    withCalls(broker, {
      poll: async (request, call) => {
        count += 1
        seen.push(request.run)
        return polls.includes(count) ? joining(retryAfterMs) : await broker.poll(request, call)
      },
    })
}

describe('a poll that ends before its join', () => {
  test('is asked again after the time it named, and does not count as drained', async () => {
    const bench = await openBench({ wrap: joiningAt([1, 2], 700) })
    await bench.produce(['a'])

    const report = await bench.drain()

    expect(report).toMatchObject({ ended: 'drained', handled: 1, committed: [{ offset: 1 }] })
    expect(report.durationMs).toBeGreaterThanOrEqual(1_400)
    expect(report.cause).toBeUndefined()
  })

  test('is not asked all the time where it names no wait', async () => {
    const bench = await openBench({ wrap: (broker) => withCalls(broker, { poll: async () => joining(0) }) })

    const report = await bench.drain({ budget: { runMs: 10_000 } })

    expect(report).toMatchObject({ ended: 'deadline', polled: 0 })
    expect(report.calls).toBeLessThan(100)
  })

  test('ends the run where its budget ends first, without a cause', async () => {
    const bench = await openBench({ wrap: joiningAt([1], 60_000) })

    const report = await bench.run({ budget: { runMs: 30_000 } })

    expect(report).toMatchObject({ ended: 'deadline', polled: 0, calls: 2 })
    expect(report.cause).toBeUndefined()
  })

  test('takes nothing from the run: lanes, positions and generation stay, and records go on being handled', async () => {
    const seen: { generationId?: number; positions?: unknown }[] = []
    const release: (() => void)[] = []
    const bench = await openBench({
      consumer: { maxPollRecords: 2 },
      handler: () => new Promise<void>((resolve) => release.push(resolve)),
      wrap: joiningAt([2], 500, seen),
    })
    await bench.produce(['a', 'b', 'c'])

    const running = bench.start({ stopWhenEmpty: true })
    for (let n = 0; n < 3; n++) {
      while (release.length <= n) await bench.clock.advance(10)
      release[n]?.()
    }
    const report = await finish(bench.clock, running)

    expect(report).toMatchObject({
      ended: 'drained',
      handled: 3,
      unfinished: 0,
      stopped: [],
      committed: [{ offset: 3 }],
    })
    const [, second, third] = seen
    expect(second?.positions).toEqual([{ topic: 't', partition: 0, offset: 2 }])
    expect(third?.generationId).toBe(second?.generationId)
  })

  test('says nothing of the claim: a run that then meets another one has not lost it', async () => {
    let polls = 0
    const bench = await openBench({
      wrap: (broker) =>
        withCalls(broker, {
          poll: async () => {
            polls += 1
            if (polls === 1) return joining(200)
            throw new BrokerError('CLAIM_HELD', 'held', { retryAfterMs: 9_000 })
          },
        }),
    })

    expect(await bench.drain()).toMatchObject({ ended: 'claim-held', retryAfterMs: 9_000, polled: 0 })
  })

  test('ends at once when the run is aborted while it waits', async () => {
    const abort = new AbortController()
    const bench = await openBench({ wrap: joiningAt([1], 20_000) })
    const running = bench.start({ signal: abort.signal })
    await bench.clock.advance(100)

    abort.abort()
    await bench.clock.advance(0)

    expect(await running).toMatchObject({ ended: 'aborted', durationMs: 100 })
  })

  test('is logged once', async () => {
    const lines: LogEvent[] = []
    const log = (event: LogEvent): void => void lines.push(event)
    const bench = await openBench({ consumer: { log }, wrap: joiningAt([1, 2, 3], 200) })

    await bench.drain()

    expect(lines.filter(({ event }) => event === 'joining')).toHaveLength(1)
  })
})
