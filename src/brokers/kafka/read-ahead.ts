/**
 * Reading before it is asked for: who got a full answer and came back at once for what follows will do so again. So the next
 * answer is on its way while the one before is being handled.
 *
 * What was read is given once, soon, and only to a read of exactly the offsets that follow; otherwise it is dropped. Whoever
 * reads one full answer and goes has nothing read for him in vain.
 */
import type { Clock } from '../../clock.ts'

/** How long what was read is kept. */
const KEPT_MS = 500
/** Most bytes that are read ahead at a time, for all callers. */
const MAX_BYTES = 32 * 1024 * 1024

interface Entry<T> {
  readonly answer: Promise<T | undefined> | undefined
  readonly bytes: number
  readonly cancel: () => void
}

/** Answers by what they are expected to be asked for. */
export class ReadAhead<T> {
  readonly #clock: Clock
  readonly #entries = new Map<string, Entry<T>>()
  #bytes = 0
  #isClosed = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isEmpty(): boolean {
    return this.#entries.size === 0
  }

  /** Whether these positions were expected to be read, and what is being read or was; undefined where that failed. */
  take(key: string): { readonly isExpected: boolean; readonly answer: Promise<T | undefined> | undefined } {
    const entry = this.#entries.get(key)
    if (entry === undefined) return { isExpected: false, answer: undefined }
    entry.cancel()
    this.#drop(key, entry)
    return { isExpected: true, answer: entry.answer }
  }

  /** Expects these positions to be read next, and reads so many bytes of them already where `read` is given and room is left. */
  expect(key: string, bytes: number, read: (() => Promise<T>) | undefined): void {
    if (this.#isClosed || this.#entries.has(key)) return
    const isRead = read !== undefined && this.#bytes + bytes <= MAX_BYTES
    const entry: Entry<T> = {
      // Whoever asks for it meets the failure by asking himself.
      answer: isRead ? read().catch(() => undefined) : undefined,
      bytes: isRead ? bytes : 0,
      cancel: this.#clock.after(KEPT_MS, () => this.#drop(key, entry)),
    }
    this.#bytes += entry.bytes
    this.#entries.set(key, entry)
  }

  close(): void {
    this.#isClosed = true
    for (const [key, entry] of this.#entries) {
      entry.cancel()
      this.#drop(key, entry)
    }
  }

  #drop(key: string, entry: Entry<T>): void {
    this.#entries.delete(key)
    this.#bytes -= entry.bytes
  }
}
