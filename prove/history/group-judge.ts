/**
 * Judges what a group did:
 * - a record is handled, or a dead letter, when all before it in its partition are;
 * - no commit, and no committed offset that anybody sees, is beyond a record that is neither; none is lost or taken back;
 * - what was committed before a poll began does not come again in its answer;
 * - in one generation no partition has two holders;
 * - nothing is accepted of a run that has lost its claim to another;
 * - a dead letter is there in the end, once, as it was sent.
 */
import type { At, EventOf, Expectations, Place, Remains, Say } from './history.ts'
import { Claims } from './claims.ts'

/** The judge of polls, handling, dead letters and commits. */
export class GroupJudge {
  readonly #expectations: Expectations
  readonly #say: Say
  readonly #claims: Claims
  /** Every offset of each partition that was handled or became a dead letter. */
  readonly #settled = new Map<Place, Set<number>>()
  /** All before it is settled. */
  readonly #prefix = new Map<Place, number>()
  readonly #letters = new Map<string, string | null | undefined>()
  /** Newest commit that was acknowledged. */
  readonly #committed = new Map<Place, number>()
  /** What was committed when a call began. */
  readonly #before = new Map<number, ReadonlyMap<Place, number>>()
  /** Partitions that were reset while a commit was on its way: it may have come before that or after. */
  readonly #unclear = new Map<number, Set<Place>>()
  readonly #holders = new Map<string, string>()
  handledAgain = 0
  lookedBack = 0
  generation = 0

  constructor(expectations: Expectations, say: Say) {
    this.#expectations = expectations
    this.#say = say
    this.#claims = new Claims(say)
  }

  get settledCount(): number {
    return [...this.#settled.values()].reduce((sum, offsets) => sum + offsets.size, 0)
  }

  isSettled = ({ place, offset }: At): boolean => this.#settled.get(place)?.has(offset) === true

  ask(event: EventOf<'asked'>): void {
    this.#before.set(event.call, new Map(this.#committed))
    this.#claims.ask(event)
  }

  poll({ call, instance, run, generationId, assignment, records }: EventOf<'polled'>): void {
    const before = this.#takeBefore(call)
    if (run !== undefined) this.#claims.grant(call, instance, run)
    if (assignment !== undefined) {
      this.generation = Math.max(this.generation, generationId)
      for (const place of assignment) this.#hold(place, generationId, instance)
    }
    for (const { place, offset } of records) {
      const committed = before?.get(place) ?? 0
      if (offset < committed && !this.#mayLookBack()) {
        this.#say('came again', `${place}@${offset} came in a poll that began after ${committed} was committed`)
      }
    }
  }

  claim({ call, instance, run }: EventOf<'claimed'>): void {
    this.#before.delete(call)
    this.#claims.grant(call, instance, run)
  }

  fail({ call, code }: EventOf<'failed'>): void {
    if (call === undefined) return
    this.#before.delete(call)
    this.#claims.fail(call, code)
  }

  handle({ place, offset }: At): void {
    const settled = this.#settled.get(place) ?? new Set()
    this.#settled.set(place, settled)
    if (settled.has(offset)) this.handledAgain += 1
    settled.add(offset)
    let prefix = this.#prefix.get(place) ?? 0
    if (offset > prefix && this.#expectations.isOrdered !== false)
      this.#say('skipped', `${place}@${offset} was handled before ${place}@${prefix}`)
    while (settled.has(prefix)) prefix += 1
    this.#prefix.set(place, prefix)
  }

  deadLetter({ place, offset, content }: EventOf<'dead-lettered'>): void {
    this.#letters.set(`${place}@${offset}`, content)
    this.handle({ place, offset })
  }

  beginCommit({ call, offsets }: EventOf<'committing'>): void {
    if (call !== undefined) {
      this.#before.set(call, new Map(this.#committed))
      this.#claims.beginCommit(call)
    }
    for (const { place, offset } of offsets) this.#judgeOffset(place, offset, 'a run commits')
  }

  commit({ call, instance, run, generationId, offsets }: EventOf<'committed'>): void {
    const before = call === undefined ? undefined : this.#takeBefore(call)
    if (call !== undefined && run !== undefined) this.#claims.commit(call, instance, run)
    for (const { place, offset } of offsets) {
      const known = before?.get(place) ?? 0
      if (offset < known) this.#say('committed back', `${place}@${offset} was committed after ${known} was`)
      if (call === undefined || this.#unclear.get(call)?.has(place) !== true) {
        this.#committed.set(place, Math.max(offset, this.#committed.get(place) ?? 0))
      }
      if (generationId !== undefined) this.#hold(place, generationId, instance)
    }
  }

  reset({ offsets }: EventOf<'reset'>): void {
    for (const { place, offset } of offsets) {
      this.#committed.set(place, offset)
      // A call that is on its way may see either.
      for (const [call, before] of this.#before) {
        this.#before.set(call, new Map([...before, [place, 0]]))
        this.#unclear.set(call, (this.#unclear.get(call) ?? new Set()).add(place))
      }
    }
  }

  observe({ call, offsets, isLast = false }: EventOf<'observed'>): void {
    const before = this.#takeBefore(call)
    const seen = new Map(offsets.map(({ place, offset }) => [place, offset]))
    for (const [place, offset] of seen) this.#judgeOffset(place, offset, 'the group has')
    for (const [place, committed] of before ?? []) {
      const offset = seen.get(place) ?? (isLast ? -1 : committed)
      if (offset < committed && (isLast || !this.#mayLookBack())) {
        this.#say('commit lost', `the group has ${place}@${offset}, and ${committed} was committed`)
      }
    }
  }

  /** Judges what the dead-letter store holds in the end. */
  close({ letters }: Remains, contentOf: (at: At) => string | null | undefined): void {
    if (letters === undefined) return
    const there = new Map<string, number>()
    for (const { place, offset, content } of letters) {
      const key = `${place}@${offset}`
      there.set(key, (there.get(key) ?? 0) + 1)
      if (there.get(key) === 2) this.#say('letter twice', `the store has ${key} more than once`)
      const written = contentOf({ place, offset })
      if (content !== undefined && written !== undefined && content !== written) {
        this.#say('not as written', `the dead letter of ${key} has ${JSON.stringify(content)}`)
      }
    }
    for (const key of this.#letters.keys()) {
      if (!there.has(key)) this.#say('letter lost', `${key} became a dead letter, which is not there`)
    }
  }

  #hold(place: Place, generationId: number, instance: string): void {
    const key = `${generationId} ${place}`
    const other = this.#holders.get(key) ?? instance
    this.#holders.set(key, other)
    if (other === instance) return
    this.#say('two holders', `${other} and ${instance} hold ${place} in generation ${generationId}`)
  }

  #judgeOffset(place: Place, offset: number, who: string): void {
    const prefix = this.#prefix.get(place) ?? 0
    if (offset > prefix) this.#say('committed ahead', `${who} ${place}@${offset}, and ${prefix} is not handled`)
  }

  #takeBefore(call: number): ReadonlyMap<Place, number> | undefined {
    const before = this.#before.get(call)
    this.#before.delete(call)
    return before
  }

  #mayLookBack(): boolean {
    this.lookedBack += 1
    return this.#expectations.mayLookBack === true
  }
}
