/**
 * Judges what became of records:
 * - one that was acknowledged is in the log at its offset, as it was sent; where retention took it, it was handled before;
 * - one that was refused is nowhere;
 * - records of a lane stand in their order, none more often than it was sent, and under an idempotency key once;
 * - an offset has one value for ever, and who reads gets every offset, one after the other.
 */
import { describe, isSame, nameOf } from './history.ts'
import type { At, EventOf, Item, Place, Remains, Say } from './history.ts'

/** The judge of sends, acknowledgements and reads. */
export class RecordsJudge {
  readonly #remains: Remains
  readonly #say: Say
  /** How often each record may be there. */
  readonly #sends = new Map<string, number>()
  readonly #keys = new Set<string>()
  readonly #contents = new Map<string, string | null>()
  readonly #acknowledged: (Item & At)[] = []
  readonly #refused = new Set<string>()
  /** What was seen at each offset first. */
  readonly #seen = new Map<string, Item>()

  constructor(remains: Remains, say: Say) {
    this.#remains = remains
    this.#say = say
  }

  get acknowledged(): readonly (Item & At)[] {
    return this.#acknowledged
  }

  sent({ idempotencyKey, ...item }: EventOf<'sent'>): void {
    if (item.content !== undefined) this.#contents.set(nameOf(item), item.content)
    if (idempotencyKey !== undefined) {
      if (this.#keys.has(idempotencyKey)) return
      this.#keys.add(idempotencyKey)
    }
    this.#sends.set(nameOf(item), (this.#sends.get(nameOf(item)) ?? 0) + 1)
  }

  acknowledge(event: EventOf<'acknowledged'>): void {
    this.#acknowledged.push(event)
    this.#see(event, 'acknowledged')
  }

  refuse(item: EventOf<'refused'>): void {
    this.#refused.add(nameOf(item))
  }

  /** Records of one partition as an answer has them: no offset left out, none twice. */
  stretch(records: readonly (Item & At)[], from?: number): void {
    let next = from
    for (const [index, record] of records.entries()) {
      // Retention may have taken the first ones since the reader knew where it was; never some in the middle.
      const mayPass = index === 0 && record.offset <= (this.#remains.starts?.get(record.place) ?? 0)
      if (next !== undefined && (mayPass ? record.offset < next : record.offset !== next)) {
        this.#say('gap', `${record.place}@${record.offset} came where ${next} was to come`)
      }
      next = record.offset + 1
      this.#see(record, 'read')
    }
  }

  /** Whether a record is what was sent and what the log has at its place. */
  isAsWritten({ place, offset, ...item }: Item & At): boolean {
    const stored = this.stored({ place, offset })
    const sent = this.#contents.get(nameOf(item))
    const isAsSent = item.content === undefined || sent === undefined || item.content === sent
    return isAsSent && (stored === 'gone' || (stored !== undefined && isSame(stored, item)))
  }

  /** What the log holds at a place; `gone` where it is below the log start. */
  stored({ place, offset }: At): Item | 'gone' | undefined {
    const start = this.#remains.starts?.get(place) ?? 0
    return offset < start ? 'gone' : this.#remains.log.get(place)?.[offset - start]
  }

  /** Judges what is there in the end. */
  close(isHandled: (at: At) => boolean): void {
    this.#judgeLog()
    for (const item of this.#acknowledged) {
      const stored = this.stored(item)
      const { place, offset } = item
      if (stored !== 'gone' && (stored === undefined || nameOf(stored) !== nameOf(item))) {
        this.#say('lost', `${nameOf(item)} was acknowledged at ${place}@${offset}, where ${describe(stored)} is`)
      } else if (!isHandled(item)) {
        const why = stored === 'gone' ? 'was deleted before it was handled' : 'was not handled'
        this.#say('lost', `${nameOf(item)}, acknowledged at ${place}@${offset}, ${why}`)
      }
    }
  }

  writtenAgain(): number {
    const all = [...this.#remains.log.values()].flat()
    return all.length - new Set(all.map(nameOf)).size
  }

  #see(record: Item & At, how: string): void {
    const { place, offset } = record
    const key = `${place}@${offset}`
    const before = this.#seen.get(key)
    if (before === undefined) this.#seen.set(key, record)
    else if (nameOf(before) !== nameOf(record)) {
      this.#say('offset reused', `${nameOf(record)} was ${how} at ${key}, where ${nameOf(before)} was`)
    }
    if (!this.isAsWritten(record)) this.#complain(record, how)
    if (this.#refused.has(nameOf(record))) this.#say('refused but there', `${nameOf(record)} was ${how} at ${key}`)
  }

  /** What the end of the history says about an acknowledged record is its loss, which `close` tells. */
  #complain(record: Item & At, how: string): void {
    if (how === 'read') this.#say('not as written', `${describe(record)} was read at ${record.place}@${record.offset}`)
  }

  #judgeLog(): void {
    const copies = new Map<string, number>()
    for (const [place, items] of this.#remains.log) {
      const start = this.#remains.starts?.get(place) ?? 0
      const newest = new Map<string, number>()
      for (const [index, item] of items.entries()) {
        const where = `${place}@${start + index}`
        const count = (copies.get(nameOf(item)) ?? 0) + 1
        copies.set(nameOf(item), count)
        this.#judgeStored(item, count, where)
        const last = newest.get(item.lane) ?? -1
        if (count === 1 && item.seq < last) {
          this.#say('reordered', `${nameOf(item)} is behind number ${last} of its lane: ${where}`)
        }
        newest.set(item.lane, Math.max(last, item.seq))
      }
    }
  }

  #judgeStored(item: Item, count: number, where: string): void {
    if (count > (this.#sends.get(nameOf(item)) ?? 0)) {
      this.#say('written twice', `${nameOf(item)} is in the log more often than it was sent: ${where}`)
    }
    if (this.#refused.has(nameOf(item))) this.#say('refused but there', `${nameOf(item)} is stored at ${where}`)
    const sent = this.#contents.get(nameOf(item))
    if (item.content !== undefined && sent !== undefined && item.content !== sent) {
      this.#say('not as written', `${describe(item)} is stored at ${where}, and ${JSON.stringify(sent)} was sent`)
    }
  }
}

/** Records by partition, in the order in which they came. */
export function byPlace(records: readonly (Item & At)[]): Map<Place, (Item & At)[]> {
  return Map.groupBy(records, ({ place }) => place)
}
