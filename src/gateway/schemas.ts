/**
 * The shapes of the REST contract, written once: requests are checked by them and the OpenAPI document is made of them.
 * Here, and only here, the dialect's words (`group`, `instance`, `timestamp`, `timeout`) meet Kafka's.
 *
 * A number must be a safe integer. Optional fields may be null, as the original's JSON library had it.
 */
import * as z from 'zod'
import type { ErrorCode } from '../errors.ts'
import type { TopicPartition, TopicPartitionOffset } from '../record.ts'

const TOPIC = /^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$/
// eslint-disable-next-line no-control-regex -- control characters are what it refuses
const NAME = /^(?!\.{1,2}$)[^\u0000-\u001f\u007f-\u009f\ud800-\udfff\u2028\u2029]{1,249}$/u

/** Whether a text is a topic name by Kafka's rule. */
export function isTopicName(text: string): boolean {
  return TOPIC.test(text)
}

/** A check whose failure has an error code of its own rather than INVALID_REQUEST. */
function patternWithCode(pattern: RegExp, code: ErrorCode, error: string): z.ZodType<string> {
  return z
    .string()
    .refine((text) => pattern.test(text), { params: { code }, error })
    .meta({ pattern: pattern.source })
}

/** A topic's name. */
export const TopicName: z.ZodType<string> = patternWithCode(
  TOPIC,
  'INVALID_TOPIC_EXCEPTION',
  'a topic name is 1 to 249 of a-z A-Z 0-9 . _ - and not . or ..',
)
/** A group's id. */
export const GroupName: z.ZodType<string> = patternWithCode(
  NAME,
  'INVALID_GROUP_ID',
  'a group name is 1 to 249 characters without control characters, and not . or ..',
)
/** A group instance's id. */
export const InstanceName: z.ZodType<string> = patternWithCode(
  NAME,
  'INVALID_REQUEST',
  'an instance name is 1 to 249 characters without control characters, and not . or ..',
)

/** The largest partition number: an int32. */
export const MAX_PARTITION = 2_147_483_647

const safeCount = z.int().min(0)
const Partition: z.ZodType<number> = z.int().min(0).max(MAX_PARTITION)
const Offset: z.ZodType<number> = safeCount
/** A negative one is the broker's to refuse, with INVALID_TIMESTAMP. */
const Timestamp: z.ZodType<number> = z.int().describe('Milliseconds since the Unix epoch, at least 0')
const Timeout = optional(safeCount).describe('Longest wait, milliseconds (default 1000)')

/** A number in a header or query: decimal digits. */
const digits = z
  .string()
  .regex(/^\d{1,15}$/)
  .transform(Number)

const itemSchemas = new WeakMap<z.ZodType, z.ZodType>()

// --- records -----------------------------------------------------------------------------------------------------------

/** A record to produce, without its topic. */
export interface RecordBody {
  readonly value: unknown
  readonly key?: string | undefined
  readonly partition?: number | undefined
  readonly timestamp?: number | undefined
  readonly headers?: readonly HeaderBody[] | undefined
}

/** A record to produce, with its topic. */
export interface TopicRecordBody extends RecordBody {
  readonly topic: string
}

/** A header of a record to produce. */
export interface HeaderBody {
  readonly key: string
  readonly value?: string | null | undefined
}

const recordFields = {
  value: z.custom<unknown>((value) => value !== undefined, { error: 'a record needs a value' }),
  key: optional(z.string()).describe('No key when absent, null or "" (with base64, "" is an empty key)'),
  partition: optional(Partition),
  timestamp: optional(Timestamp),
  headers: optional(z.array(z.object({ key: z.string(), value: z.string().nullish() }))),
}

const RecordIn = z.object(recordFields).meta({ id: 'Record' })
const TopicRecordIn = z.object({ topic: TopicName, ...recordFields }).meta({ id: 'TopicRecord' })

/** The body of `POST /produce/{topic}`. */
export const RecordsIn: z.ZodType<RecordBody | RecordBody[]> = oneOrMany(RecordIn)
/** The body of `POST /produce`. */
export const TopicRecordsIn: z.ZodType<TopicRecordBody | TopicRecordBody[]> = oneOrMany(TopicRecordIn)

/** Where a record was stored. */
export const Metadata: z.ZodType = z
  .object({ topic: z.string(), partition: safeCount, offset: safeCount, timestamp: safeCount })
  .meta({ id: 'Metadata' })

const HeaderOut = z.object({ key: z.string(), value: z.string().nullable() })

/** A record that was read. */
export const Message: z.ZodType = z
  .object({
    topic: z.string(),
    partition: safeCount,
    offset: safeCount,
    timestamp: safeCount,
    key: z.string().nullable().describe('"" for a null key; null only with base64'),
    value: z.string().nullable().describe('"" for a null value; null only with base64'),
    headers: z.array(HeaderOut),
  })
  .meta({ id: 'Message' })

// --- partitions and offsets --------------------------------------------------------------------------------------------

const TopicPartitionIn = z.object({ topic: TopicName, partition: Partition }).meta({ id: 'TopicPartition' })
const TopicPartitionOffsetIn = z
  .object({ topic: TopicName, partition: Partition, offset: Offset })
  .meta({ id: 'TopicPartitionOffset' })

/** The body of `/offsets`. */
export const TopicPartitionsIn: z.ZodType<TopicPartition | TopicPartition[]> = oneOrMany(TopicPartitionIn)
/** The same, or no body. */
export const OptionalTopicPartitionsIn: z.ZodType<TopicPartition | TopicPartition[] | undefined> = listOf(
  TopicPartitionsIn.optional(),
  TopicPartitionIn,
)

/** A committed or looked-up offset. */
export const StoredOffsetOut: z.ZodType = z
  .object({ topic: z.string(), partition: safeCount, offset: z.int().min(-1), metadata: z.string().optional() })
  .meta({ id: 'StoredOffset' })

const limits = { maxRecords: optional(z.int().min(1)), maxBytes: optional(z.int().min(1)) }

/** How long to wait and how much to answer. */
export interface WaitBody {
  readonly timeout?: number | undefined
  readonly maxRecords?: number | undefined
  readonly maxBytes?: number | undefined
}

/** Where to read from, without a group. */
export interface FetchBody extends WaitBody {
  readonly topic?: string | undefined
  readonly partition?: number | undefined
  readonly offset?: number | undefined
  readonly topicPartitionOffsets?: readonly TopicPartitionOffset[] | undefined
}

/** The body of `/fetch`. */
export const FetchIn: z.ZodType<FetchBody> = z
  .object({
    topic: optional(TopicName),
    partition: optional(Partition).describe('Of `topic` (default 0)'),
    offset: optional(Offset).describe('Of `topic` (default the log start)'),
    topicPartitionOffsets: optional(z.array(TopicPartitionOffsetIn).max(1000)),
    timeout: Timeout,
    ...limits,
  })
  .meta({ id: 'FetchRequest' })

/** What to read as a member of a group. */
export interface ConsumeBody extends WaitBody {
  readonly topic?: string | undefined
  readonly topics?: readonly string[] | undefined
  readonly positions?: readonly TopicPartitionOffset[] | undefined
}

/** The body of `/consume`. */
export const ConsumeIn: z.ZodType<ConsumeBody> = z
  .object({
    topic: optional(TopicName),
    topics: optional(z.array(TopicName).max(1000)),
    timeout: Timeout,
    positions: optional(z.array(TopicPartitionOffsetIn).max(10_000)).describe('Only with Kedge-Run'),
    ...limits,
  })
  .meta({ id: 'ConsumeRequest' })

/** One offset to commit. */
export interface CommitEntry extends TopicPartitionOffset {
  readonly metadata?: string | undefined
}

const CommitEntryIn = z
  .object({ topic: TopicName, partition: Partition, offset: Offset, metadata: optional(z.string()) })
  .meta({ id: 'OffsetCommit' })

/** Absent, `[]` and `{}` all mean: what the instance was last given. */
export type CommitBody = CommitEntry | CommitEntry[] | Readonly<Record<string, never>> | undefined

/** The body of `/commit`. */
export const CommitIn: z.ZodType<CommitBody> = listOf(
  z.union([CommitEntryIn, z.array(CommitEntryIn), z.strictObject({})]).optional(),
  CommitEntryIn,
)

// --- topics and groups -------------------------------------------------------------------------------------------------

/** Settings of a topic to create. */
export interface TopicConfigBody {
  readonly partitions?: number | undefined
  readonly retentionMs?: number | null | undefined
  readonly retentionBytes?: number | null | undefined
  readonly maxRecordBytes?: number | undefined
}

/** Ranges are the broker's to check: it answers with Kafka's own codes. */
export const TopicConfigIn: z.ZodType<TopicConfigBody | undefined> = z
  .object({
    partitions: optional(z.int()).describe('1 to 1000 (default 1)'),
    retentionMs: z.int().nullish().describe('null: for ever (default 604800000)'),
    retentionBytes: z.int().nullish().describe('null: unlimited (default)'),
    maxRecordBytes: optional(z.int()).describe('Default 1048576'),
  })
  .meta({ id: 'TopicConfig' })
  .optional()

const topicFields = {
  topic: z.string(),
  partitions: safeCount,
  retentionMs: safeCount.nullable(),
  retentionBytes: safeCount.nullable(),
  maxRecordBytes: safeCount,
}
/** A topic. */
export const TopicOut: z.ZodType = z.object(topicFields).meta({ id: 'TopicDescription' })
/** A topic with where its partitions begin and end. */
export const TopicWithOffsetsOut: z.ZodType = z
  .object({
    ...topicFields,
    offsets: z.array(z.object({ partition: safeCount, logStartOffset: safeCount, logEndOffset: safeCount })),
  })
  .meta({ id: 'TopicWithOffsets' })

const groupFields = {
  groupId: z.string(),
  generationId: z.int(),
  members: z.array(
    z.object({
      groupInstanceId: z.string(),
      assignment: z.array(z.object({ topic: z.string(), partition: safeCount })),
      runId: z.string().nullable(),
    }),
  ),
}
/** A group with its members. */
export const GroupOut: z.ZodType = z.object(groupFields).meta({ id: 'GroupDescription' })
/** A group with its offsets and its lag. */
export const GroupWithLagOut: z.ZodType = z
  .object({
    ...groupFields,
    offsets: z.array(
      z.object({
        topic: z.string(),
        partition: safeCount,
        committedOffset: z.int().min(-1),
        metadata: z.string().nullable(),
        logStartOffset: safeCount,
        logEndOffset: safeCount,
        lag: safeCount,
      }),
    ),
    lag: safeCount,
  })
  .meta({ id: 'GroupWithLag' })

/** Groups in the words of the dialect. */
export const ConsumersOut: z.ZodType = z.array(
  z
    .object({
      name: z.string(),
      instances: z.array(
        z.object({
          name: z.string(),
          topics: z.array(z.object({ topic: z.string(), partitions: z.array(safeCount) })),
        }),
      ),
    })
    .meta({ id: 'GroupAssignments' }),
)

// --- results -----------------------------------------------------------------------------------------------------------

/** The answer of calls that return no data. */
export const ResultOut: z.ZodType = z
  .object({ result: z.literal('Success'), error: z.literal(''), status: z.literal(200) })
  .meta({ id: 'Result' })
/** Every error. */
export const ErrorOut: z.ZodType = z
  .object({ result: z.literal(''), error: z.string().min(1), status: z.int().min(400).max(599) })
  .meta({ id: 'Error' })
/** The error of one record of a mixed batch. */
export const RecordErrorOut: z.ZodType = z
  .object({ result: z.literal(''), error: z.string().min(1), status: z.int().min(400).max(599), code: z.string() })
  .meta({ id: 'RecordError' })

// --- headers and queries -----------------------------------------------------------------------------------------------

const flag = z.enum(['true', 'false']).transform((text) => text === 'true')
const RunId = z.string().regex(/^[\x21-\x7e]{1,128}$/)
const encoding = { 'kedge-encoding': z.literal('base64').optional() }

/** How bytes are written in the body. */
export interface EncodingHeader {
  readonly 'kedge-encoding'?: 'base64' | undefined
}

/** How a produce is named, so that it can be sent again. */
export interface IdempotencyHeader {
  readonly 'idempotency-key'?: string | undefined
}
const idempotency = {
  'idempotency-key': z
    .string()
    .regex(/^(?:[\x21\x23-\x7e][\x21-\x7e]{0,254}|"(?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}")$/)
    .optional(),
}

/** Headers of a webhook. */
export const WebhookHeaders: z.ZodType<IdempotencyHeader> = z.object(idempotency)

/** Headers of a produce of one record. */
export interface ProduceMessageHeaders extends EncodingHeader, IdempotencyHeader {}
export const ProduceMessageHeaders: z.ZodType<ProduceMessageHeaders> = z.object({ ...encoding, ...idempotency })

/** Headers of a produce. */
export interface ProduceHeaders extends ProduceMessageHeaders {
  readonly 'kedge-results'?: 'each' | undefined
}
export const ProduceHeaders: z.ZodType<ProduceHeaders> = z.object({
  ...encoding,
  'kedge-results': z.literal('each').optional(),
  ...idempotency,
})

/** Headers of a consume. */
export interface ConsumeHeaders extends EncodingHeader {
  readonly 'kafka-enable-auto-commit'?: boolean | undefined
  readonly 'kafka-auto-commit-interval'?: number | undefined
  readonly 'kafka-auto-offset-reset'?: 'earliest' | 'latest' | 'none' | undefined
  readonly 'kafka-session-timeout-ms'?: number | undefined
  readonly 'kedge-run'?: string | undefined
  readonly 'kedge-claim-ttl-ms'?: number | undefined
  readonly 'kedge-generation'?: number | undefined
}
export const ConsumeHeaders: z.ZodType<ConsumeHeaders> = z.object({
  ...encoding,
  'kafka-enable-auto-commit': flag.optional(),
  'kafka-auto-commit-interval': digits.optional(),
  'kafka-auto-offset-reset': z.enum(['earliest', 'latest', 'none']).optional(),
  'kafka-session-timeout-ms': digits.optional(),
  'kedge-run': RunId.optional(),
  'kedge-claim-ttl-ms': digits.optional(),
  'kedge-generation': digits.optional(),
})

/** Headers of a consume's answer: what the instance holds; or, where its join still waits for others, when to come again. */
export const ConsumeAnswerHeaders: z.ZodType = z.object({
  'kedge-generation': z.string().regex(/^\d+$/).optional(),
  'kedge-assignment': z
    .string()
    .regex(/^([\w.-]+=[\d,-]+(;[\w.-]+=[\d,-]+)*)?$/)
    .optional(),
  'kedge-former-run': z.literal('lapsed').optional(),
  'kedge-retry-after-ms': z.string().regex(/^\d+$/).optional(),
  'retry-after': z.string().regex(/^\d+$/).optional(),
})

/** Headers of every error. */
export const ErrorHeaders: z.ZodType = z.object({
  'kedge-error': z.string(),
  'kedge-retriable': z.enum(['true', 'false']),
  'kedge-limit': z.string().optional(),
  'kedge-retry-after-ms': z.string().regex(/^\d+$/).optional(),
  'retry-after': z.string().regex(/^\d+$/).optional(),
})

/** Headers of a commit. */
export interface CommitHeaders {
  readonly 'kedge-run'?: string | undefined
  readonly 'kedge-generation'?: number | undefined
}
export const CommitHeaders: z.ZodType<CommitHeaders> = z.object({
  'kedge-run': RunId.optional(),
  'kedge-generation': digits.optional(),
})

/** Headers of a claim. */
export interface ClaimHeaders {
  readonly 'kedge-run': string
  readonly 'kedge-claim-ttl-ms'?: number | undefined
}
export const ClaimHeaders: z.ZodType<ClaimHeaders> = z.object({
  'kedge-run': RunId,
  'kedge-claim-ttl-ms': digits.optional(),
})
/** Headers of a release. */
export const ReleaseHeaders: z.ZodType<Pick<ClaimHeaders, 'kedge-run'>> = z.object({ 'kedge-run': RunId })

/** Headers of a fetch. */
export interface FetchHeaders extends EncodingHeader {
  readonly 'kedge-strict-offsets'?: boolean | undefined
}
export const FetchHeaders: z.ZodType<FetchHeaders> = z.object({ ...encoding, 'kedge-strict-offsets': flag.optional() })

/** The longest wait, in the query. */
export interface TimeoutQuery {
  readonly timeout?: number | undefined
}
export const TimeoutQuery: z.ZodType<TimeoutQuery> = z.object({ timeout: digits.optional() })

/** Where `/offsets/{timestamp}` looks. */
export const OffsetsAt: z.ZodType<'earliest' | 'latest' | number> = z.union([
  z.enum(['earliest', 'latest']),
  z
    .string()
    .regex(/^\d{1,16}$/)
    .transform(Number)
    .pipe(safeCount),
])

/** A field that may be left out, or be null, which means the same. */
export function optional<T>(schema: z.ZodType<T>): z.ZodType<T | undefined> {
  return schema.nullish().transform((value) => value ?? undefined)
}

/**
 * The schema of the items where a schema takes a list of them. Lists are checked item by item up to the first that is
 * wrong: zod would gather the complaints of all, and a hostile list has millions.
 */
export function itemSchemaOf(schema: z.ZodType): z.ZodType | undefined {
  return itemSchemas.get(schema)
}

function listOf<T extends z.ZodType>(schema: T, item: z.ZodType): T {
  itemSchemas.set(schema, item)
  return schema
}

/** One of a thing, or a list of it. */
function oneOrMany<T>(item: z.ZodType<T>): z.ZodType<T | T[]> {
  return listOf(z.union([item, z.array(item)]), item)
}
