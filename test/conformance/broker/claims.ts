/** One run at a time: taking, renewing, losing and giving back the claim on an instance. */
import { expect } from 'vitest'
import { DEFAULT_CLAIM_TTL_MS } from '../../../src/broker.ts'
import { record, series, valuesOf } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { instanceOf, newGroup, newRun, refusal } from './harness.ts'

export function claims(add: AddCase): void {
  /** Adds a case that, without the feature, asserts only the refusal. */
  const it: AddCase = (title, run) =>
    add(title, async (t) => {
      if (t.features.claims) await run(t)
      else await refusesClaims(t)
    })

  it('refuses another run while a claim is live, and says when to come again', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.broker.claim(group, { runId: 'first', claimTtlMs: 30_000 })
    await t.reopen()

    const byClaim = await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')
    const byPoll = await refusal(t.pollNow({ group, topics: [topic], run: { runId: 'second' } }), 'CLAIM_HELD')

    for (const error of [byClaim, byPoll]) {
      expect(error.retriable).toBe(true)
      expect(error.retryAfterMs).toBeGreaterThan(0)
      expect(error.retryAfterMs).toBeLessThanOrEqual(30_000)
    }
  })

  it('lets the same run claim and poll as often as it likes', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun()

    await t.broker.claim(group, run)
    await t.broker.claim(group, run)
    await t.pollNow({ group, topics: [topic], run })
    await t.reopen()
    await t.pollNow({ group, topics: [topic], run })
  })

  it('takes the claim with a poll', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.pollNow({ group, topics: [topic], run: { runId: 'first' } })

    await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')

    const [described] = await t.broker.groups()
    expect(described?.members.map(({ runId }) => runId)).toEqual(['first'])
  })

  it('lapses after its time, and not before', async (t) => {
    const group = newGroup()
    await t.broker.claim(group, { runId: 'first', claimTtlMs: 2_000 })

    await t.pass(1_500)
    const early = await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')
    await t.pass(600)
    await t.broker.claim(group, { runId: 'second' })

    expect(early.retryAfterMs).toBeLessThanOrEqual(500)
  })

  it('lives 60 seconds by default', async (t) => {
    // Too long to wait for where the clock is not the test's.
    if (t.clock === undefined) return
    const group = newGroup()
    await t.broker.claim(group, { runId: 'first' })

    await t.pass(DEFAULT_CLAIM_TTL_MS - 1)
    await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')
    await t.pass(1)

    await t.broker.claim(group, { runId: 'second' })
  })

  it('is renewed by each claim, poll and commit of the run', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun({ claimTtlMs: 2_000 })
    const renewals = [
      () => t.broker.claim(group, run),
      () => t.pollNow({ group, topics: [topic], run }),
      () => t.broker.commit(group, [{ topic, partition: 0, offset: 0 }], { runId: run.runId }),
    ]
    await t.broker.claim(group, run)

    for (const renew of renewals) {
      await t.pass(1_500)
      await renew()
    }
    await t.pass(1_500)

    await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')
  })

  it('holds for as long as a poll of the run waits', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = newRun({ claimTtlMs: 1_000 })
    const waiting = t.poll({ group, topics: [topic], run, maxWaitMs: 3_456 })
    await t.untilWaiting(3_456)

    await t.pass(3_000)
    await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')
    await t.produce(record(topic, 'late'))

    expect(valuesOf((await waiting).records)).toEqual(['late'])
  })

  it('outlives the session of its instance', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = { runId: 'first', claimTtlMs: 30_000 }
    await t.pollNow({ group, topics: [topic], run, sessionTimeoutMs: 1_000 })

    await t.pass(2_500)

    await refusal(t.pollNow({ group, topics: [topic], run: { runId: 'second' } }), 'CLAIM_HELD')
    await t.pollNow({ group, topics: [topic], run })
  })

  it('starts a run that takes the claim from the committed offsets', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 4))

    await t.poll({ group, topics: [topic], run: { runId: 'first', claimTtlMs: 1_000 } })
    await t.broker.commit(group, [{ topic, partition: 0, offset: 1 }], { runId: 'first' })
    await t.pass(1_001)
    const second = await t.poll({ group, topics: [topic], run: { runId: 'second' } })

    expect(valuesOf(second.records)).toEqual(['v1', 'v2', 'v3'])
  })

  it('is free at once after its run gives it back', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 2))
    await t.poll({ group, topics: [topic], run: { runId: 'first' } })

    await t.broker.release(group, 'first')
    await t.reopen()
    const second = await t.poll({ group, topics: [topic], run: { runId: 'second' } })

    expect(valuesOf(second.records)).toEqual(['v0', 'v1'])
  })

  it('is not given back by a run that does not hold it', async (t) => {
    const group = newGroup()
    await t.broker.release(group, 'nobody')
    await t.broker.claim(group, { runId: 'first' })

    await t.broker.release(group, 'second')

    await refusal(t.broker.claim(group, { runId: 'second' }), 'CLAIM_HELD')
  })

  it('is of one instance: others of the group are free', async (t) => {
    const topic = await t.topic(2)
    const group = newGroup()
    const other = instanceOf(group.groupId, 'other')

    await t.pollNow({ group, topics: [topic], run: { runId: 'first' } })
    await t.pollNow({ group: other, topics: [topic], run: { runId: 'second' } })

    const [described] = await t.broker.groups()
    expect(described?.members.map(({ groupInstanceId, runId }) => [groupInstanceId, runId])).toEqual([
      ['i', 'first'],
      ['other', 'second'],
    ])
  })

  it('does not join its group', async (t) => {
    await t.broker.claim(newGroup(), newRun())

    expect(await t.broker.groups()).toEqual([])
  })

  it('goes when its instance leaves', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.pollNow({ group, topics: [topic], run: { runId: 'first' } })

    await t.broker.leave(group)

    await t.broker.claim(group, { runId: 'second' })
  })

  it('is what a commit of a run needs: without it CLAIM_LOST, and nothing is stored', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const entry = [{ topic, partition: 0, offset: 1 }]

    await refusal(t.broker.commit(group, entry, { runId: 'never' }), 'CLAIM_LOST')
    await t.pollNow({ group, topics: [topic], run: { runId: 'first', claimTtlMs: 1_000 } })
    await t.pass(1_001)
    await t.pollNow({ group, topics: [topic], run: { runId: 'second' } })
    const lost = await refusal(t.broker.commit(group, entry, { runId: 'first' }), 'CLAIM_LOST')

    expect(lost.retriable).toBe(false)
    expect(await t.committed(group.groupId, topic)).toBe(-1)
    await t.broker.commit(group, entry, { runId: 'second' })
    expect(await t.committed(group.groupId, topic)).toBe(1)
  })

  it('shuts callers without a run out while it is live', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const entry = [{ topic, partition: 0, offset: 1 }]
    await t.pollNow({ group, topics: [topic], run: { runId: 'first' } })

    const error = await refusal(t.pollNow({ group, topics: [topic] }), 'CLAIM_HELD')
    await refusal(t.broker.commit(group, entry), 'CLAIM_LOST')
    await refusal(t.broker.commit(group, 'polled'), 'CLAIM_LOST')
    await t.broker.release(group, 'first')
    await t.pollNow({ group, topics: [topic] })
    await t.broker.commit(group, entry)

    expect(error.retryAfterMs).toBeGreaterThan(0)
    expect(await t.committed(group.groupId, topic)).toBe(1)
  })

  it('goes to one of two runs that start at once', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.produce(...series(topic, 0, 4))

    const outcomes = await Promise.allSettled(
      ['a', 'b'].map((runId) => t.poll({ group, topics: [topic], run: { runId } })),
    )

    const won = outcomes.filter((outcome) => outcome.status === 'fulfilled')
    const lost = outcomes.filter((outcome) => outcome.status === 'rejected')
    expect(won.map(({ value }) => valuesOf(value.records))).toEqual([['v0', 'v1', 'v2', 'v3']])
    for (const { reason } of lost) await refusal(Promise.reject(reason), 'CLAIM_HELD')
    expect(lost).toHaveLength(1)
  })

  it('says of the run before whether it gave the claim back, in every answer to the one that follows', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const poll = async (runId: string): Promise<boolean | undefined> => {
      const run = { runId, claimTtlMs: 1_000 }
      return (await t.pollNow({ group, topics: [topic], run, sessionTimeoutMs: 30_000 })).formerRunLapsed
    }
    const said: (boolean | undefined)[] = [await poll('first')]
    await t.broker.release(group, 'first')
    said.push(await poll('second'))
    await t.pass(1_001)

    said.push(await poll('third'))
    await t.broker.claim(group, { runId: 'third', claimTtlMs: 1_000 })
    await t.pass(600)
    await t.broker.commit(group, [{ topic, partition: 0, offset: 0 }], { runId: 'third' })
    await t.pass(600)
    said.push(await poll('third'))
    await t.reopen()
    said.push(await poll('third'))
    await t.broker.release(group, 'third')
    said.push(await poll('fourth'))

    expect(said).toEqual([undefined, undefined, true, true, true, undefined])
  })

  it('says so too where the next run took the claim before it polled', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    await t.pollNow({ group, topics: [topic], run: { runId: 'first', claimTtlMs: 1_000 } })
    await t.pass(1_001)

    await t.broker.claim(group, { runId: 'second' })
    const answer = await t.pollNow({ group, topics: [topic], run: { runId: 'second' } })

    expect(answer.formerRunLapsed).toBe(true)
  })

  it('refuses auto-commit, a bad run id and a bad time with INVALID_REQUEST', async (t) => {
    const topic = await t.topic()
    const group = newGroup()

    await refusal(t.pollNow({ group, topics: [topic], run: newRun(), enableAutoCommit: true }), 'INVALID_REQUEST')
    for (const runId of ['', 'x'.repeat(129), 'a b', 'a\r\nb', 'ü']) {
      await refusal(t.broker.claim(group, { runId }), 'INVALID_REQUEST')
      await refusal(t.pollNow({ group, topics: [topic], run: { runId } }), 'INVALID_REQUEST')
    }
    for (const claimTtlMs of [999, 900_001, 0, -1, 1_000.5]) {
      await refusal(t.broker.claim(group, newRun({ claimTtlMs })), 'INVALID_REQUEST')
    }
    await t.broker.claim(group, { runId: 'x'.repeat(128), claimTtlMs: 900_000 })
  })
}

async function refusesClaims(t: BrokerCase): Promise<void> {
  const topic = await t.topic()
  const group = newGroup()
  await refusal(t.broker.claim(group, newRun()), 'UNSUPPORTED')
  await refusal(t.broker.release(group, 'run'), 'UNSUPPORTED')
  await refusal(t.pollNow({ group, topics: [topic], run: newRun() }), 'UNSUPPORTED')
  await refusal(t.broker.commit(group, [{ topic, partition: 0, offset: 1 }], { runId: 'run' }), 'UNSUPPORTED')
  expect(await t.broker.groups()).toEqual([])
}
