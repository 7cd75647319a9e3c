/**
 * One partition of a run: which records wait, which are being handled or put off, and which offset to commit. A lane lives
 * from the first record of a partition to the end of the run, or until the partition moves away.
 *
 * Three offsets rise in a lane: `committedTo` <= `next` (everything before it is settled) <= `polledTo` (everything before
 * it has been received). Between `next` and the last record that was begun there may be records that are settled already.
 */
import type { ConsumerRecord, Offset, TimestampMs, TopicPartition, TopicPartitionOffset } from '../record.ts'
import type { Attempt } from './attempt.ts'
import type { Due } from './due-queue.ts'
import type { Found, Work } from './handling.ts'
import type { Plan } from './plan.ts'
import type { OpenRecord, Progress, SuspectRecord } from './progress.ts'
import type { RunCause } from './report.ts'

/** How often a record was tried, and when it may be again. */
type Tried = Pick<OpenRecord, 'attempts' | 'dueAtMs'>

/** A record that was begun and is not settled. */
export interface Entry extends Due {
  readonly lane: Lane
  readonly record: ConsumerRecord
  readonly found: Found
  /** Whom it waits for, and who waits for it; undefined where nobody does. */
  readonly key: string | undefined
  /** How often its handler was called, as far as it is known. */
  attempts: number
  /** Monotonic time before which it is not tried again. */
  dueAt: number
  /** The same by the wall clock; 0: at once. */
  dueAtMs: TimestampMs
  /** Its handler has it, or the dead-letter store. */
  isActive: boolean
  /** Counts among what is put off. */
  isParked: boolean
  /** Left to the next run: it counts nowhere. */
  isLeft: boolean
  /** It is committed before it is handled: for a commit it is settled. */
  isSpent: boolean
  /** What its next attempt is made with, and why the last one failed. */
  work: Work | undefined
  error: unknown
}

/** One partition of a run. */
export class Lane implements TopicPartition {
  readonly topic: string
  readonly partition: number
  /**
   * A generation since which the partition is held without a break, as far as the run can know. Commits name it, so that
   * the broker refuses those of a partition that went away and came back unseen.
   */
  generationId: number
  polledTo: Offset
  committedTo: Offset
  /** What the newest commit's metadata knows to be settled or open ends here. */
  rememberedTo: Offset
  hasCommitted = false
  /** Grows with everything that a commit's metadata would say. */
  version = 0
  committedVersion = 0
  /** Attempts that are running, where they did not end at once. */
  readonly running: Set<Attempt> = new Set()
  /** Entries whose turn has come. */
  readonly ready: Entry[] = []
  /** What the route table says of the first record that waits. */
  found: Found | undefined
  /** Why the partition got no further, where it did not. */
  stopCause: RunCause | undefined
  /** The record that stopped it; undefined where its commits did. */
  stoppedAt: Offset | undefined
  /** A record could not be finished in this run; those behind it must wait with it. */
  isHeld = false
  /** The broker refuses its commits for good. */
  isRefused = false
  isGone = false
  /** Everything before it was begun. */
  #begunTo: Offset
  readonly #recalledTo: Offset
  readonly #recalled: Map<Offset, OpenRecord>
  /** Strikes against records that may have ended a process, and were not called since. */
  readonly #suspects: Map<Offset, number>
  #named: SuspectRecord | undefined
  #queue: readonly ConsumerRecord[] = []
  #head = 0
  readonly #open = new Map<Offset, Entry>()
  readonly #keys = new Map<string, Entry[]>()

  /** `progress` is what an earlier commit knows beyond the offset. */
  constructor({ topic, partition, offset }: TopicPartitionOffset, generationId: number, progress?: Progress) {
    this.topic = topic
    this.partition = partition
    this.generationId = generationId
    this.polledTo = offset
    this.committedTo = offset
    this.rememberedTo = offset
    this.#begunTo = offset
    this.#recalledTo = progress?.settledTo ?? offset
    this.#recalled = new Map(progress?.open.map((one) => [one.offset, one]))
    this.#suspects = new Map(progress?.suspects?.map((one) => [one.offset, one.strikes]))
  }

  /** Whether its records may be handled. */
  get isOpen(): boolean {
    return !this.isGone && !this.isHeld && this.stopCause === undefined
  }

  /** The offset to commit: everything before it is settled. */
  get next(): Offset {
    for (const [offset, { isSpent }] of this.#open) if (!isSpent) return offset
    return this.#begunTo
  }

  /** Whether there is progress that a commit could store. */
  get isCommittable(): boolean {
    return (this.isUncommitted || this.version !== this.committedVersion) && !this.isRefused && !this.isGone
  }

  /** Whether there is progress that is not committed. */
  get isUncommitted(): boolean {
    return this.next > this.committedTo
  }

  /** The record whose turn it is to be begun. */
  get first(): ConsumerRecord | undefined {
    return this.#queue[this.#head]
  }

  get waiting(): readonly ConsumerRecord[] {
    return this.#head === 0 ? this.#queue : this.#queue.slice(this.#head)
  }

  /** How many records were begun and are not settled. */
  get openCount(): number {
    return this.#open.size
  }

  /** Records that were begun and are not settled, in the order of their offsets. */
  get entries(): Iterable<Entry> {
    return this.#open.values()
  }

  /** What a commit's metadata is made of. */
  get progress(): Progress {
    const open: OpenRecord[] = []
    for (const { record, attempts, dueAtMs, isSpent } of this.#open.values()) {
      if (!isSpent) open.push({ offset: record.offset, attempts, dueAtMs })
    }
    const suspects = this.#suspected
    // What an earlier run had behind what this one has begun is still true.
    if (this.#recalledTo <= this.#begunTo) return { settledTo: this.#begunTo, open, suspects }
    const later = [...this.#recalled.values()].filter(({ offset }) => offset >= this.#begunTo)
    return { settledTo: this.#recalledTo, open: [...open, ...later], suspects }
  }

  get #suspected(): readonly SuspectRecord[] {
    if (this.#suspects.size === 0) return this.#named === undefined ? nobody : [this.#named]
    const others = [...this.#suspects].filter(([offset]) => offset !== this.#named?.offset)
    const suspects = others.map(([offset, strikes]) => ({ offset, strikes, isCalled: false }))
    return this.#named === undefined ? suspects : [this.#named, ...suspects]
  }

  /** How often a record may have ended a process, as commits before this run say. */
  strikesOf(offset: Offset): number {
    return this.#suspects.size === 0 ? 0 : (this.#suspects.get(offset) ?? 0)
  }

  /** The next commit names a record as one whose handler is called. */
  name(offset: Offset, strikes: number): void {
    this.#named = { offset, strikes, isCalled: true }
    this.version += 1
  }

  /** The next commit names nobody. */
  unname(): void {
    if (this.#named === undefined) return
    this.#named = undefined
    this.version += 1
  }

  /** The record's handler was called, and the process lives. */
  acquit(offset: Offset): void {
    if (this.#suspects.delete(offset)) this.version += 1
  }

  push(records: readonly ConsumerRecord[]): void {
    this.#queue = this.first === undefined ? records : [...this.waiting, ...records]
    this.#head = 0
  }

  /** Drops what waits to be begun. */
  clear(): void {
    this.#queue = []
    this.#head = 0
    this.found = undefined
  }

  /** Whether an earlier run has settled the record. */
  isSettled(offset: Offset): boolean {
    return offset < this.#recalledTo && !this.#recalled.has(offset)
  }

  /** What is known of the attempts of a record that this run has not begun: from an earlier run, or from where it came. */
  known({ offset }: ConsumerRecord, { returned }: Found): Tried | undefined {
    const recalled =
      this.#recalled.size === 0
        ? undefined
        : (this.#recalled.get(offset) ?? (this.#suspects.has(offset) ? untried : undefined))
    // A record that came back and was tried since has more attempts than it came with.
    if (returned === undefined || (recalled !== undefined && recalled.attempts >= returned.attempts)) return recalled
    return returned
  }

  /** The first record is settled as soon as it is begun. */
  pass(): void {
    if (this.#open.size > 0) this.version += 1
    if (this.#suspects.size > 0 && this.first !== undefined) this.#suspects.delete(this.first.offset)
    this.#shift()
  }

  /** Begins the first record. */
  begin(record: ConsumerRecord, found: Found, key: string | undefined): Entry {
    const known = this.known(record, found)
    const entry: Entry = {
      lane: this,
      record,
      found,
      key,
      attempts: known?.attempts ?? 0,
      dueAt: 0,
      dueAtMs: known?.dueAtMs ?? 0,
      isActive: false,
      isParked: false,
      isLeft: false,
      isSpent: false,
      work: undefined,
      error: undefined,
    }
    this.#open.set(record.offset, entry)
    if (key !== undefined) {
      const others = this.#keys.get(key)
      if (others === undefined) this.#keys.set(key, [entry])
      else others.push(entry)
    }
    this.#shift()
    return entry
  }

  /** The entry whose turn it is among those with a key. */
  firstOf(key: string): Entry | undefined {
    return this.#keys.get(key)?.[0]
  }

  /** Whether an entry waits for no other. */
  isFirst(entry: Entry): boolean {
    return entry.key === undefined || this.firstOf(entry.key) === entry
  }

  /** All entries that go with this one: it and those behind it. */
  chainOf(entry: Entry): readonly Entry[] {
    const chain = entry.key === undefined ? undefined : this.#keys.get(entry.key)
    if (chain === undefined || chain[0] === entry) return chain ?? [entry]
    return chain.slice(chain.indexOf(entry))
  }

  /** The entry is settled. Gives the one that waited for it. */
  settle(entry: Entry): Entry | undefined {
    this.#open.delete(entry.record.offset)
    this.#suspects.delete(entry.record.offset)
    if (this.#open.size > 0) this.version += 1
    if (entry.key === undefined) return undefined
    const chain = this.#keys.get(entry.key)
    const at = chain?.indexOf(entry) ?? 0
    if (at > 0) {
      // Handled in a batch together with one before it that failed.
      chain?.splice(at, 1)
      return undefined
    }
    chain?.shift()
    if (chain?.length === 0) this.#keys.delete(entry.key)
    return chain?.[0]
  }

  /** Ends the lane: what runs is given up, and its result will be ignored. */
  leave(reason: Error): void {
    this.isGone = true
    this.giveUp(reason)
  }

  /** Gives up what runs. Its name goes with it, before the last commit: whoever gives up is alive. */
  giveUp(reason: Error): void {
    this.unname()
    for (const attempt of this.running) attempt.giveUp(reason)
  }

  #shift(): void {
    this.#begunTo = (this.first?.offset ?? this.#begunTo - 1) + 1
    this.found = undefined
    this.#head += 1
    if (this.#head === this.#queue.length) this.clear()
  }
}

const nobody: readonly SuspectRecord[] = Object.freeze([])
const untried: Tried = Object.freeze({ attempts: 0, dueAtMs: 0 })

/** What those have in common that wait for each other while they are open; undefined where a record waits for nobody. */
export function chainKeyOf({ key }: ConsumerRecord, { ordering, batch }: Plan): string | undefined {
  if (ordering === 'key') return key === null ? undefined : textOfKey(key)
  return batch !== undefined && ordering === 'partition' ? WHOLE_PARTITION : undefined
}

/** No key's text: those have no character beyond the first 256. */
const WHOLE_PARTITION = '\u{100}'

/** Bytes as a text that is equal for equal bytes only. */
function textOfKey(key: Uint8Array): string {
  let text = ''
  for (const byte of key) text += String.fromCharCode(byte)
  return text
}
