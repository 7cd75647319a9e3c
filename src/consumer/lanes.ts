/**
 * Where a run stands in each partition: which records wait, which offset to commit, and which one to ask for next. A lane
 * lives from the first record of a partition to the end of the run, or until the partition moves away.
 *
 * Three offsets rise in a lane: `committedTo` <= `next` (everything before it is handled) <= `polledTo` (everything
 * before it has been received).
 */
import type { PollResult } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { ConsumerRecord, Offset, TopicPartition, TopicPartitionOffset } from '../record.ts'
import type { Attempt } from './attempt.ts'
import type { RunCause } from './report.ts'

/** One partition of a run. */
export class Lane implements TopicPartition {
  readonly topic: string
  readonly partition: number
  /**
   * A generation since which the partition is held without a break, as far as the run can know. Commits name it, so that
   * the broker refuses those of a partition that went away and came back unseen.
   */
  generationId: number
  next: Offset
  polledTo: Offset
  committedTo: Offset
  hasCommitted = false
  isBusy = false
  /** The attempt that is running, where it did not end at once. */
  attempt: Attempt | undefined
  /** Why the partition got no further, where it did not. */
  stopCause: RunCause | undefined
  /** Its first record could not be finished in this run; those behind it must wait with it. */
  isHeld = false
  /** The broker refuses its commits for good. */
  isRefused = false
  #isGone = false
  #queue: readonly ConsumerRecord[] = []
  #head = 0

  constructor({ topic, partition, offset }: TopicPartitionOffset, generationId: number) {
    this.topic = topic
    this.partition = partition
    this.generationId = generationId
    this.next = offset
    this.polledTo = offset
    this.committedTo = offset
  }

  /** Whether its records may be handled. */
  get isOpen(): boolean {
    return !this.#isGone && !this.isHeld && this.stopCause === undefined
  }

  /** Whether there is progress that a commit could store. */
  get isCommittable(): boolean {
    return this.isUncommitted && !this.isRefused && !this.#isGone
  }

  /** Whether there is progress that is not committed. */
  get isUncommitted(): boolean {
    return this.next > this.committedTo
  }

  /** The record whose turn it is. */
  get first(): ConsumerRecord | undefined {
    return this.#queue[this.#head]
  }

  get waiting(): readonly ConsumerRecord[] {
    return this.#head === 0 ? this.#queue : this.#queue.slice(this.#head)
  }

  push(records: readonly ConsumerRecord[]): void {
    this.#queue = this.first === undefined ? records : [...this.waiting, ...records]
    this.#head = 0
  }

  shift(): void {
    this.#head += 1
    if (this.#head === this.#queue.length) this.clear()
  }

  clear(): void {
    this.#queue = []
    this.#head = 0
  }

  /** Ends the lane: what runs is given up, and its result will be ignored. */
  leave(reason: Error): void {
    this.#isGone = true
    this.attempt?.giveUp(reason)
  }
}

/** What a poll asked for, kept until its answer is there. */
export interface Asked {
  readonly generationId: number | undefined
  readonly positions: readonly TopicPartitionOffset[]
  /** The lanes behind `positions`. */
  readonly named: ReadonlyMap<string, Lane>
}

/** All lanes of a run. */
export class Lanes {
  /** Records that were received and not yet settled or dropped. */
  waiting = 0
  waitingBytes = 0
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

  /** Takes an answer in: ends the lanes of partitions that moved away, and queues the records of the others. */
  take(answer: PollResult, asked: Asked): void {
    if (answer.generationId !== this.#generationId) this.#reassign(answer)
    for (const [key, records] of byPartition(answer.records)) this.#takeRecords(key, records, asked)
  }

  /** The record at the head of a lane is settled or given up. */
  shift(lane: Lane): void {
    const { first } = lane
    if (first === undefined) return
    this.waiting -= 1
    this.waitingBytes -= bytesOf(first)
    lane.shift()
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

  #takeRecords(key: string, records: readonly ConsumerRecord[], asked: Asked): void {
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
      lane = new Lane(first, this.#generationId ?? 0)
      this.#lanes.set(key, lane)
    }
    lane.polledTo = last.offset + 1
    if (!lane.isOpen) return
    lane.push(records)
    this.waiting += records.length
    for (const record of records) this.waitingBytes += bytesOf(record)
  }
}

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

function bytesOf({ key, value, headers }: ConsumerRecord): number {
  let bytes = (key?.length ?? 0) + (value?.length ?? 0)
  for (const header of headers) bytes += header.value?.length ?? 0
  return bytes
}
