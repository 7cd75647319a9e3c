/** Gives up what takes too long, with one timer for all: a handler that is done in time costs a set entry and no timer. */
import type { Clock } from '../clock.ts'

/** Something that must end by a moment of monotonic time. */
export interface Watched {
  readonly dueAt: number
  /** Called at most once, at `dueAt` or later. */
  expire(): void
}

/** Watches what may take too long. */
export class Watchdog {
  readonly #clock: Clock
  readonly #watched = new Set<Watched>()
  #armedFor = Number.POSITIVE_INFINITY
  #cancel: (() => void) | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  watch(one: Watched): void {
    this.#watched.add(one)
    if (one.dueAt < this.#armedFor) this.#arm(one.dueAt)
  }

  /** Ends the watch. The timer stays armed: cancelling it for each would cost more than one idle firing. */
  unwatch(one: Watched): void {
    this.#watched.delete(one)
  }

  close(): void {
    this.#cancel?.()
    this.#watched.clear()
  }

  #arm(dueAt: number): void {
    this.#cancel?.()
    this.#armedFor = dueAt
    this.#cancel = this.#clock.after(Math.max(0, dueAt - this.#clock.monotonic()), () => this.#fire())
  }

  #fire(): void {
    this.#armedFor = Number.POSITIVE_INFINITY
    this.#cancel = undefined
    const now = this.#clock.monotonic()
    let next = Number.POSITIVE_INFINITY
    for (const one of this.#watched) {
      if (one.dueAt > now) {
        next = Math.min(next, one.dueAt)
        continue
      }
      this.#watched.delete(one)
      one.expire()
    }
    if (next < this.#armedFor) this.#arm(next)
  }
}
