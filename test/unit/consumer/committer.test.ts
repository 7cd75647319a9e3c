import { describe, expect, test } from 'vitest'
import { defineApp } from '../../../src/app.ts'
import { memoryBroker } from '../../../src/brokers/memory.ts'
import { budgetOf } from '../../../src/consumer/budget.ts'
import { Calls } from '../../../src/consumer/calls.ts'
import { Committer } from '../../../src/consumer/committer.ts'
import { Lanes } from '../../../src/consumer/lanes.ts'
import { BrokerError } from '../../../src/errors.ts'
import { createRouter } from '../../../src/router.ts'
import { FakeClock } from '../../support/clock.ts'
import { withCalls } from '../../support/consumer.ts'

const record = (partition: number): Parameters<Lanes['take']>[0]['records'][number] => ({
  topic: 't',
  partition,
  offset: 0,
  timestampMs: 0,
  key: null,
  value: null,
  headers: [],
})

describe('the committer', () => {
  test('makes no more calls than the run has left, whatever generations its partitions are of', async () => {
    const clock = new FakeClock()
    const calls = new Calls(clock, budgetOf({ maxCalls: 4 }, clock), 1_000)
    const lanes = new Lanes()
    for (const generationId of [1, 2, 3, 4, 5, 6]) {
      const assignment = Array.from({ length: generationId }, (_, partition) => ({ topic: 't', partition }))
      lanes.take({ generationId, assignment, records: [record(generationId - 1)] }, lanes.ask())
    }
    for (const lane of lanes.open) lane.pass()
    let made = 0
    const committer = new Committer({
      app: defineApp({ groupId: 'g', router: createRouter().on({ topic: 't' }, () => undefined) }),
      broker: withCalls(memoryBroker({ clock }), {
        commit: () => {
          made += 1
          return made === 1 ? Promise.resolve() : Promise.reject(new BrokerError('ILLEGAL_GENERATION', 'moved'))
        },
      }),
      group: { groupId: 'g', groupInstanceId: 'i' },
      runId: 'r',
      clock,
      random: () => 0.5,
      calls,
      lanes,
      keepsProgress: false,
      careful: { isOn: false },
      everyRecords: 100,
      everyMs: 1_000,
      backoff: { initialMs: 1, maxMs: 1, factor: 1 },
      onContact: () => undefined,
      onClaimLost: () => undefined,
      isSilent: () => false,
      onRefused: () => undefined,
    })

    await committer.finish(clock.monotonic() + 10_000)

    // One is left to give the claim back.
    expect(made).toBe(3)
    expect(calls.left).toBe(1)
  })
})
