/** The shapes of an operator's verbs over REST. What a body has beyond them is refused: a misspelt field must not be none. */
import * as z from 'zod'
import { MAX_PARTITION, optional, TopicName } from '../gateway/schemas.ts'
import type { SeekTarget } from '../operations.ts'

const count = z.int().min(0)
/** The last time that a date has. */
const MAX_DATE_MS = 8_640_000_000_000_000
const partition = z.int().min(0).max(MAX_PARTITION)
// eslint-disable-next-line no-control-regex -- control characters are what it refuses
const REASON = /^[^\u0000-\u001f\u007f-\u009f\ud800-\udfff]{1,500}$/u
const reason = z.string().regex(REASON).describe('Why, for the audit: without control characters')
const Target: z.ZodType<SeekTarget> = z
  .union([count, z.enum(['earliest', 'latest']), z.strictObject({ timeMs: z.int().min(0).max(MAX_DATE_MS) })])
  .describe('An offset, an end of the log, or the first record at or after a time')
const dryRun = optional(z.boolean()).describe('true: say what would be done, and do nothing')
const perSecond = z.int().min(1).max(10_000)
const timeLimitMs = optional(z.int().min(1_000).max(50_000)).describe(
  'When this call ends, if records are left (default 10000)',
)

// --- requests ----------------------------------------------------------------------------------------------------------

/** Where offsets are set to. */
export interface SeekBody {
  readonly topic: string
  readonly partition?: number | undefined
  readonly to: SeekTarget
  readonly reason?: string | undefined
  readonly dryRun?: boolean | undefined
}
/** The body of a seek. */
export const SeekIn: z.ZodType<SeekBody> = z
  .strictObject({
    topic: TopicName,
    partition: optional(partition).describe('Default: all of the topic'),
    to: Target,
    reason: optional(reason),
    dryRun,
  })
  .meta({ id: 'SeekRequest' })

/** Which record is passed over. */
export interface SkipBody {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly reason: string
  readonly dryRun?: boolean | undefined
}
/** The body of a skip. */
export const SkipIn: z.ZodType<SkipBody> = z
  .strictObject({ topic: TopicName, partition, offset: count, reason, dryRun })
  .meta({ id: 'SkipRequest' })

/** What is paused or resumed. */
export interface PauseBody {
  readonly topic?: string | undefined
  readonly key?: string | undefined
  readonly reason?: string | undefined
}
/** The body of a pause and of a resume. */
export const PauseIn: z.ZodType<PauseBody | undefined> = z
  .strictObject({
    topic: optional(TopicName).describe('Default: the whole group'),
    key: optional(z.string()).describe('Of a record, as text; with topic. Default: the whole topic'),
    reason: optional(reason),
  })
  .meta({ id: 'PauseRequest' })
  .optional()

/** What is replayed. */
export interface BackfillBody {
  readonly topic: string
  readonly partition?: number | undefined
  readonly from: SeekTarget
  readonly until?: SeekTarget | undefined
  readonly perSecond?: number | undefined
  readonly reason?: string | undefined
  readonly timeLimitMs?: number | undefined
}
/** The body that begins a backfill. */
export const BackfillIn: z.ZodType<BackfillBody> = z
  .strictObject({
    topic: TopicName,
    partition: optional(partition).describe('Default: all of the topic'),
    from: Target,
    until: optional(Target).describe('Up to here, and not this one. Default: the end of the log as it is'),
    perSecond: optional(perSecond).describe('Most records in a second (default 100)'),
    reason: optional(reason),
    timeLimitMs,
  })
  .meta({ id: 'BackfillRequest' })

/** Which backfill goes on, or is taken back. */
export interface BackfillOfBody {
  readonly topic: string
  readonly reason?: string | undefined
  readonly timeLimitMs?: number | undefined
}
/** The body that goes on with a backfill. */
export const ResumeBackfillIn: z.ZodType<BackfillOfBody> = z
  .strictObject({ topic: TopicName, reason: optional(reason), timeLimitMs })
  .meta({ id: 'ResumeBackfillRequest' })
/** The body that takes one back. */
export const StopBackfillIn: z.ZodType<BackfillOfBody> = z
  .strictObject({ topic: TopicName, reason: optional(reason) })
  .meta({ id: 'StopBackfillRequest' })

// --- answers -----------------------------------------------------------------------------------------------------------

const committed = z.int().min(-1).describe('-1 where nothing is committed')
const bounds = { logStartOffset: count, logEndOffset: count }
const Moved = z
  .object({ topic: z.string(), partition: count, before: committed, after: count, ...bounds })
  .meta({ id: 'MovedPartition' })
const Paused = z
  .object({
    group: z.boolean(),
    topics: z.array(z.string()),
    keys: z.array(z.object({ topic: z.string(), key: z.string() })),
  })
  .meta({ id: 'Paused' })
const Order = z
  .object({
    id: z.string(),
    topic: z.string(),
    ranges: z.array(z.object({ partition: count, from: count, until: count })),
    perSecond: z.number(),
  })
  .meta({ id: 'Backfill' })

/** What a seek did. */
export const SeekOut: z.ZodType = z.object({ partitions: z.array(Moved) }).meta({ id: 'SeekResult' })
/** What a skip did. */
export const SkipOut: z.ZodType = Moved
/** What is paused now. */
export const PausedOut: z.ZodType = Paused
/** The backfill that was taken back. */
export const StopBackfillOut: z.ZodType = Order

/** What a backfill did. */
export const BackfillOut: z.ZodType = z
  .object({
    id: z.string(),
    groupId: z.string(),
    topic: z.string(),
    finished: z.boolean().describe('false: records are left; resume it'),
    ended: z.enum(['done', 'stopped', 'time-limit', 'closing']),
    replayed: count,
    left: count,
    durationMs: z.number().min(0),
  })
  .meta({ id: 'BackfillReport' })

/** Where a group stands. */
export const StatusOut: z.ZodType = z
  .object({
    groupId: z.string(),
    isHeeded: z.boolean().describe('Whether runs of the group ask what is paused'),
    paused: Paused,
    backfills: z.array(Order),
    members: z.array(
      z.object({
        groupInstanceId: z.string(),
        assignment: z.array(z.object({ topic: z.string(), partition: count })),
        runId: z.string().nullable(),
      }),
    ),
    partitions: z.array(
      z.object({ topic: z.string(), partition: count, committedOffset: committed, ...bounds, lag: count.nullable() }),
    ),
  })
  .meta({ id: 'GroupOperations' })
