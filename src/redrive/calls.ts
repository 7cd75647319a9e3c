/** Calls of a redrive: each with a time limit, tried again where that may help, and only while the redrive has its lock. */
import { backoffMs } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Call } from '../broker.ts'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { KedgeError } from '../errors.ts'
import type { Random } from '../random.ts'

/** What calls need. */
export interface RedriveCallsScope {
  readonly clock: Clock
  readonly random: Random
  readonly callTimeoutMs: number
  /** Awaited before every attempt; what it rejects with ends the call. @default nothing */
  readonly before?: () => Promise<void>
  /** While a call goes on, `before` is called again so often, milliseconds: one may take longer than the lock lasts. @default never */
  readonly everyMs?: number
}

/** Attempts of one call. */
const MAX_TRIES = 4
const backoff: Backoff = { initialMs: 100, maxMs: 5_000, factor: 4 }
/** Who asks to be left alone for longer is as good as down. */
const MAX_WAIT_MS = 30_000

/** The calls of one redrive. */
export class RedriveCalls {
  readonly #scope: RedriveCallsScope

  constructor(scope: RedriveCallsScope) {
    this.#scope = scope
  }

  /** Makes a call. Rejects with the failure of the last attempt. */
  async make<T>(work: (call: Call) => Promise<T>): Promise<T> {
    const { clock, random, callTimeoutMs, before } = this.#scope
    for (let tries = 1; ; tries++) {
      await before?.()
      try {
        return await this.#kept(work({ timeoutMs: callTimeoutMs }))
      } catch (error) {
        if (!(error instanceof KedgeError) || !error.retriable || tries >= MAX_TRIES) throw error
        const waitMs = backoffMs(backoff, tries, random, error.retryAfterMs)
        if (waitMs > MAX_WAIT_MS) throw error
        await sleep(clock, waitMs)
      }
    }
  }

  async #kept<T>(working: Promise<T>): Promise<T> {
    const { clock, before, everyMs } = this.#scope
    if (before === undefined || everyMs === undefined) return await working
    let keeping: Promise<void> | undefined
    const again = (): (() => void) =>
      clock.after(everyMs, () => {
        cancel = again()
        // Whether the lock is lost is said before the next call.
        keeping = before().catch(() => undefined)
      })
    let cancel = again()
    try {
      return await working
    } finally {
      cancel()
      // It must not take the lock once more after it was given back.
      await keeping
    }
  }
}
