/** Looking offsets up: log start, log end, and by time. */
import { expect } from 'vitest'
import { record, series } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { refusal, unusedName } from './harness.ts'

export function offsets(it: AddCase): void {
  it('gives 0 for both ends of an empty partition', async (t) => {
    const topic = await t.topic()
    const partition = [{ topic, partition: 0 }]

    expect(await t.broker.offsets(partition, 'earliest')).toEqual([{ topic, partition: 0, offset: 0 }])
    expect(await t.broker.offsets(partition, 'latest')).toEqual([{ topic, partition: 0, offset: 0 }])
    expect(await t.broker.offsets(partition, 0)).toEqual([{ topic, partition: 0, offset: 0 }])
  })

  it('answers for each partition asked for, in that order', async (t) => {
    const one = await t.topic(3)
    const two = await t.topic(1)
    await t.produce(...series(one, 0, 2), ...series(one, 2, 5), ...series(two, 0, 1))
    await t.reopen()
    const asked = [
      { topic: two, partition: 0 },
      { topic: one, partition: 2 },
      { topic: one, partition: 0 },
      { topic: one, partition: 1 },
      { topic: one, partition: 2 },
    ]

    const latest = await t.broker.offsets(asked, 'latest')

    expect(latest).toEqual(asked.map((partition, n) => ({ ...partition, offset: [1, 5, 2, 0, 5][n] })))
    expect(await t.broker.offsets([], 'latest')).toEqual([])
  })

  it('finds the first record at or after a time, in one batch', async (t) => {
    const topic = await t.topicForEver()
    await t.produce(...[100, 300, 200, 400].map((timestampMs) => record(topic, 'v', { timestampMs })))

    await expectFound(t, topic)
  })

  it('finds the first record at or after a time, over batches and restarts', async (t) => {
    const topic = await t.topicForEver()
    for (const timestampMs of [100, 300, 200, 400]) await t.produce(record(topic, 'v', { timestampMs }))
    await t.reopen()

    await expectFound(t, topic)
  })

  it('gives the log end where no record is so young', async (t) => {
    const topic = await t.topicForEver()
    await t.produce(...[100, 200].map((timestampMs) => record(topic, 'v', { timestampMs })))

    expect(await at(t, topic, 201)).toBe(2)
    expect(await at(t, topic, Number.MAX_SAFE_INTEGER)).toBe(2)
  })

  it('refuses unknown topics and partitions', async (t) => {
    const topic = await t.topic(2)
    const known = { topic, partition: 0 }

    for (const spec of ['earliest', 'latest', 0] as const) {
      await refusal(t.broker.offsets([known, { topic, partition: 2 }], spec), 'UNKNOWN_TOPIC_OR_PARTITION')
      await refusal(
        t.broker.offsets([known, { topic: unusedName('topic'), partition: 0 }], spec),
        'UNKNOWN_TOPIC_OR_PARTITION',
      )
    }
  })
}

/** Offsets 0 to 3 have the times 100, 300, 200, 400: the first at or after is not the nearest in time. */
async function expectFound(t: BrokerCase, topic: string): Promise<void> {
  const found = []
  for (const timeMs of [0, 100, 101, 200, 201, 300, 301, 400, 401]) found.push(await at(t, topic, timeMs))
  expect(found).toEqual([0, 0, 1, 1, 1, 1, 3, 3, 4])
}

async function at(t: BrokerCase, topic: string, timeMs: number): Promise<number | undefined> {
  const [found] = await t.broker.offsets([{ topic, partition: 0 }], timeMs)
  return found?.offset
}
