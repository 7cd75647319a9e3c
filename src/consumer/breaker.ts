/**
 * The flood breaker of a route: when most of its records become dead letters, something behind its handler is down, and
 * going on would only move the topic into the dead-letter store. It opens, and the route takes nothing more in this run;
 * offsets stay. The next run begins with it closed, so that its first records are the probe.
 */
import type { BreakerPolicy } from '../app.ts'

const BUCKETS = 10

/** Counts what became of a route's records within a window. */
export class Breaker {
  readonly #policy: BreakerPolicy
  /** Dead letters and all records, by bucket of time. */
  readonly #dead = new Float64Array(BUCKETS)
  readonly #all = new Float64Array(BUCKETS)
  #bucket = 0
  /** Monotonic: the bucket is over. */
  #endsAt = Number.NEGATIVE_INFINITY
  #isOpen = false

  constructor(policy: BreakerPolicy) {
    this.#policy = policy
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  /** Dead letters in the window, and all records. */
  get counts(): { readonly deadLettered: number; readonly settled: number } {
    return { deadLettered: sum(this.#dead), settled: sum(this.#all) }
  }

  /** Counts a record at a monotonic time. Says whether the breaker opens with it. */
  count(isDeadLetter: boolean, now: number): boolean {
    if (now >= this.#endsAt) this.#turnTo(Math.floor((now * BUCKETS) / this.#policy.windowMs))
    const at = this.#bucket % BUCKETS
    this.#all[at] = (this.#all[at] ?? 0) + 1
    if (!isDeadLetter || this.#isOpen) return false
    this.#dead[at] = (this.#dead[at] ?? 0) + 1
    const { deadLettered, settled } = this.counts
    this.#isOpen = deadLettered >= this.#policy.minDeadLetters && deadLettered >= settled * this.#policy.share
    return this.#isOpen
  }

  #turnTo(bucket: number): void {
    for (let steps = Math.min(BUCKETS, bucket - this.#bucket); steps > 0; steps -= 1) {
      const at = (bucket - steps + 1) % BUCKETS
      this.#dead[at] = 0
      this.#all[at] = 0
    }
    this.#bucket = Math.max(this.#bucket, bucket)
    this.#endsAt = ((this.#bucket + 1) * this.#policy.windowMs) / BUCKETS
  }
}

function sum(figures: Float64Array): number {
  let total = 0
  for (const figure of figures) total += figure
  return total
}
