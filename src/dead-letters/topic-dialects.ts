/**
 * How other systems say in headers where a dead letter comes from: Spring Kafka, Kafka Connect, and Kafka's own share groups
 * (KIP-1191). A topic store writes one of these dialects beside Kedge's own headers, so that the tools made for it read the
 * letters; it reads them all.
 *
 * A dialect's first header is the one with the topic: a letter's block begins there. Spring encodes numbers big-endian, the
 * others as decimal text, and only Spring has a timestamp.
 * @see https://github.com/spring-projects/spring-kafka/blob/main/spring-kafka/src/main/java/org/springframework/kafka/support/KafkaHeaders.java
 * @see https://cwiki.apache.org/confluence/display/KAFKA/KIP-298%3A+Error+Handling+in+Connect
 * @see https://cwiki.apache.org/confluence/display/KAFKA/KIP-1191%3A+Dead-letter+queues+for+share+groups
 */
import type { DeadLetter } from '../dead-letter.ts'
import { type Header, bytesOf, exactTextOf } from '../record.ts'

/** Whose headers a topic store writes beside Kedge's own. */
export type HeaderDialect = 'spring' | 'connect' | 'kip-1191'

/** The headers of a letter's block by their names; of two with one name the last. */
export type HeaderBlock = ReadonlyMap<string, Uint8Array | null>

/** Where the record of a letter was. */
export interface LetterPlace {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly timestampMs: number
}

interface Dialect {
  /** The name of its first header. */
  readonly first: string
  write(letter: DeadLetter): Header[]
  /** @throws {TypeError} where a header is missing or not what it should be. */
  read(block: HeaderBlock): LetterPlace
}

/** Kedge's own, for the dialects that have no header for it. */
const TIMESTAMP_HEADER = 'kedge-dead-letter-timestamp'

/** Spring's, of `KafkaHeaders.DLT_*`. */
const spring: Dialect = {
  first: 'kafka_dlt-original-topic',
  write: ({ record, groupId, cause }) => [
    textHeader(spring.first, record.topic),
    { key: 'kafka_dlt-original-partition', value: int32(record.partition) },
    { key: 'kafka_dlt-original-offset', value: int64(record.offset) },
    { key: 'kafka_dlt-original-timestamp', value: int64(record.timestampMs) },
    // The type is not part of a ConsumerRecord; CreateTime is what a broker keeps unless its topic says otherwise.
    textHeader('kafka_dlt-original-timestamp-type', 'CreateTime'),
    textHeader('kafka_dlt-original-consumer-group', groupId),
    textHeader('kafka_dlt-exception-fqcn', cause.name),
    textHeader('kafka_dlt-exception-message', cause.message),
    ...(cause.stack === undefined ? [] : [textHeader('kafka_dlt-exception-stacktrace', cause.stack)]),
  ],
  read: (block) => ({
    topic: textIn(block, spring.first),
    partition: viewIn(block, 'kafka_dlt-original-partition', 4).getInt32(0),
    offset: Number(viewIn(block, 'kafka_dlt-original-offset', 8).getBigInt64(0)),
    timestampMs: Number(viewIn(block, 'kafka_dlt-original-timestamp', 8).getBigInt64(0)),
  }),
}

/** Connect's, of its `DeadLetterQueueReporter`: a group stands where Connect has a connector, a route where it has a class. */
const connect: Dialect = {
  first: '__connect.errors.topic',
  write: ({ record, groupId, cause, reason, route }) => [
    textHeader(connect.first, record.topic),
    textHeader('__connect.errors.partition', String(record.partition)),
    textHeader('__connect.errors.offset', String(record.offset)),
    textHeader('__connect.errors.connector.name', groupId),
    // The stages that Connect has for what became of the record.
    textHeader('__connect.errors.stage', reason === 'invalid' ? 'VALUE_CONVERTER' : 'TASK_PUT'),
    ...(route === null ? [] : [textHeader('__connect.errors.class.name', route)]),
    textHeader('__connect.errors.exception.class.name', cause.name),
    textHeader('__connect.errors.exception.message', cause.message),
    ...(cause.stack === undefined ? [] : [textHeader('__connect.errors.exception.stacktrace', cause.stack)]),
    textHeader(TIMESTAMP_HEADER, String(record.timestampMs)),
  ],
  read: (block) => decimalPlace(block, '__connect.errors'),
}

/** Those that a broker of Kafka writes for a share group. */
const shareGroup: Dialect = {
  first: '__dlq.errors.topic',
  write: ({ record, groupId, cause, attempts }) => [
    textHeader(shareGroup.first, record.topic),
    textHeader('__dlq.errors.partition', String(record.partition)),
    textHeader('__dlq.errors.offset', String(record.offset)),
    textHeader('__dlq.errors.group', groupId),
    textHeader('__dlq.errors.delivery.count', String(attempts)),
    textHeader('__dlq.errors.message', cause.message),
    textHeader(TIMESTAMP_HEADER, String(record.timestampMs)),
  ],
  read: (block) => decimalPlace(block, '__dlq.errors'),
}

const dialects: Readonly<Record<HeaderDialect, Dialect>> = { spring, connect, 'kip-1191': shareGroup }
/** Every dialect. */
export const headerDialects: readonly string[] = Object.keys(dialects)
const byFirstHeader: ReadonlyMap<string, Dialect> = new Map(Object.values(dialects).map((one) => [one.first, one]))

/** The headers of a letter in a dialect; its first header is the first. */
export function headersInDialect(letter: DeadLetter, dialect: HeaderDialect): Header[] {
  return dialects[dialect].write(letter)
}

/** Whether a letter's block may begin with a header. */
export function beginsBlock({ key }: Header): boolean {
  return byFirstHeader.has(key)
}

/**
 * Where the record of a letter was, by the dialect of its first header.
 * @throws {TypeError} where the headers are not those of a letter.
 */
export function placeIn(first: string, block: HeaderBlock): LetterPlace {
  const dialect = byFirstHeader.get(first)
  if (dialect === undefined) throw new TypeError(`${first} begins no dialect`)
  return dialect.read(block)
}

/** @throws {TypeError} where the header is missing, null or not UTF-8. */
export function textIn(block: HeaderBlock, key: string): string {
  const found = exactTextOf(bytesIn(block, key))
  if (found === undefined) throw new TypeError(`${key} is not UTF-8`)
  return found
}

/** @throws {TypeError} where the header is missing or no decimal number. */
export function integerIn(block: HeaderBlock, key: string): number {
  const found = textIn(block, key)
  if (!/^-?\d{1,16}$/.test(found)) throw new TypeError(`${key} is not a whole number`)
  return Number(found)
}

/** A header with a text. */
export function textHeader(key: string, value: string): Header {
  return { key, value: bytesOf(value) }
}

function decimalPlace(block: HeaderBlock, prefix: string): LetterPlace {
  return {
    topic: textIn(block, `${prefix}.topic`),
    partition: integerIn(block, `${prefix}.partition`),
    offset: integerIn(block, `${prefix}.offset`),
    timestampMs: integerIn(block, TIMESTAMP_HEADER),
  }
}

function bytesIn(block: HeaderBlock, key: string): Uint8Array {
  const value = block.get(key)
  if (value === undefined || value === null) throw new TypeError(`${key} is missing`)
  return value
}

function viewIn(block: HeaderBlock, key: string, length: number): DataView {
  const bytes = bytesIn(block, key)
  if (bytes.length !== length) throw new TypeError(`${key} has not ${length} bytes`)
  return new DataView(bytes.buffer, bytes.byteOffset, length)
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
