/** Calls that are given up, by their signal or by their time. */
import { expect } from 'vitest'
import type { Call } from '../../../src/broker.ts'
import { record, series, valuesOf } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { newGroup, newRun, refusal, unusedName } from './harness.ts'

class GivenUp extends Error {}

export function abort(it: AddCase): void {
  it('rejects every call whose signal is aborted already, with the reason of the signal', async (t) => {
    const topic = await t.topic()
    const reason = new GivenUp('no longer wanted')

    for (const [name, use] of Object.entries(everyCall(t, topic))) {
      await expect(use({ signal: AbortSignal.abort(reason) }), name).rejects.toBe(reason)
    }
  })

  it('rejects with ABORTED for a signal that was aborted for no error', async (t) => {
    const topic = await t.topic()

    const error = await refusal(
      t.broker.produce([record(topic, 'v')], {}, { signal: AbortSignal.abort('tired') }),
      'ABORTED',
    )

    expect(error.cause).toBe('tired')
  })

  it('ends a fetch that waits at once', async (t) => {
    const topic = await t.topic()
    const controller = new AbortController()
    const reason = new GivenUp('enough')
    const waiting = t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 4_321 }, { signal: controller.signal })
    await t.untilWaiting(4_321)

    controller.abort(reason)

    await expect(waiting).rejects.toBe(reason)
  })

  it('ends a poll that waits at once, and loses nothing by it', async (t) => {
    const topic = await t.topic()
    const group = newGroup()
    const run = t.features.claims ? { run: newRun({ positions: [] }) } : {}
    const controller = new AbortController()
    const reason = new GivenUp('enough')
    const request = { group, topics: [topic], ...run }
    const waiting = t.poll({ ...request, maxWaitMs: 4_321 }, { signal: controller.signal })
    await t.untilWaiting(4_321)

    controller.abort(reason)
    await expect(waiting).rejects.toBe(reason)
    await t.produce(record(topic, 'kept'))

    expect(valuesOf((await t.poll(request)).records)).toEqual(['kept'])
  })

  it('ends only the call that was given up', async (t) => {
    const topic = await t.topic()
    const from = [{ topic, partition: 0, offset: 0 }]
    const controller = new AbortController()
    const ended = t.fetch(from, { maxWaitMs: 4_321 }, { signal: controller.signal })
    const other = t.fetch(from, { maxWaitMs: 4_322 })
    await t.untilWaiting(4_321)
    await t.untilWaiting(4_322)

    controller.abort(new GivenUp())
    await expect(ended).rejects.toBeInstanceOf(GivenUp)
    await t.produce(record(topic, 'v'))

    expect(valuesOf(await other)).toEqual(['v'])
  })

  it('has written all or nothing of a produce that was given up', async (t) => {
    const topic = await t.topic(2)
    const controller = new AbortController()
    const records = [...series(topic, 0, 50), ...series(topic, 1, 50)]

    const produced = t.broker.produce(records, {}, { signal: controller.signal }).then(
      () => 'stored',
      (error: unknown) => (error instanceof GivenUp ? 'given up' : error),
    )
    controller.abort(new GivenUp())
    const outcome = await produced
    // A produce after it shows that the one before has come to its end, one way or the other.
    await t.produce(record(topic, 'after', { partition: 0 }))
    await t.reopen()

    expect(outcome).toBe('given up')
    if (t.features.atomicProduce)
      expect([
        [1, 0],
        [51, 50],
      ]).toContainEqual(await t.ends(topic, 2))
  })

  it('does nothing more when a signal is aborted after its call', async (t) => {
    const topic = await t.topic()
    const controller = new AbortController()
    await t.broker.produce([record(topic, 'v')], {}, { signal: controller.signal })
    await t.fetch([{ topic, partition: 0, offset: 0 }], {}, { signal: controller.signal })

    controller.abort(new GivenUp())

    expect(valuesOf(await t.read(topic))).toEqual(['v'])
  })

  it('rejects with TIMEOUT when timeoutMs has passed, and not before', async (t) => {
    const topic = await t.topic()
    const fetching = t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 60_000 }, { timeoutMs: 1_111 })
    const polling = t.poll({ group: newGroup(), topics: [topic], maxWaitMs: 60_001 }, { timeoutMs: 1_112 })
    const outcomes = Promise.all([refusal(fetching, 'TIMEOUT'), refusal(polling, 'TIMEOUT')])
    await t.untilWaiting(1_111)
    await t.untilWaiting(1_112)

    await t.pass(1_113)

    for (const error of await outcomes) expect(error.retriable).toBe(true)
  })

  it('answers in time where the wait is shorter than timeoutMs', async (t) => {
    const topic = await t.topic()
    const fetching = t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 1_234 }, { timeoutMs: 30_000 })
    await t.untilWaiting(1_234)

    await t.pass(1_234)

    expect(await fetching).toEqual([])
  })
}

/** Every method of the port that takes a `Call`, on a topic that exists. */
export function everyCall(t: BrokerCase, topic: string): Record<string, (call?: Call) => Promise<unknown>> {
  const { broker } = t
  const group = newGroup()
  const partition = { topic, partition: 0 }
  const limits = { maxWaitMs: 0, maxRecords: 1, maxBytes: 1 }
  return {
    produce: (call) => broker.produce([record(topic, 'v')], {}, call),
    'produce of nothing': (call) => broker.produce([], {}, call),
    fetch: (call) => broker.fetch([{ ...partition, offset: 0 }], limits, call),
    poll: (call) => broker.poll({ group, topics: [topic], ...limits }, call),
    claim: (call) => broker.claim(group, { runId: 'run' }, call),
    release: (call) => broker.release(group, 'run', call),
    commit: (call) => broker.commit(group, [{ ...partition, offset: 0 }], {}, call),
    'commit of what was polled': (call) => broker.commit(group, 'polled', {}, call),
    committed: (call) => broker.committed(group.groupId, [partition], call),
    offsets: (call) => broker.offsets([partition], 'latest', call),
    topics: (call) => broker.topics(call),
    createTopic: (call) => broker.createTopic({ topic: unusedName('topic') }, call),
    deleteTopic: (call) => broker.deleteTopic(topic, call),
    groups: (call) => broker.groups(call),
    leave: (call) => broker.leave(group, call),
  }
}
