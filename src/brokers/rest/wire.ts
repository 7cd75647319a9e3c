/** The dialect's JSON with `Kedge-Encoding: base64`, both ways. What is read is checked: it comes from outside. */
import { base64Of, bytesOfBase64 } from '../../base64.ts'
import type { GroupDescription, PollResult, ProduceResult, TopicDescription } from '../../broker.ts'
import { BrokerError, isErrorCode } from '../../errors.ts'
import type { ConsumerRecord, Header, ProducerRecord, RecordMetadata, TopicPartition } from '../../record.ts'

/** A record as `/produce` takes it. A null key is left out; a null header value too. */
export interface WireRecord {
  readonly topic: string
  readonly partition?: number
  readonly key?: string
  readonly value: string | null
  readonly headers?: readonly { readonly key: string; readonly value?: string }[]
  readonly timestamp?: number
}

/** What is wrong with an answer, in words; the caller knows which answer it was. */
export class WireError extends Error {}

/** A record as the body of a produce has it. */
export function wireRecord({ topic, partition, key, value, headers, timestampMs }: ProducerRecord): WireRecord {
  return {
    topic,
    ...(partition === undefined ? {} : { partition: finite(partition, 'a partition') }),
    ...(key === null ? {} : { key: base64Of(key) }),
    value: value === null ? null : base64Of(value),
    ...(headers === undefined || headers.length === 0 ? {} : { headers: headers.map(wireHeader) }),
    ...(timestampMs === undefined ? {} : { timestamp: finite(timestampMs, 'a timestamp') }),
  }
}

/**
 * A number that JSON can carry: it writes every other as null, which on the wire means the default.
 * @throws {BrokerError} INVALID_REQUEST
 */
export function finite(value: number, what: string): number {
  if (Number.isFinite(value)) return value
  throw new BrokerError('INVALID_REQUEST', `Cannot send ${value} as ${what}: give a finite number.`)
}

function wireHeader({ key, value }: Header): { key: string; value?: string } {
  return { key, ...(value === null ? {} : { value: base64Of(value) }) }
}

/** @throws {WireError} */
export function recordsOf(json: unknown): ConsumerRecord[] {
  return listOf(json, 'records').map((item) => ({
    topic: textIn(item, 'topic'),
    partition: numberOf(item, 'partition'),
    offset: numberOf(item, 'offset'),
    timestampMs: numberOf(item, 'timestamp'),
    key: bytesIn(item, 'key'),
    value: bytesIn(item, 'value'),
    headers: headersIn(item),
  }))
}

const DIGITS = /^\d{1,15}$/

const NO_HEADERS: readonly Header[] = Object.freeze([])

function headersIn(item: Item): readonly Header[] {
  const headers = listOf(item['headers'], 'headers')
  if (headers.length === 0) return NO_HEADERS
  return headers.map((header) => ({ key: textIn(header, 'key'), value: bytesIn(header, 'value') }))
}

/**
 * The answer of a produce, one result for each of the `count` records sent.
 * @throws {WireError}
 */
export function resultsOf(json: unknown, count: number): ProduceResult[] {
  const results = listOf(json, 'results').map((item) => ('code' in item ? errorOf(item) : metadataOf(item)))
  if (results.length !== count) throw new WireError(`it has ${results.length} results for ${count} records`)
  return results
}

function metadataOf(item: Item): RecordMetadata {
  return { ...placeOf(item), timestampMs: numberOf(item, 'timestamp') }
}

function errorOf(item: Item): BrokerError {
  const code = textIn(item, 'code')
  return new BrokerError(isErrorCode(code) ? code : 'UNKNOWN_SERVER_ERROR', textIn(item, 'error'))
}

function placeOf(item: Item): { topic: string; partition: number; offset: number } {
  return { topic: textIn(item, 'topic'), partition: numberOf(item, 'partition'), offset: numberOf(item, 'offset') }
}

/**
 * The answer of a consume. What the member holds is in its headers: `Kedge-Assignment: orders=0-2,5;bills=1`; one whose
 * join still waits says when to come again instead.
 * @throws {WireError}
 */
export function pollResultOf(headers: Headers, json: unknown): PollResult {
  const records = recordsOf(json)
  const generation = headers.get('Kedge-Generation')
  const assignment = headers.get('Kedge-Assignment')
  const retryAfterMs = headers.get('Kedge-Retry-After-Ms')
  if (generation === null && records.length === 0 && retryAfterMs !== null && DIGITS.test(retryAfterMs)) {
    return { records, generationId: 0, assignment: [], retryAfterMs: Number(retryAfterMs) }
  }
  if (generation === null || !DIGITS.test(generation) || assignment === null) {
    throw new WireError('it names no generation and assignment')
  }
  return {
    records,
    generationId: Number(generation),
    assignment: assignment === '' ? [] : assignment.split(';').flatMap(heldOfTopic),
    ...(headers.get('Kedge-Former-Run') === 'lapsed' ? { formerRunLapsed: true } : {}),
  }
}

function heldOfTopic(part: string): TopicPartition[] {
  const [, topic, ranges] = /^([\w.-]+)=([\d,-]+)$/.exec(part) ?? []
  if (topic === undefined || ranges === undefined) throw new WireError('its assignment cannot be read')
  return ranges.split(',').flatMap((range) => {
    const [first = Number.NaN, last = first] = range.split('-').map(Number)
    // More partitions than a topic can have would be memory on request.
    if (!(last - first >= 0 && last - first < 100_000)) throw new WireError('its assignment cannot be read')
    return Array.from({ length: last - first + 1 }, (_, n) => ({ topic, partition: first + n }))
  })
}

/** @throws {WireError} */
export function partitionOf(item: Item): TopicPartition {
  return { topic: textIn(item, 'topic'), partition: numberOf(item, 'partition') }
}

/** A topic as `/topics?describe=true` shows it. @throws {WireError} */
export function topicOf(item: Item): TopicDescription {
  return {
    topic: textIn(item, 'topic'),
    partitions: numberOf(item, 'partitions'),
    retentionMs: numberOrNull(item, 'retentionMs'),
    retentionBytes: numberOrNull(item, 'retentionBytes'),
    maxRecordBytes: numberOf(item, 'maxRecordBytes'),
  }
}

/** A group as `/groups` shows it. @throws {WireError} */
export function groupOf(item: Item): GroupDescription {
  return {
    groupId: textIn(item, 'groupId'),
    generationId: numberOf(item, 'generationId'),
    members: listOf(item['members'], 'members').map((member) => ({
      groupInstanceId: textIn(member, 'groupInstanceId'),
      assignment: listOf(member['assignment'], 'assignment').map(partitionOf),
      runId: textOrNull(member, 'runId'),
    })),
  }
}

/** An object from outside. */
type Item = Readonly<Record<string, unknown>>

/** @throws {WireError} */
export function listOf(json: unknown, what: string): Item[] {
  if (!Array.isArray(json)) throw new WireError(`its ${what} are not a list`)
  for (const item of json) itemOf(item, what)
  return json as Item[]
}

/** @throws {WireError} */
export function itemOf(json: unknown, what: string): Item {
  if (typeof json !== 'object' || json === null) throw new WireError(`its ${what} are not objects`)
  return json as Item
}

/** A safe integer. @throws {WireError} */
export function numberOf(item: Item, name: string): number {
  const value = item[name]
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw new WireError(`its ${name} is no safe integer`)
  return value
}

/** A safe integer or null. @throws {WireError} */
function numberOrNull(item: Item, name: string): number | null {
  return item[name] === null ? null : numberOf(item, name)
}

/** @throws {WireError} */
function textIn(item: Item, name: string): string {
  const value = item[name]
  if (typeof value !== 'string') throw new WireError(`its ${name} is no text`)
  return value
}

/** @throws {WireError} */
export function textOrNull(item: Item, name: string): string | null {
  const value = item[name] ?? null
  return value === null ? null : textIn(item, name)
}

function bytesIn(item: Item, name: string): Uint8Array | null {
  const text = textOrNull(item, name)
  if (text === null) return null
  const bytes = bytesOfBase64(text)
  if (bytes === undefined) throw new WireError(`its ${name} is not base64`)
  return bytes
}
