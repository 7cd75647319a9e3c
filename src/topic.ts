/**
 * Topics as values: a name, how its values are written as bytes, and the schema that says what they are. One definition
 * types both ends: `produce` takes what the schema accepts, a handler gets what the schema gives.
 *
 * What is stored is the value as it was given to `produce`, not the schema's output: so a schema that transforms
 * (text to date, defaults filled in) does it once, on the way out, for every reader.
 */
import { BrokerError, ConfigError, RecordError } from './errors.ts'
import type { RecordIssue } from './errors.ts'
import { headersBytes } from './headers.ts'
import { bytesOf, exactTextOf } from './record.ts'
import type { ProducerRecord } from './record.ts'
import type { SchemaInput, SchemaOutput, StandardFailure, StandardResult, StandardSchema } from './standard-schema.ts'

/** How a value is written as bytes: JSON, UTF-8 text, or the bytes themselves. */
export type ValueFormat = 'json' | 'text' | 'bytes'

/** What a topic may settle besides its name and schema. */
export interface TopicOptions {
  /** What the schema's values are written as. @default 'json'; given by `schema` where that names a format */
  readonly format?: ValueFormat
  /**
   * Null values (tombstones) are part of the topic: they bypass the schema in both directions and handlers see
   * `value: null`. Without it a null value goes to the schema like any other. @default false
   */
  readonly tombstones?: boolean
  /** Largest record: key, value and headers, bytes. @default 1048576, legal 1 to 2147483647 (max.message.bytes) */
  readonly maxRecordBytes?: number
}

/** A topic whose values are `Input` to a producer and `Output` to a handler. Made by `defineTopic`. */
export interface Topic<Input = unknown, Output = Input> {
  readonly name: string
  readonly format: ValueFormat
  readonly tombstones: boolean
  readonly maxRecordBytes: number
  /** Absent where any value of the format will do. */
  readonly schema: StandardSchema | undefined
  /** The topic that this one is a narrower view of. Made by `narrowTopic`. */
  readonly narrows?: Topic
  /** Exists for the compiler alone. */
  readonly '~types'?: { readonly input: Input; readonly output: Output }
}

/** What says which values a topic has: a Standard Schema (zod, valibot, ...), or a format with any value. */
export type TopicSchema = StandardSchema | ValueFormat

/** What a producer may give, by schema and options. */
export type TopicInput<S extends TopicSchema, O> = Tombstone<
  S extends StandardSchema ? SchemaInput<S> : FormatValue<S>,
  O
>

/** What a handler gets, by schema and options. */
export type TopicOutput<S extends TopicSchema, O> = Tombstone<
  S extends StandardSchema ? SchemaOutput<S> : FormatValue<S>,
  O
>

type FormatValue<F> = F extends 'text' ? string : F extends 'bytes' ? Uint8Array : unknown
type Tombstone<V, O> = O extends { readonly tombstones: true } ? V | null : V

/** Kafka's largest topic name. */
const MAX_NAME_LENGTH = 249
/** Kafka's default `max.message.bytes`, less its overhead. */
const DEFAULT_MAX_RECORD_BYTES = 1_048_576

/**
 * Defines a topic.
 *
 * @example
 * const orders = defineTopic('orders', z.object({ id: z.string(), total: z.number() }))
 * const images = defineTopic('images', 'bytes', { maxRecordBytes: 200_000 })
 *
 * @throws {ConfigError} INVALID_CONFIG for a name that Kafka refuses or an option outside its range.
 * @throws {TypeError} for a schema that is neither a Standard Schema nor a format.
 */
export function defineTopic<const S extends TopicSchema, const O extends TopicOptions = TopicOptions>(
  name: string,
  schema: S,
  options?: O,
): Topic<TopicInput<S, O>, TopicOutput<S, O>> {
  const problem = topicNameProblem(name)
  if (problem !== undefined) throw new ConfigError(`Cannot define topic ${JSON.stringify(name)}: ${problem}`)
  if (typeof schema !== 'string' && typeof schema['~standard']?.validate !== 'function') {
    throw new TypeError(
      `Topic ${name}: the schema must be a Standard Schema (zod, valibot, ...), 'json', 'text' or 'bytes'.`,
    )
  }
  const maxRecordBytes = options?.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES
  if (!Number.isInteger(maxRecordBytes) || maxRecordBytes < 1 || maxRecordBytes > 2 ** 31 - 1) {
    throw new ConfigError(
      `Cannot define topic ${name}: maxRecordBytes is ${maxRecordBytes}: give an integer from 1 to 2147483647.`,
    )
  }
  return {
    name,
    format: typeof schema === 'string' ? schema : (options?.format ?? 'json'),
    tombstones: options?.tombstones ?? false,
    maxRecordBytes,
    schema: typeof schema === 'string' ? undefined : schema,
  }
}

/**
 * The same topic seen through a narrower schema, for one route: a topic may hold records of several kinds that a header or
 * a key tells apart. A producer's values are still checked by the topic itself.
 *
 * @example
 * const issues = narrowTopic(github, z.object({ action: z.string(), issue: Issue }))
 * router.on({ topic: issues, headers: { 'x-github-event': 'issues' } }, onIssue)
 */
export function narrowTopic<const S extends StandardSchema>(
  topic: Topic,
  schema: S,
): Topic<SchemaInput<S>, SchemaOutput<S>> {
  return { ...topic, schema, narrows: topic.narrows ?? topic }
}

/** What is wrong with a topic's name by Kafka's rule, or undefined. */
export function topicNameProblem(name: unknown): string | undefined {
  if (typeof name !== 'string' || name === '') return 'a name has 1 to 249 characters.'
  if (name.length > MAX_NAME_LENGTH) return `the name has ${name.length} characters: 249 is the most.`
  if (name === '.' || name === '..') return "a name is neither '.' nor '..'."
  return /^[a-zA-Z0-9._-]+$/.test(name)
    ? undefined
    : 'only the characters a-z, A-Z, 0-9, dot, underscore and hyphen are legal.'
}

/**
 * Reads a value's bytes in the topic's format; the schema is not asked yet.
 * @throws {RecordError} INVALID_RECORD for bytes that are not of the format.
 */
export function readValue(topic: Topic, bytes: Uint8Array | null): unknown {
  if (bytes === null || topic.format === 'bytes') return bytes
  return topic.format === 'json' ? readJson(topic.name, bytes) : readText(topic.name, bytes)
}

/**
 * Reads bytes as JSON.
 * @throws {RecordError} INVALID_RECORD for bytes that are not UTF-8 or not JSON.
 */
export function readJson(topicName: string, bytes: Uint8Array): unknown {
  const text = readText(topicName, bytes)
  try {
    // Some writers (.NET among them) begin a text with a byte order mark, which JSON does not allow.
    return JSON.parse(text.startsWith('\uFEFF') ? text.slice(1) : text) as unknown
  } catch {
    // The parser's message quotes the text, and a record's value does not belong into an error.
    throw new RecordError(`The value of a record of ${topicName} is not JSON.`)
  }
}

/**
 * Asks the topic's schema. Gives the output at once where the schema can, so that a batch of records costs no waiting.
 * @throws {RecordError} INVALID_RECORD with every issue.
 */
export function checkValue(topic: Topic, value: unknown): unknown {
  if (value === null && topic.tombstones) return null
  if (topic.schema === undefined) return checkFormat(topic, value)
  try {
    const result = topic.schema['~standard'].validate(value)
    if (!(result instanceof Promise)) return outputOf(topic, value, result)
    return result.then(
      (later) => outputOf(topic, value, later),
      (error: unknown) => {
        throw schemaFailure(topic, error)
      },
    )
  } catch (error) {
    throw schemaFailure(topic, error)
  }
}

/**
 * Writes a value in the topic's format.
 * @throws {RecordError} INVALID_RECORD for a value that the format cannot carry.
 */
export function writeValue(topic: Topic, value: unknown): Uint8Array | null {
  if (value === null && (topic.tombstones || topic.format !== 'json')) return null
  if (topic.format === 'json') return bytesOf(jsonOf(topic, value))
  checkFormat(topic, value)
  return typeof value === 'string' ? bytesOf(value) : (value as Uint8Array)
}

/** The error of a record over its topic's `maxRecordBytes`, or undefined. `what` names the record in the message. */
export function sizeError(
  topic: Topic,
  { key, value, headers = [] }: Pick<ProducerRecord, 'key' | 'value' | 'headers'>,
  what = 'the record',
): BrokerError | undefined {
  const bytes = (key?.length ?? 0) + (value?.length ?? 0) + headersBytes(headers)
  if (bytes <= topic.maxRecordBytes) return undefined
  return new BrokerError(
    'MESSAGE_TOO_LARGE',
    `Cannot produce to ${topic.name}: ${what} has ${bytes} bytes: at most ${topic.maxRecordBytes} (maxRecordBytes).`,
    { limit: 'maxRecordBytes' },
  )
}

/** What a schema threw, said as a refusal where it is the value's fault. */
function schemaFailure(topic: Topic, thrown: unknown): unknown {
  // A schema that contains itself follows a value's nesting on the stack, and JSON may be nested without end.
  if (!(thrown instanceof RangeError) || !thrown.message.includes('call stack')) return thrown
  const message = 'The value is nested too deeply for its schema.'
  return new RecordError(`A value of ${topic.name} does not satisfy its schema: ${message}`, [{ path: [], message }])
}

function readText(topicName: string, bytes: Uint8Array): string {
  const text = exactTextOf(bytes)
  if (text === undefined) throw new RecordError(`The value of a record of ${topicName} is not UTF-8.`)
  return text
}

function jsonOf(topic: Topic, value: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (error) {
    throw new RecordError(`A value for ${topic.name} cannot be written as JSON.`, [], { cause: error })
  }
  if (text === undefined) {
    throw new RecordError(`A value for ${topic.name} cannot be written as JSON: it is of type ${typeof value}.`)
  }
  return text
}

function checkFormat(topic: Topic, value: unknown): unknown {
  if (topic.format === 'json') return value
  const fits = topic.format === 'text' ? typeof value === 'string' : value instanceof Uint8Array
  if (fits) return value
  const expected = topic.format === 'text' ? 'a string' : 'a Uint8Array'
  const found = value === null ? 'null' : typeof value
  throw new RecordError(`A value of ${topic.name} is not ${expected} but ${found}.`, [
    { path: [], message: `Expected ${expected}, found ${found}.` },
  ])
}

function outputOf(topic: Topic, value: unknown, result: StandardResult<unknown>): unknown {
  return result.issues === undefined ? result.value : refuse(topic, value, result)
}

function refuse(topic: Topic, value: unknown, failure: StandardFailure): never {
  const issues = failure.issues.map((issue): RecordIssue => {
    const path = (issue.path ?? []).map((part) => {
      const key = typeof part === 'object' ? part.key : part
      return typeof key === 'symbol' ? String(key) : key
    })
    return { path, message: withoutValue(issue.message, valueAt(value, path)) }
  })
  const shown = issues.map(({ path, message }) => (path.length === 0 ? message : `at ${path.join('.')}: ${message}`))
  const count = issues.length === 1 ? '1 issue' : `${issues.length} issues`
  throw new RecordError(`A value of ${topic.name} does not satisfy its schema: ${count}: ${shown.join('; ')}`, issues)
}

function valueAt(value: unknown, path: readonly (string | number)[]): unknown {
  let at = value
  for (const key of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return undefined
    at = (at as Record<string | number, unknown>)[key]
  }
  return at
}

/** Some libraries quote what they found in the message; errors go to logs, and values do not. */
function withoutValue(message: string, value: unknown): string {
  if (typeof value === 'number') return message.replaceAll(`received ${value}`, 'received [value]')
  if (typeof value !== 'string') return message
  const quoted = message.replaceAll(JSON.stringify(value), '[value]')
  return value.length > 3 ? quoted.replaceAll(value, '[value]') : quoted
}
