/**
 * What happened to records and offsets during a run, and whether it may have happened. Everything is seen from outside, by the
 * clients: what they sent and were told. The checker knows nothing of Kafka or of Kedge.
 *
 * What it holds a history to:
 * - an acknowledged record is in the log at its offset, and is handled in the end;
 * - in the log, the records of a lane (one key of one producer) stand in their order, and none more often than it was sent;
 * - a record is handled when all before it in its partition are;
 * - no commit, and no committed offset that anybody sees, is beyond a record that is not handled; none is ever lost;
 * - what was committed before a poll began does not come again in its answer;
 * - in one generation, no partition has two holders;
 * - nobody is told that an instance is unknown; polls are answered in time.
 *
 * The method follows jepsen.redpanda's queue workload: definite and unknown outcomes are told apart.
 */

/** Names a partition: `topic/partition`. */
export type Place = string

/** A record, by its lane and its number there. */
export interface Item {
  readonly lane: string
  readonly seq: number
}

/** A place in a partition. */
export interface At {
  readonly place: Place
  readonly offset: number
}

/** What clients did and saw, in the order in which they did and saw it. */
export type HistoryEvent =
  /** A record is sent, once more or for the first time. */
  | ({ readonly type: 'sent' } & Item)
  | ({ readonly type: 'acknowledged' } & Item & At)
  /** A poll, or a look at the committed offsets, begins. */
  | { readonly type: 'asked'; readonly call: number }
  | {
      readonly type: 'polled'
      readonly call: number
      readonly instance: string
      readonly generationId: number
      /** Undefined where the poll has not joined. */
      readonly assignment: readonly Place[] | undefined
      readonly records: readonly (Item & At)[]
      /** How much longer than its wait it took, milliseconds; negative when it ended early. */
      readonly overMs: number
    }
  | ({ readonly type: 'handled' } & At)
  | { readonly type: 'committing'; readonly offsets: readonly At[] }
  | {
      readonly type: 'committed'
      readonly instance: string
      readonly generationId: number | undefined
      readonly offsets: readonly At[]
    }
  /** The committed offsets as somebody else reads them. */
  | { readonly type: 'observed'; readonly call: number; readonly offsets: readonly At[]; readonly isLast?: boolean }
  /** A call of the kind failed. `overMs` as above, of polls. */
  | {
      readonly type: 'failed'
      readonly kind: 'produce' | 'poll' | 'commit'
      readonly code: string
      readonly overMs?: number
    }

/** What a history must not have. */
export type ViolationKind =
  | 'lost'
  | 'reordered'
  | 'written twice'
  | 'not as written'
  | 'skipped'
  | 'committed ahead'
  | 'commit lost'
  | 'came again'
  | 'two holders'
  | 'unknown instance'
  | 'late'

/** One of them, with what it was about. */
export interface Violation {
  readonly kind: ViolationKind
  readonly detail: string
}

/** How much happened. */
export interface Figures {
  readonly acknowledged: number
  readonly handled: number
  /** Records that were handled again, because they had not been committed. */
  readonly handledAgain: number
  /** Records that are in the log again, because the outcome of sending them was unknown. */
  readonly writtenAgain: number
  readonly polls: number
  /** How often somebody saw offsets as they were before a commit. */
  readonly lookedBack: number
  /** The newest generation that was seen. */
  readonly generation: number
  /** Longest time that a poll took beyond its wait, milliseconds. */
  readonly maxOverMs: number
  /** Polls that took more than 250 ms beyond their wait. */
  readonly latePolls: number
  /** Calls that failed, by kind and code. */
  readonly failures: Readonly<Record<string, number>>
}

/** What a history is held to beside what always holds. */
export interface Expectations {
  /** How much longer than its wait a poll may take, milliseconds. */
  readonly mostOverMs: number
  /**
   * Whether committed offsets may be seen for a moment as they were just before: a coordinator that takes over from a dead one
   * shows what it knows to be on all replicas, and of the newest commits it learns that a little later. In the end all are there.
   * @default false
   */
  readonly mayLookBack?: boolean
}

/** A poll is to be answered within its wait and so long. */
const GRACE_MS = 250

/** Judges a history. `log` is what the partitions hold in the end, from offset 0. */
export function check(
  events: readonly HistoryEvent[],
  log: ReadonlyMap<Place, readonly Item[]>,
  expectations: Expectations,
): { readonly violations: readonly Violation[]; readonly figures: Figures } {
  const judge = new Judge(log, expectations)
  for (const event of events) judge.see(event)
  return judge.verdict()
}

class Judge {
  readonly #log: ReadonlyMap<Place, readonly Item[]>
  readonly #expectations: Expectations
  readonly #violations: Violation[] = []
  readonly #attempts = new Map<string, number>()
  readonly #acknowledged: (Item & At)[] = []
  /** Every offset of each partition that was handled. */
  readonly #handled = new Map<Place, Set<number>>()
  /** All before it is handled. */
  readonly #prefix = new Map<Place, number>()
  /** Newest commit that was acknowledged. */
  readonly #committed = new Map<Place, number>()
  /** What was committed when a call began. */
  readonly #before = new Map<number, ReadonlyMap<Place, number>>()
  readonly #holders = new Map<string, string>()
  readonly #failures: Record<string, number> = {}
  #handledAgain = 0
  #lookedBack = 0
  #polls = 0
  #generation = 0
  #maxOverMs = 0
  #latePolls = 0

  constructor(log: ReadonlyMap<Place, readonly Item[]>, expectations: Expectations) {
    this.#log = log
    this.#expectations = expectations
  }

  see(event: HistoryEvent): void {
    switch (event.type) {
      case 'sent': {
        this.#attempts.set(nameOf(event), (this.#attempts.get(nameOf(event)) ?? 0) + 1)
        break
      }
      case 'acknowledged': {
        this.#acknowledged.push(event)
        break
      }
      case 'asked': {
        this.#before.set(event.call, new Map(this.#committed))
        break
      }
      case 'polled': {
        this.#seePoll(event)
        break
      }
      case 'handled': {
        this.#seeHandled(event)
        break
      }
      case 'committing': {
        for (const { place, offset } of event.offsets) this.#seeOffset(place, offset, 'a run commits')
        break
      }
      case 'committed': {
        this.#seeCommitted(event)
        break
      }
      case 'observed': {
        this.#seeObserved(event)
        break
      }
      case 'failed': {
        this.#seeFailure(event)
        break
      }
      default: {
        event satisfies never
      }
    }
  }

  verdict(): ReturnType<typeof check> {
    this.#judgeLog()
    for (const item of this.#acknowledged) {
      const { place, offset } = item
      const stored = this.#log.get(place)?.[offset]
      if (stored === undefined || nameOf(stored) !== nameOf(item)) {
        const there = stored === undefined ? 'nothing' : nameOf(stored)
        this.#say('lost', `${nameOf(item)} was acknowledged at ${place}@${offset}, where ${there} is`)
      } else if (this.#handled.get(place)?.has(offset) !== true) {
        this.#say('lost', `${nameOf(item)}, acknowledged at ${place}@${offset}, was not handled`)
      }
    }
    const handled = [...this.#handled.values()].reduce((sum, offsets) => sum + offsets.size, 0)
    return {
      violations: this.#violations,
      figures: {
        acknowledged: this.#acknowledged.length,
        handled,
        handledAgain: this.#handledAgain,
        writtenAgain: this.#writtenAgain(),
        polls: this.#polls,
        lookedBack: this.#lookedBack,
        generation: this.#generation,
        maxOverMs: Math.round(this.#maxOverMs),
        latePolls: this.#latePolls,
        failures: this.#failures,
      },
    }
  }

  #seePoll({
    call,
    instance,
    generationId,
    assignment,
    records,
    overMs,
  }: Extract<HistoryEvent, { type: 'polled' }>): void {
    this.#polls += 1
    this.#seeTime(overMs)
    const before = this.#before.get(call)
    this.#before.delete(call)
    if (assignment !== undefined) {
      this.#generation = Math.max(this.#generation, generationId)
      for (const place of assignment) this.#seeHolder(place, generationId, instance)
    }
    for (const { place, offset, ...item } of records) {
      const stored = this.#log.get(place)?.[offset]
      if (stored === undefined || nameOf(stored) !== nameOf(item)) {
        this.#say('not as written', `${nameOf(item)} was read at ${place}@${offset}`)
      }
      const committed = before?.get(place) ?? 0
      if (offset < committed && !this.#mayLookBack()) {
        this.#say('came again', `${place}@${offset} came in a poll that began after ${committed} was committed`)
      }
    }
  }

  #seeHolder(place: Place, generationId: number, instance: string): void {
    const key = `${generationId} ${place}`
    const other = this.#holders.get(key) ?? instance
    this.#holders.set(key, other)
    if (other === instance) return
    this.#say('two holders', `${other} and ${instance} hold ${place} in generation ${generationId}`)
  }

  #seeHandled({ place, offset }: At): void {
    const handled = this.#handled.get(place) ?? new Set()
    this.#handled.set(place, handled)
    if (handled.has(offset)) this.#handledAgain += 1
    handled.add(offset)
    let prefix = this.#prefix.get(place) ?? 0
    if (offset > prefix) this.#say('skipped', `${place}@${offset} was handled before ${place}@${prefix}`)
    while (handled.has(prefix)) prefix += 1
    this.#prefix.set(place, prefix)
  }

  #seeOffset(place: Place, offset: number, who: string): void {
    const prefix = this.#prefix.get(place) ?? 0
    if (offset > prefix) this.#say('committed ahead', `${who} ${place}@${offset}, and ${prefix} is not handled`)
  }

  #seeCommitted({ instance, generationId, offsets }: Extract<HistoryEvent, { type: 'committed' }>): void {
    for (const { place, offset } of offsets) {
      this.#committed.set(place, Math.max(offset, this.#committed.get(place) ?? 0))
      if (generationId !== undefined) this.#seeHolder(place, generationId, instance)
    }
  }

  #seeObserved({ call, offsets, isLast = false }: Extract<HistoryEvent, { type: 'observed' }>): void {
    const before = this.#before.get(call)
    this.#before.delete(call)
    for (const { place, offset } of offsets) {
      this.#seeOffset(place, offset, 'the group has')
      const committed = before?.get(place) ?? 0
      if (offset < committed && (isLast || !this.#mayLookBack())) {
        this.#say('commit lost', `the group has ${place}@${offset}, and ${committed} was committed`)
      }
    }
  }

  #mayLookBack(): boolean {
    this.#lookedBack += 1
    return this.#expectations.mayLookBack === true
  }

  #seeFailure({ kind, code, overMs }: Extract<HistoryEvent, { type: 'failed' }>): void {
    const name = `${kind} ${code}`
    this.#failures[name] = (this.#failures[name] ?? 0) + 1
    if (code === 'UNKNOWN_MEMBER_ID') this.#say('unknown instance', `a ${kind} was answered so`)
    if (overMs !== undefined) this.#seeTime(overMs)
  }

  #seeTime(overMs: number): void {
    this.#maxOverMs = Math.max(this.#maxOverMs, overMs)
    if (overMs > GRACE_MS) this.#latePolls += 1
    if (overMs > this.#expectations.mostOverMs)
      this.#say('late', `a poll took ${Math.round(overMs)} ms beyond its wait`)
  }

  #judgeLog(): void {
    const copies = new Map<string, number>()
    for (const [place, items] of this.#log) {
      const newest = new Map<string, number>()
      for (const [offset, item] of items.entries()) {
        const count = copies.get(nameOf(item)) ?? 0
        copies.set(nameOf(item), count + 1)
        if (count + 1 > (this.#attempts.get(nameOf(item)) ?? 0)) {
          this.#say('written twice', `${nameOf(item)} is in the log more often than it was sent: ${place}@${offset}`)
        }
        const last = newest.get(item.lane) ?? -1
        if (count === 0 && item.seq < last) {
          this.#say('reordered', `${nameOf(item)} is behind number ${last} of its lane: ${place}@${offset}`)
        }
        newest.set(item.lane, Math.max(last, item.seq))
      }
    }
  }

  #writtenAgain(): number {
    const all = [...this.#log.values()].flat()
    return all.length - new Set(all.map(nameOf)).size
  }

  #say(kind: ViolationKind, detail: string): void {
    this.#violations.push({ kind, detail })
  }
}

function nameOf({ lane, seq }: Item): string {
  return `${lane}#${seq}`
}
