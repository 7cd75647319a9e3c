/**
 * The flood breaker of a route: when most of its records become dead letters, something behind its handler is down, and
 * going on would only move the topic into the dead-letter store. It opens, and the route takes nothing more in this run;
 * offsets stay.
 *
 * Nobody remembers it from run to run. So each run begins with it half open: its first records are probes, and few of them
 * may become dead letters before it opens again. The first record that is handled closes it.
 */
import type { BreakerPolicy } from '../app.ts'
import type { SettledOutcome } from './tally.ts'

const BUCKETS = 10

type State = 'half-open' | 'closed' | 'open'

/** Counts what became of a route's records within a window. */
export class Breaker {
  readonly #policy: BreakerPolicy
  /** Dead letters and all records, by bucket of time. */
  readonly #dead = new Float64Array(BUCKETS)
  readonly #all = new Float64Array(BUCKETS)
  #bucket = 0
  /** Monotonic: the bucket is over. */
  #endsAt = Number.NEGATIVE_INFINITY
  #state: State
  /** While half open: dead letters with which it opens. */
  #probesLeft: number

  /** `state` is what it begins with; `closed` is for a route none of whose records is ever handled. */
  constructor(policy: BreakerPolicy, state: 'half-open' | 'closed') {
    this.#policy = policy
    this.#state = state
    this.#probesLeft = Math.min(policy.probes, policy.minDeadLetters)
  }

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  /** Most records that may be handled at once: while it is half open no more than would open it. */
  get mostAtOnce(): number {
    return this.#state === 'half-open' ? this.#probesLeft : Number.POSITIVE_INFINITY
  }

  /** How long the run may go on after it has opened, milliseconds. */
  get openMs(): number {
    return this.#policy.openMs
  }

  /** Dead letters in the window, and all records. */
  get counts(): { readonly deadLettered: number; readonly settled: number } {
    return { deadLettered: sum(this.#dead), settled: sum(this.#all) }
  }

  /** Counts a record that is behind its route, at a monotonic time. Says whether the breaker opens with it. */
  count(outcome: SettledOutcome, now: number): boolean {
    const { kind } = outcome
    if (now >= this.#endsAt) this.#turnTo(Math.floor((now * BUCKETS) / this.#policy.windowMs))
    const at = this.#bucket % BUCKETS
    this.#all[at] = (this.#all[at] ?? 0) + 1
    if (this.#state === 'open') return false
    if (kind === 'handled') this.#state = 'closed'
    if (kind !== 'dead-lettered') return false
    this.#dead[at] = (this.#dead[at] ?? 0) + 1
    // A value that is refused says nothing of what the handler depends on.
    if (this.#state === 'half-open' && isFailure(outcome)) this.#probesLeft -= 1
    if (!this.#isFlood() && this.#probesLeft > 0) return false
    this.#state = 'open'
    return true
  }

  #isFlood(): boolean {
    const { minDeadLetters, share, maxDeadLetters } = this.#policy
    const { deadLettered, settled } = this.counts
    if (maxDeadLetters !== null && deadLettered >= maxDeadLetters) return true
    return deadLettered >= minDeadLetters && deadLettered >= settled * share
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

/** Whether a handler failed until its record was given up. */
function isFailure(outcome: SettledOutcome): boolean {
  return outcome.kind === 'dead-lettered' && (outcome.reason === 'exhausted' || outcome.reason === 'timeout')
}

function sum(figures: Float64Array): number {
  let total = 0
  for (const figure of figures) total += figure
  return total
}
