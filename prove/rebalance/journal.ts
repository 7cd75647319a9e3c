/**
 * One file to which all processes of a proof append what they do and see. Each event is one write to its end, so the file has
 * them in the order in which they happened, whichever process they are of; and what a process wrote is there when it was killed.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import type { Broker } from '../../src/broker.ts'
import { itemOf } from '../embedded-log/stored.ts'
import type { HistoryEvent } from '../history/history.ts'
import { atOf, type Noted, notedBroker } from '../history/noted-broker.ts'

/** One line of a journal. */
export interface Entry {
  /** The process. */
  readonly by: string
  /** Milliseconds since the epoch, to parts of one. All processes are on one machine. */
  readonly atMs: number
  readonly event: Noted
}

/** A process's way to write to the journal. */
export class Journal implements Disposable {
  readonly #file: number
  readonly #by: string
  #calls = 0

  constructor(path: string, by: string) {
    this.#file = openSync(path, 'a')
    this.#by = by
  }

  /** Notes an event; it is in the file when this returns. */
  note(event: Noted): void {
    const entry: Entry = { by: this.#by, atMs: performance.timeOrigin + performance.now(), event }
    // A process that is killed in a write leaves the beginning of a line, which must not spoil the next one.
    writeSync(this.#file, `\n${JSON.stringify(entry)}\n`)
  }

  /** Names a call, among those of this process. */
  nextCall(): number {
    this.#calls += 1
    return this.#calls
  }

  [Symbol.dispose](): void {
    closeSync(this.#file)
  }
}

/** A broker whose calls go into a journal. */
export function journalled(broker: Broker, instance: string, journal: Journal): Broker {
  return notedBroker(broker, {
    instance,
    nextCall: () => journal.nextCall(),
    note: (event) => journal.note(event),
    itemOf,
  })
}

/** Notes the committed offsets of a group as somebody else reads them. */
export async function observe(broker: Broker, groupId: string, journal: Journal, isLast = false): Promise<void> {
  const call = journal.nextCall()
  journal.note({ type: 'asked', call })
  const offsets = (await broker.committed(groupId)).map(atOf)
  journal.note({ type: 'observed', call, offsets, isLast })
}

const CHUNK_BYTES = 1 << 20

/** Reads a journal while it grows. */
export class JournalReader implements Disposable {
  /** Everything so far. */
  readonly entries: Entry[] = []
  readonly #file: number
  readonly #chunk = Buffer.alloc(CHUNK_BYTES)
  #rest = Buffer.alloc(0)

  constructor(path: string) {
    this.#file = openSync(path, 'a+')
  }

  /** Reads on, and gives what is new. */
  read(): readonly Entry[] {
    const before = this.entries.length
    for (;;) {
      const bytes = readSync(this.#file, this.#chunk, 0, CHUNK_BYTES, null)
      if (bytes === 0) return this.entries.slice(before)
      const text = Buffer.concat([this.#rest, this.#chunk.subarray(0, bytes)])
      const end = text.lastIndexOf(0x0a) + 1
      this.#rest = Buffer.from(text.subarray(end))
      for (const line of text.toString('utf8', 0, end).split('\n')) {
        const entry = parsed(line)
        if (entry !== undefined) this.entries.push(entry)
      }
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#file)
  }
}

/** The history that a journal tells, with every call under a number of its own. */
export function historyOf(entries: readonly Entry[]): HistoryEvent[] {
  const numbers = new Map<string, number>()
  return entries.flatMap(({ by, event }) => {
    if (event.type === 'releasing') return []
    if (!('call' in event) || event.call === undefined) return [event]
    const name = `${by} ${event.call}`
    const call = numbers.get(name) ?? numbers.size + 1
    numbers.set(name, call)
    return [{ ...event, call }]
  })
}

function parsed(line: string): Entry | undefined {
  if (line === '') return undefined
  try {
    return JSON.parse(line) as Entry
  } catch {
    // The last thing that a killed process did, which nobody can have seen.
    return undefined
  }
}
