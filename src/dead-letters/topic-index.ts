/**
 * What of one partition of a dead-letter topic is there: which of its records are letters that no marker deletes. A marker
 * stands behind the letter that it deletes, so nothing can be said of a letter before the partition was read to its end;
 * what was read stays known, and later calls read only what is new.
 *
 * Memory is bounded: the id and the place of so many letters are kept, the oldest of those from `#base` on. Behind the
 * last of them, at the horizon, the index says nothing; whoever gets there has it built anew from there on.
 */
import type { Broker, Call } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { ConsumerRecord, Offset, TimestampMs, TopicPartition } from '../record.ts'
import { deletedIdOf, letterOfRecord } from './topic-headers.ts'

/** How many records a call may still read. */
export interface ScanBudget {
  left: number
}

/** What is read of a partition at once. */
export const FETCH_LIMITS = { maxWaitMs: 0, maxRecords: 500, maxBytes: 4_194_304 } as const

/** What one index works with. */
export interface PartitionIndexOptions extends TopicPartition {
  readonly broker: Broker
  /** Most letters that are remembered. */
  readonly maxLetters: number
  /** The only letter that is wanted. @default all */
  readonly only?: string
}

/** Of a letter, what tells it from another of the same id: where a topic was made anew, another record has the same place. */
interface Entry {
  readonly id: string
  readonly recordedAtMs: TimestampMs
}

/** The letters of one partition that are there. */
export class PartitionIndex {
  readonly #options: PartitionIndexOptions
  /** By offset, ascending. */
  #letters = new Map<Offset, Entry>()
  #offsetsOfId = new Map<string, Offset[]>()
  /** The next record to be read. */
  #next: Offset = 0
  /** From here on letters are remembered. */
  #base: Offset = 0
  /** The first letter that was not remembered for want of room. */
  #horizon: Offset | undefined
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: PartitionIndexOptions) {
    this.#options = options
  }

  /**
   * Reads on to an end of the log, so that it is known which letters from an offset on are there, as far as the horizon.
   * False where the budget is spent before: the next call goes on from there. Rejects as the broker does.
   */
  async cover(from: Offset, end: Offset, budget: ScanBudget, call: Call | undefined): Promise<boolean> {
    // One call at a time reads; the next one finds what it read.
    const mine = this.#turn.then(() => this.#cover(from, end, budget, call))
    this.#turn = mine.catch(() => undefined)
    return await mine
  }

  /** Up to `most` offsets of letters from an offset on, ascending. */
  lettersFrom(from: Offset, most: number): Offset[] {
    const found: Offset[] = []
    for (const offset of this.#letters.keys()) {
      if (offset < from) continue
      found.push(offset)
      if (found.length >= most) break
    }
    return found
  }

  /** Where the first letter is that the index says nothing of, or undefined where it knows all from its base on. */
  get horizon(): Offset | undefined {
    return this.#horizon
  }

  /** From here on the index knows the letters. */
  get base(): Offset {
    return this.#base
  }

  /** Whether it knows all letters of the partition. */
  get isWhole(): boolean {
    return this.#base === 0 && this.#horizon === undefined
  }

  /** Where the letters of an id are, ascending. */
  offsetsOf(id: string): readonly Offset[] {
    return this.#offsetsOfId.get(id) ?? []
  }

  /** A marker of this id was written at an offset. */
  deleted(id: string, offset: Offset): void {
    this.#delete(id, offset)
    if (this.#next === offset) this.#next = offset + 1
  }

  /** What is known does not fit what is there: a topic that was made anew. */
  forget(): void {
    this.#restart(0)
  }

  async #cover(from: Offset, end: Offset, budget: ScanBudget, call: Call | undefined): Promise<boolean> {
    if (from < this.#base || (this.#horizon !== undefined && from >= this.#horizon)) this.#restart(from)
    if (end < this.#next) await this.#checkEnd(call)
    while (this.#next < end) {
      if (budget.left <= 0) return false
      const records = await this.#fetch(Math.min(FETCH_LIMITS.maxRecords, budget.left), call)
      budget.left -= Math.max(1, records.length)
      for (const record of records) this.#add(record)
      // Nothing is there although the log has not ended: transaction marks, or what compaction left out.
      this.#next = (records.at(-1)?.offset ?? end - 1) + 1
    }
    return true
  }

  async #fetch(maxRecords: number, call: Call | undefined): Promise<readonly ConsumerRecord[]> {
    const { broker, topic, partition } = this.#options
    const limits = { ...FETCH_LIMITS, maxRecords }
    try {
      return await broker.fetch([{ topic, partition, offset: this.#next }], limits, call)
    } catch (error) {
      if (!isOutOfRange(error)) throw error
      await this.#intoRange(call)
      return await broker.fetch([{ topic, partition, offset: this.#next }], limits, call)
    }
  }

  /** The log ends before what was read of it: it was written to since the caller asked for its end, or was made anew. */
  async #checkEnd(call: Call | undefined): Promise<void> {
    const { broker, topic, partition } = this.#options
    const [end] = await broker.offsets([{ topic, partition }], 'latest', call)
    if ((end?.offset ?? 0) < this.#next) this.#restart(0)
  }

  /** Retention deleted what was to be read next, or the topic was made anew and has not got there yet. */
  async #intoRange(call: Call | undefined): Promise<void> {
    const { broker, topic, partition } = this.#options
    const [start] = await broker.offsets([{ topic, partition }], 'earliest', call)
    const startOffset = start?.offset ?? 0
    if (this.#next >= startOffset) this.#restart(0)
    if (this.#next >= startOffset) return
    this.#next = startOffset
    for (const [offset, { id }] of this.#letters) {
      if (offset >= startOffset) break
      this.#delete(id, offset + 1)
    }
  }

  #restart(from: Offset): void {
    this.#letters = new Map()
    this.#offsetsOfId = new Map()
    this.#base = from
    this.#next = from
    this.#horizon = undefined
  }

  #add(record: ConsumerRecord): void {
    const { maxLetters, only } = this.#options
    const letter = letterOfRecord(record)
    if (letter === undefined) {
      const deletedId = deletedIdOf(record)
      if (deletedId !== undefined) this.#delete(deletedId, record.offset)
      return
    }
    const { id } = letter
    if (only !== undefined && id !== only) return
    const recordedAtMs = letter.record.timestampMs
    const offsets = this.#offsetsOfId.get(id) ?? []
    // A letter that was put again while it is there: the first is kept.
    if (offsets.some((offset) => this.#letters.get(offset)?.recordedAtMs === recordedAtMs)) return
    if (this.#horizon !== undefined) return
    if (this.#letters.size >= maxLetters) {
      this.#horizon = record.offset
      return
    }
    this.#letters.set(record.offset, { id, recordedAtMs })
    this.#offsetsOfId.set(id, [...offsets, record.offset])
  }

  #delete(id: string, before: Offset): void {
    const offsets = this.#offsetsOfId.get(id)
    if (offsets === undefined) return
    const kept = offsets.filter((offset) => offset >= before)
    for (const offset of offsets) if (offset < before) this.#letters.delete(offset)
    if (kept.length === 0) this.#offsetsOfId.delete(id)
    else this.#offsetsOfId.set(id, kept)
  }
}

/** Whether an error says that there is no such offset, or no longer. */
export function isOutOfRange(error: unknown): boolean {
  return error instanceof BrokerError && error.code === 'OFFSET_OUT_OF_RANGE'
}
