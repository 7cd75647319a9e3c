/**
 * A product in small, step by step as chance has it: a log with partitions, a group with instances, runs, claims and dead letters,
 * and a network that loses requests and answers. It writes down what its clients do and see. It is right, unless it is given one
 * of the bugs; then it also says how often the bug did harm, for a bug that did none leaves a history that may be.
 *
 * It is one file because it is one state: every step may touch all of it, and each bug is a branch in the step that has it.
 */
import { nameOf } from '../history/history.ts'
import type { At, HistoryEvent, Item, Place, Remains } from '../history/history.ts'
import type { Bug } from './bugs.ts'

/** What a product is made with. */
export interface ProductOptions {
  readonly random: () => number
  readonly steps: number
  readonly bug?: Bug
}

/** What it leaves behind. */
export interface Traces {
  readonly history: readonly HistoryEvent[]
  readonly remains: Remains
  /** How often the bug did harm. */
  readonly harm: number
}

/** Lets a product live and gives what it left behind. */
export function live(options: ProductOptions): Traces {
  return new Product(options).live()
}

const PLACES: readonly Place[] = ['t/0', 't/1', 't/2']
const LANES = 4
const INSTANCES: readonly string[] = ['a', 'b']
const POLL_RECORDS = 4
const POISON = 0.06
/** Ends what was read with wrong bytes. */
const SPOILT = '?'

interface Partition {
  start: number
  /** Everything that was appended, from offset 0. */
  items: Item[]
  /** What survives a crash. */
  durable: number
}

interface Lane {
  readonly name: string
  readonly place: Place
  next: number
  /** What was sent and has no answer yet. */
  open: Item | undefined
}

interface Run {
  readonly id: string
  readonly instance: string
  generation: number
  assignment: readonly Place[]
  /** A poll of it has no answer: it may take the claim at any time. */
  isUnclear: boolean
  readonly lanes: Map<Place, RunLane>
}

interface RunLane {
  next: number
  polledTo: number
  readonly queue: (Item & At)[]
  /** Offsets that a bug passed over. */
  skipped: number[]
}

class Product {
  readonly #random: () => number
  readonly #steps: number
  readonly #bug: Bug | undefined
  readonly #history: HistoryEvent[] = []
  readonly #partitions = new Map<Place, Partition>(
    PLACES.map((place) => [place, { start: 0, items: [], durable: 0 }] as const),
  )
  readonly #lanes: Lane[]
  readonly #poison = new Set<string>()
  readonly #letters: (At & { content: string | null })[] = []
  readonly #lateLetters: At[] = []
  readonly #committed = new Map<Place, number>()
  /** Commits that a run was told of. */
  readonly #told = new Map<Place, number>()
  /** Records that somebody was told of, by name. */
  readonly #known = new Set<string>()
  /** Where a record stands before the one that was sent before it. */
  readonly #overtaken: At[] = []
  /** Records that retention took too early. */
  readonly #deleted: (Item & At)[] = []
  /** Instances that were told to hold a partition, by generation and partition. */
  readonly #tellings = new Map<string, Set<string>>()
  /** Who holds each partition, and the generation since which it does. */
  readonly #holders = new Map<Place, { readonly instance: string; readonly since: number }>()
  readonly #claims = new Map<string, Run>()
  /** Runs that go on without their claim. */
  readonly #stale: Run[] = []
  #members: string[] = [INSTANCES[0] ?? '']
  #generation = 1
  #calls = 0
  #runs = 0
  #harm = 0

  constructor({ random, steps, bug }: ProductOptions) {
    this.#random = random
    this.#steps = steps
    this.#bug = bug
    this.#lanes = Array.from({ length: LANES }, (_, index) => ({
      name: `p${index}`,
      place: PLACES[index % PLACES.length] ?? '',
      next: 0,
      open: undefined,
    }))
    this.#share()
  }

  live(): Traces {
    const steps: readonly (readonly [number, () => void])[] = [
      [0.3, () => this.#produce()],
      [0.22, () => this.#poll(this.#someRun())],
      [0.26, () => this.#handle(this.#someRun())],
      [0.1, () => this.#commit(this.#someRun())],
      [0.02, () => this.#crash()],
      [0.02, () => this.#rebalance()],
      [0.03, () => this.#loseClaim()],
      [0.02, () => this.#observe(false)],
      [0.02, () => this.#retain()],
      [0.01, () => this.#read()],
    ]
    for (let step = 0; step < this.#steps; step++) {
      let chance = this.#random()
      const found = steps.find(([weight]) => (chance -= weight) < 0)
      found?.[1]()
    }
    this.#drain()
    for (const record of this.#deleted) {
      if (this.#known.has(nameOf(record)) && !this.#isSettled(record)) this.#harmed()
    }
    for (const { place, offset } of this.#overtaken) if (offset >= this.#partition(place).start) this.#harmed()
    return {
      history: this.#history,
      remains: {
        log: new Map([...this.#partitions].map(([place, { items, start }]) => [place, items.slice(start)])),
        starts: new Map([...this.#partitions].map(([place, { start }]) => [place, start])),
        letters: this.#letters,
      },
      harm: this.#harm,
    }
  }

  // --- the log --------------------------------------------------------------------------------------------------------------

  #produce(): void {
    const lane = this.#pick(this.#lanes)
    const partition = this.#partition(lane.place)
    const retried = lane.open
    const item = retried ?? this.#newItem(lane)
    this.#note({ type: 'sent', ...item, idempotencyKey: `${item.lane}#${item.seq}` })
    if (retried === undefined && this.#random() < 0.05) return this.#refuse(item, partition)
    if (this.#random() < 0.1) {
      // The request is lost, and the producer sends it again before it goes on.
      if (this.#has('reorder on retry') && retried === undefined) return this.#overtake(lane, item, partition)
      lane.open = item
      return this.#note({ type: 'failed', kind: 'produce', code: 'NETWORK' })
    }
    const offset = this.#append(partition, item)
    if (this.#random() < 0.15) {
      lane.open = item
      // Whether it was synced before the answer was lost, nobody knows.
      if (this.#random() < 0.5) partition.durable = partition.items.length
      return this.#note({ type: 'failed', kind: 'produce', code: 'TIMEOUT' })
    }
    lane.open = undefined
    if (!this.#has('acknowledged before durable')) partition.durable = partition.items.length
    this.#note({ type: 'acknowledged', ...item, place: lane.place, offset })
    this.#known.add(nameOf(item))
  }

  #newItem(lane: Lane): Item {
    const seq = lane.next++
    const content = this.#random() < 0.1 ? null : `${lane.name}:${seq}`
    if (this.#random() < POISON) this.#poison.add(`${lane.name}#${seq}`)
    return { lane: lane.name, seq, content }
  }

  #refuse(item: Item, partition: Partition): void {
    this.#note({ type: 'refused', ...item })
    if (!this.#has('refused record stored')) return
    this.#harmed()
    partition.items.push(item)
    partition.durable = partition.items.length
  }

  /** The lost record is sent again behind the one after it. */
  #overtake(lane: Lane, item: Item, partition: Partition): void {
    this.#note({ type: 'failed', kind: 'produce', code: 'NETWORK' })
    const second = this.#newItem(lane)
    this.#overtaken.push({ place: lane.place, offset: partition.items.length })
    for (const each of [second, item]) {
      this.#note({ type: 'sent', ...each, idempotencyKey: `${each.lane}#${each.seq}` })
      const offset = this.#append(partition, each)
      partition.durable = partition.items.length
      this.#note({ type: 'acknowledged', ...each, place: lane.place, offset })
    }
  }

  #append(partition: Partition, item: Item): number {
    const stored = partition.items.findIndex(({ lane, seq }) => lane === item.lane && seq === item.seq)
    if (stored >= 0 && !this.#has('duplicate on retry')) return stored
    if (stored >= 0) this.#harmed()
    if (this.#has('offset reuse') && this.#random() < 0.05 && partition.durable > partition.start) {
      // The next offset was counted wrong.
      const before = partition.items.at(-1)
      if (before !== undefined && this.#known.has(nameOf(before))) this.#harmed()
      partition.items[partition.items.length - 1] = this.#stored(item)
      return partition.items.length - 1
    }
    partition.items.push(this.#stored(item))
    return partition.items.length - 1
  }

  #stored(item: Item): Item {
    if (!this.#has('tombstone as empty text') || item.content !== null) return item
    this.#harmed()
    return { ...item, content: '' }
  }

  /** The broker dies and comes back with what was durable. */
  #crash(): void {
    for (const [place, partition] of this.#partitions) {
      const lost = partition.items.slice(partition.durable)
      const open = new Set(this.#lanes.map((lane) => lane.open))
      if (lost.some((item) => !open.has(item) && item.content !== undefined)) this.#harmed()
      partition.items.length = partition.durable
      const committed = this.#committed.get(place) ?? 0
      if (this.#has('commit lost in a crash') && committed > 0) this.#committed.set(place, committed - 1)
    }
    this.#observeHarm()
  }

  /** Looks at the committed offsets where they are lower than a run was told. */
  #observeHarm(): void {
    const isLower = [...this.#told].some(([place, offset]) => (this.#committed.get(place) ?? 0) < offset)
    if (!isLower) return
    this.#harmed()
    this.#observe(false)
  }

  #retain(): void {
    for (const [place, partition] of this.#partitions) {
      const committed = this.#committed.get(place) ?? 0
      if (this.#has('retention past committed offset') && partition.durable > committed && this.#random() < 0.3) {
        this.#deleted.push(...this.#records(place, partition.start, partition.durable))
        partition.start = partition.durable
      } else partition.start = Math.max(partition.start, committed - Math.floor(this.#random() * 3))
    }
  }

  #read(): void {
    const place = this.#pick(PLACES)
    const { start, durable } = this.#partition(place)
    const records = this.#records(place, start, durable)
    this.#note({ type: 'read', place, from: start, records })
    this.#deliver(records)
  }

  #records(place: Place, from: number, to: number): (Item & At)[] {
    const { items } = this.#partition(place)
    const records = items.slice(from, to).map((item, index) => ({ ...item, place, offset: from + index }))
    const spoilt = this.#has('wrong bytes') && this.#random() < 0.1 ? records.at(-1) : undefined
    if (spoilt !== undefined) {
      records[records.length - 1] = { ...spoilt, content: `${spoilt.content}${SPOILT}` }
    }
    if (this.#has('record left out of an answer') && records.length > 2 && this.#random() < 0.2) {
      records.splice(1, 1)
    }
    return records
  }

  /** An answer arrives: what is wrong with it does harm. */
  #deliver(records: readonly (Item & At)[]): void {
    for (const [index, { place, offset, content }] of records.entries()) {
      const before = records[index - 1]
      if (before?.place === place && before.offset + 1 !== offset) this.#harmed()
      if (content?.endsWith(SPOILT) === true) this.#harmed()
    }
  }

  // --- the group ------------------------------------------------------------------------------------------------------------

  /** A run of a member; a new one where the member has none. */
  #someRun(): Run {
    if (this.#stale.length > 0 && this.#random() < 0.15) return this.#pick(this.#stale)
    const instance = this.#pick(this.#members)
    return this.#claims.get(instance) ?? this.#claim(instance)
  }

  #claim(instance: string): Run {
    this.#runs += 1
    const run: Run = {
      id: `run-${this.#runs}`,
      instance,
      generation: 0,
      assignment: [],
      isUnclear: false,
      lanes: new Map(),
    }
    const call = this.#ask(run)
    this.#claims.set(instance, run)
    this.#note({ type: 'claimed', call, instance, run: run.id })
    return run
  }

  /** The claim of a run lapses while it is away; it does not know. */
  #loseClaim(): void {
    const instance = this.#pick(this.#members)
    const run = this.#claims.get(instance)
    if (run === undefined) return
    this.#stale.push(run)
    this.#claim(instance)
  }

  #poll(run: Run): void {
    const call = this.#ask(run)
    if (this.#claims.get(run.instance) !== run) {
      this.#note({ type: 'failed', kind: 'poll', code: 'CLAIM_LOST', call })
      this.#forget(run)
      return
    }
    if (run.generation !== this.#generation) this.#reassign(run)
    const records = run.assignment.flatMap((place) => this.#next(run, place))
    if (this.#random() < 0.1) {
      this.#note({ type: 'failed', kind: 'poll', code: 'TIMEOUT', call })
      run.isUnclear = true
      if (!this.#has('position advanced on response')) return
      for (const { place, offset } of records) {
        const lane = run.lanes.get(place)
        lane?.skipped.push(offset)
        if (lane !== undefined) lane.polledTo = offset + 1
      }
      return
    }
    for (const record of records) {
      const lane = run.lanes.get(record.place)
      lane?.queue.push(record)
      if (lane !== undefined) lane.polledTo = record.offset + 1
      this.#known.add(nameOf(record))
      if (this.#has('committed records again') && record.offset < (this.#told.get(record.place) ?? 0)) this.#harmed()
    }
    for (const place of run.assignment) this.#tellHolder(place, run)
    this.#deliver(records)
    const { instance, assignment, generation } = run
    this.#note({
      type: 'polled',
      call,
      instance,
      run: run.id,
      generationId: generation,
      assignment,
      records,
      overMs: 0,
    })
  }

  #reassign(run: Run): void {
    const mine = PLACES.filter((place) => this.#holders.get(place)?.instance === run.instance)
    for (const place of run.lanes.keys()) {
      const since = this.#holders.get(place)?.since ?? 0
      if (!mine.includes(place) || since > run.generation) run.lanes.delete(place)
    }
    run.generation = this.#generation
    run.assignment = this.#withAnother(mine)
  }

  /** The bug hands a partition of another member out once more. */
  #withAnother(mine: readonly Place[]): readonly Place[] {
    return this.#has('two holders') && this.#members.length > 1 ? PLACES : mine
  }

  #tellHolder(place: Place, { generation, instance }: Run): void {
    const key = `${generation} ${place}`
    const told = this.#tellings.get(key) ?? new Set()
    this.#tellings.set(key, told.add(instance))
    if (told.size > 1) this.#harmed()
  }

  #next(run: Run, place: Place): (Item & At)[] {
    const { start, durable } = this.#partition(place)
    let lane = run.lanes.get(place)
    if (lane === undefined) {
      const skipped: number[] = []
      const from = Math.max(start, this.#startOf(place, skipped))
      lane = { next: from, polledTo: from, queue: [], skipped }
      run.lanes.set(place, lane)
    }
    if (lane.queue.length >= POLL_RECORDS) return []
    const from = Math.max(lane.polledTo, start)
    return this.#records(place, from, Math.min(durable, from + POLL_RECORDS))
  }

  #startOf(place: Place, skipped: number[]): number {
    const committed = this.#committed.get(place) ?? 0
    if (this.#has('committed records again') && this.#random() < 0.3) return Math.max(0, committed - 1)
    if (!this.#has('drop on rebalance')) return committed
    const others = [...this.#claims.values()].map(({ lanes }) => lanes.get(place)?.polledTo ?? 0)
    const from = Math.max(committed, ...others)
    for (let offset = committed; offset < from; offset++) skipped.push(offset)
    return from
  }

  /** What was passed over does harm when its partition goes on behind it. */
  #passOver(place: Place, lane: RunLane, next: number): void {
    const passed = lane.skipped.filter((offset) => offset < next)
    lane.skipped = lane.skipped.filter((offset) => offset >= next)
    if (passed.some((offset) => !this.#isSettled({ place, offset }))) this.#harmed()
  }

  #handle(run: Run): void {
    const busy = [...run.lanes.values()].filter(({ queue }) => queue.length > 0)
    const lane = busy[Math.floor(this.#random() * busy.length)]
    const record = lane?.queue.shift()
    if (lane === undefined || record === undefined) return
    const { place, offset, content = null } = record
    this.#passOver(place, lane, offset)
    if (!this.#poison.has(`${record.lane}#${record.seq}`)) this.#note({ type: 'handled', place, offset })
    else if (this.#has('dead letter after commit')) this.#lateLetters.push({ place, offset })
    else this.#storeLetter({ place, offset, content })
    lane.next = offset + 1
  }

  #storeLetter(letter: At & { readonly content: string | null }): void {
    const { place, offset } = letter
    const isThere = this.#letters.some((other) => other.place === place && other.offset === offset)
    this.#note({ type: 'dead-lettered', ...letter })
    if (this.#has('dead letter lost') && !isThere) return this.#harmed()
    if (!isThere) this.#letters.push(letter)
    if (this.#has('dead letter twice')) {
      this.#letters.push(letter)
      this.#harmed()
    }
  }

  #commit(run: Run): void {
    const offsets: At[] = []
    for (const [place, lane] of run.lanes) {
      const { next, polledTo } = lane
      const offset = this.#has('commit before handle') ? polledTo : next
      if (offset > (this.#committed.get(place) ?? 0) || this.#stale.includes(run)) offsets.push({ place, offset })
      if (offset > next) this.#harmed()
      if (offsets.at(-1)?.place === place) this.#passOver(place, lane, next)
    }
    if (offsets.length === 0) return
    const call = this.#call()
    this.#note({ type: 'committing', call, offsets })
    if (this.#has('dead letter after commit')) this.#storeLate(offsets)
    if (this.#random() < 0.05) return this.#note({ type: 'failed', kind: 'commit', code: 'NETWORK', call })
    if (!this.#accepts(run)) {
      this.#note({ type: 'failed', kind: 'commit', code: 'CLAIM_LOST', call })
      this.#forget(run)
      return
    }
    for (const { place, offset } of this.#takenBack(offsets)) this.#committed.set(place, offset)
    if (this.#random() < 0.05) this.#note({ type: 'failed', kind: 'commit', code: 'TIMEOUT', call })
    else this.#tell(run, call, offsets)
    if (this.#has('committed offset taken back')) this.#observeHarm()
  }

  #tell({ id, instance, generation, isUnclear }: Run, call: number, offsets: readonly At[]): void {
    this.#note({ type: 'committed', call, instance, run: id, generationId: generation, offsets })
    for (const { place, offset } of offsets) this.#told.set(place, Math.max(offset, this.#told.get(place) ?? 0))
    if (this.#claims.get(instance)?.id !== id && !isUnclear) this.#harmed()
  }

  #accepts(run: Run): boolean {
    if (this.#claims.get(run.instance) !== run) return this.#has('stale-holder commit accepted')
    if (run.generation === this.#generation) return true
    // Of a generation that is gone: what moved since is not the run's to commit.
    return false
  }

  #takenBack(offsets: readonly At[]): readonly At[] {
    if (!this.#has('committed offset taken back') || this.#random() < 0.7) return offsets
    return offsets.map(({ place }) => ({ place, offset: Math.max(0, (this.#committed.get(place) ?? 0) - 1) }))
  }

  #storeLate(offsets: readonly At[]): void {
    for (const { place, offset } of this.#lateLetters.splice(0)) {
      const isPassed = offsets.some((commit) => commit.place === place && commit.offset > offset)
      if (isPassed && !this.#isSettled({ place, offset })) this.#harmed()
      const content = this.#partition(place).items[offset]?.content ?? null
      this.#storeLetter({ place, offset, content })
    }
  }

  #rebalance(): void {
    this.#generation += 1
    this.#members = this.#members.length === 1 ? [...INSTANCES] : [this.#pick(INSTANCES)]
    this.#share()
  }

  #share(): void {
    for (const [index, place] of PLACES.entries()) {
      const instance = this.#members[index % this.#members.length] ?? ''
      if (this.#holders.get(place)?.instance !== instance)
        this.#holders.set(place, { instance, since: this.#generation })
    }
  }

  #observe(isLast: boolean): void {
    const call = this.#call()
    this.#note({ type: 'asked', call })
    const offsets = [...this.#committed].map(([place, offset]) => ({ place, offset }))
    this.#note({ type: 'observed', call, offsets, isLast })
  }

  /** Healthy producers and runs do what is left to be done. */
  #drain(): void {
    for (const lane of this.#lanes) {
      const item = lane.open
      if (item === undefined) continue
      this.#note({ type: 'sent', ...item, idempotencyKey: `${item.lane}#${item.seq}` })
      const partition = this.#partition(lane.place)
      const offset = this.#append(partition, item)
      this.#note({ type: 'acknowledged', ...item, place: lane.place, offset })
    }
    for (const partition of this.#partitions.values()) partition.durable = partition.items.length
    for (let round = 0; round < 400; round++) {
      for (const instance of this.#members) {
        const run = this.#claims.get(instance) ?? this.#claim(instance)
        this.#poll(run)
        for (let index = 0; index < 4 * POLL_RECORDS; index++) this.#handle(run)
        this.#commit(run)
      }
    }
    this.#observe(true)
  }

  // --- the rest -------------------------------------------------------------------------------------------------------------

  #forget(run: Run): void {
    const index = this.#stale.indexOf(run)
    if (index >= 0) this.#stale.splice(index, 1)
    if (this.#claims.get(run.instance) === run) this.#claims.delete(run.instance)
  }

  #isSettled({ place, offset }: At): boolean {
    return this.#history.some(
      (event) =>
        (event.type === 'handled' || event.type === 'dead-lettered') &&
        event.place === place &&
        event.offset === offset,
    )
  }

  #partition(place: Place): Partition {
    const partition = this.#partitions.get(place)
    if (partition === undefined) throw new Error(`There is no partition ${place}.`)
    return partition
  }

  #ask(run: Run): number {
    const call = this.#call()
    this.#note({ type: 'asked', call, instance: run.instance, run: run.id })
    return call
  }

  #call(): number {
    this.#calls += 1
    return this.#calls
  }

  #has(bug: Bug): boolean {
    return this.#bug === bug
  }

  #harmed(): void {
    this.#harm += 1
  }

  #pick<T>(from: readonly T[]): T {
    const found = from[Math.floor(this.#random() * from.length)]
    if (found === undefined) throw new Error('There is nothing to choose from.')
    return found
  }

  #note(event: HistoryEvent): void {
    this.#history.push(event)
  }
}
