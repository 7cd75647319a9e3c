/**
 * The vocabulary every part shares: records, headers, topic partitions and offsets.
 *
 * Keys, values and header values are bytes or `null` everywhere inside; text exists only at the edges
 * (the REST dialect, a topic's schema). `null` and zero bytes are different things: a `null` value is a tombstone.
 */

/**
 * An offset or a count of records: an int64 in Kafka, here a safe integer (0 to 2^53 - 1), range-checked at every edge.
 * At a million records a second a partition reaches that limit after 285 years.
 */
export type Offset = number

/** Milliseconds since the Unix epoch. */
export type TimestampMs = number

/** One record header. Order and duplicates are kept; `value` may be null. */
export interface Header {
  readonly key: string
  readonly value: Uint8Array | null
}

/** A record on its way to a broker. */
export interface ProducerRecord {
  readonly topic: string
  /** Chosen by Kafka's default partitioner when absent: murmur2 of the key, or spread when the key is null. */
  readonly partition?: number
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers?: readonly Header[]
  /** CreateTime; the time of the append when absent. */
  readonly timestampMs?: TimestampMs
}

/** A record as it was read from a broker. `V` is the value's type: bytes until a topic's schema has parsed it. */
export interface ConsumerRecord<V = Uint8Array | null> {
  readonly topic: string
  readonly partition: number
  readonly offset: Offset
  readonly timestampMs: TimestampMs
  readonly key: Uint8Array | null
  readonly value: V
  readonly headers: readonly Header[]
}

/** Where a produced record was stored. */
export interface RecordMetadata {
  readonly topic: string
  readonly partition: number
  readonly offset: Offset
  readonly timestampMs: TimestampMs
}

/** A partition of a topic. */
export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/** An offset in a partition. As a committed offset it is the *next* offset to read. */
export interface TopicPartitionOffset extends TopicPartition {
  readonly offset: Offset
}

/** A committed offset with what was stored beside it. `offset` is -1 and `metadata` null where nothing is committed. */
export interface CommittedOffset extends TopicPartitionOffset {
  readonly metadata: string | null
}

/** A partition as the key of a map: equal for equal partitions, and for no others. */
export function partitionKey({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** UTF-8 bytes of a text. */
export function bytesOf(text: string): Uint8Array {
  return encoder.encode(text)
}

/** UTF-8 text of bytes; what is not UTF-8 becomes U+FFFD, and null the empty string. For showing, never for storing. */
export function textOf(bytes: Uint8Array | null): string {
  return bytes === null ? '' : decoder.decode(bytes)
}

/** UTF-8 text of bytes, or undefined where the bytes are not UTF-8. Loses nothing: a byte order mark stays. */
export function exactTextOf(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return undefined
  }
}
