/** Many calls at once. */
import { expect } from 'vitest'
import { BrokerError } from '../../../src/errors.ts'
import { record, series, sortedValuesOf, textKeyOf } from '../../support/records.ts'
import type { AddCase } from './harness.ts'
import { instanceOf, newGroup, refusal, unusedName } from './harness.ts'

export function concurrency(it: AddCase): void {
  it('loses nothing of 50 produces at once', async (t) => {
    const topic = await t.topic(3)

    const metadata = await Promise.all(
      Array.from({ length: 50 }, (_, n) =>
        t.produce(record(topic, `v${n}`, { partition: n % 3 }), record(topic, `w${n}`)),
      ),
    )
    await t.reopen()

    const acknowledged = metadata.flat()
    expect(new Set(acknowledged.map(({ partition, offset }) => `${partition}/${offset}`)).size).toBe(100)
    const read = (await Promise.all([0, 1, 2].map((partition) => t.read(topic, partition)))).flat()
    expect(sortedValuesOf(read)).toEqual(
      Array.from({ length: 50 }, (_, n) => [`v${n}`, `w${n}`])
        .flat()
        .sort(),
    )
  })

  it('answers each of many produces with the offset where its own record is', async (t) => {
    const topic = await t.topic(2)
    const sent = Array.from({ length: 40 }, (_, n) => record(topic, `v${n}`, { key: `k${n}` }))

    const metadata = (await Promise.all(sent.map((one) => t.produce(one)))).flat()

    for (const [n, { partition, offset }] of metadata.entries()) {
      const [found] = await t.read(topic, partition, offset)
      expect(found && textKeyOf(found)).toBe(`k${n}`)
    }
  })

  it('keeps batches of concurrent callers whole and in order', async (t) => {
    const topic = await t.topic()

    await Promise.all(Array.from({ length: 10 }, (_, n) => t.produce(...series(topic, 0, 20, `call${n}-`))))
    const values = (await t.read(topic)).map((read) => new TextDecoder().decode(read.value ?? undefined))

    for (let n = 0; n < 10; n++) {
      const own = values.filter((value) => value.startsWith(`call${n}-`))
      expect(own).toEqual(Array.from({ length: 20 }, (_, m) => `call${n}-${m}`))
    }
  })

  it('gives every record to a group exactly once while members share it', async (t) => {
    const topic = await t.topic(6)
    const groupId = unusedName('group')
    const members = ['a', 'b', 'c'].map((id) => instanceOf(groupId, id))
    for (const group of members) await t.pollNow({ group, topics: [topic] })

    const received: string[] = []
    const producing = Promise.all(
      Array.from({ length: 60 }, (_, n) => t.produce(record(topic, `v${n}`, { partition: n % 6 }))),
    )
    const consuming = members.map(async (group) => {
      for (let round = 0; round < 50 && received.length < 60; round++) {
        const { records } = await t.poll({ group, topics: [topic], maxWaitMs: 0, maxRecords: 5 })
        received.push(...sortedValuesOf(records))
      }
    })
    await producing
    await Promise.all(consuming)
    while (received.length < 60) {
      for (const group of members)
        received.push(...sortedValuesOf((await t.pollNow({ group, topics: [topic] })).records))
    }

    expect(received.sort()).toEqual(Array.from({ length: 60 }, (_, n) => `v${n}`).sort())
  })

  it('lets one of many make a topic, or claim an instance', async (t) => {
    const topic = unusedName('topic')
    if (t.features.topicAdmin) {
      const made = await Promise.allSettled(Array.from({ length: 8 }, () => t.broker.createTopic({ topic })))
      expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
      for (const outcome of made) {
        if (outcome.status === 'rejected') await refusal(Promise.reject(outcome.reason), 'TOPIC_ALREADY_EXISTS')
      }
    }
    if (t.features.claims) {
      const group = newGroup()
      const claimed = await Promise.allSettled(
        Array.from({ length: 8 }, (_, n) => t.broker.claim(group, { runId: `run${n}` })),
      )
      expect(claimed.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    }
  })

  it('stores one of the offsets that are committed at once, and each of those for different partitions', async (t) => {
    const topic = await t.topic(10)
    const group = newGroup()

    await Promise.all(
      Array.from({ length: 10 }, (_, partition) => t.broker.commit(group, [{ topic, partition, offset: partition }])),
    )

    expect((await t.broker.committed(group.groupId)).map(({ offset }) => offset)).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ])
  })

  it('reads whole records while others write', async (t) => {
    const topic = await t.topic()
    const produces = Array.from({ length: 30 }, (_, n) => t.broker.produce(series(topic, 0, 10, `${n}-`)))
    const reads = Array.from({ length: 30 }, () => t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 0 }))

    for (const records of await Promise.all(reads)) {
      expect(records.map(({ offset }) => offset)).toEqual(records.map((_, n) => n))
      expect(records.length % 10).toBe(0)
    }
    for (const results of await Promise.all(produces)) {
      expect(results.filter((result) => result instanceof BrokerError)).toEqual([])
    }
  })
}
