/** Calls to the broker and the dead-letter store: each counted, each with a time limit, none thrown away unseen. */
import type { Call } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { BrokerError } from '../errors.ts'
import type { Budget } from './budget.ts'

/** Kept for the end of a run: the last commit, one repetition of it, and the release. */
const RESERVED_CALLS = 3
/** What a call has of a run that ends too late, milliseconds. Two of them fit into what a platform keeps for itself. */
const OVERDUE_CALL_MS = 200

/** The calls of one run. */
export class Calls {
  readonly #clock: Clock
  readonly #budget: Budget
  readonly #timeoutMs: number
  #made = 0
  #isTold = false
  #leastMs = 1
  /** How many calls the records that are being handled may need. */
  neededForHandling: () => number = () => 0

  constructor(clock: Clock, budget: Budget, timeoutMs: number) {
    this.#clock = clock
    this.#budget = budget
    this.#timeoutMs = timeoutMs
  }

  get made(): number {
    return this.#made
  }

  /** Whether some driver tells of its requests: a call may be several then. */
  get isTold(): boolean {
    return this.#isTold
  }

  /** Whether a call may be made that is not one of those kept for the end. */
  get mayMake(): boolean {
    return this.#made < this.#budget.maxCalls - RESERVED_CALLS
  }

  /** Whether so many calls may be made that are not among those kept for the end. */
  mayMakeSo(many: number): boolean {
    return this.#made + many <= this.#budget.maxCalls - RESERVED_CALLS
  }

  /**
   * Whether a call may be made that a run can do without, such as reading on. What the records that are being handled may
   * need is left: one that becomes a dead letter and finds no call for it would come again in every run, for ever.
   */
  get maySpare(): boolean {
    return this.#made + this.neededForHandling() < this.#budget.maxCalls - RESERVED_CALLS
  }

  /** To be called at the end: a run whose time is over by then, as no timer could tell it, ends with calls that have some. */
  checkOverdue(): void {
    if (this.#clock.monotonic() >= this.#budget.deadline) this.#leastMs = OVERDUE_CALL_MS
  }

  /** How many calls are left, those kept for the end included. */
  get left(): number {
    return this.#budget.maxCalls - this.#made
  }

  /** Makes a call that ends, one way or the other, before the run must have returned. */
  make<T>(run: (call: Call) => Promise<T>, limits: { signal?: AbortSignal; waitMs?: number } = {}): Promise<T> {
    this.#made += 1
    const left = this.#budget.deadline - this.#clock.monotonic()
    const timeoutMs = Math.max(this.#leastMs, Math.floor(Math.min(this.#timeoutMs + (limits.waitMs ?? 0), left)))
    const call = { timeoutMs, onRequest: this.#counter() }
    return run(limits.signal === undefined ? call : { ...call, signal: limits.signal })
  }

  /** Counts what a call sends beyond one request, as a store does that makes its topic first. */
  #counter(): () => void {
    let isFirst = true
    return () => {
      this.#isTold = true
      if (!isFirst) {
        // What is kept for the end of the run is not the store's to spend.
        if (!this.mayMake) throw spent(this.#budget.maxCalls)
        this.#made += 1
      }
      isFirst = false
    }
  }
}

function spent(maxCalls: number): BrokerError {
  const message = `The run has made all of its ${maxCalls} calls but those that it ends with: the record comes again in the next run.`
  return new BrokerError('ABORTED', message, { retriable: true })
}
