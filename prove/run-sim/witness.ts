/** Writes down what processes do and see, for the checker of histories, and judges at once what only the simulation can know. */
import type { Broker } from '../../src/broker.ts'
import type { ConsumerRecord, TopicPartition } from '../../src/record.ts'
import { partitionKey } from '../../src/record.ts'
import type { HandlerContext, Ordering } from '../../src/router.ts'
import type { At, HistoryEvent, Item } from '../history/history.ts'
import { atOf, notedBroker } from '../history/noted-broker.ts'

/** A record that came with no other. */
const alone: ReadonlySet<number> = new Set()

/** The witness of one simulation. */
export class Witness {
  readonly history: HistoryEvent[] = []
  /** What was seen that may not be. */
  readonly complaints: string[] = []
  readonly #settled = new Map<string, Set<number>>()
  readonly #prefix = new Map<string, number>()
  readonly #keys = new Map<string, string[]>()
  /** What handlers of a process have now. */
  readonly #handed = new WeakMap<object, Set<string>>()
  #calls = 0

  note(event: HistoryEvent): void {
    this.history.push(event)
  }

  complain(what: string): void {
    this.complaints.push(what)
  }

  ask(who: { readonly instance?: string; readonly run?: string } = {}): number {
    const call = this.#nextCall()
    this.note({ type: 'asked', call, ...who })
    return call
  }

  /** A record is there. */
  produced({ place, offset }: At, key: string): void {
    const keys = this.#keys.get(place) ?? []
    this.#keys.set(place, keys)
    keys[offset] = key
  }

  /** A handler is called: what its record has to wait for is settled, whatever failed and came again. */
  handlerStarts(record: ConsumerRecord<unknown>, ordering: Ordering, together: ReadonlySet<number> = alone): void {
    const place = partitionKey(record)
    if (ordering === 'none') return
    const keys = this.#keys.get(place) ?? []
    for (let offset = this.#prefix.get(place) ?? 0; offset < record.offset; offset++) {
      const isBefore = ordering === 'partition' || keys[offset] === keys[record.offset]
      if (!isBefore || together.has(offset) || this.#settled.get(place)?.has(offset) === true) continue
      this.complain(`a handler got ${place}@${record.offset} while ${offset} is open, and the order is by ${ordering}`)
    }
  }

  /** A batch handler is called: its records are of one partition, in order, and what each waits for is settled or before it. */
  batchStarts(records: readonly ConsumerRecord<unknown>[], ordering: Ordering, most: number): void {
    const [first] = records
    const name =
      first === undefined ? 'nothing' : `${partitionKey(first)}@${records.map(({ offset }) => offset).join()}`
    if (first === undefined || records.length > most) this.complain(`a batch handler got ${name}, and takes ${most}`)
    const together = new Set<number>()
    let last = -1
    for (const record of records) {
      const isNext = first !== undefined && partitionKey(record) === partitionKey(first) && record.offset > last
      if (!isNext) this.complain(`a batch handler got ${name}, which is out of order`)
      this.handlerStarts(record, ordering, together)
      last = record.offset
      together.add(last)
    }
  }

  /** Records are handed to a handler of a process. None of them is with another one, unless that was given up. */
  handed(process: object, records: readonly ConsumerRecord<unknown>[], { signal }: HandlerContext): () => void {
    const all = this.#handed.get(process) ?? new Set()
    this.#handed.set(process, all)
    const names = records.map((record) => `${partitionKey(record)}@${record.offset}`)
    for (const name of names) if (all.has(name)) this.complain(`${name} was with two handlers of a process at once`)
    for (const name of names) all.add(name)
    let isOver = false
    const end = (): void => {
      if (!isOver) for (const name of names) all.delete(name)
      isOver = true
    }
    signal.addEventListener('abort', end, { once: true })
    return end
  }

  handled(record: TopicPartition & { readonly offset: number }): void {
    this.note({ type: 'handled', ...atOf(record) })
    this.#settle(atOf(record))
  }

  deadLettered(record: ConsumerRecord): void {
    this.note({ type: 'dead-lettered', ...atOf(record), content: contentOf(record) })
    this.#settle(atOf(record))
  }

  /** Whether all before an offset is settled. */
  isBehind({ place, offset }: At): boolean {
    return offset <= (this.#prefix.get(place) ?? 0)
  }

  /** A broker whose calls are noted as an instance sees them. */
  noted(broker: Broker, instance: string): Broker {
    return notedBroker(broker, {
      instance,
      nextCall: () => this.#nextCall(),
      note: (event) => {
        // What a run means to give back says nothing of what may happen.
        if (event.type !== 'releasing') this.note(event)
      },
      itemOf,
    })
  }

  #nextCall(): number {
    this.#calls += 1
    return this.#calls
  }

  #settle({ place, offset }: At): void {
    const settled = this.#settled.get(place) ?? new Set()
    this.#settled.set(place, settled.add(offset))
    let prefix = this.#prefix.get(place) ?? 0
    while (settled.has(prefix)) prefix += 1
    this.#prefix.set(place, prefix)
  }
}

/** A record's bytes as a text that differs where they do; the lane and the number stand in front. */
export function contentOf({ key, value, headers }: Pick<ConsumerRecord, 'key' | 'value' | 'headers'>): string | null {
  if (value === null) return null
  const parts = [key, value, ...headers.flatMap((header) => [Buffer.from(header.key), header.value])]
  return parts.map((part) => (part === null ? '-' : Buffer.from(part).toString('latin1'))).join('|')
}

/** A record by lane and number, which are its headers. */
export function itemOf(record: Pick<ConsumerRecord, 'key' | 'value' | 'headers'>): Item {
  const [lane, seq] = record.headers
  const textOf = (bytes: Uint8Array | null | undefined): string => Buffer.from(bytes ?? []).toString()
  return { lane: textOf(lane?.value), seq: Number(textOf(seq?.value)), content: contentOf(record) }
}
