/** The hot path's own reading of a produce must agree with the schema's on everything it takes. */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseBody, parseFast } from '../../src/gateway/body.ts'
import { gatewayLimits } from '../../src/gateway/limits.ts'
import { fastRecords, producerRecord } from '../../src/gateway/records.ts'
import { RecordsIn, TopicRecordsIn } from '../../src/gateway/schemas.ts'
import { bytesOf, type ProducerRecord } from '../../src/record.ts'

const odd = fc.constantFrom<unknown>(
  null,
  undefined,
  '',
  0,
  -1,
  1.5,
  1e3,
  2 ** 31,
  2 ** 53,
  'blue',
  '..',
  'a b',
  [],
  {},
  true,
  '\ud800',
)
const field = (plain: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> => fc.oneof({ arbitrary: plain, weight: 4 }, odd)
const record = fc.record(
  {
    topic: field(fc.constantFrom('blue', 'a.b-c_9')),
    value: field(fc.string({ unit: 'binary' })),
    key: field(fc.string({ unit: 'grapheme' })),
    partition: field(fc.nat(5)),
    timestamp: field(fc.maxSafeNat()),
    headers: field(fc.array(fc.record({ key: fc.string(), value: field(fc.string()) }), { maxLength: 2 })),
    extra: fc.anything(),
  },
  { requiredKeys: [] },
)
const body = fc.oneof(
  record,
  fc.array(record, { maxLength: 3 }),
  fc.json().map((text) => JSON.parse(text) as unknown),
)

test.each([undefined, 'path-topic'])(
  'what the fast reader takes, the schema reads as the same records (topic %s)',
  (topic) => {
    let taken = 0
    fc.assert(
      fc.property(body, (value) => {
        const bytes = bytesOf(JSON.stringify(value) ?? 'null')
        const fast = fastRecords(parseFast(bytes, gatewayLimits), bytes.length, topic)
        if (fast === undefined) return
        taken += 1

        expect(fast).toEqual(slowRecords(bytes, topic))
      }),
      { numRuns: 3000 },
    )

    expect(taken).toBeGreaterThan(100)
  },
)

test('the fast reader takes the plain forms that callers send', () => {
  for (const value of [{ value: 'x' }, [{ value: 'x', key: 'k' }], { value: 'x', partition: 0, timestamp: 1 }, []]) {
    const bytes = bytesOf(JSON.stringify(value))

    expect(fastRecords(parseFast(bytes, gatewayLimits), bytes.length, 'blue')).toBeDefined()
  }
})

function slowRecords(bytes: Uint8Array, topic: string | undefined): ProducerRecord[] {
  const json = parseBody(bytes, gatewayLimits, true)
  if (topic === undefined) {
    return [TopicRecordsIn.parse(json)].flat().map((item) => producerRecord(item.topic, item, 'text', 'x'))
  }
  return [RecordsIn.parse(json)].flat().map((item) => producerRecord(topic, item, 'text', 'x'))
}
