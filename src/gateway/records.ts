/** Records on their way from the wire to the port: what a produce's JSON means, and what became of it. */
import { BrokerError, GatewayError } from '../errors.ts'
import type { Header, ProducerRecord, RecordMetadata } from '../record.ts'
import type { ProduceResult } from '../broker.ts'
import { statusOf } from './errors.ts'
import { RawJson } from './json.ts'
import { limitNames, type GatewayLimits } from './limits.ts'
import { isTopicName, MAX_PARTITION, type HeaderBody, type RecordBody, type TopicRecordBody } from './schemas.ts'
import { readBytes, type Encoding } from './text.ts'

/**
 * The record that a checked body asks for.
 * @throws {GatewayError} INVALID_RECORD where the encoding cannot carry it
 */
export function producerRecord(topic: string, body: RecordBody, encoding: Encoding, where: string): ProducerRecord {
  return {
    topic,
    key: keyOf(body.key, encoding, where),
    value: valueOf(body.value, encoding, where),
    ...(body.partition === undefined ? {} : { partition: body.partition }),
    ...(body.timestamp === undefined ? {} : { timestampMs: body.timestamp }),
    ...(body.headers === undefined ? {} : { headers: body.headers.map((header) => headerOf(header, encoding, where)) }),
  }
}

function keyOf(key: string | undefined, encoding: Encoding, where: string): Uint8Array | null {
  // Upstash could not tell an empty key from none, and one of its clients sends "" for none.
  if (key === undefined || (key === '' && encoding === 'text')) return null
  return readBytes(key, encoding, `the key of ${where}`)
}

function valueOf(value: unknown, encoding: Encoding, where: string): Uint8Array | null {
  if (value === null) return null
  if (typeof value === 'string') return readBytes(value, encoding, `the value of ${where}`)
  if (encoding === 'base64') {
    throw new GatewayError('INVALID_RECORD', `Cannot read the value of ${where}: with base64 it is a string or null.`)
  }
  const text = value instanceof RawJson ? value.text : JSON.stringify(value)
  return readBytes(text, 'text', `the value of ${where}`)
}

function headerOf(header: HeaderBody, encoding: Encoding, where: string): Header {
  if (!header.key.isWellFormed()) {
    throw new GatewayError('INVALID_RECORD', `Cannot carry a header name of ${where}: it holds a lone surrogate.`)
  }
  const value = header.value ?? null
  return { key: header.key, value: value === null ? null : readBytes(value, encoding, `a header of ${where}`) }
}

/**
 * The records of a produce in text, where the body is as callers mostly send it; undefined sends it the long way, which
 * takes every legal body and has the words for every other. What this takes, the schema takes as the same records.
 *
 * `bodyBytes` is the size of the JSON, which is never less than that of the texts in it: their bytes share one buffer.
 */
export function fastRecords(json: unknown, bodyBytes: number, topic: string | undefined): ProducerRecord[] | undefined {
  const texts = new TextBuffer(bodyBytes)
  if (Array.isArray(json)) {
    const records: ProducerRecord[] = []
    for (const item of json as unknown[]) {
      const record = fastRecord(item, texts, topic)
      if (record === undefined) return undefined
      records.push(record)
    }
    return records
  }
  const record = fastRecord(json, texts, topic)
  return record === undefined ? undefined : [record]
}

function fastRecord(item: unknown, texts: TextBuffer, pathTopic: string | undefined): ProducerRecord | undefined {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return undefined
  const body = item as Partial<Readonly<Record<keyof TopicRecordBody, unknown>>>
  const { key, value, partition, timestamp, headers } = body
  const topic = pathTopic ?? body.topic
  if (typeof topic !== 'string' || (pathTopic === undefined && !isTopicName(topic))) return undefined
  if (typeof value !== 'string' || !value.isWellFormed()) return undefined
  if (key !== undefined && (typeof key !== 'string' || !key.isWellFormed())) return undefined
  if (headers !== undefined) return undefined
  if (partition !== undefined && !isCount(partition, MAX_PARTITION)) return undefined
  if (timestamp !== undefined && !isCount(timestamp, Number.MAX_SAFE_INTEGER)) return undefined
  return {
    topic,
    key: key === undefined || key === '' ? null : texts.put(key),
    value: texts.put(value),
    ...(partition === undefined ? {} : { partition }),
    ...(timestamp === undefined ? {} : { timestampMs: timestamp }),
  }
}

const encoder = new TextEncoder()

/** Well-formed texts as bytes, in one allocation instead of one each. */
class TextBuffer {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(size: number) {
    this.#bytes = new Uint8Array(size)
  }

  put(text: string): Uint8Array {
    const start = this.#at
    this.#at += encoder.encodeInto(text, this.#bytes.subarray(start)).written
    return this.#bytes.subarray(start, this.#at)
  }
}

function isCount(value: unknown, most: number): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= most
}

/** @throws {GatewayError} LIMIT_EXCEEDED with the name of the limit */
export function checkLimits(records: readonly ProducerRecord[], limits: GatewayLimits): void {
  if (records.length > limits.batchRecords) {
    throw new GatewayError(
      'LIMIT_EXCEEDED',
      `Cannot produce ${records.length} records at once: the limit is ${limits.batchRecords}. Send smaller batches.`,
      { limit: limitNames.batchRecords },
    )
  }
  for (const [index, record] of records.entries()) {
    const { headers = [] } = record
    if (headers.length > limits.recordHeaders) {
      throw new GatewayError(
        'LIMIT_EXCEEDED',
        `Cannot produce record ${index} with ${headers.length} headers: the limit is ${limits.recordHeaders}.`,
        { limit: limitNames.recordHeaders },
      )
    }
    const size = recordBytes(record)
    if (size > limits.recordBytes) {
      throw new GatewayError(
        'LIMIT_EXCEEDED',
        `Cannot produce record ${index} of ${size} bytes: the limit is ${limits.recordBytes}. Store it elsewhere and send where.`,
        { limit: limitNames.recordBytes },
      )
    }
  }
}

function recordBytes(record: ProducerRecord): number {
  let size = (record.key?.length ?? 0) + (record.value?.length ?? 0)
  for (const header of record.headers ?? []) size += header.key.length + (header.value?.length ?? 0)
  return size
}

/** A stored record's place as the dialect shows it. */
export function metadata(result: RecordMetadata): object {
  return {
    topic: result.topic,
    partition: result.partition,
    offset: result.offset,
    timestamp: result.timestampMs,
  }
}

/** One record's outcome in a produce with `Kedge-Results: each`. */
export function resultOf(result: ProduceResult): object {
  if (!(result instanceof BrokerError)) return metadata(result)
  return { result: '', error: result.message, status: statusOf(result), code: result.code }
}
