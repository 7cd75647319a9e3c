/** What a group is told is durable first: a process that dies in between has told nothing that the next one does not know. */
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { Broker, GroupInstance, PollRequest, PollResult } from '../../src/broker.ts'
import { embeddedBroker } from '../../src/log/engine.ts'
import { memoryStore } from '../../src/log/memory-store.ts'
import { record } from '../support/records.ts'

/** A log whose writes wait while they are held. */
function heldLog(): { readonly broker: Broker; readonly hold: () => void; readonly flush: () => void } {
  let isHeld = false
  let waiting: (() => void)[] = []
  return {
    broker: embeddedBroker(memoryStore(), {
      defer: (run) => void (isHeld ? waiting.push(run) : queueMicrotask(run)),
    }),
    hold: () => void (isHeld = true),
    flush: () => {
      isHeld = false
      const runs = waiting
      waiting = []
      for (const run of runs) run()
    },
  }
}

const instance = (groupInstanceId: string): GroupInstance => ({ groupId: 'g', groupInstanceId })
const request = (name: string, maxWaitMs = 0): PollRequest => ({
  group: instance(name),
  topics: ['t'],
  autoOffsetReset: 'earliest',
  maxWaitMs,
  maxRecords: 100,
  maxBytes: 1_000_000,
})

/** Lets everything happen that does not wait for a write. */
async function settle(): Promise<void> {
  for (let turns = 0; turns < 5; turns++) await turn()
}

describe('a poll of a group that is being rebalanced', () => {
  test('is answered when the new generation is durable', async () => {
    const { broker, hold, flush } = heldLog()
    await using _ = broker
    await broker.createTopic({ topic: 't', partitions: 2 })
    await broker.poll(request('a'))
    await broker.produce([record('t', 'x', { partition: 0 }), record('t', 'y', { partition: 1 })])
    hold()
    const joining = broker.poll(request('b'))
    await settle()
    const told: PollResult[] = []
    const polling = broker.poll(request('a')).then((result) => void told.push(result))
    await settle()

    expect(told).toEqual([])

    flush()
    await Promise.all([joining, polling])
    expect(told[0]?.generationId).toBe(2)
    expect(told[0]?.records).toHaveLength(1)
  })

  test('goes on behind what the former holder has committed', async () => {
    const { broker, hold, flush } = heldLog()
    await using _ = broker
    await broker.createTopic({ topic: 't', partitions: 2 })
    await broker.poll(request('a'))
    await broker.poll(request('c'))
    const { assignment } = await broker.poll(request('a'))
    const [held = { topic: 't', partition: 0 }] = assignment
    await broker.produce(['1', '2', '3'].map((value) => record('t', value, { partition: held.partition })))
    const waiting = broker.poll(request('c', 60_000))
    await settle()
    hold()
    const committing = broker.commit(instance('a'), [{ ...held, offset: 2 }])
    const leaving = broker.leave(instance('a'))
    await settle()
    flush()

    const [{ records }] = await Promise.all([waiting, committing, leaving])
    expect(records.map(({ offset }) => offset)).toEqual([2])
  })
})
