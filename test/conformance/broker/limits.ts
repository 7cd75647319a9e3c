/** How large a record and a batch may be. */
import { expect } from 'vitest'
import { DEFAULT_MAX_RECORD_BYTES } from '../../../src/broker.ts'
import { record, series, valuesOf } from '../../support/records.ts'
import type { AddCase } from './harness.ts'
import { newGroup, refusal } from './harness.ts'

export function limits(it: AddCase): void {
  it("counts key, value and headers against the topic's maxRecordBytes, to the byte", async (t) => {
    const topic = await t.topic(1, { maxRecordBytes: 20 })
    const fits = [
      record(topic, 'x'.repeat(20)),
      record(topic, 'x'.repeat(10), { key: 'k'.repeat(10) }),
      record(topic, 'x'.repeat(10), { key: 'kk', headers: [['head', 'data']] }),
      record(topic, null, { key: 'k'.repeat(20) }),
    ]

    await t.produce(...fits)
    for (const one of fits) {
      const larger = { ...one, value: new Uint8Array((one.value?.length ?? 0) + 1) }
      const error = await refusal(t.broker.produce([larger]), 'MESSAGE_TOO_LARGE')
      expect(error.retriable).toBe(false)
    }

    expect(await t.ends(topic)).toEqual([fits.length])
  })

  it('takes a record of the default limit and brings it back', async (t) => {
    const topic = await t.topic()
    const value = new Uint8Array(DEFAULT_MAX_RECORD_BYTES).fill(0xff)

    await t.produce(record(topic, value))
    await t.reopen()
    const fetched = await t.read(topic)
    const polled = await t.poll({ group: newGroup(), topics: [topic] })

    expect(fetched[0]?.value?.length).toBe(DEFAULT_MAX_RECORD_BYTES)
    expect(fetched[0]?.value?.every((byte) => byte === 0xff)).toBe(true)
    expect(polled.records[0]?.value?.length).toBe(DEFAULT_MAX_RECORD_BYTES)
  })

  it('refuses a record over the default limit, and writes nothing of its call', async (t) => {
    const topic = await t.topic()

    await refusal(
      t.broker.produce([record(topic, 'small'), record(topic, new Uint8Array(DEFAULT_MAX_RECORD_BYTES + 1))]),
      'MESSAGE_TOO_LARGE',
    )

    if (t.features.atomicProduce) expect(await t.ends(topic)).toEqual([0])
  })

  it('takes a batch of a thousand records and gives it back in pieces', async (t) => {
    const topic = await t.topic()
    await t.produce(...series(topic, 0, 1_000))
    await t.reopen()

    const values: string[] = []
    while (values.length < 1_000) {
      const piece = await t.fetch([{ topic, partition: 0, offset: values.length }], { maxRecords: 333 })
      expect(piece.length).toBeLessThanOrEqual(333)
      values.push(...valuesOf(piece))
    }

    expect(values).toEqual(Array.from({ length: 1_000 }, (_, n) => `v${n}`))
  })

  it('takes many headers, and one of many bytes', async (t) => {
    const topic = await t.topic()
    const many = Array.from({ length: 100 }, (_, n) => [`h${n}`, `v${n}`] as const)

    await t.produce(
      record(topic, 'v', { headers: many }),
      record(topic, 'v', { headers: [['h', 'x'.repeat(100_000)]] }),
    )
    const [first, second] = await t.read(topic)

    expect(first?.headers).toHaveLength(100)
    expect(second?.headers[0]?.value).toHaveLength(100_000)
  })
}
