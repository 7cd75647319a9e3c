/**
 * A produce on its way into the log: checked when it arrives, its records joined with those of other calls when the next
 * transaction is made (one stored batch per partition, not per call), answered when that is durable.
 */
import type { ProduceOptions, ProduceResult } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import { bytesOf, partitionKey } from '../record.ts'
import type { ProducerRecord, RecordMetadata } from '../record.ts'
import { partitionForKey, murmur2 } from '../partitioner.ts'
import { encodeBatch, recordBytes } from './batch.ts'
import type { Partition, Topics } from './partitions.ts'
import { isWhole } from '../broker-validation.ts'
import type { LogStore } from './store.ts'
import type { Waiters } from './waiters.ts'

/** A batch is closed at this size, so that reading a few records never means reading much more. */
const BATCH_TARGET_BYTES = 262_144
const MAX_HEADERS_PER_RECORD = 10_000

/** Where each record of a call goes, or why it goes nowhere. */
export interface PlannedProduce {
  readonly records: readonly ProducerRecord[]
  readonly targets: readonly (Partition | BrokerError)[]
}

/** Checks records and chooses their partitions. @throws the first error of an atomic produce */
export function planProduce(
  topics: Topics,
  records: readonly ProducerRecord[],
  options: ProduceOptions,
): PlannedProduce {
  const targets = records.map((record, index) => {
    try {
      return targetOf(topics, record, index)
    } catch (error) {
      if (!(error instanceof BrokerError) || options.atomic !== false) throw error
      return error
    }
  })
  return { records, targets }
}

function targetOf(topics: Topics, record: ProducerRecord, index: number): Partition {
  const topic = topics.get(record.topic)
  const limit = topic.description.maxRecordBytes
  const bytes = recordBytes(record)
  if (bytes > limit) {
    throw new BrokerError(
      'MESSAGE_TOO_LARGE',
      `Cannot produce record ${index} of the call to ${record.topic}: it has ${bytes} bytes and the topic takes ${limit} (maxRecordBytes). Send less, or raise the topic's limit.`,
      { limit: 'maxRecordBytes' },
    )
  }
  const { timestampMs, headers } = record
  if (timestampMs !== undefined && !isWhole(timestampMs, 0, Number.MAX_SAFE_INTEGER)) {
    throw new BrokerError(
      'INVALID_TIMESTAMP',
      `Cannot produce record ${index} of the call to ${record.topic}: invalid timestamp ${timestampMs}. It takes whole milliseconds since 1970.`,
    )
  }
  if (headers !== undefined && headers.length > MAX_HEADERS_PER_RECORD) {
    throw new BrokerError(
      'INVALID_RECORD',
      `Cannot produce record ${index} of the call to ${record.topic}: it has ${headers.length} headers and may have ${MAX_HEADERS_PER_RECORD}.`,
    )
  }
  if (record.partition !== undefined) return topics.partition({ topic: record.topic, partition: record.partition })
  const count = topic.partitions.length
  const partition = record.key === null ? topic.nextPartition++ % count : partitionForKey(record.key, count)
  return topics.partition({ topic: record.topic, partition })
}

/** Stands for a call's records and settings, so that another call with the same idempotency key can be told apart. */
export function fingerprintOf(records: readonly ProducerRecord[], options: ProduceOptions): string {
  const bytes = encodeBatch(records, 0)
  const places = records.map(({ topic, partition, timestampMs }) => [topic, partition, timestampMs])
  const settings = bytesOf(JSON.stringify([options.atomic !== false, places]))
  const parts = [bytes.length, murmur2(bytes), murmur2(bytes, 0x3c6ef372), settings.length, murmur2(settings)]
  return parts.join(':')
}

/** A planned produce that waits for its transaction. */
export interface PendingProduce extends PlannedProduce {
  /** With an idempotency key: called in the transaction with the results it will have. */
  readonly remember?: (store: LogStore, results: ProduceResult[]) => void
  readonly resolve: (results: ProduceResult[]) => void
  readonly reject: (error: BrokerError) => void
}

interface Ends {
  next: number
  bytes: number
}

/** Collects the produces of one transaction and appends them partition by partition. */
export class ProduceBatch {
  readonly #pending: PendingProduce[] = []
  readonly #ends = new Map<Partition, Ends>()
  #results: ProduceResult[][] = []

  get isEmpty(): boolean {
    return this.#pending.length === 0
  }

  add(produce: PendingProduce): void {
    this.#pending.push(produce)
  }

  write(store: LogStore, nowMs: number): void {
    const byPartition = new Map<Partition, ProducerRecord[]>()
    this.#results = this.#pending.map(({ records, targets }) =>
      records.map((record, index) => this.#place(byPartition, record, targets[index], nowMs)),
    )
    for (const [partition, records] of byPartition) this.#append(store, partition, records, nowMs)
    for (const [index, { remember }] of this.#pending.entries()) remember?.(store, this.#results[index] ?? [])
  }

  /** Moves the log ends to what is durable now, answers the callers and wakes whoever waits for these partitions. */
  done(waiters: Waiters): void {
    for (const [partition, ends] of this.#ends) {
      partition.logEndOffset = ends.next
      partition.bytes += ends.bytes
    }
    for (const [index, { resolve }] of this.#pending.entries()) resolve(this.#results[index] ?? [])
    for (const partition of this.#ends.keys()) waiters.wake(partitionKey(partition))
  }

  fail(error: BrokerError): void {
    for (const { reject } of this.#pending) reject(error)
  }

  #place(
    byPartition: Map<Partition, ProducerRecord[]>,
    record: ProducerRecord,
    target: Partition | BrokerError | undefined,
    nowMs: number,
  ): ProduceResult {
    if (target === undefined || target instanceof BrokerError) {
      return target ?? new BrokerError('UNKNOWN_SERVER_ERROR', 'A record was planned without a partition.')
    }
    let records = byPartition.get(target)
    if (records === undefined) byPartition.set(target, (records = []))
    const metadata: RecordMetadata = {
      topic: target.topic,
      partition: target.partition,
      offset: target.logEndOffset + records.length,
      timestampMs: record.timestampMs ?? nowMs,
    }
    records.push(record)
    return metadata
  }

  #append(store: LogStore, partition: Partition, records: readonly ProducerRecord[], nowMs: number): void {
    const ends: Ends = { next: partition.logEndOffset, bytes: 0 }
    for (const part of splitBySize(records)) {
      const bytes = encodeBatch(part, nowMs)
      let maxTimestampMs = 0
      for (const record of part) maxTimestampMs = Math.max(maxTimestampMs, record.timestampMs ?? nowMs)
      store.append(partition.id, { baseOffset: ends.next, count: part.length, maxTimestampMs, bytes })
      ends.next += part.length
      ends.bytes += bytes.length
    }
    this.#ends.set(partition, ends)
  }
}

function splitBySize(records: readonly ProducerRecord[]): (readonly ProducerRecord[])[] {
  const parts: (readonly ProducerRecord[])[] = []
  let from = 0
  let bytes = 0
  for (let index = 0; index < records.length; index++) {
    const record = records[index]
    const size = record === undefined ? 0 : recordBytes(record)
    if (bytes > 0 && bytes + size > BATCH_TARGET_BYTES) {
      parts.push(records.slice(from, index))
      from = index
      bytes = 0
    }
    bytes += size
  }
  parts.push(from === 0 ? records : records.slice(from))
  return parts
}
