/**
 * Looks whether committed offsets are where the log is. One that is ahead of the log's end (the topic was made anew, a backup
 * was restored) or behind its start (retention was faster) makes a broker begin somewhere else without a word. The guard says
 * it once, and follows what the app wants.
 */
import type { App } from '../app.ts'
import type { Broker, GroupInstance, PollResult } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { LogEvent } from '../logger.ts'
import { partitionKey } from '../record.ts'
import type { Offset, TopicPartition, TopicPartitionOffset } from '../record.ts'
import type { Calls } from './calls.ts'
import { runCauseOf } from './cause.ts'
import type { RunCause } from './report.ts'

/** What the guard needs of its run. */
export interface OffsetGuardScope {
  readonly app: App
  readonly broker: Broker
  readonly group: GroupInstance
  readonly runId: string
  readonly calls: Calls
  /** Aborted when the run reads no more. */
  readonly reading: AbortSignal
  readonly log: (event: LogEvent) => void
}

/** A partition whose committed offset is not where the log is. `offset` is that. */
export interface OffsetAnomaly extends TopicPartitionOffset {
  readonly logStartOffset: Offset
  readonly logEndOffset: Offset
  /** Why nothing of it is handled; undefined where the offset was set as the app wants it. */
  readonly stopCause: RunCause | undefined
}

/** Guards the offsets of one run. */
export class OffsetGuard {
  readonly #scope: OffsetGuardScope
  #generationId: number | undefined
  #checked: ReadonlySet<string> = new Set()

  constructor(scope: OffsetGuardScope) {
    this.#scope = scope
  }

  /**
   * Checks the partitions that an answer has newly assigned: three calls where there are any. Where the policy says where to
   * begin, that is committed. Rejects as the broker does.
   */
  async check({ generationId, assignment }: PollResult): Promise<readonly OffsetAnomaly[]> {
    if (this.#scope.app.onOffsetAnomaly === undefined || generationId === this.#generationId) return []
    const fresh = assignment.filter((at) => !this.#checked.has(partitionKey(at)))
    const found = fresh.length === 0 ? [] : await this.#look(fresh)
    await this.#setOffsets(found, generationId)
    for (const one of found) this.#tell(one)
    this.#generationId = generationId
    this.#checked = new Set(assignment.map(partitionKey))
    return found
  }

  async #look(partitions: readonly TopicPartition[]): Promise<readonly OffsetAnomaly[]> {
    const { app, broker, group, calls, reading } = this.#scope
    const limits = { signal: reading }
    const all = await calls.make((call) => broker.committed(group.groupId, partitions, call), limits)
    const committed = all.filter(({ offset }) => offset >= 0)
    if (committed.length === 0) return []
    const starts = await calls.make((call) => broker.offsets(committed, 'earliest', call), limits)
    const ends = await calls.make((call) => broker.offsets(committed, 'latest', call), limits)
    return committed.flatMap(({ topic, partition, offset }, index): OffsetAnomaly[] => {
      const logStartOffset = starts[index]?.offset ?? 0
      const logEndOffset = ends[index]?.offset ?? 0
      if (offset >= logStartOffset && offset <= logEndOffset) return []
      const place = { topic, partition, offset, logStartOffset, logEndOffset }
      const isStopped = app.onOffsetAnomaly === 'stop'
      return [{ ...place, stopCause: isStopped ? runCauseOf(anomalyOf(group.groupId, place)) : undefined }]
    })
  }

  async #setOffsets(found: readonly OffsetAnomaly[], generationId: number): Promise<void> {
    const { app, broker, group, runId, calls, reading } = this.#scope
    if (found.length === 0 || app.onOffsetAnomaly === 'stop') return
    const offsets = found.map(({ topic, partition, logStartOffset, logEndOffset }) => {
      return { topic, partition, offset: app.onOffsetAnomaly === 'earliest' ? logStartOffset : logEndOffset }
    })
    await calls.make((call) => broker.commit(group, offsets, { runId, generationId }, call), { signal: reading })
  }

  #tell({ topic, partition, offset, logStartOffset, logEndOffset, stopCause }: OffsetAnomaly): void {
    const policy = this.#scope.app.onOffsetAnomaly
    const place = { topic, partition, offset, logStartOffset, logEndOffset }
    const message =
      stopCause?.message ??
      `The committed offset is not where the log is; the group goes on at the ${policy} offset, as its app says.`
    this.#scope.log({
      level: stopCause === undefined ? 'warn' : 'error',
      event: 'offset anomaly',
      ...place,
      policy,
      message,
    })
  }
}

function anomalyOf(groupId: string, place: Omit<OffsetAnomaly, 'stopCause'>): BrokerError {
  const { topic, partition, offset, logStartOffset, logEndOffset } = place
  const [where, to] = offset > logEndOffset ? ['ahead of', 'latest'] : ['behind', 'earliest']
  return new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot go on with ${topic}[${partition}] of group ${groupId} at offset ${offset}: it is ${where} the log, which has ${logStartOffset} to ${logEndOffset}. Find out why, then: npm run operate -- seek --topic ${topic} --partition ${partition} --to ${to}`,
  )
}
