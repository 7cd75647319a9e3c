/**
 * What an operator does to a group while it is on: skip a record that blocks it, set its offsets, pause and resume it, and
 * look where it stands. One verb of a group at a time; every verb that changes something leaves audit records, in the group's
 * operations topic where it has one, and where the caller says.
 */
import { groupNameProblem } from './app.ts'
import type { App } from './app.ts'
import { DEFAULT_CLAIM_TTL_MS, MAX_OFFSET } from './broker.ts'
import type { Broker, MemberDescription } from './broker.ts'
import { sleep, systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { RunCause } from './consumer/report.ts'
import { ConfigError, KedgeError } from './errors.ts'
import type { Log } from './logger.ts'
import { beginBackfill, orderOf, planBackfill, withoutOrder } from './operations/backfill.ts'
import { checkOperator, operated } from './operations/frame.ts'
import type { OperationAuditSink, OperationsSettings } from './operations/frame.ts'
import { changePaused } from './operations/pause.ts'
import { replay } from './operations/replay.ts'
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
  /**
   * Records of the topic with exactly this key, as UTF-8 text; on routes ordered by key, or by nothing. @default the whole topic
   */
  readonly key?: string
}

/** What is replayed, and how. */
export interface BackfillOptions extends OperatorOptions {
  readonly topic: string
  /** @default all of the topic */
  readonly partition?: number
  /** The first offset, or the first at or after a time. */
  readonly from: SeekTarget
  /** Up to here, and not this one. @default 'latest', as it is when it begins */
  readonly until?: SeekTarget
  /** Most records in a second. @default 100, legal 0.01 to 10000 */
  readonly perSecond?: number
  /** Aborted: the page in hand is finished, then it ends, and can be resumed. */
  readonly signal?: AbortSignal
  /** Takes what was done after each page. Must return at once. */
  readonly onProgress?: (progress: BackfillProgress) => void
}

/** Which backfill goes on. */
export interface ResumeBackfillOptions extends OperatorOptions, Pick<BackfillOptions, 'signal' | 'onProgress'> {
  readonly topic: string
}

/** Which backfill is taken back. */
export interface StopBackfillOptions extends OperatorOptions {
  readonly topic: string
}

/** What a backfill would replay. */
export interface BackfillPlan extends Pick<BackfillOrder, 'topic' | 'ranges'> {
  /** Offsets in the ranges. Where records were deleted in between there are fewer. */
  readonly records: number
}

/** How far a backfill is. */
export interface BackfillProgress {
  /** Records that this process has replayed. */
  readonly replayed: number
  /** Offsets that are left. */
  readonly left: number
}

/** What a backfill did. */
export interface BackfillReport extends BackfillProgress {
  readonly groupId: string
  readonly id: string
  readonly topic: string
  /**
   * Why it ended: everything is replayed, somebody stopped it, its signal was aborted, its lock lapsed and another process may
   * go on with it, or a call failed for good. All but the first two can be resumed.
   */
  readonly ended: 'done' | 'stopped' | 'aborted' | 'lock-lost' | 'failed'
  /** With `failed` and `lock-lost`. */
  readonly cause?: RunCause
  readonly durationMs: number
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
 * - {BrokerError} UNKNOWN_TOPIC_OR_PARTITION, GROUP_ID_NOT_FOUND, OFFSET_OUT_OF_RANGE, INVALID_REQUEST for what is not there, and
 *   for what the group's app does not heed
 * - {BrokerError} UNKNOWN_MEMBER_ID for `seek` and `skip` while only clients of another kind consume as the group;
 *   REBALANCE_IN_PROGRESS where instances joined meanwhile, whose runs may commit over it
 * - {ConfigError} for an option outside its range
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
   * app's commits remember what is settled behind them: see docs/operate.md.
   */
  skip(options: SkipOptions): Promise<MovedPartition>

  /**
   * Handles nothing of a group, of a topic of it or of a key of that, until it is resumed; offsets stay. Runs that are on end
   * within 15 seconds.
   */
  pause(options: PauseOptions): Promise<Paused>

  /** Takes a pause back. What else is paused stays paused. */
  resume(options: PauseOptions): Promise<Paused>

  /**
   * Replays a range of a topic into the group, beside what it reads, and to no other group: through its redrive topic, with a
   * rate of its own. Records keep their coordinates, and their order in each partition. One backfill of a topic at a time.
   * Resolves when it ended; a process that was killed leaves one that can be resumed, and does at most one page twice.
   */
  backfill(options: BackfillOptions): Promise<BackfillReport>

  /** What a backfill would replay. Writes nothing. */
  planBackfill(options: Omit<BackfillOptions, 'signal' | 'onProgress'>): Promise<BackfillPlan>

  /** Goes on with a backfill that was begun and has not ended, whoever began it. */
  resumeBackfill(options: ResumeBackfillOptions): Promise<BackfillReport>

  /** Takes a backfill back. A process that is at it ends within a second or two; what is replayed already is handled. */
  stopBackfill(options: StopBackfillOptions): Promise<BackfillOrder>

  /** Where the group stands. Writes nothing, keeps nobody out, and leaves no audit record. */
  status(): Promise<OperationsStatus>
}

const DEFAULT_PER_SECOND = 100
/** Between two tries to write down that a backfill has ended. */
const PATIENCE_MS = 1_000
/** The last time that a date has. */
const MAX_DATE_MS = 8.64e15

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
      checkTarget('to', to)
      checkPartition(partition)
      check('waitMs', waitMs, 0, 900_000)
      if (dryRun) return await planSeek(settings, asked, new RedriveCalls(settings))
      const target = { topic, partition, to: targetText(to) }
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

    async backfill(asked) {
      const { actor, reason, topic, partition, from, until = 'latest', perSecond = DEFAULT_PER_SECOND } = asked
      checkBackfill(asked)
      const target = { topic, partition, from: targetText(from), until: targetText(until), perSecond }
      const order = await operated(settings, { verb: 'backfill', actor, ...reasonOf(reason), target }, (work) =>
        beginBackfill(settings, { ...asked, perSecond }, work),
      )
      return await replayed(settings, order, asked)
    },

    async planBackfill(asked) {
      checkBackfill(asked)
      return await planBackfill(settings, asked, new RedriveCalls(settings))
    },

    async resumeBackfill(asked) {
      const { actor, reason, topic } = asked
      checkOperator(asked)
      const verb = 'resume-backfill'
      const order = await operated(settings, { verb, actor, ...reasonOf(reason), target: { topic } }, (work) =>
        Promise.resolve({ result: orderOf(settings, topic, work) }),
      )
      return await replayed(settings, order, asked)
    },

    async stopBackfill(asked) {
      const { actor, reason, topic } = asked
      checkOperator(asked)
      return await operated(
        settings,
        { verb: 'stop-backfill', actor, ...reasonOf(reason), target: { topic } },
        (work) => Promise.resolve(withoutOrder(orderOf(settings, topic, work), work)),
      )
    },

    pause: async (asked) => await change(settings, asked, 'pause'),
    resume: async (asked) => await change(settings, asked, 'resume'),
    status: async () => await statusOf(settings, new RedriveCalls(settings)),
  }
}

/** Replays, and takes the order back when all of it is done. */
async function replayed(
  settings: OperationsSettings,
  order: BackfillOrder,
  { actor, signal, onProgress }: ResumeBackfillOptions,
): Promise<BackfillReport> {
  const report = await replay(settings, order, { signal, onProgress })
  if (report.ended !== 'done') return report
  const { id, topic, replayed: records } = report
  // Where another verb is active for longer than this, the order stays, and resuming it finds nothing left to do.
  await patiently(settings, () =>
    operated(settings, { verb: 'end-backfill', actor, target: { topic, id, records } }, (work) =>
      Promise.resolve(withoutOrder(order, work)),
    ),
  )
  return report
}

/** Tries again while another verb is active. */
async function patiently(settings: OperationsSettings, verb: () => Promise<unknown>): Promise<void> {
  const { clock, claimTtlMs } = settings
  const until = clock.monotonic() + claimTtlMs + PATIENCE_MS
  for (;;) {
    try {
      await verb()
      return
    } catch (error) {
      const isHeld = error instanceof KedgeError && error.code === 'CLAIM_HELD'
      if (!isHeld || clock.monotonic() >= until) throw error
      await sleep(clock, PATIENCE_MS)
    }
  }
}

async function change(settings: OperationsSettings, asked: PauseOptions, verb: 'pause' | 'resume'): Promise<Paused> {
  const { actor, reason, topic, key } = asked
  checkOperator(asked)
  if (key !== undefined && topic === undefined) {
    throw new ConfigError('Cannot operate: there is a key without a topic: say of which topic.')
  }
  return await operated(settings, { verb, actor, ...reasonOf(reason), target: { topic, key } }, (work) =>
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

function checkTarget(name: string, target: SeekTarget): void {
  if (target === 'earliest' || target === 'latest') return
  if (typeof target === 'number') return check(name, target, 0, MAX_OFFSET)
  // A time that no date has cannot stand in an audit.
  if (Math.abs(target.timeMs) <= MAX_DATE_MS) return
  throw new ConfigError(`Cannot operate: ${name}.timeMs is ${target.timeMs}: give milliseconds since the epoch.`)
}

function targetText(target: SeekTarget): string | number {
  return typeof target === 'object' ? new Date(target.timeMs).toISOString() : target
}

function checkBackfill(asked: BackfillOptions): void {
  const { partition, from, until = 'latest', perSecond = DEFAULT_PER_SECOND } = asked
  checkOperator(asked)
  checkPartition(partition)
  checkTarget('from', from)
  checkTarget('until', until)
  if (perSecond >= 0.01 && perSecond <= 10_000) return
  throw new ConfigError(`Cannot operate: perSecond is ${perSecond}: give a number from 0.01 to 10000.`)
}
