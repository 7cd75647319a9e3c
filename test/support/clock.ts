/** A clock that moves only when a test says so. */
import type { Clock } from '../../src/clock.ts'
import { until } from './until.ts'

interface Timer {
  readonly dueMs: number
  readonly fire: () => void
}

/** Wall time at which every fake clock starts: the first instant of 2026. */
export const START_MS: number = Date.UTC(2026, 0, 1)

/**
 * Wall and monotonic time advance together, from different origins, so that code which mixes the two up fails.
 * Timers fire inside `advance`, in the order in which they are due.
 */
export class FakeClock implements Clock {
  #elapsedMs = 0
  readonly #timers = new Set<Timer>()

  now(): number {
    return START_MS + this.#elapsedMs
  }

  monotonic(): number {
    return 5_000 + this.#elapsedMs
  }

  after(delayMs: number, fire: () => void): () => void {
    const timer = { dueMs: this.#elapsedMs + Math.max(0, delayMs), fire }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  /** How many timers are set. A broker that is closed should have left none. */
  get pending(): number {
    return this.#timers.size
  }

  /** Whether a timer is due exactly `delayMs` from now: a call that may wait that long is waiting. */
  isWaiting(delayMs: number): boolean {
    return [...this.#timers].some((timer) => timer.dueMs - this.#elapsedMs === delayMs)
  }

  /** Resolves when some call waits for exactly `delayMs`. Give each waiting call of a test a wait of its own. */
  async untilWaiting(delayMs: number): Promise<void> {
    await until(() => this.isWaiting(delayMs), { what: `a timer of ${delayMs} ms` })
  }

  /** Moves time, firing what falls due on the way and letting what it started run between two timers. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#elapsedMs + ms
    for (;;) {
      await settle()
      const next = this.#nextUntil(endMs)
      if (next === undefined) break
      this.#elapsedMs = Math.max(this.#elapsedMs, next.dueMs)
      this.#timers.delete(next)
      next.fire()
    }
    this.#elapsedMs = endMs
    await settle()
  }

  /** The timer that is due first; of two that are due together, the one that was set first. */
  #nextUntil(endMs: number): Timer | undefined {
    let next: Timer | undefined
    for (const timer of this.#timers) {
      if (timer.dueMs <= endMs && (next === undefined || timer.dueMs < next.dueMs)) next = timer
    }
    return next
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
