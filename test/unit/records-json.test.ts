import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { recordsJson } from '../../src/gateway/records-json.ts'
import { showBytes, type Encoding } from '../../src/gateway/text.ts'
import type { ConsumerRecord } from '../../src/record.ts'

/** Texts with what JSON escapes, texts beyond ASCII, and bytes that are no text. */
const bytes = fc.option(
  fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }).map((text) => new TextEncoder().encode(text)),
    fc
      .string({ unit: fc.constantFrom('a', '"', '\\', '\n', '\t', '\b', '\f', '\r', '\u0000', '\u007f', 'é') })
      .map((text) => new TextEncoder().encode(text)),
    fc.uint8Array({ maxLength: 200 }),
  ),
  { nil: null },
)
const record: fc.Arbitrary<ConsumerRecord> = fc.record({
  topic: fc.constantFrom('orders', 'bills'),
  partition: fc.nat(100),
  offset: fc.nat(Number.MAX_SAFE_INTEGER),
  timestampMs: fc.nat(Number.MAX_SAFE_INTEGER),
  key: bytes,
  value: bytes,
  headers: fc.array(fc.record({ key: fc.string({ unit: 'binary' }), value: bytes }), { maxLength: 3 }),
})

function shown({ key, value, timestampMs, headers, ...place }: ConsumerRecord, encoding: Encoding): object {
  return {
    ...place,
    timestamp: timestampMs,
    key: showBytes(key, encoding),
    value: showBytes(value, encoding),
    headers: headers.map((header) => ({ key: header.key, value: showBytes(header.value, encoding) })),
  }
}

describe('the JSON of records', () => {
  it.each(['text', 'base64'] as const)('is what JSON.stringify makes of them, as %s', (encoding) => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 20 }), (records) => {
        const json = new TextDecoder('utf-8', { fatal: true }).decode(recordsJson(records, encoding))

        expect(json).toBe(JSON.stringify(records.map((one) => shown(one, encoding))))
      }),
      { numRuns: 300 },
    )
  })
})
