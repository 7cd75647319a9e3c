/**
 * Record batches, as Kafka stores and sends them (magic 2), written into one buffer and read out of one. The client library's
 * own take a writer for each record and a search through the chunks of an answer for each field.
 *
 * ```
 * batch  => baseOffset i64, length i32, leaderEpoch i32, magic i8, crc u32, attributes i16, lastOffsetDelta i32,
 *           baseTimestamp i64, maxTimestamp i64, producerId i64, producerEpoch i16, baseSequence i32, count i32, records
 * record => length varint, attributes i8, timestampDelta varlong, offsetDelta varint, key, value, headers
 * ```
 *
 * What follows `count` is compressed as a whole. The checksum (CRC-32C) covers everything after itself.
 *
 * @see https://kafka.apache.org/documentation/#recordbatch
 */
import { compressionsAlgorithms, compressionsAlgorithmsByBitmask, crc32c, Writer } from '@platformatic/kafka'
import type { CompressionAlgorithmValue } from '@platformatic/kafka'
import { BrokerError } from '../../errors.ts'
import { textOf } from '../../record.ts'
import type { Header, ProducerRecord } from '../../record.ts'

/** A record to be written, and its time. */
export interface TimedRecord {
  readonly record: ProducerRecord
  readonly timestampMs: number
}

/** What makes a batch that is sent again the same batch. */
export interface BatchIdentity {
  readonly producerId: bigint
  readonly producerEpoch: number
  readonly firstSequence: number
}

/** Where the fields of a batch are. */
const LENGTH_AT = 8
const LEADER_EPOCH_AT = 12
const MAGIC_AT = 16
const CRC_AT = 17
const ATTRIBUTES_AT = 21
const LAST_OFFSET_DELTA_AT = 23
const BASE_TIMESTAMP_AT = 27
const MAX_TIMESTAMP_AT = 35
const PRODUCER_ID_AT = 43
const PRODUCER_EPOCH_AT = 51
const BASE_SEQUENCE_AT = 53
const COUNT_AT = 57
const RECORDS_AT = 61
const BEFORE_LENGTH = 12

const MAGIC = 2
const COMPRESSION_BITS = 0b111
const LOG_APPEND_TIME = 0b1000
const CONTROL = 0b10_0000

// --- writing --------------------------------------------------------------------------------------------------------------

/** Writes records into a batch that only lacks its checksum. Nothing of them is referred to afterwards. */
export function writeBatch(records: readonly TimedRecord[], identity: BatchIdentity): Buffer {
  const first = records[0]?.timestampMs ?? 0
  let latest = first
  let size = RECORDS_AT
  let offsetDelta = 0
  for (const { record, timestampMs } of records) {
    const body = bodySize(record, timestampMs - first, offsetDelta)
    size += varintSize(body * 2) + body
    if (timestampMs > latest) latest = timestampMs
    offsetDelta += 1
  }
  const batch = Buffer.allocUnsafe(size)
  batch.writeBigInt64BE(0n, 0)
  batch.writeInt32BE(size - BEFORE_LENGTH, LENGTH_AT)
  // The leader writes its own.
  batch.writeInt32BE(-1, LEADER_EPOCH_AT)
  batch.writeInt8(MAGIC, MAGIC_AT)
  batch.writeInt16BE(0, ATTRIBUTES_AT)
  batch.writeInt32BE(records.length - 1, LAST_OFFSET_DELTA_AT)
  batch.writeBigInt64BE(BigInt(first), BASE_TIMESTAMP_AT)
  batch.writeBigInt64BE(BigInt(latest), MAX_TIMESTAMP_AT)
  batch.writeBigInt64BE(identity.producerId, PRODUCER_ID_AT)
  batch.writeInt16BE(identity.producerEpoch, PRODUCER_EPOCH_AT)
  batch.writeInt32BE(identity.firstSequence, BASE_SEQUENCE_AT)
  batch.writeInt32BE(records.length, COUNT_AT)
  const output = new Output(batch, RECORDS_AT)
  offsetDelta = 0
  for (const { record, timestampMs } of records) {
    writeRecord(output, record, timestampMs - first, offsetDelta)
    offsetDelta += 1
  }
  return batch
}

/** Compresses a batch where that is asked for, and gives it its checksum. */
export async function sealBatch(batch: Buffer, compression: CompressionAlgorithmValue): Promise<Buffer> {
  if (compression === 'none') return withChecksum(batch)
  const algorithm = compressionsAlgorithms[compression]
  const records = batch.subarray(RECORDS_AT)
  const compressed =
    'compress' in algorithm ? await algorithm.compress(records) : await Promise.resolve(algorithm.compressSync(records))
  const sealed = Buffer.concat([batch.subarray(0, RECORDS_AT), compressed])
  sealed.writeInt32BE(sealed.length - BEFORE_LENGTH, LENGTH_AT)
  sealed.writeInt16BE(algorithm.bitmask, ATTRIBUTES_AT)
  return withChecksum(sealed)
}

function withChecksum(batch: Buffer): Buffer {
  batch.writeUInt32BE(checksumOf(batch), CRC_AT)
  return batch
}

function checksumOf(batch: Buffer): number {
  // The library copies what it is given as a buffer.
  return crc32c(Writer.create().append(batch.subarray(ATTRIBUTES_AT)).dynamicBuffer)
}

function bodySize({ key, value, headers = [] }: ProducerRecord, timestampDelta: number, offsetDelta: number): number {
  let size = 1 + varlongSize(timestampDelta) + varintSize(offsetDelta * 2) + bytesSize(key) + bytesSize(value)
  size += varintSize(headers.length * 2)
  for (const header of headers) {
    const length = Buffer.byteLength(header.key)
    size += varintSize(length * 2) + length + bytesSize(header.value)
  }
  return size
}

function writeRecord(output: Output, record: ProducerRecord, timestampDelta: number, offsetDelta: number): void {
  const { key, value, headers = [] } = record
  output.length(bodySize(record, timestampDelta, offsetDelta))
  output.byte(0)
  output.varlong(timestampDelta)
  output.length(offsetDelta)
  output.bytes(key)
  output.bytes(value)
  output.length(headers.length)
  for (const header of headers) {
    output.text(header.key)
    output.bytes(header.value)
  }
}

function bytesSize(bytes: Uint8Array | null): number {
  return bytes === null ? 1 : varintSize(bytes.length * 2) + bytes.length
}

function varintSize(unsigned: number): number {
  if (unsigned < 0x80) return 1
  if (unsigned < 0x4000) return 2
  if (unsigned < 0x20_0000) return 3
  return unsigned < 0x1000_0000 ? 4 : 5
}

/** Differences of times are safe integers, which have at most 54 bits as Kafka writes them: in numbers up to there, exact. */
function varlongSize(signed: number): number {
  if (isShort(signed)) return varintSize(zigZag(signed))
  let size = 1
  for (let left = zigZagLong(signed) >> 7n; left > 0n; left >>= 7n) size += 1
  return size
}

function isShort(signed: number): boolean {
  return signed > -0x4000_0000 && signed < 0x4000_0000
}

function zigZag(signed: number): number {
  return (signed << 1) ^ (signed >> 31)
}

function zigZagLong(signed: number): bigint {
  const wide = BigInt(signed)
  return wide >= 0n ? wide * 2n : -wide * 2n - 1n
}

/** Writes from a place on; whoever makes it has made room. */
class Output {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  byte(value: number): void {
    this.#bytes[this.#at++] = value
  }

  /** A length or count: Kafka writes signed numbers, in which -1 is none. */
  length(value: number): void {
    this.#varint(value * 2)
  }

  varlong(signed: number): void {
    if (isShort(signed)) {
      this.#varint(zigZag(signed))
      return
    }
    let left = zigZagLong(signed)
    while (left >= 0x80n) {
      this.byte(Number(left & 0x7fn) | 0x80)
      left >>= 7n
    }
    this.byte(Number(left))
  }

  bytes(bytes: Uint8Array | null): void {
    if (bytes === null) {
      this.byte(1)
      return
    }
    this.length(bytes.length)
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
  }

  text(text: string): void {
    this.length(Buffer.byteLength(text))
    this.#at += this.#bytes.write(text, this.#at)
  }

  #varint(unsigned: number): void {
    let left = unsigned
    while (left >= 0x80) {
      this.#bytes[this.#at++] = (left & 0x7f) | 0x80
      left >>>= 7
    }
    this.#bytes[this.#at++] = left
  }
}

// --- reading --------------------------------------------------------------------------------------------------------------

/** A record as it was read; its bytes are a part of the answer's. */
export interface ReadRecord {
  readonly offset: number
  readonly timestampMs: number
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/** What an answer holds, whether it was read or not. */
export interface BatchSizes {
  /** As they were sent. */
  bytes: number
  records: number
}

/**
 * Reads the records of an answer's batches, from an offset on, until `take` wants no more; what is behind is not even looked at.
 * Gives the offset to go on from. Whole batches are sent, so that the first may begin before the offset; the last may be cut.
 * @throws {BrokerError} BAD_RESPONSE for what is no batch · CORRUPT_MESSAGE for one that its checksum does not fit
 */
export function readBatches(
  bytes: Buffer,
  from: number,
  take: (record: ReadRecord) => boolean,
  sizes?: BatchSizes,
): number {
  let next = from
  for (let at = 0; at + RECORDS_AT <= bytes.length;) {
    const end = at + BEFORE_LENGTH + bytes.readInt32BE(at + LENGTH_AT)
    if (end > bytes.length) break
    if (bytes[at + MAGIC_AT] !== MAGIC || end < at + RECORDS_AT) throw notABatch()
    const batch = bytes.subarray(at, end)
    if (sizes !== undefined) {
      sizes.bytes += batch.length
      sizes.records += batch.readInt32BE(COUNT_AT)
    }
    const baseOffset = Number(batch.readBigInt64BE(0))
    // Before anything of it is believed, how many records it has above all.
    if (batch.readUInt32BE(CRC_AT) !== checksumOf(batch)) throw corrupt(baseOffset)
    const after = baseOffset + batch.readInt32BE(LAST_OFFSET_DELTA_AT) + 1
    // Markers of transactions are not records.
    if (after > next && (batch.readInt16BE(ATTRIBUTES_AT) & CONTROL) === 0) {
      const stoppedAt = readRecords(batch, baseOffset, next, take)
      if (stoppedAt !== undefined) return stoppedAt
    }
    next = Math.max(next, after)
    at = end
  }
  return next
}

/** Gives the offset of the record that was not taken, or undefined where all of them were. */
function readRecords(
  batch: Buffer,
  baseOffset: number,
  from: number,
  take: (record: ReadRecord) => boolean,
): number | undefined {
  const attributes = batch.readInt16BE(ATTRIBUTES_AT)
  const baseTimestamp = Number(batch.readBigInt64BE(BASE_TIMESTAMP_AT))
  const appendTime = (attributes & LOG_APPEND_TIME) === 0 ? undefined : Number(batch.readBigInt64BE(MAX_TIMESTAMP_AT))
  const input = new Input(decompressed(batch.subarray(RECORDS_AT), attributes & COMPRESSION_BITS))
  for (let left = batch.readInt32BE(COUNT_AT); left > 0; left -= 1) {
    const end = input.varint() + input.at
    // Attributes of a record: none are in use.
    input.at += 1
    const timestampDelta = input.varlong()
    const offset = baseOffset + input.varint()
    if (offset < from) {
      input.at = end
      continue
    }
    const key = input.bytes()
    const value = input.bytes()
    const headers = input.headers()
    if (input.at !== end) throw notABatch()
    if (!take({ offset, timestampMs: appendTime ?? baseTimestamp + timestampDelta, key, value, headers })) return offset
  }
  return undefined
}

function decompressed(records: Buffer, bits: number): Buffer {
  if (bits === 0) return records
  const algorithm = compressionsAlgorithmsByBitmask[bits]
  if (algorithm === undefined) throw notABatch()
  return algorithm.decompressSync(records)
}

const noHeaders: readonly Header[] = Object.freeze([])

/** Reads from a place on, and never past the end. */
class Input {
  at = 0
  readonly #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  varint(): number {
    const unsigned = this.#unsigned()
    return (unsigned >>> 1) ^ -(unsigned & 1)
  }

  varlong(): number {
    let byte = this.#byte()
    // Nearly all differences are short.
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1)
    let unsigned = BigInt(byte & 0x7f)
    for (let shift = 7n; byte >= 0x80; shift += 7n) {
      if (shift > 63n) throw notABatch()
      byte = this.#byte()
      unsigned |= BigInt(byte & 0x7f) << shift
    }
    return Number((unsigned >> 1n) ^ -(unsigned & 1n))
  }

  bytes(): Uint8Array | null {
    const length = this.varint()
    if (length < 0) return null
    const start = this.at
    this.at = start + length
    if (this.at > this.#bytes.length) throw notABatch()
    return this.#bytes.subarray(start, this.at)
  }

  headers(): readonly Header[] {
    const count = this.varint()
    if (count === 0) return noHeaders
    const headers: Header[] = []
    for (let left = count; left > 0; left -= 1) headers.push({ key: textOf(this.bytes()), value: this.bytes() })
    return headers
  }

  #unsigned(): number {
    let byte = this.#byte()
    let unsigned = byte & 0x7f
    for (let shift = 7; byte >= 0x80; shift += 7) {
      if (shift > 28) throw notABatch()
      byte = this.#byte()
      unsigned |= (byte & 0x7f) << shift
    }
    return unsigned >>> 0
  }

  #byte(): number {
    const byte = this.#bytes[this.at++]
    if (byte === undefined) throw notABatch()
    return byte
  }
}

function corrupt(baseOffset: number): BrokerError {
  return new BrokerError(
    'CORRUPT_MESSAGE',
    `Cannot read records: the batch at offset ${baseOffset} does not fit its checksum. Read again; where it stays so, it is damaged on the broker's disk.`,
  )
}

function notABatch(): BrokerError {
  return new BrokerError(
    'BAD_RESPONSE',
    'Cannot read records: the broker answers with something that is no record batch of Kafka 0.11 or newer.',
  )
}
