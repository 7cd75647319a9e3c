import * as fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import type { ProduceResult } from '../../src/broker.ts'
import type { ConsumerRecord, ProducerRecord } from '../../src/record.ts'
import { openRedriveBench, systems } from '../redrive/bench.ts'
import { finish, TOPIC } from '../support/consumer.ts'
import { contentOf } from '../support/records.ts'

vi.setConfig({ testTimeout: 120_000 })

const bytes = fc.oneof(
  fc.constant(null),
  fc.uint8Array({ maxLength: 40 }),
  fc.constant(new TextEncoder().encode('null')),
)
/** Few names, so that duplicates are frequent, and the one that Kedge itself uses among them. */
const headerName = fc.oneof(fc.constantFrom('a', 'b', 'kedge-returned'), fc.string({ minLength: 1, unit: 'grapheme' }))
const anyRecord: fc.Arbitrary<ProducerRecord> = fc.record({
  topic: fc.constant(TOPIC),
  partition: fc.constantFrom(0, 1),
  key: bytes,
  value: bytes,
  headers: fc.array(fc.record({ key: headerName, value: bytes }), { maxLength: 4 }),
  timestampMs: fc.integer({ min: 0, max: 4_102_444_800_000 }),
})

const RECORDS = 250

test.each(systems.filter(({ name }) => !name.startsWith('log')))(
  'records are the same in every byte after a dead letter and a redrive ($name)',
  async (system) => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyRecord, { minLength: RECORDS, maxLength: RECORDS }), async (records) => {
        const bench = await openRedriveBench(system)
        const places = await bench.broker.produce(records)
        await bench.drain()
        bench.isDown = false
        const { redriven } = await finish(bench.clock, bench.redrive().run({ actor: 'test', perSecond: 10_000 }))
        await bench.drain()

        const seen = bench.handled.map(({ record }) => shown(record)).sort()
        const given = records.map((record, index) => shown(asRead(record, index, places))).sort()
        expect(redriven).toBe(RECORDS)
        expect(seen).toEqual(given)
      }),
      { numRuns: 20 },
    )
  },
)

/** A record as it was given, at the place that it got. */
function asRead(record: ProducerRecord, index: number, places: readonly ProduceResult[]): ConsumerRecord {
  const place = places[index]
  if (place === undefined || place instanceof Error) throw new Error(`Record ${index} was not stored.`)
  const { topic, key, value, headers = [], timestampMs = 0 } = record
  return { topic, key, value, headers, timestampMs, partition: place.partition, offset: place.offset }
}

function shown(record: ConsumerRecord): string {
  const { topic, partition, offset, timestampMs } = record
  return JSON.stringify({ topic, partition, offset, timestampMs, ...contentOf(record) })
}
