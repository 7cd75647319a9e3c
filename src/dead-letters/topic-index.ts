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
import { fetchFrom } from '../fetch-from.ts'
import type { ConsumerRecord, Offset, TimestampMs, TopicPartition, TopicPartitionOffset } from '../record.ts'
import { type DeletedLetter, deletedBy, letterOfRecord } from './topic-headers.ts'

/** How many records a call may still read. */
export interface ScanBudget {
  left: number
}

/** What is read of a partition at once. */
const FETCH_LIMITS = { maxWaitMs: 0, maxRecords: 500, maxBytes: 4_194_304 } as const

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

/** Letters of a partition from a place on. */
export interface LettersFrom {
  /** Ascending; some of them, where there are more. */
  readonly offsets: readonly Offset[]
  /** Where there are none: so far there are none. */
  readonly until: Offset
}

/** Where the letters of an id are. */
export interface PlacesOf {
  /** Ascending. */
  readonly offsets: readonly Offset[]
  /** There are no others. */
  readonly isAll: boolean
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

  /** The next record to be read. */
  get readTo(): Offset {
    return this.#next
  }

  /**
   * The letters from an offset on, before an end that the log had. Undefined where the budget is spent before that is known:
   * the next call goes on from there. Rejects as the broker does.
   */
  async lettersFrom(
    from: Offset,
    end: Offset,
    budget: ScanBudget,
    call: Call | undefined,
  ): Promise<LettersFrom | undefined> {
    return await this.#inTurn(async () => {
      if (!(await this.#cover(from, end, budget, call))) return undefined
      return { offsets: this.#lettersBetween(from, end), until: Math.min(end, this.#horizon ?? end) }
    })
  }

  /** Where the letters of an id are, as far as the index looks just now. Undefined and rejects as `lettersFrom`. */
  async placesOf(id: string, end: Offset, budget: ScanBudget, call: Call | undefined): Promise<PlacesOf | undefined> {
    return await this.#inTurn(async () => {
      if (!(await this.#cover(this.#base, end, budget, call))) return undefined
      const isAll = this.#base === 0 && this.#horizon === undefined
      return { offsets: this.#offsetsOfId.get(id) ?? [], isAll }
    })
  }

  /** A marker of this letter was written at an offset. */
  deleted(letter: DeletedLetter, offset: Offset): void {
    this.#delete(letter, offset)
    if (this.#next === offset) this.#next = offset + 1
  }

  /** What is known does not fit what is there: retention took it, or the topic was made anew. */
  async forget(): Promise<void> {
    await this.#inTurn(async () => this.#restart(0))
  }

  /** One caller at a time reads and takes what it came for, so that none has it built anew from elsewhere in between. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work)
    this.#turn = mine.catch(() => undefined)
    return await mine
  }

  #lettersBetween(from: Offset, end: Offset): Offset[] {
    const found: Offset[] = []
    for (const offset of this.#letters.keys()) {
      if (offset < from) continue
      if (offset >= end || found.length >= FETCH_LIMITS.maxRecords) break
      found.push(offset)
    }
    return found
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
    try {
      return await readFrom(broker, { topic, partition, offset: this.#next }, maxRecords, call)
    } catch (error) {
      if (!isOutOfRange(error)) throw error
      await this.#intoRange(call)
      return await readFrom(broker, { topic, partition, offset: this.#next }, maxRecords, call)
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
      this.#delete({ id, recordedAtMs: undefined }, offset + 1)
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
      const deleted = deletedBy(record)
      if (deleted !== undefined) this.#delete(deleted, record.offset)
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

  #delete({ id, recordedAtMs }: DeletedLetter, before: Offset): void {
    const offsets = this.#offsetsOfId.get(id)
    if (offsets === undefined) return
    const isKept = (offset: Offset): boolean =>
      offset >= before || (recordedAtMs !== undefined && this.#letters.get(offset)?.recordedAtMs !== recordedAtMs)
    const kept = offsets.filter(isKept)
    for (const offset of offsets) if (!kept.includes(offset)) this.#letters.delete(offset)
    if (kept.length === 0) this.#offsetsOfId.delete(id)
    else this.#offsetsOfId.set(id, kept)
  }
}

/** Reads records from a place that is before the end of its log: one, or as many as are read at once. As `fetchFrom`. */
export async function readFrom(
  broker: Broker,
  place: TopicPartitionOffset,
  maxRecords: number | undefined,
  call: Call | undefined,
): Promise<readonly ConsumerRecord[]> {
  const limits = { ...FETCH_LIMITS, ...(maxRecords === undefined ? {} : { maxRecords }) }
  return await fetchFrom(broker, place, limits, call)
}

/** Whether an error says that there is no such offset, or no longer. */
export function isOutOfRange(error: unknown): boolean {
  return error instanceof BrokerError && error.code === 'OFFSET_OUT_OF_RANGE'
}
