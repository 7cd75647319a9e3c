/** The end of a broker. */
import { expect } from 'vitest'
import { record } from '../../support/records.ts'
import { everyCall } from './abort.ts'
import type { AddCase } from './harness.ts'
import { newGroup, refusal } from './harness.ts'

export function close(it: AddCase): void {
  it('makes every later call reject with CLOSED', async (t) => {
    const topic = await t.topic()
    const calls = everyCall(t, topic)

    await t.broker.close()

    for (const use of Object.values(calls)) {
      const error = await refusal(use(), 'CLOSED')
      expect(error.retriable).toBe(false)
    }
  })

  it('may be called twice, and twice at once', async (t) => {
    await Promise.all([t.broker.close(), t.broker.close()])
    await t.broker.close()
  })

  it('is what `await using` does', async (t) => {
    {
      await using broker = t.broker
      await broker.topics()
    }

    await refusal(t.broker.topics(), 'CLOSED')
  })

  it('ends calls that wait', async (t) => {
    const topic = await t.topic()
    const fetching = t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 4_321 })
    const polling = t.poll({ group: newGroup(), topics: [topic], maxWaitMs: 4_322 }).then(({ records }) => records)
    const outcomes = Promise.allSettled([fetching, polling])
    await t.untilWaiting(4_321)
    await t.untilWaiting(4_322)

    await t.broker.close()

    for (const outcome of await outcomes) {
      if (outcome.status === 'fulfilled') expect(outcome.value).toEqual([])
      else await refusal(Promise.reject(outcome.reason), 'CLOSED')
    }
  })

  it('settles every call that was under way', async (t) => {
    const topic = await t.topic()
    const produces = Array.from({ length: 20 }, (_, n) => t.broker.produce([record(topic, `v${n}`)]))
    const outcomes = Promise.allSettled(produces)

    await t.broker.close()

    for (const outcome of await outcomes) {
      if (outcome.status === 'rejected') await refusal(Promise.reject(outcome.reason), 'CLOSED')
    }
  })

  it('loses nothing that was acknowledged', async (t) => {
    const topic = await t.topic()
    await Promise.all(Array.from({ length: 20 }, (_, n) => t.produce(record(topic, `v${n}`))))

    await t.reopen()

    expect(await t.read(topic)).toHaveLength(20)
  })
}
