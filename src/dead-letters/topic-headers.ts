/**
 * A dead letter as a record: the original's key, value and headers as they are, then a block of headers that says what
 * happened. The block is always the last on the record and starts with the *last* `kafka_dlt-original-topic`, so a letter
 * of a letter keeps the inner block among its original headers and both can be read back.
 *
 * Spring's names come first in the block, with Spring's encoding (partition a big-endian int32, offset and timestamp
 * big-endian int64, the rest UTF-8), so that its tools read these letters; then ours, for what Spring has no name for.
 * @see https://github.com/spring-projects/spring-kafka/blob/main/spring-kafka/src/main/java/org/springframework/kafka/support/KafkaHeaders.java
 */
import { type DeadLetter, isDeadLetterReason } from '../dead-letter.ts'
import { type ConsumerRecord, type Header, bytesOf, exactTextOf } from '../record.ts'
import { decodeCause, encodeCause, withFingerprint } from './codec.ts'

/** Spring's headers, of `KafkaHeaders.DLT_*`. */
const springHeaders = {
  topic: 'kafka_dlt-original-topic',
  partition: 'kafka_dlt-original-partition',
  offset: 'kafka_dlt-original-offset',
  timestamp: 'kafka_dlt-original-timestamp',
  timestampType: 'kafka_dlt-original-timestamp-type',
  group: 'kafka_dlt-original-consumer-group',
  exceptionName: 'kafka_dlt-exception-fqcn',
  exceptionMessage: 'kafka_dlt-exception-message',
  exceptionStack: 'kafka_dlt-exception-stacktrace',
} as const

/** Kedge's headers. Their presence tells our letters from other records of the topic. */
const kedgeHeaders = {
  id: 'kedge-dead-letter-id',
  reason: 'kedge-dead-letter-reason',
  attempts: 'kedge-dead-letter-attempts',
  failedAt: 'kedge-dead-letter-failed-at',
  route: 'kedge-dead-letter-route',
  group: 'kedge-dead-letter-group',
  cause: 'kedge-dead-letter-cause',
  fingerprint: 'kedge-dead-letter-fingerprint',
  redriveCount: 'kedge-dead-letter-redrive-count',
} as const

/** The headers of the letter's record: the original's, then the block. */
export function headersOfLetter(letter: DeadLetter): Header[] {
  const { record, cause } = letter
  return [
    ...record.headers,
    text(springHeaders.topic, record.topic),
    { key: springHeaders.partition, value: int32(record.partition) },
    { key: springHeaders.offset, value: int64(record.offset) },
    { key: springHeaders.timestamp, value: int64(record.timestampMs) },
    // The type is not part of a ConsumerRecord; CreateTime is what a broker keeps unless its topic says otherwise.
    text(springHeaders.timestampType, 'CreateTime'),
    text(springHeaders.group, letter.groupId),
    text(springHeaders.exceptionName, cause.name),
    text(springHeaders.exceptionMessage, cause.message),
    ...(cause.stack === undefined ? [] : [text(springHeaders.exceptionStack, cause.stack)]),
    text(kedgeHeaders.id, letter.id),
    text(kedgeHeaders.reason, letter.reason),
    text(kedgeHeaders.attempts, String(letter.attempts)),
    text(kedgeHeaders.failedAt, String(letter.failedAtMs)),
    { key: kedgeHeaders.route, value: letter.route === null ? null : bytesOf(letter.route) },
    text(kedgeHeaders.group, letter.groupId),
    text(kedgeHeaders.cause, encodeCause(cause)),
    text(kedgeHeaders.fingerprint, letter.fingerprint),
    text(kedgeHeaders.redriveCount, String(letter.redriveCount)),
  ]
}

/** The letter in a record of a dead-letter topic, or undefined where the record is none of ours. */
export function letterOfRecord(stored: ConsumerRecord): DeadLetter | undefined {
  const start = stored.headers.findLastIndex(({ key }) => key === springHeaders.topic)
  if (start === -1) return undefined
  const block = new Map(stored.headers.slice(start).map(({ key, value }) => [key, value]))
  try {
    return letterOfBlock(stored, stored.headers.slice(0, start), block)
  } catch {
    // Whatever else wrote a header of that name into the topic (Spring itself): not a letter of ours.
    return undefined
  }
}

function letterOfBlock(
  stored: ConsumerRecord,
  headers: readonly Header[],
  block: ReadonlyMap<string, Uint8Array | null>,
): DeadLetter {
  const textOfHeader = (key: string): string => {
    const found = exactTextOf(bytesIn(block, key))
    if (found === undefined) throw new TypeError(`${key} is not UTF-8`)
    return found
  }
  const reason = textOfHeader(kedgeHeaders.reason)
  if (!isDeadLetterReason(reason)) throw new TypeError('reason is unknown')
  return withFingerprint({
    id: textOfHeader(kedgeHeaders.id),
    record: {
      topic: textOfHeader(springHeaders.topic),
      partition: view(bytesIn(block, springHeaders.partition), 4).getInt32(0),
      offset: Number(view(bytesIn(block, springHeaders.offset), 8).getBigInt64(0)),
      timestampMs: Number(view(bytesIn(block, springHeaders.timestamp), 8).getBigInt64(0)),
      key: stored.key,
      value: stored.value,
      headers,
    },
    groupId: textOfHeader(kedgeHeaders.group),
    reason,
    cause: decodeCause(textOfHeader(kedgeHeaders.cause)),
    attempts: integer(textOfHeader(kedgeHeaders.attempts)),
    failedAtMs: integer(textOfHeader(kedgeHeaders.failedAt)),
    route: block.get(kedgeHeaders.route) === null ? null : textOfHeader(kedgeHeaders.route),
    fingerprint: block.has(kedgeHeaders.fingerprint) ? textOfHeader(kedgeHeaders.fingerprint) : undefined,
    redriveCount: block.has(kedgeHeaders.redriveCount) ? integer(textOfHeader(kedgeHeaders.redriveCount)) : 0,
  })
}

function bytesIn(block: ReadonlyMap<string, Uint8Array | null>, key: string): Uint8Array {
  const value = block.get(key)
  if (value === undefined || value === null) throw new TypeError(`${key} is missing`)
  return value
}

function integer(text: string): number {
  if (!/^-?\d{1,16}$/.test(text)) throw new TypeError('not a whole number')
  return Number(text)
}

function view(bytes: Uint8Array, length: number): DataView {
  if (bytes.length !== length) throw new TypeError(`not ${length} bytes`)
  return new DataView(bytes.buffer, bytes.byteOffset, length)
}

function text(key: string, value: string): Header {
  return { key, value: bytesOf(value) }
}

function int32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value)
  return bytes
}

function int64(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigInt64(0, BigInt(value))
  return bytes
}
