/** The frame of every verb: an audit record before and after, the group's lock, and what is in force read under it. */
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { runCauseOf } from '../consumer/cause.ts'
import type { RunCause } from '../consumer/report.ts'
import { ConfigError, KedgeError } from '../errors.ts'
import { GroupLock } from '../group-lock.ts'
import type { Log, LogValue } from '../logger.ts'
import { randomId } from '../random.ts'
import type { Random } from '../random.ts'
import type { TimestampMs, TopicPartitionOffset } from '../record.ts'
import { RedriveCalls } from '../redrive/calls.ts'
import type { OperationsState, Paused } from './state.ts'
import { OperationsTopic } from './topic.ts'

/** What an operator may do to a group. */
export type OperationVerb =
  | 'seek'
  | 'skip'
  | 'pause'
  | 'resume'
  | 'backfill'
  | 'resume-backfill'
  | 'end-backfill'
  | 'stop-backfill'

/** Who did what to a group. Never holds a record's value. */
export interface OperationAudit {
  /** One record when it starts and one when it ended; a verb that was killed has the first only. */
  readonly phase: 'started' | 'ended'
  readonly verb: OperationVerb
  readonly actor: string
  readonly reason?: string
  readonly groupId: string
  /** Joins the two records of one verb. */
  readonly operationId: string
  /** What was asked for, as the verb's options had it. */
  readonly target: Readonly<Record<string, LogValue>>
  readonly startedAtMs: TimestampMs
  readonly endedAtMs?: TimestampMs
  /** Committed offsets (-1 where there was none), or what was paused. */
  readonly before?: readonly TopicPartitionOffset[] | Paused
  readonly after?: readonly TopicPartitionOffset[] | Paused
  /** When it ended. `refused`: nothing was changed. */
  readonly result?: 'done' | 'refused' | 'failed'
  readonly cause?: RunCause
}

/** Takes an audit record. The verb waits for it. */
export type OperationAuditSink = (record: OperationAudit) => void | Promise<void>

/** Settings of the verbs with nothing left open. */
export interface OperationsSettings {
  readonly broker: Broker
  readonly groupId: string
  readonly app: App | undefined
  readonly claimTtlMs: number
  readonly callTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log | undefined
  readonly audit: OperationAuditSink | undefined
}

/** What is asked for, and by whom. */
export type Asked = Pick<OperationAudit, 'verb' | 'actor' | 'reason' | 'target'>

/** What a verb works with, while it has the lock. */
export interface VerbWork {
  readonly operationId: string
  /** Calls that keep the lock. */
  readonly calls: RedriveCalls
  /** What is in force. */
  readonly state: OperationsState
  /** Whether runs of the group read what is in force. */
  readonly isHeeded: boolean
}

/** What a verb did. */
export interface VerbDone<T> extends Pick<OperationAudit, 'before' | 'after'> {
  readonly result: T
  /** What is in force from now on. @default as before */
  readonly state?: OperationsState
}

/** A verb is refused because of what was asked for; nothing was changed. */
const refusals: readonly string[] = [
  'INVALID_CONFIG',
  'INVALID_REQUEST',
  'OFFSET_OUT_OF_RANGE',
  'CLAIM_HELD',
  'GROUP_ID_NOT_FOUND',
  'UNKNOWN_TOPIC_OR_PARTITION',
]

/** Does something to a group under its lock, with audit records around it. Rejects as the work does. */
export async function operated<T>(
  settings: OperationsSettings,
  asked: Asked,
  work: (work: VerbWork) => Promise<VerbDone<T>>,
): Promise<T> {
  const { broker, groupId, app, clock, claimTtlMs } = settings
  const operationId = randomId()
  const base = { ...asked, groupId, operationId, startedAtMs: clock.now() }
  const ended = (how: Pick<OperationAudit, 'before' | 'after' | 'result' | 'cause'>): OperationAudit => {
    return { phase: 'ended', ...base, endedAtMs: clock.now(), ...how }
  }
  const started: OperationAudit = { phase: 'started', ...base }
  await tell(settings, started)
  const lock = new GroupLock({
    broker,
    instance: { groupId: `${groupId}-operations`, groupInstanceId: 'operate' },
    task: `${asked.verb} in group ${groupId}`,
    holder: 'another operator of it',
    runId: operationId,
    claimTtlMs,
    clock,
    calls: new RedriveCalls(settings),
  })
  let topic: OperationsTopic | undefined
  try {
    await lock.take()
    const calls = new RedriveCalls({ ...settings, before: () => lock.keep() })
    topic = await OperationsTopic.open({ broker, groupId, app, calls })
    await topic.append(started)
    const { state, isHeeded } = topic
    const { result, state: next, ...change } = await work({ operationId, calls, state, isHeeded })
    const audit = ended({ ...change, result: 'done' })
    // What is in force counts only when it is written; a change of offsets is done whatever becomes of its audit.
    if (next === undefined) await attempt(settings, audit, topic.append(audit))
    else await topic.append(audit, next)
    await attempt(settings, audit, tell(settings, audit))
    return result
  } catch (error) {
    const audit = ended({ result: isRefusal(error) ? 'refused' : 'failed', cause: runCauseOf(error) })
    if (topic !== undefined) await attempt(settings, audit, topic.append(audit))
    await attempt(settings, audit, tell(settings, audit))
    throw error
  } finally {
    await lock.release()
  }
}

/** Whether a verb was refused before it changed anything. */
function isRefusal(error: unknown): boolean {
  return error instanceof KedgeError && refusals.includes(error.code)
}

/** @throws {ConfigError} INVALID_CONFIG for an actor or a reason that cannot stand in an audit. */
export function checkOperator({
  actor,
  reason,
}: {
  readonly actor: string
  readonly reason?: string | undefined
}): void {
  const isLine = (text: unknown, most: number): boolean =>
    typeof text === 'string' && text.length <= most && /^[^\p{Cc}\p{Cs}]+$/u.test(text)
  if (!isLine(actor, 200)) {
    throw new ConfigError(
      'Cannot operate: actor: say who asks for it, in 1 to 200 characters without control characters.',
    )
  }
  if (reason !== undefined && !isLine(reason, 500)) {
    throw new ConfigError('Cannot operate: reason: say why, in 1 to 500 characters without control characters.')
  }
}

async function tell({ log, audit }: OperationsSettings, record: OperationAudit): Promise<void> {
  const { phase, verb, actor, reason, groupId, operationId, target, before, after, result, cause } = record
  log?.({
    level: result === 'failed' || result === 'refused' ? 'error' : 'info',
    event: `operation ${phase}`,
    verb,
    actor,
    reason,
    group: groupId,
    operationId,
    ...withoutKey(target),
    before: changeText(before),
    after: changeText(after),
    result,
    code: cause?.code,
    cause: cause?.message,
  })
  await audit?.(record)
}

/** What was done is done: an audit that fails now must not hide it. */
async function attempt(
  { log }: OperationsSettings,
  { operationId, actor }: OperationAudit,
  telling: Promise<void>,
): Promise<void> {
  try {
    await telling
  } catch (error) {
    log?.({ level: 'error', event: 'operation audit failed', operationId, actor, cause: runCauseOf(error).message })
  }
}

/** A change for a log line, in which keys of records do not stand. */
/** Keys of records do not stand in log lines. */
function withoutKey({ key, ...target }: OperationAudit['target']): OperationAudit['target'] {
  return key === undefined ? target : { ...target, key: '(in the audit)' }
}

function changeText(change: OperationAudit['before']): string | undefined {
  if (change === undefined) return undefined
  if (!('group' in change))
    return change.map(({ topic, partition, offset }) => `${topic}[${partition}] ${offset}`).join(', ')
  const { group, topics, keys } = change
  const parts = [...(group ? ['the group'] : []), ...topics, ...keys.map(({ topic }) => `a key of ${topic}`)]
  return parts.length === 0 ? 'nothing' : parts.join(', ')
}
