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
        return await work({ timeoutMs: callTimeoutMs })
      } catch (error) {
        if (!(error instanceof KedgeError) || !error.retriable || tries >= MAX_TRIES) throw error
        const waitMs = backoffMs(backoff, tries, random, error.retryAfterMs)
        if (waitMs > MAX_WAIT_MS) throw error
        await sleep(clock, waitMs)
      }
    }
  }
}
