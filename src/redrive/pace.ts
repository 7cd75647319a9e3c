/** The rate of a redrive: when the next letter may go. */
import type { Clock } from '../clock.ts'

/** So much of what a slow call cost may be made up for: in no second more than a tenth over the rate. */
const CATCH_UP_MS = 100

/** Spaces letters evenly. */
export class Pace {
  readonly #clock: Clock
  readonly #everyMs: number
  #dueAt: number

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock
    this.#everyMs = 1_000 / perSecond
    this.#dueAt = clock.monotonic()
  }

  /** How long to wait before the next letter, milliseconds; 0 where it may go now. */
  get waitMs(): number {
    return Math.max(0, this.#dueAt - this.#clock.monotonic())
  }

  /** A letter goes now. */
  spend(): void {
    this.#dueAt = Math.max(this.#dueAt, this.#clock.monotonic() - CATCH_UP_MS) + this.#everyMs
  }
}
