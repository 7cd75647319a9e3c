/** Counts what became of records, writes a log line for each, and makes the report of it all. */
import type { DeadLetterReason } from '../dead-letter.ts'
import type { Log, LogEvent } from '../logger.ts'
import type { ConsumerRecord, TopicPartitionOffset } from '../record.ts'
import type { Outcome } from './handling.ts'
import type { Lane } from './lane.ts'
import type { OpenedBreaker, RunReport } from './report.ts'

/** An outcome after which the run goes on to the next record. */
export type SettledOutcome = Extract<Outcome, { readonly kind: 'handled' | 'skipped' | 'dead-lettered' | 'deferred' }>

/** The counts of one run. */
export class Tally {
  polled = 0
  #handled = 0
  #skipped = 0
  #retried = 0
  #remembered = 0
  #lost = 0
  #deferred = 0
  readonly #opened: OpenedBreaker[] = []
  readonly #deadLettered: Partial<Record<DeadLetterReason, number>> = {}
  readonly #log: Log | undefined

  constructor(log: Log | undefined) {
    this.#log = log
  }

  countRetry(): void {
    this.#retried += 1
  }

  /** A record that an earlier run has settled beyond a gap. */
  countRemembered(): void {
    this.#remembered += 1
  }

  /** A record that is committed and was not handled. */
  countLost({ topic, partition, offset }: ConsumerRecord): void {
    this.#lost += 1
    this.log({ level: 'error', event: 'lost', topic, partition, offset })
  }

  /** A route takes nothing more in this run. */
  countOpened(opened: OpenedBreaker): void {
    this.#opened.push(opened)
    const message =
      'Too much of a route becomes dead letters: mend what its handler depends on. Its offsets stay, and the next run probes it.'
    this.log({ level: 'error', event: 'breaker opened', message, ...opened })
  }

  count(record: ConsumerRecord, outcome: SettledOutcome): void {
    if (outcome.kind === 'handled') this.#handled += 1
    else if (outcome.kind === 'skipped') this.#skipped += 1
    else if (outcome.kind === 'deferred') this.#deferred += 1
    else this.#deadLettered[outcome.reason] = (this.#deadLettered[outcome.reason] ?? 0) + 1
    if (this.#log === undefined) return
    const { topic, partition, offset } = record
    const { kind } = outcome
    if (kind === 'dead-lettered') {
      this.log({ level: 'warn', event: kind, topic, partition, offset, reason: outcome.reason })
    } else this.log({ level: 'info', event: kind, topic, partition, offset })
  }

  log(event: LogEvent): void {
    try {
      this.#log?.(event)
    } catch {
      // A log that fails must not cost a record.
    }
  }

  /** Makes the report and logs its figures. */
  report(run: RunFacts): RunReport {
    const { lanes, ...facts } = run
    const dead = Object.values(this.#deadLettered).reduce((sum, count) => sum + count, 0)
    const counts = {
      polled: this.polled,
      handled: this.#handled,
      skipped: this.#skipped,
      retried: this.#retried,
      remembered: this.#remembered,
      lost: this.#lost,
      deferred: this.#deferred,
      unfinished: this.polled - this.#handled - this.#skipped - this.#remembered - this.#lost - this.#deferred - dead,
    }
    const { runId, ended, calls, durationMs, cause } = facts
    const level = ended === 'broker-error' ? 'error' : 'info'
    this.log({
      level,
      event: 'run ended',
      runId,
      ended,
      ...counts,
      deadLettered: dead,
      calls,
      durationMs,
      cause: cause?.message,
    })
    return {
      ...facts,
      ...counts,
      deadLettered: { ...this.#deadLettered },
      breakers: [...this.#opened],
      committed: newest(lanes.filter((lane) => lane.hasCommitted)).map((lane) => at(lane, lane.committedTo)),
      uncommitted: newest(lanes.filter((lane) => lane.isUncommitted)).map((lane) => at(lane, lane.next)),
      stopped: lanes.flatMap((lane) =>
        lane.stopCause === undefined ? [] : [{ ...at(lane, lane.stoppedAt ?? lane.next), cause: lane.stopCause }],
      ),
    }
  }
}

/** What a report needs besides the counts. */
export type RunFacts = Pick<
  RunReport,
  'runId' | 'groupId' | 'groupInstanceId' | 'ended' | 'retryAfterMs' | 'cause' | 'calls' | 'durationMs'
> & { readonly lanes: readonly Lane[] }

/** The newest lane of each partition, ordered by topic and partition. */
function newest(lanes: readonly Lane[]): Lane[] {
  const byPartition = new Map(lanes.map((lane) => [`${lane.topic} ${lane.partition}`, lane]))
  return [...byPartition.values()].sort((a, b) => {
    if (a.topic === b.topic) return a.partition - b.partition
    return a.topic < b.topic ? -1 : 1
  })
}

function at({ topic, partition }: Lane, offset: number): TopicPartitionOffset {
  return { topic, partition, offset }
}
