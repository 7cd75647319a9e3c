/** Builders that show only what matters to a test, and readers that make records comparable. */
import type { ConsumerRecord, Header, ProducerRecord } from '../../src/record.ts'
import { bytesOf, textOf } from '../../src/record.ts'

/** Text, bytes or null, where a record holds bytes or null. */
export type Data = string | Uint8Array | null

export interface RecordParts {
  readonly partition?: number
  readonly key?: Data
  readonly headers?: readonly (readonly [key: string, value: Data])[]
  readonly timestampMs?: number
}

/** Bytes of text; bytes and null stay. */
function dataOf(data: Data): Uint8Array | null {
  return typeof data === 'string' ? bytesOf(data) : data
}

/** A record for `topic` with a value, and where it matters the rest. */
export function record(topic: string, value: Data, parts: RecordParts = {}): ProducerRecord {
  const { partition, key = null, headers, timestampMs } = parts
  return {
    topic,
    key: dataOf(key),
    value: dataOf(value),
    ...(partition === undefined ? {} : { partition }),
    ...(headers === undefined
      ? {}
      : { headers: headers.map(([key, value]): Header => ({ key, value: dataOf(value) })) }),
    ...(timestampMs === undefined ? {} : { timestampMs }),
  }
}

/** `count` records for one partition with the values `prefix0`, `prefix1`, ... */
export function series(topic: string, partition: number, count: number, prefix = 'v'): ProducerRecord[] {
  return Array.from({ length: count }, (_, n) => record(topic, `${prefix}${n}`, { partition }))
}

/** The values as text, in the order of the records. */
export function valuesOf(records: readonly ConsumerRecord[]): string[] {
  return records.map((read) => textOf(read.value))
}

/** The values as text, for records whose order between partitions is nobody's business. */
export function sortedValuesOf(records: readonly ConsumerRecord[]): string[] {
  return valuesOf(records).sort()
}

/** Bytes as plain numbers, so that a Buffer and a Uint8Array with the same bytes are equal; null stays. */
export function numbersOf(data: Uint8Array | null): number[] | null {
  return data === null ? null : [...data]
}

/** Key, value and headers of a record as plain numbers. */
export function contentOf(read: ConsumerRecord): {
  key: number[] | null
  value: number[] | null
  headers: [string, number[] | null][]
} {
  return {
    key: numbersOf(read.key),
    value: numbersOf(read.value),
    headers: read.headers.map(({ key, value }) => [key, numbersOf(value)]),
  }
}

/** The key as text; null as the empty text. */
export function textKeyOf(read: ConsumerRecord): string {
  return textOf(read.key)
}
