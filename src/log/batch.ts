/**
 * The framing of records inside a stored batch. Offsets are dense, so a record's offset is the batch's base offset plus
 * its place; everything else stands beside it, big endian:
 *
 *   record = size:u32  timestampMs:f64  keyLength:i32  valueLength:i32  headerCount:u32  key  value  header*
 *   header = keyLength:u32  valueLength:i32  key  value
 *
 * `size` counts what follows it, and a length of -1 means null. Reading hands out views of the stored bytes, no copies.
 */
import { bytesOf, textOf } from '../record.ts'
import type { ConsumerRecord, Header, ProducerRecord } from '../record.ts'

const FIXED_BYTES = 24
const HEADER_BYTES = 8

/** Bytes of key, value and headers: what limits count. */
export function recordBytes(record: Pick<ProducerRecord, 'key' | 'value' | 'headers'>): number {
  let bytes = (record.key?.length ?? 0) + (record.value?.length ?? 0)
  if (record.headers !== undefined) {
    for (const header of record.headers) bytes += utf8Length(header.key) + (header.value?.length ?? 0)
  }
  return bytes
}

/** Reused, because fresh memory costs more than what is written into it: zeroes first, and a page fault for every 4 KiB. */
let scratch = new Uint8Array(0)

/**
 * Frames records one after the other. `timestampMs` is for records that bring none. The bytes are good until the next call:
 * who keeps them copies them.
 */
export function encodeBatch(records: readonly ProducerRecord[], timestampMs: number): Uint8Array {
  let total = 0
  for (const record of records)
    total += FIXED_BYTES + HEADER_BYTES * (record.headers?.length ?? 0) + recordBytes(record)
  if (scratch.length < total) scratch = new Uint8Array(total)
  const bytes = scratch.subarray(0, total)
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const record of records) at = writeRecord(bytes, view, at, record, timestampMs)
  return bytes
}

function writeRecord(
  bytes: Uint8Array,
  view: DataView,
  start: number,
  record: ProducerRecord,
  timestampMs: number,
): number {
  const { key, value, headers } = record
  view.setFloat64(start + 4, record.timestampMs ?? timestampMs)
  view.setInt32(start + 12, key === null ? -1 : key.length)
  view.setInt32(start + 16, value === null ? -1 : value.length)
  view.setUint32(start + 20, headers?.length ?? 0)
  let at = start + FIXED_BYTES
  if (key !== null) {
    bytes.set(key, at)
    at += key.length
  }
  if (value !== null) {
    bytes.set(value, at)
    at += value.length
  }
  if (headers !== undefined) {
    for (const header of headers) {
      const name = bytesOf(header.key)
      view.setUint32(at, name.length)
      view.setInt32(at + 4, header.value === null ? -1 : header.value.length)
      bytes.set(name, at + HEADER_BYTES)
      at += HEADER_BYTES + name.length
      if (header.value !== null) {
        bytes.set(header.value, at)
        at += header.value.length
      }
    }
  }
  view.setUint32(start, at - start - 4)
  return at
}

/** A batch as it is stored, with what a reader needs to place its records. */
export interface StoredBatch {
  readonly baseOffset: number
  readonly count: number
  readonly maxTimestampMs: number
  readonly bytes: Uint8Array
}

/** Called for each record with its framed size; answers false to stop before the next one. */
export type Visit = (record: ConsumerRecord, bytes: number) => boolean

/** Visits the records of a batch from an offset on, in order. Says whether the visit went to the end. */
export function visitBatch(
  topic: string,
  partition: number,
  batch: StoredBatch,
  fromOffset: number,
  visit: Visit,
): boolean {
  const { bytes } = batch
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  for (let index = 0; index < batch.count; index++) {
    const size = view.getUint32(at)
    const offset = batch.baseOffset + index
    if (offset >= fromOffset && !visit(readRecord(topic, partition, offset, bytes, view, at), size)) return false
    at += size + 4
  }
  return true
}

/** The offset of the batch's first record at or after a time, or undefined. */
export function firstAtOrAfter(batch: StoredBatch, timestampMs: number): number | undefined {
  const view = new DataView(batch.bytes.buffer, batch.bytes.byteOffset, batch.bytes.byteLength)
  let at = 0
  for (let index = 0; index < batch.count; index++) {
    if (view.getFloat64(at + 4) >= timestampMs) return batch.baseOffset + index
    at += view.getUint32(at) + 4
  }
  return undefined
}

const NO_HEADERS: readonly Header[] = Object.freeze([])

function readRecord(
  topic: string,
  partition: number,
  offset: number,
  bytes: Uint8Array,
  view: DataView,
  start: number,
): ConsumerRecord {
  const keyLength = view.getInt32(start + 12)
  const valueLength = view.getInt32(start + 16)
  const headerCount = view.getUint32(start + 20)
  let at = start + FIXED_BYTES
  const take = (length: number): Uint8Array | null => {
    if (length < 0) return null
    at += length
    return bytes.subarray(at - length, at)
  }
  const key = take(keyLength)
  const value = take(valueLength)
  const headers: Header[] = []
  for (let index = 0; index < headerCount; index++) {
    const nameLength = view.getUint32(at)
    const length = view.getInt32(at + 4)
    at += HEADER_BYTES
    headers.push({ key: textOf(take(nameLength)), value: take(length) })
  }
  const timestampMs = view.getFloat64(start + 4)
  return { topic, partition, offset, timestampMs, key, value, headers: headerCount === 0 ? NO_HEADERS : headers }
}

/** UTF-8 length without encoding. A lone surrogate counts as the three bytes of U+FFFD that it is encoded to. */
function utf8Length(text: string): number {
  let bytes = text.length
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit < 0x80) continue
    if (unit < 0x800) bytes += 1
    else {
      bytes += 2
      if (unit >= 0xd800 && unit < 0xdc00 && isLowSurrogate(text.charCodeAt(index + 1))) index += 1
    }
  }
  return bytes
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000
}
