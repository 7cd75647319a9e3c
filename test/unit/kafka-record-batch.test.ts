/** Record batches against the client library's own writing and reading of them, which share no code with ours. */
import { compressionsAlgorithms, createRecordsBatch, crc32c, Reader, readRecordsBatches } from '@platformatic/kafka'
import type { MessageRecord, RecordsBatch } from '@platformatic/kafka'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readBatches, sealBatch, writeBatch } from '../../src/brokers/kafka/record-batch.ts'
import type { ReadRecord, TimedRecord } from '../../src/brokers/kafka/record-batch.ts'
import { BrokerError } from '../../src/errors.ts'
import { bytesOf } from '../../src/record.ts'

const identity = { producerId: 7_000_000_001n, producerEpoch: 3, firstSequence: 41 }
const MOST_MS = Number.MAX_SAFE_INTEGER

const bytes = fc.option(fc.uint8Array({ maxLength: 300 }), { nil: null })
const timed: fc.Arbitrary<TimedRecord> = fc.record({
  record: fc.record({
    topic: fc.constant('orders'),
    key: bytes,
    value: bytes,
    headers: fc.array(fc.record({ key: fc.string({ unit: 'binary', maxLength: 20 }), value: bytes }), { maxLength: 4 }),
  }),
  timestampMs: fc.oneof(fc.integer({ min: 0, max: 3_000_000_000 }), fc.nat(MOST_MS), fc.constant(MOST_MS)),
})
const batch = fc.array(timed, { minLength: 1, maxLength: 80 })

function byLibrary(sealed: Buffer): RecordsBatch[] {
  return readRecordsBatches(Reader.from(sealed))
}

/** All records of the bytes, from an offset on. */
function readAll(sealed: Buffer, from = 0): ReadRecord[] {
  const records: ReadRecord[] = []
  readBatches(sealed, from, (record) => records.push(record) > 0)
  return records
}

const plain = (value: Uint8Array | null): number[] | null => (value === null ? null : [...value])

function plainOf({ record, timestampMs }: TimedRecord, offset: number): object {
  const headers = (record.headers ?? []).map(({ key, value }) => [key, plain(value)])
  return { offset, timestampMs, key: plain(record.key), value: plain(record.value), headers }
}

const plainRead = ({ offset, timestampMs, key, value, headers }: ReadRecord): object => ({
  offset,
  timestampMs,
  key: plain(key),
  value: plain(value),
  headers: headers.map((header) => [header.key, plain(header.value)]),
})

function messages(values: readonly string[]): MessageRecord[] {
  return values.map((value) => ({
    topic: 'orders',
    partition: 0,
    timestamp: 1_000n,
    key: Buffer.alloc(0),
    value: Buffer.from(value),
    headers: new Map(),
  }))
}

describe('a batch that was written', () => {
  it('is what the library reads: records, numbers, producer', async () => {
    await fc.assert(
      fc.asyncProperty(batch, async (records) => {
        const sealed = await sealBatch(writeBatch(records, identity), 'none')
        const [read, ...more] = byLibrary(sealed)

        expect(more).toEqual([])
        expect(read).toMatchObject({ magic: 2, attributes: 0, lastOffsetDelta: records.length - 1, ...identity })
        expect(read?.maxTimestamp).toBe(BigInt(Math.max(...records.map(({ timestampMs }) => timestampMs))))
        expect(
          read?.records.map(({ offsetDelta, timestampDelta, key, value, headers }) => ({
            offset: offsetDelta,
            timestampMs: Number(read.firstTimestamp + timestampDelta),
            key: plain(key),
            value: plain(value),
            headers: headers.map(([key, value]) => [String(key), plain(value)]),
          })),
        ).toEqual(records.map(plainOf))
      }),
    )
  })

  it('has the checksum of all that is behind it', async () => {
    const sealed = await sealBatch(writeBatch([{ record: orders('a'), timestampMs: 5 }], identity), 'none')

    expect(sealed.readUInt32BE(17)).toBe(crc32c(sealed.subarray(21)))
  })

  it.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)('is read back, compressed by %s', async (compression) => {
    await fc.assert(
      fc.asyncProperty(batch, async (records) => {
        const sealed = await sealBatch(writeBatch(records, identity), compression)

        expect(sealed.readInt16BE(21)).toBe(compressionsAlgorithms[compression].bitmask)
        expect(sealed.readUInt32BE(17)).toBe(crc32c(sealed.subarray(21)))
        expect(readAll(sealed).map(plainRead)).toEqual(records.map(plainOf))
      }),
      { numRuns: 20 },
    )
  })
})

describe('reading', () => {
  it('reads what the library writes', () => {
    const [first, second] = [
      createRecordsBatch(messages(['a', 'b'])).buffer,
      createRecordsBatch(messages(['c'])).buffer,
    ]
    second.writeBigInt64BE(2n, 0)

    const read = readAll(Buffer.concat([first, second]))

    expect(read.map(({ offset, value }) => [offset, String(value)])).toEqual([
      [0, 'a'],
      [1, 'b'],
      [2, 'c'],
    ])
  })

  it('begins at the offset and goes on behind the last record', () => {
    const taken: number[] = []
    const sealed = createRecordsBatch(messages(['a', 'b', 'c'])).buffer

    const next = readBatches(sealed, 1, ({ offset }) => taken.push(offset) > 0)

    expect(taken).toEqual([1, 2])
    expect(next).toBe(3)
  })

  it('stops where no more is taken, and counts what it looked at', () => {
    const sizes = { bytes: 0, records: 0 }
    const first = createRecordsBatch(messages(['a', 'b', 'c'])).buffer
    const second = Buffer.from(first)
    second.writeBigInt64BE(3n, 0)

    const next = readBatches(Buffer.concat([first, second]), 0, ({ offset }) => offset < 1, sizes)

    expect(next).toBe(1)
    expect(sizes).toEqual({ bytes: first.length, records: 3 })
  })

  it('takes the time of the append where the topic has that', () => {
    const sealed = createRecordsBatch(messages(['a'])).buffer
    sealed.writeInt16BE(8, 21)
    sealed.writeBigInt64BE(99n, 35)
    mendChecksum(sealed)

    expect(readAll(sealed)[0]?.timestampMs).toBe(99)
  })

  it('passes markers of transactions over', () => {
    const sealed = createRecordsBatch(messages(['marker'])).buffer
    sealed.writeInt16BE(48, 21)
    mendChecksum(sealed)

    expect(readBatches(sealed, 0, () => true)).toBe(1)
    expect(readAll(sealed)).toEqual([])
  })

  it('leaves a batch that was cut for the next answer', () => {
    const sealed = createRecordsBatch(messages(['a'])).buffer

    expect(readBatches(Buffer.concat([sealed, sealed.subarray(0, 40)]), 0, () => true)).toBe(1)
    expect(readBatches(sealed.subarray(0, sealed.length - 1), 0, () => true)).toBe(0)
  })

  it('never reads past a batch, and never for ever, whatever is in it', () => {
    const sealed = createRecordsBatch(messages(['some value', 'another'])).buffer
    fc.assert(
      fc.property(fc.nat(sealed.length - 1), fc.nat(255), (at, value) => {
        const broken = Buffer.from(sealed)
        broken[at] = value
        mendChecksum(broken)
        expect(outcomeOf(() => readBatches(broken, 0, () => true))).toMatch(/^(read|refused)$/)
      }),
    )
  })

  it('refuses a batch in which one bit is another than it was', () => {
    const sealed = createRecordsBatch(messages(['some value', 'another'])).buffer
    fc.assert(
      fc.property(fc.integer({ min: 21, max: sealed.length - 1 }), fc.nat(7), (at, bit) => {
        const broken = Buffer.from(sealed)
        broken[at] = (broken[at] ?? 0) ^ (1 << bit)
        expect(() => readAll(broken)).toThrow(/does not fit its checksum/)
      }),
    )
  })

  it('refuses what is no batch', () => {
    const sealed = createRecordsBatch(messages(['a'])).buffer
    sealed[16] = 1

    expect(() => readAll(sealed)).toThrow(BrokerError)
  })
})

function orders(value: string): TimedRecord['record'] {
  return { topic: 'orders', key: null, value: bytesOf(value) }
}

function mendChecksum(batch: Buffer): void {
  batch.writeUInt32BE(crc32c(batch.subarray(21)), 17)
}

function outcomeOf(read: () => unknown): string {
  try {
    read()
    return 'read'
  } catch (error) {
    return error instanceof Error ? 'refused' : 'thrown something'
  }
}
