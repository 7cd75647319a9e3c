import { describe, expect, test } from 'vitest'
import { memoryBroker } from '../../../src/brokers/memory.ts'
import { budgetOf } from '../../../src/consumer/budget.ts'
import { Calls } from '../../../src/consumer/calls.ts'
import { Claim } from '../../../src/consumer/claim.ts'
import { FakeClock } from '../../support/clock.ts'

describe('a claim', () => {
  test('that was renewed within its life is kept', async () => {
    const { claim, clock, lost } = openClaim()
    claim.renewed(clock.monotonic())

    await clock.advance(10_000)
    claim.checkLapse()

    expect(lost).toEqual([])
    claim.close()
  })

  test('is given up where the run stood still for the whole of its life, though nobody has it', async () => {
    const { claim, clock, lost } = openClaim()
    claim.renewed(clock.monotonic() - 3_000)

    claim.checkLapse()

    expect(lost).toEqual(['CLAIM_LOST'])
    claim.close()
  })

  test('that the run never had is not lost', () => {
    const { claim, lost } = openClaim()

    claim.checkLapse()

    expect(lost).toEqual([])
  })
})

function openClaim() {
  const clock = new FakeClock()
  const lost: string[] = []
  const claim = new Claim({
    broker: memoryBroker({ clock }),
    group: { groupId: 'shop', groupInstanceId: 'one' },
    runId: 'run',
    claimTtlMs: 3_000,
    clock,
    random: () => 0.5,
    calls: new Calls(clock, budgetOf({}, clock), 1_000),
    ending: new AbortController().signal,
    backoff: { initialMs: 100, maxMs: 1_000, factor: 2 },
    onSpent: () => undefined,
    onClaimLost: ({ code }) => lost.push(code),
  })
  return { claim, clock, lost }
}
