/** The shapes of redrive over REST. What a body or a query has beyond them is refused: a misspelt condition must not be none. */
import * as z from 'zod'
import { exactTextOf } from '../record.ts'
import type { ConsumerRecord } from '../record.ts'
import { deadLetterReasons } from '../dead-letter.ts'
import type { DeadLetter, DeadLetterReason } from '../dead-letter.ts'
import { showBytes } from '../gateway/text.ts'
import type { Encoding } from '../gateway/text.ts'
import { optional, TopicName, type EncodingHeader } from '../gateway/schemas.ts'
import type { RedriveFilter } from '../redrive.ts'

const count = z.int().min(0)
const timeMs = z.int().min(0)
const Fingerprint = z.string().regex(/^[0-9a-f]{16}$/)
const digits = z
  .string()
  .regex(/^\d{1,15}$/)
  .transform(Number)
const flag = z.enum(['true', 'false']).transform((text) => text === 'true')

// --- requests ----------------------------------------------------------------------------------------------------------

/** A filter as it was sent. */
export interface AskedFilter {
  readonly topic?: string | undefined
  readonly reason?: DeadLetterReason | undefined
  readonly fingerprint?: string | undefined
  readonly key?: string | undefined
  readonly header?: { readonly key: string; readonly value: string } | undefined
  readonly fromMs?: number | undefined
  readonly untilMs?: number | undefined
}

const Filter: z.ZodType<AskedFilter> = z
  .strictObject({
    topic: optional(TopicName),
    reason: optional(z.enum(deadLetterReasons)),
    fingerprint: optional(Fingerprint),
    key: optional(z.string()).describe('Exactly this key'),
    header: optional(z.strictObject({ key: z.string(), value: z.string() })).describe('Exactly this header'),
    fromMs: optional(timeMs).describe('Failed at or after, milliseconds since the epoch'),
    untilMs: optional(timeMs).describe('Failed before'),
  })
  .meta({ id: 'RedriveFilter' })

/** Which letters to list, and how many. */
export interface ListQuery extends Omit<AskedFilter, 'header'> {
  /** `name=text` */
  readonly header?: string | undefined
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}
/** The query of a list. */
export const ListQuery: z.ZodType<ListQuery> = z.strictObject({
  topic: TopicName.optional(),
  reason: z.enum(deadLetterReasons).optional(),
  fingerprint: Fingerprint.optional(),
  key: z.string().optional(),
  header: z
    .string()
    .regex(/^[^=]+=/)
    .optional()
    .describe('name=text'),
  fromMs: digits.optional(),
  untilMs: digits.optional(),
  limit: z
    .string()
    .regex(/^([1-9]\d{0,2}|1000)$/)
    .transform(Number)
    .optional()
    .describe('Most letters of a page, 1 to 1000 (default 100)'),
  cursor: z.string().optional().describe("The former page's"),
})

/** Whether a letter's key, value and headers are shown. */
export interface LetterQuery {
  readonly content?: boolean | undefined
}
/** The query of one letter. */
export const LetterQuery: z.ZodType<LetterQuery> = z.strictObject({ content: flag.optional() })

/** How bytes are written in the body. */
export const EncodingHeaders: z.ZodType<EncodingHeader> = z.object({ 'kedge-encoding': z.literal('base64').optional() })

/** Longest time of one run, milliseconds, where nothing is said. */
export const DEFAULT_TIME_LIMIT_MS = 10_000
const MIN_TIME_LIMIT_MS = 1_000
/** Proxies give up a call that says nothing for a minute. */
const MAX_TIME_LIMIT_MS = 50_000

/** What a plan counts. */
export interface PlanBody {
  readonly filter?: AskedFilter | undefined
}
/** The body of a plan. */
export const PlanIn: z.ZodType<PlanBody | undefined> = z
  .strictObject({ filter: optional(Filter).describe('Default: all letters of the group') })
  .meta({ id: 'RedrivePlanRequest' })
  .optional()

/** What a run hands back, and within which bounds. */
export interface RunBody {
  readonly filter?: AskedFilter | undefined
  readonly all?: true | undefined
  readonly maxLetters?: number | undefined
  readonly perSecond?: number | undefined
  readonly maxRedrives?: number | undefined
  readonly timeLimitMs?: number | undefined
}
/** The body of a run. */
export const RunIn: z.ZodType<RunBody> = z
  .strictObject({
    filter: optional(Filter).describe('At least one condition'),
    all: optional(z.literal(true)).describe('In place of a filter: all letters of the group'),
    maxLetters: optional(z.int().min(1).max(100_000)).describe('Most letters of this call (default 10000)'),
    perSecond: optional(z.int().min(1).max(10_000)).describe('Most letters in a second (default 100)'),
    maxRedrives: optional(z.int().min(1).max(1000)).describe('A letter that came back so often stays (default 3)'),
    timeLimitMs: optional(z.int().min(MIN_TIME_LIMIT_MS).max(MAX_TIME_LIMIT_MS)).describe(
      'When this call ends, if letters are left (default 10000)',
    ),
  })
  .meta({ id: 'RedriveRunRequest' })

/** One letter with another value. */
export interface EditBody {
  readonly id: string
  readonly value: string | null
}
/** The body of an edit. */
export const EditIn: z.ZodType<EditBody> = z
  .strictObject({ id: z.string(), value: z.string().nullable().describe('Base64 with Kedge-Encoding: base64') })
  .meta({ id: 'RedriveEditRequest' })

// --- answers -----------------------------------------------------------------------------------------------------------

const cause = { name: z.string(), message: z.string(), code: z.string().optional() }
const letterFields = {
  id: z.string(),
  topic: z.string(),
  partition: count,
  offset: count,
  timestampMs: count,
  failedAtMs: count,
  reason: z.enum(deadLetterReasons),
  cause: z.object(cause),
  route: z.string().nullable(),
  attempts: count,
  redriveCount: count,
  fingerprint: z.string(),
  keyBytes: count.nullable(),
  valueBytes: count.nullable(),
  headerNames: z.array(z.string()),
}

/** A page of letters. */
export const LettersOut: z.ZodType = z
  .object({ letters: z.array(z.object(letterFields).meta({ id: 'DeadLetter' })), cursor: z.string().optional() })
  .meta({ id: 'DeadLetters' })

/** One letter. */
export const LetterOut: z.ZodType = z
  .object({
    ...letterFields,
    cause: z.object({ ...cause, stack: z.string().optional() }),
    content: z
      .object({
        key: z.string().nullable(),
        value: z.string().nullable(),
        headers: z.array(z.object({ key: z.string(), value: z.string().nullable() })),
      })
      .optional()
      .describe('With content=true. Null is null in both encodings; text that is not UTF-8 needs base64'),
  })
  .meta({ id: 'DeadLetterWithContent' })

const Histogram = z
  .object({
    buckets: z.array(z.object({ value: z.string().nullable(), letters: count, example: z.string() })),
    others: count,
  })
  .meta({ id: 'RedriveHistogram' })

/** What a redrive would do. */
export const PlanOut: z.ZodType = z
  .object({
    groupId: z.string(),
    letters: count,
    redrivable: count,
    quarantined: count,
    unread: count,
    bytes: count,
    oldestMs: timeMs.optional(),
    newestMs: timeMs.optional(),
    byTopic: Histogram,
    byReason: Histogram,
    byRoute: Histogram,
    byFingerprint: Histogram,
  })
  .meta({ id: 'RedrivePlan' })

/** What a run did. */
export const RunOut: z.ZodType = z
  .object({
    groupId: z.string(),
    runId: z.string(),
    finished: z.boolean().describe('false: letters may be left; ask again'),
    ended: z.enum(['done', 'max-letters', 'time-limit', 'stopped']),
    redriven: count,
    quarantined: count,
    unread: count,
    refused: count,
    cause: z.object(cause).optional(),
    startedAtMs: timeMs,
    durationMs: z.number().min(0),
  })
  .meta({ id: 'RedriveReport' })

/** What an edit did. */
export const EditOut: z.ZodType = z.object({ id: z.string(), redriven: z.literal(1) }).meta({ id: 'RedriveEdited' })

// --- letters as JSON ---------------------------------------------------------------------------------------------------

/** Of a letter what an operator looks for; nothing of the record's own content. */
export function letterJson(letter: DeadLetter): Record<string, unknown> {
  const { id, record, reason, route, attempts, failedAtMs, fingerprint, redriveCount } = letter
  const { name, message, code } = letter.cause
  return {
    id,
    topic: record.topic,
    partition: record.partition,
    offset: record.offset,
    timestampMs: record.timestampMs,
    failedAtMs,
    reason,
    cause: { name, message, code },
    route,
    attempts,
    redriveCount,
    fingerprint,
    keyBytes: record.key?.length ?? null,
    valueBytes: record.value?.length ?? null,
    headerNames: record.headers.map(({ key }) => key),
  }
}

/** The record's own content. Undefined where it is none that text can carry. */
export function contentJson({ key, value, headers }: ConsumerRecord, encoding: Encoding): object | undefined {
  const all = [key, value, ...headers.map((header) => header.value)]
  if (encoding === 'text' && all.some((bytes) => bytes !== null && exactTextOf(bytes) === undefined)) return undefined
  const shown = (bytes: Uint8Array | null): string | null => (bytes === null ? null : showBytes(bytes, encoding))
  return {
    key: shown(key),
    value: shown(value),
    headers: headers.map((one) => ({ key: one.key, value: shown(one.value) })),
  }
}

/** A filter without what was left out. */
export function filterOf(asked: AskedFilter): RedriveFilter {
  const given = Object.entries(asked).filter(([, condition]) => condition !== undefined)
  return Object.fromEntries(given) as RedriveFilter
}
