/** The frame of every run and edit: an audit record before and after, the group looked for, the lock taken and given back. */
import { runCauseOf } from '../consumer/cause.ts'
import type { RunCause } from '../consumer/report.ts'
import type { DeadLetterId } from '../dead-letter.ts'
import { KedgeError, RecordError } from '../errors.ts'
import { requireGroup } from '../existing-group.ts'
import { GroupLock } from '../group-lock.ts'
import type { LogValue } from '../logger.ts'
import { randomId } from '../random.ts'
import type { TimestampMs } from '../record.ts'
import type { RedriveCounts, RedriveEnd, RedriveFilter, RedriveReport, RedriveSettings } from '../redrive.ts'
import { RedriveCalls } from './calls.ts'
import type { RedriveTopics } from './topics.ts'

/** Who did what to the letters of a group. Never holds a record's value. */
export interface RedriveAudit {
  /** One record when it starts and one when it ended; a redrive that was killed has the first only. */
  readonly phase: 'started' | 'ended'
  /** `edit`: one letter was handed back with another value. */
  readonly action: 'run' | 'edit'
  readonly actor: string
  readonly groupId: string
  /** Joins the two records of one action. */
  readonly runId: string
  /** Of a run. */
  readonly filter?: RedriveFilter
  /** Of an edit. */
  readonly letterId?: DeadLetterId
  readonly startedAtMs: TimestampMs
  readonly endedAtMs?: TimestampMs
  /** When it ended. `refused`: nothing was written. */
  readonly result?: RedriveEnd | 'refused'
  /** When a run ended. */
  readonly counts?: RedriveCounts
  readonly cause?: RunCause
}

/** Takes an audit record. The redrive waits for it. */
export type AuditSink = (record: RedriveAudit) => void | Promise<void>

/** What is done inside the frame. */
export interface AuditedWork {
  readonly runId: string
  readonly startedAtMs: TimestampMs
  /** Calls that keep the lock. */
  readonly calls: RedriveCalls
  readonly topics: RedriveTopics
  readonly lock: GroupLock
}

/** What is asked for, and by whom. */
export type Asked = Pick<RedriveAudit, 'action' | 'actor' | 'filter' | 'letterId'>

/** The settings of a redrive, and how its topics are reached. */
export interface FrameScope extends RedriveSettings {
  readonly topics: (calls: RedriveCalls) => RedriveTopics
}

type AuditEnd = Pick<RedriveAudit, 'result' | 'counts' | 'cause'>

/** Does something under the lock of the group, with audit records around it. Rejects as the work does. */
export async function audited<T extends RedriveReport | void>(
  scope: FrameScope,
  asked: Asked,
  work: (work: AuditedWork) => Promise<T>,
): Promise<T> {
  const { broker, groupId, clock, claimTtlMs } = scope
  const runId = randomId()
  const startedAtMs = clock.now()
  const base = { ...asked, groupId, runId, startedAtMs }
  await tell(scope, { phase: 'started', ...base })
  const free = new RedriveCalls(scope)
  const task = `redrive the dead letters of group ${groupId}`
  const lock = new GroupLock({
    broker,
    instance: { groupId: `${groupId}-redrive`, groupInstanceId: 'redrive' },
    task,
    holder: 'another redrive of it',
    runId,
    claimTtlMs,
    clock,
    calls: free,
  })
  let end: AuditEnd = { result: 'refused' }
  try {
    await requireGroup({ broker, groupId, task, calls: free })
    await lock.take()
    try {
      const calls = new RedriveCalls({ ...scope, before: () => lock.keep(), everyMs: lock.renewEveryMs })
      const done = await work({ runId, startedAtMs, calls, topics: scope.topics(calls), lock })
      end = done === undefined ? { result: 'done' } : endOf(done)
      return done
    } catch (error) {
      end = { result: isRefusal(error) ? 'refused' : 'failed', cause: runCauseOf(error) }
      throw error
    } finally {
      await lock.release()
    }
  } catch (error) {
    if (end.result === 'refused') end = { result: 'refused', cause: runCauseOf(error) }
    throw error
  } finally {
    await tellEnd(scope, { phase: 'ended', ...base, endedAtMs: clock.now(), ...end })
  }
}

/** What an edit is refused with before anything is written. */
function isRefusal(error: unknown): boolean {
  return error instanceof RecordError || (error instanceof KedgeError && error.code === 'INVALID_REQUEST')
}

function endOf({ ended, redriven, quarantined, unread, refused, cause }: RedriveReport): AuditEnd {
  return {
    result: ended,
    counts: { redriven, quarantined, unread, refused },
    ...(cause === undefined ? {} : { cause }),
  }
}

async function tell({ log, audit }: FrameScope, record: RedriveAudit): Promise<void> {
  const { action, actor, groupId, runId, filter, letterId, result, counts, cause } = record
  const isBad = result === 'failed' || result === 'lock-lost' || result === 'refused'
  log?.({
    level: isBad ? 'error' : 'info',
    event: `redrive ${record.phase}`,
    action,
    actor,
    group: groupId,
    runId,
    filter: filter === undefined ? undefined : filterText(filter),
    letterId,
    result,
    ...counts,
    code: cause?.code,
    cause: cause?.message,
  })
  await audit?.(record)
}

/** What was done is done: an audit that fails now must not hide it. */
async function tellEnd(scope: FrameScope, record: RedriveAudit): Promise<void> {
  try {
    await tell(scope, record)
  } catch (error) {
    const { runId, actor } = record
    scope.log?.({ level: 'error', event: 'redrive audit failed', runId, actor, cause: runCauseOf(error).message })
  }
}

/** A filter for a log line, in which keys and headers of records do not stand. */
function filterText({ key, header, ...rest }: RedriveFilter): LogValue {
  const shown = {
    ...rest,
    ...(key === undefined ? {} : { key: '[given]' }),
    ...(header === undefined ? {} : { header: `${header.key}=[given]` }),
  }
  return JSON.stringify(shown)
}
