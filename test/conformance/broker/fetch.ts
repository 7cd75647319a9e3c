/** Reading from offsets, without a group. */
import { expect } from 'vitest'
import { record, series, sortedValuesOf, valuesOf } from '../../support/records.ts'
import type { AddCase } from './harness.ts'
import { peek, refusal, unusedName } from './harness.ts'

export function fetch(it: AddCase): void {
  it('gives records from the offset on, ascending, with their coordinates', async (t) => {
    const topic = await t.topic(2)
    const metadata = await t.produce(...series(topic, 1, 5))
    await t.reopen()

    const records = await t.fetch([{ topic, partition: 1, offset: 2 }])

    expect(valuesOf(records)).toEqual(['v2', 'v3', 'v4'])
    expect(
      records.map(({ topic, partition, offset, timestampMs }) => ({ topic, partition, offset, timestampMs })),
    ).toEqual(metadata.slice(2))
  })

  it('starts inside a batch and reads over batches', async (t) => {
    const topic = await t.topic()
    for (const prefix of ['a', 'b', 'c']) await t.produce(...series(topic, 0, 3, prefix))

    expect(valuesOf(await t.read(topic, 0, 1))).toEqual(['a1', 'a2', 'b0', 'b1', 'b2', 'c0', 'c1', 'c2'])
  })

  it('reads several partitions and topics, each in its own order', async (t) => {
    const one = await t.topic(2)
    const two = await t.topic(1)
    await t.produce(...series(one, 0, 3, 'a'), ...series(one, 1, 3, 'b'), ...series(two, 0, 3, 'c'))
    const next = new Map([
      [`${one} 0`, 1],
      [`${one} 1`, 0],
      [`${two} 0`, 2],
    ])

    const values: string[] = []
    while (values.length < 6) {
      const from = [...next].map(([at, offset]) => ({
        topic: at.slice(0, -2),
        partition: Number(at.slice(-1)),
        offset,
      }))
      for (const read of await t.fetch(from)) {
        const at = `${read.topic} ${read.partition}`
        expect(read.offset, at).toBe(next.get(at))
        next.set(at, read.offset + 1)
        values.push(...valuesOf([read]))
      }
    }

    expect(values.sort()).toEqual(['a1', 'a2', 'b0', 'b1', 'b2', 'c2'])
  })

  it('resolves as soon as one record is there', async (t) => {
    const topic = await t.topic(2)
    const waiting = t.fetch(
      [
        { topic, partition: 0, offset: 0 },
        { topic, partition: 1, offset: 0 },
      ],
      { maxWaitMs: 4_321 },
    )
    await t.untilWaiting(4_321)

    await t.produce(record(topic, 'woken', { partition: 1 }))

    expect(valuesOf(await waiting)).toEqual(['woken'])
  })

  it('resolves empty after maxWaitMs at the log end, and not before', async (t) => {
    const topic = await t.topic()
    await t.produce(record(topic, 'before'))
    const waiting = t.fetch([{ topic, partition: 0, offset: 1 }], { maxWaitMs: 1_234 })
    await t.untilWaiting(1_234)

    await t.pass(1_000)
    const early = await peek(waiting)
    await t.pass(234)

    expect(early).toBeUndefined()
    expect(await waiting).toEqual([])
  })

  it('answers at once with maxWaitMs 0', async (t) => {
    const topic = await t.topic()

    expect(await t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 0 })).toEqual([])
    await t.produce(record(topic, 'v'))
    expect(valuesOf(await t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 0 }))).toEqual(['v'])
  })

  it('refuses an offset above the log end, or negative, with OFFSET_OUT_OF_RANGE', async (t) => {
    const topic = await t.topic()
    await t.produce(...series(topic, 0, 2))
    await t.reopen()

    await refusal(t.fetch([{ topic, partition: 0, offset: 3 }]), 'OFFSET_OUT_OF_RANGE')
    await refusal(t.fetch([{ topic, partition: 0, offset: Number.MAX_SAFE_INTEGER }]), 'OFFSET_OUT_OF_RANGE')
    await refusal(t.fetch([{ topic, partition: 0, offset: -1 }]), 'OFFSET_OUT_OF_RANGE', 'INVALID_REQUEST')
  })

  it('refuses unknown topics and partitions, also beside known ones', async (t) => {
    const topic = await t.topic(2)
    await t.produce(record(topic, 'v', { partition: 0 }))
    const known = { topic, partition: 0, offset: 0 }

    await refusal(t.fetch([known, { topic, partition: 2, offset: 0 }]), 'UNKNOWN_TOPIC_OR_PARTITION')
    await refusal(
      t.fetch([known, { topic: unusedName('topic'), partition: 0, offset: 0 }]),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )
  })

  it('counts a partition that is named twice once, the last one', async (t) => {
    const topic = await t.topic()
    await t.produce(...series(topic, 0, 4))

    const records = await t.fetch([
      { topic, partition: 0, offset: 0 },
      { topic, partition: 0, offset: 2 },
    ])

    expect(valuesOf(records)).toEqual(['v2', 'v3'])
  })

  it('gives at most maxRecords, of all partitions together', async (t) => {
    const topic = await t.topic(2)
    await t.produce(...series(topic, 0, 5), ...series(topic, 1, 5))
    const both = [
      { topic, partition: 0, offset: 0 },
      { topic, partition: 1, offset: 0 },
    ]

    expect(await t.fetch(both, { maxRecords: 1 })).toHaveLength(1)
    expect((await t.fetch(both, { maxRecords: 7 })).length).toBeLessThanOrEqual(7)
    expect(valuesOf(await t.fetch([{ topic, partition: 0, offset: 1 }], { maxRecords: 2 }))).toEqual(['v1', 'v2'])
  })

  it('gives at most maxBytes, but the first record whatever its size', async (t) => {
    const topic = await t.topic()
    const large = 'x'.repeat(1_000)
    await t.produce(
      record(topic, large, { key: 'a' }),
      record(topic, large, { key: 'b', headers: [['h', large]] }),
      record(topic, 'small', { key: 'c' }),
    )
    const from = (offset: number) => [{ topic, partition: 0, offset }]

    expect(await t.fetch(from(0), { maxBytes: 1 })).toHaveLength(1)
    expect(await t.fetch(from(1), { maxBytes: 1 })).toHaveLength(1)
    // Key 1 + value 1000, then key 1 + value 1000 + header 1 + 1000, then key 1 + value 5.
    expect(await t.fetch(from(0), { maxBytes: 2_500 })).toHaveLength(1)
    expect(await t.fetch(from(0), { maxBytes: 10_000 })).toHaveLength(3)
  })

  it('joins no group and moves no offset', async (t) => {
    const topic = await t.topic()
    await t.produce(...series(topic, 0, 2))

    await t.fetch([{ topic, partition: 0, offset: 0 }])

    expect(await t.broker.groups()).toEqual([])
    expect(valuesOf(await t.fetch([{ topic, partition: 0, offset: 0 }]))).toEqual(['v0', 'v1'])
  })

  it('wakes every fetch that waits for a record', async (t) => {
    const topic = await t.topic()
    const waiting = Array.from({ length: 20 }, (_, n) =>
      t.fetch([{ topic, partition: 0, offset: 0 }], { maxWaitMs: 4_000 + n }),
    )
    await Promise.all(Array.from({ length: 20 }, (_, n) => t.untilWaiting(4_000 + n)))

    await t.produce(record(topic, 'all'))

    for (const records of await Promise.all(waiting)) expect(sortedValuesOf(records)).toEqual(['all'])
  })
}
