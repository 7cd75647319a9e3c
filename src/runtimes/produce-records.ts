/**
 * What a call of the produce function asks to be written: the dialect's body or path as records, each checked against its
 * topic's schema. All complaints are gathered before the call is refused, so that a caller mends them in one go.
 */
import { type BrokerError, GatewayError, RecordError, type RecordIssue } from '../errors.ts'
import { parseBody } from '../gateway/body.ts'
import { gatewayLimits } from '../gateway/limits.ts'
import { checkLimits, producerRecord } from '../gateway/records.ts'
import {
  type ProduceHeaders,
  type RecordBody,
  RecordsIn,
  type TopicRecordBody,
  TopicRecordsIn,
} from '../gateway/schemas.ts'
import type { Encoding } from '../gateway/text.ts'
import type { ProducerRecord } from '../record.ts'
import { checkValue, readValue, sizeError, type Topic } from '../topic.ts'

/** Which topics the function takes. */
export interface ProduceTopics {
  /** By name; values are checked. */
  readonly topics: ReadonlyMap<string, Topic>
  /** Taken as they come; `*` means all. */
  readonly rawTopics: readonly string[]
}

type Path = RecordIssue['path']

/** A record and where it and its value stand in the body, for complaints. */
interface Placed {
  readonly record: ProducerRecord
  readonly path: Path
  readonly valuePath: Path
}

/**
 * The records of a JSON body: one, or a list. `topic` is the path's; without it each record names its own.
 * @throws {GatewayError} INVALID_REQUEST for a body that is no JSON
 * @throws {RecordError} INVALID_RECORD for records of the wrong shape or encoding, or refused by their schema
 * @throws {GatewayError} UNKNOWN_TOPIC_OR_PARTITION, LIMIT_EXCEEDED
 * @throws {BrokerError} MESSAGE_TOO_LARGE
 */
export async function recordsOfBody(
  bytes: Uint8Array,
  topic: string | undefined,
  encoding: ProduceHeaders['kedge-encoding'],
  taken: ProduceTopics,
): Promise<ProducerRecord[]> {
  const json = parseBody(bytes, gatewayLimits, true)
  const isList = Array.isArray(json)
  const issues: RecordIssue[] = []
  const placed: Placed[] = []
  for (const [index, item] of (isList ? (json as unknown[]) : [json]).entries()) {
    const path = isList ? [index] : []
    const body = shapeOf(item, topic, path, issues)
    if (body === undefined) continue
    const name = topic ?? (body as TopicRecordBody).topic
    try {
      const record = producerRecord(name, body, encoding ?? 'text', 'the record')
      placed.push({ record, path, valuePath: [...path, 'value'] })
    } catch (failure) {
      const found = encodingIssues(name, body, encoding ?? 'text', path)
      if (found.length === 0) throw failure
      issues.push(...found)
    }
  }
  return await checked(placed, taken, issues)
}

/** One record whose value is given as it is: from a path, or a webhook's body. */
export async function recordOfValue(record: ProducerRecord, taken: ProduceTopics): Promise<ProducerRecord[]> {
  return await checked([{ record, path: [], valuePath: [] }], taken)
}

function shapeOf(item: unknown, topic: string | undefined, path: Path, issues: RecordIssue[]): RecordBody | undefined {
  // The schemas take lists too, which one record of a list must not be.
  if (Array.isArray(item)) {
    issues.push({ path, message: 'Expected one record, found a list.' })
    return undefined
  }
  const parsed = topic === undefined ? TopicRecordsIn.safeParse(item) : RecordsIn.safeParse(item)
  if (parsed.success) return Array.isArray(parsed.data) ? undefined : parsed.data
  for (const issue of parsed.error.issues.flatMap(withoutUnions)) {
    issues.push({ path: [...path, ...issue.path.map(partOf)], message: issue.message })
  }
  return undefined
}

interface Issue {
  readonly code?: string | undefined
  readonly path: readonly PropertyKey[]
  readonly message: string
  readonly errors?: readonly (readonly Issue[])[]
}

/** Of "a record or a list of records", the complaints about the record: that it is no list says nothing. */
function withoutUnions(issue: Issue): Issue[] {
  const first = issue.code === 'invalid_union' ? issue.errors?.[0] : undefined
  return first === undefined
    ? [issue]
    : first.flatMap((inner) => withoutUnions({ ...inner, path: [...issue.path, ...inner.path] }))
}

function partOf(part: PropertyKey): string | number {
  return typeof part === 'symbol' ? String(part) : part
}

/** What the encoding cannot carry of a record: a lone surrogate in text, or what is not base64. */
function encodingIssues(topic: string, body: RecordBody, encoding: Encoding, path: Path): RecordIssue[] {
  const parts: [Path, Partial<RecordBody>][] = [
    [['key'], { key: body.key }],
    [['value'], { value: body.value }],
    ...(body.headers ?? []).map((header, index): [Path, Partial<RecordBody>] => [
      ['headers', index],
      { headers: [header] },
    ]),
  ]
  return parts.flatMap(([at, part]) => {
    try {
      producerRecord(topic, { value: null, ...part }, encoding, 'the record')
      return []
    } catch (failure) {
      if (!(failure instanceof GatewayError)) throw failure
      return [{ path: [...path, ...at], message: failure.message }]
    }
  })
}

async function checked(
  placed: readonly Placed[],
  { topics, rawTopics }: ProduceTopics,
  given: readonly RecordIssue[] = [],
): Promise<ProducerRecord[]> {
  const records = placed.map(({ record }) => record)
  checkLimits(records, gatewayLimits)
  const issues = [...given]
  const unknown: Placed[] = []
  const tooLarge: { path: Path; error: BrokerError }[] = []
  for (const one of placed) {
    const { record, path, valuePath } = one
    const topic = topics.get(record.topic)
    const error =
      topic === undefined ? undefined : sizeError(topic, record, path.length === 0 ? 'the record' : `record ${path[0]}`)
    if (error !== undefined) tooLarge.push({ path, error })
    else if (topic !== undefined) issues.push(...(await issuesOf(topic, record, valuePath)))
    else if (!isRaw(rawTopics, record.topic)) unknown.push(one)
  }
  const all = [
    ...issues,
    ...unknown.map(({ record, path }) => ({ path, message: `The app has no topic ${record.topic}.` })),
    ...tooLarge.map(({ path, error }) => ({ path, message: error.message })),
  ]
  if (all.length === 0) return records
  // One kind of complaint alone has a status of its own.
  if (all.length === unknown.length) throw unknownTopics([...new Set(unknown.map(({ record }) => record.topic))])
  if (all.length === tooLarge.length) throw tooLarge[0]?.error
  throw refusal(all)
}

async function issuesOf(topic: Topic, record: ProducerRecord, path: Path): Promise<RecordIssue[]> {
  try {
    await checkValue(topic, readValue(topic, record.value))
    return []
  } catch (failure) {
    if (!(failure instanceof RecordError)) throw failure
    const found = failure.issues.length === 0 ? [{ path: [], message: failure.message }] : failure.issues
    return found.map((issue) => ({ path: [...path, ...issue.path], message: issue.message }))
  }
}

function isRaw(rawTopics: readonly string[], name: string): boolean {
  return rawTopics.includes('*') || rawTopics.includes(name)
}

function refusal(issues: readonly RecordIssue[]): RecordError {
  const [first] = issues
  const more = issues.length === 1 ? '' : ` (and ${issues.length - 1} more, see errors)`
  const where = first === undefined || first.path.length === 0 ? '' : ` at ${first.path.join('.')}`
  return new RecordError(`Cannot produce: nothing was written${where}: ${first?.message ?? 'invalid'}${more}`, issues)
}

function unknownTopics(names: readonly string[]): GatewayError {
  const shown = names.map((name) => JSON.stringify(name)).join(', ')
  return new GatewayError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Cannot produce to ${shown}: the app has no such topic. Add it to the app's topics, or to KEDGE_PRODUCE_RAW_TOPICS to take it without a schema.`,
  )
}
