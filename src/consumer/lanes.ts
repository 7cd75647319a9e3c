/** All partitions of a run: what the next poll asks for, and which lane takes what is answered. */
import type { PollResult } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import { partitionKey } from '../record.ts'
import type { ConsumerRecord, TopicPartition, TopicPartitionOffset } from '../record.ts'
import { Lane } from './lane.ts'
import type { Entry } from './lane.ts'
import type { OffsetAnomaly } from './offset-guard.ts'
import type { Progress } from './progress.ts'

/** What a poll asked for, kept until its answer is there. */
export interface Asked {
  readonly generationId: number | undefined
  readonly positions: readonly TopicPartitionOffset[]
  /** The lanes behind `positions`. */
  readonly named: ReadonlyMap<string, Lane>
}

/** All lanes of a run. */
export class Lanes {
  /** Records that were received and are not settled, dropped or put off. */
  waiting = 0
  waitingBytes = 0
  /** Records that were put off, and those behind them. */
  parked = 0
  parkedBytes = 0
  readonly #lanes = new Map<string, Lane>()
  /** Lanes that ended before the run; the report speaks of them too. */
  readonly #past: Lane[] = []
  #generationId: number | undefined
  #assignment: ReadonlySet<string> = new Set()

  /** Every lane there ever was, older ones first. */
  get all(): readonly Lane[] {
    return [...this.#past, ...this.#lanes.values()]
  }

  get open(): Lane[] {
    return [...this.#lanes.values()].filter((lane) => lane.isOpen)
  }

  get generationId(): number | undefined {
    return this.#generationId
  }

  /** How many partitions the run holds. */
  get assigned(): number {
    return this.#assignment.size
  }

  /** Whether the run holds partitions and every one of them is stopped. */
  get areAllStopped(): boolean {
    if (this.#assignment.size === 0) return false
    for (const key of this.#assignment) if (this.#lanes.get(key)?.stopCause === undefined) return false
    return true
  }

  /** Whether the run holds partitions and nothing more of any of them may be handled. */
  get areAllClosed(): boolean {
    if (this.#assignment.size === 0) return false
    for (const key of this.#assignment) if (this.#lanes.get(key)?.isOpen !== false) return false
    return true
  }

  /** What the next poll says of this run. */
  ask(): Asked {
    const named = new Map<string, Lane>()
    const positions: TopicPartitionOffset[] = []
    for (const [key, lane] of this.#lanes) {
      if (lane.polledTo <= lane.committedTo) continue
      named.set(key, lane)
      positions.push({ topic: lane.topic, partition: lane.partition, offset: lane.polledTo })
    }
    return { generationId: this.#generationId, positions, named }
  }

  /** Partitions for which an answer begins a lane. */
  unknown({ records, generationId, assignment }: PollResult): TopicPartition[] {
    const held = generationId === this.#generationId ? this.#assignment : new Set(assignment.map(keyOf))
    const found: TopicPartition[] = []
    for (const [key, [first]] of byPartition(records)) {
      if (first === undefined || !held.has(key)) continue
      const lane = this.#lanes.get(key)
      if (lane === undefined || first.offset < lane.polledTo) found.push(first)
    }
    return found.map(({ topic, partition }) => ({ topic, partition }))
  }

  /**
   * Takes an answer in: ends the lanes of partitions that moved away, and queues the records of the others. `recalled` is
   * what earlier commits know beyond their offsets, by `partitionKey`.
   */
  take(answer: PollResult, asked: Asked, recalled: ReadonlyMap<string, Progress> = nothing): void {
    if (answer.generationId !== this.#generationId) this.#reassign(answer)
    for (const [key, records] of byPartition(answer.records)) {
      this.#takeRecords(key, records, asked, recalled)
    }
  }

  /** Begins a lane of which nothing is handled. What the log has already is not read; what comes is passed over. */
  stop({ topic, partition, offset, logStartOffset, logEndOffset, stopCause }: OffsetAnomaly): void {
    if (stopCause === undefined) return
    const lane = new Lane({ topic, partition, offset: logStartOffset }, this.#generationId ?? 0)
    // Named in the next poll, or the broker would begin anew by its own rule each time.
    lane.polledTo = logEndOffset
    lane.stopCause = stopCause
    lane.stoppedAt = offset
    this.#lanes.set(keyOf(lane), lane)
  }

  /** A record that waited is settled. */
  release(record: ConsumerRecord): void {
    this.waiting -= 1
    this.waitingBytes -= bytesOf(record)
  }

  /** An entry is left to the next run, and takes no room any more. */
  leave(entry: Entry): void {
    if (entry.isLeft) return
    if (entry.isParked) this.unpark(entry)
    this.release(entry.record)
    entry.isLeft = true
  }

  /** An entry that was left is settled after all, and takes room until it is released. */
  takeBack(entry: Entry): void {
    if (!entry.isLeft) return
    entry.isLeft = false
    this.waiting += 1
    this.waitingBytes += bytesOf(entry.record)
  }

  /** An entry is put off, or waits behind one that is. */
  park(entry: Entry): void {
    if (entry.isParked) return
    entry.isParked = true
    this.release(entry.record)
    this.parked += 1
    this.parkedBytes += bytesOf(entry.record)
  }

  /** An entry that was put off waits like any other again. */
  unpark(entry: Entry): void {
    if (!entry.isParked) return
    entry.isParked = false
    const bytes = bytesOf(entry.record)
    this.parked -= 1
    this.parkedBytes -= bytes
    this.waiting += 1
    this.waitingBytes += bytes
  }

  /** Drops what waits in a lane. */
  clear(lane: Lane): void {
    for (const record of lane.waiting) this.waitingBytes -= bytesOf(record)
    this.waiting -= lane.waiting.length
    lane.clear()
  }

  /** Ends a lane whose partition is not the run's any more. Unnamed in the next poll, it starts at its committed offset. */
  remove(lane: Lane, reason: Error): void {
    const key = keyOf(lane)
    if (this.#lanes.get(key) === lane) this.#lanes.delete(key)
    this.#past.push(lane)
    this.clear(lane)
    for (const entry of lane.entries) this.leave(entry)
    lane.leave(reason)
  }

  #reassign({ generationId, assignment }: PollResult): void {
    this.#generationId = generationId
    this.#assignment = new Set(assignment.map(keyOf))
    for (const [key, lane] of this.#lanes) {
      if (this.#assignment.has(key)) continue
      this.remove(lane, movedAway(lane))
    }
  }

  #takeRecords(
    key: string,
    records: readonly ConsumerRecord[],
    asked: Asked,
    recalled: ReadonlyMap<string, Progress>,
  ): void {
    const [first] = records
    const last = records.at(-1)
    if (first === undefined || last === undefined || !this.#assignment.has(key)) return
    const named = asked.named.get(key)
    let lane = this.#lanes.get(key)
    // The lane ended while the poll was out, so these records come after some that were dropped with it. Asked for
    // without a position, the partition starts at its committed offset next time.
    if (named !== undefined && named !== lane) return
    // Only a partition that was lost and came back starts before what was asked for.
    if (lane !== undefined && first.offset < lane.polledTo) {
      this.remove(lane, movedAway(lane))
      lane = undefined
    }
    if (lane === undefined) {
      lane = new Lane(first, this.#generationId ?? 0, recalled.get(partitionKey(first)))
      this.#lanes.set(key, lane)
    }
    lane.polledTo = last.offset + 1
    if (!lane.isOpen) return
    lane.push(records)
    this.waiting += records.length
    for (const record of records) this.waitingBytes += bytesOf(record)
  }
}

const nothing: ReadonlyMap<string, Progress> = new Map()

function movedAway({ topic, partition }: Lane): Error {
  return new BrokerError(
    'ILLEGAL_GENERATION',
    `Handling of ${topic}[${partition}] was given up: the partition moved to another member of the group.`,
  )
}

function byPartition(records: readonly ConsumerRecord[]): Map<string, readonly ConsumerRecord[]> {
  const groups = new Map<string, ConsumerRecord[]>()
  let last: ConsumerRecord | undefined
  let group: ConsumerRecord[] = []
  for (const record of records) {
    // Answers come in long stretches of one partition; a key for each record would cost more than all the rest.
    if (record.partition !== last?.partition || record.topic !== last.topic) {
      const key = keyOf(record)
      group = groups.get(key) ?? []
      groups.set(key, group)
    }
    group.push(record)
    last = record
  }
  return groups
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic} ${partition}`
}

/** Bytes of keys, values and header values. */
function bytesOf({ key, value, headers }: ConsumerRecord): number {
  let bytes = (key?.length ?? 0) + (value?.length ?? 0)
  for (const header of headers) bytes += header.value?.length ?? 0
  return bytes
}
