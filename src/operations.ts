/**
 * What an operator does to a group while it is on: skip a record that blocks it, set its offsets, pause and resume it, and
 * look where it stands. One verb of a group at a time; every verb that changes something leaves audit records, in the group's
 * operations topic where it has one, and where the caller says.
 */
import { groupNameProblem } from './app.ts'
import type { App } from './app.ts'
import { DEFAULT_CLAIM_TTL_MS, MAX_OFFSET } from './broker.ts'
import type { Broker, MemberDescription } from './broker.ts'
import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import { ConfigError } from './errors.ts'
import type { Log } from './logger.ts'
import { checkOperator, operated } from './operations/frame.ts'
import type { OperationAuditSink, OperationsSettings } from './operations/frame.ts'
import { changePaused } from './operations/pause.ts'
import { planSeek, seek } from './operations/seek.ts'
import { planSkip, skip } from './operations/skip.ts'
import type { BackfillOrder, Paused } from './operations/state.ts'
import { statusOf } from './operations/status.ts'
import { systemRandom } from './random.ts'
import type { Random } from './random.ts'
import type { Offset, TimestampMs, TopicPartition } from './record.ts'
import { RedriveCalls } from './redrive/calls.ts'

/** What operations work with. */
export interface OperationsOptions {
  readonly broker: Broker
  readonly groupId: string
  /**
   * The group's app. With it, verbs know what the group reads and how, and make its operations topic where it is missing.
   * Without it, a pause needs that topic to be there, which a run of an app with `operations: true` makes.
   */
  readonly app?: App
  /** How long a verb that died keeps runs and other verbs out, milliseconds. @default 60000, legal 1000 to 900000 */
  readonly claimTtlMs?: number
  /** How long one call to the broker may take, milliseconds. @default 10000, legal 1 to 300000 */
  readonly callTimeoutMs?: number
  readonly clock?: Clock
  readonly random?: Random
  /** Takes a line when a verb starts and ends, with who did what. @default none */
  readonly log?: Log
  /** Takes the audit records. One that fails at the start refuses the verb. @default none */
  readonly audit?: OperationAuditSink
}

/** Who asks for something, for the audit. */
export interface OperatorOptions {
  /** 1 to 200 characters without control characters. */
  readonly actor: string
  /** 1 to 500 characters without control characters. */
  readonly reason?: string
}

/** Where to: an offset, an end of the log, or the first record at or after a time (the end where there is none). */
export type SeekTarget = Offset | 'earliest' | 'latest' | { readonly timeMs: TimestampMs }

/** How offsets are set. */
export interface SeekOptions extends OperatorOptions {
  readonly topic: string
  /** @default all of the topic */
  readonly partition?: number
  readonly to: SeekTarget
  /** How long to wait for runs that are on, milliseconds. New ones are kept out meanwhile. @default 0, legal 0 to 900000 */
  readonly waitMs?: number
  /** Says what would be done, and does nothing. @default false */
  readonly dryRun?: boolean
}

/** How one record is passed over. */
export interface SkipOptions extends OperatorOptions, TopicPartition {
  readonly reason: string
  readonly offset: Offset
  /** As in `SeekOptions`. @default 0 */
  readonly waitMs?: number
  /** Says what would be done, and does nothing. @default false */
  readonly dryRun?: boolean
}

/** What is paused or resumed. */
export interface PauseOptions extends OperatorOptions {
  /** @default the whole group */
  readonly topic?: string
}

/** A partition whose committed offset was changed, or would be. */
export interface MovedPartition extends TopicPartition {
  /** -1 where nothing was committed. */
  readonly before: Offset
  readonly after: Offset
  readonly logStartOffset: Offset
  readonly logEndOffset: Offset
}

/** Where a group stands in a partition. */
export interface PartitionStatus extends TopicPartition {
  /** -1 where nothing is committed. */
  readonly committedOffset: Offset
  readonly logStartOffset: Offset
  readonly logEndOffset: Offset
  /** Records that are there and not behind the committed offset; null where nothing is committed. */
  readonly lag: number | null
}

/** Where a group stands, and what is in force. */
export interface OperationsStatus {
  readonly groupId: string
  /** Whether the group's runs read what is in force. */
  readonly isHeeded: boolean
  readonly paused: Paused
  readonly backfills: readonly BackfillOrder[]
  readonly members: readonly MemberDescription[]
  /** Ordered by topic and partition. */
  readonly partitions: readonly PartitionStatus[]
}

/**
 * The verbs of one group. Those that change something reject with
 * - {BrokerError} CLAIM_HELD with `retryAfterMs` while another verb is active, or a run in the way of `seek` and `skip`
 * - {BrokerError} UNKNOWN_TOPIC_OR_PARTITION, GROUP_ID_NOT_FOUND, OFFSET_OUT_OF_RANGE, INVALID_REQUEST for what is not there
 * - {ConfigError} for an option outside its range, and for what the group's app does not heed
 * - what the audit sink and the broker reject with
 */
export interface Operations {
  /**
   * Sets the committed offsets of a topic, or of one partition. Runs that are on are in the way: they would commit over it.
   * What earlier commits remembered of records beyond them is forgotten.
   */
  seek(options: SeekOptions): Promise<readonly MovedPartition[]>

  /**
   * Passes one record over, as if it had been handled. A record behind others that are not handled can be skipped where the
   * app's commits remember what is settled behind them: see docs/operations.md.
   */
  skip(options: SkipOptions): Promise<MovedPartition>

  /**
   * Handles nothing of a group, or of a topic of it, until it is resumed; offsets stay. Runs that are on end within
   * 15 seconds.
   */
  pause(options: PauseOptions): Promise<Paused>

  /** Takes a pause back. What else is paused stays paused. */
  resume(options: PauseOptions): Promise<Paused>

  /** Where the group stands. Writes nothing, keeps nobody out, and leaves no audit record. */
  status(): Promise<OperationsStatus>
}

/**
 * Makes the verbs of a group.
 * @throws {ConfigError} INVALID_CONFIG for options outside their range, an app of another group, a broker without claims
 */
export function createOperations(options: OperationsOptions): Operations {
  const settings = settingsOf(options)
  return {
    async seek(asked) {
      const { actor, reason, topic, partition, to, waitMs = 0, dryRun = false } = asked
      checkOperator(asked)
      checkTarget(to)
      checkPartition(partition)
      check('waitMs', waitMs, 0, 900_000)
      if (dryRun) return await planSeek(settings, asked, new RedriveCalls(settings))
      const target = { topic, partition, to: typeof to === 'object' ? new Date(to.timeMs).toISOString() : to }
      return await operated(settings, { verb: 'seek', actor, ...reasonOf(reason), target }, (work) =>
        seek(settings, asked, work),
      )
    },

    async skip(asked) {
      const { actor, reason, topic, partition, offset, waitMs = 0, dryRun = false } = asked
      checkOperator(asked)
      if (reason === undefined) throw new ConfigError('Cannot skip: reason: say why the record is passed over.')
      checkPartition(partition)
      check('offset', offset, 0, MAX_OFFSET)
      check('waitMs', waitMs, 0, 900_000)
      if (dryRun) return (await planSkip(settings, asked, new RedriveCalls(settings))).moved
      const target = { topic, partition, offset }
      return await operated(settings, { verb: 'skip', actor, reason, target }, (work) => skip(settings, asked, work))
    },

    pause: async (asked) => await change(settings, asked, 'pause'),
    resume: async (asked) => await change(settings, asked, 'resume'),
    status: async () => await statusOf(settings, new RedriveCalls(settings)),
  }
}

async function change(settings: OperationsSettings, asked: PauseOptions, verb: 'pause' | 'resume'): Promise<Paused> {
  const { actor, reason, topic } = asked
  checkOperator(asked)
  return await operated(settings, { verb, actor, ...reasonOf(reason), target: { topic } }, (work) =>
    changePaused(settings, asked, verb, work),
  )
}

function reasonOf(reason: string | undefined): { readonly reason?: string } {
  return reason === undefined ? {} : { reason }
}

function settingsOf(options: OperationsOptions): OperationsSettings {
  const { broker, groupId, app, clock = systemClock, random = systemRandom, log, audit } = options
  const { claimTtlMs = DEFAULT_CLAIM_TTL_MS, callTimeoutMs = 10_000 } = options
  check('claimTtlMs', claimTtlMs, 1_000, 900_000)
  check('callTimeoutMs', callTimeoutMs, 1, 300_000)
  const problem = problemOf(options)
  if (problem !== undefined) throw new ConfigError(`Cannot operate: ${problem}`)
  return { broker, groupId, app, claimTtlMs, callTimeoutMs, clock, random, log, audit }
}

function problemOf({ broker, groupId, app }: OperationsOptions): string | undefined {
  const name = groupNameProblem(groupId)
  if (name !== undefined) return `groupId ${JSON.stringify(groupId)}: ${name}`
  if (app !== undefined && app.groupId !== groupId) {
    return `the app is of the group ${app.groupId}, and the verbs of ${groupId}: give the app of that group.`
  }
  return broker.features.claims
    ? undefined
    : 'the broker has no claims, without which runs would commit over what is done here.'
}

function check(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  throw new ConfigError(`Cannot operate: ${name} is ${value}: give an integer from ${min} to ${max}.`)
}

function checkPartition(partition: number | undefined): void {
  if (partition !== undefined) check('partition', partition, 0, 2 ** 31 - 1)
}

function checkTarget(to: SeekTarget): void {
  if (to === 'earliest' || to === 'latest') return
  if (typeof to === 'number') return check('to', to, 0, MAX_OFFSET)
  // A time that no date has cannot stand in an audit.
  if (Math.abs(to.timeMs) <= 8.64e15) return
  throw new ConfigError(`Cannot operate: to.timeMs is ${to.timeMs}: give milliseconds since the epoch.`)
}
