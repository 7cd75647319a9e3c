/** How long one call may take, and what ends it early. Whatever a call waits for, it waits for through its deadline. */
import type { Call } from '../../broker.ts'
import type { Clock } from '../../clock.ts'
import { sleep } from '../../clock.ts'
import { abortError, BrokerError } from '../../errors.ts'

/** The patience of one call. */
export class Deadline {
  readonly clock: Clock
  /** Monotonic. */
  readonly at: number
  /** Aborted with the error that the call rejects with. */
  readonly signal: AbortSignal
  readonly #controller = new AbortController()
  readonly #ended: Promise<never>
  readonly #cleanUps: (() => void)[] = []

  /** Without a limit it ends by its signals only. `closing` is aborted, with its error as reason, when the broker closes. */
  constructor(clock: Clock, limitMs: number | undefined, call: Call, closing: AbortSignal) {
    this.clock = clock
    this.at = clock.monotonic() + (limitMs ?? Number.POSITIVE_INFINITY)
    this.signal = this.#controller.signal
    const { promise, reject } = Promise.withResolvers<never>()
    this.#ended = promise
    // Whether anything races with it or not, its end is no unhandled rejection.
    promise.catch(() => {})
    const end = (error: Error): void => {
      reject(error)
      this.#controller.abort(error)
    }
    if (limitMs !== undefined) {
      const late = `Kafka did not answer within ${Math.round(limitMs)} ms; the outcome is unknown.`
      this.#cleanUps.push(clock.after(limitMs, () => end(new BrokerError('TIMEOUT', late))))
    }
    for (const signal of [call.signal, closing]) {
      if (signal === undefined) continue
      const onAbort = (): void => end(abortError(signal))
      if (signal.aborted) onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      this.#cleanUps.push(() => signal.removeEventListener('abort', onAbort))
    }
  }

  /** Milliseconds that are left; never negative. */
  get leftMs(): number {
    return Math.max(0, this.at - this.clock.monotonic())
  }

  /** What `work` gives, unless the call ends before. */
  async race<T>(work: Promise<T>): Promise<T> {
    // Nobody may be there any more when it fails.
    work.catch(() => {})
    return await Promise.race([work, this.#ended])
  }

  /** What `work` gives, or undefined when `at` (monotonic) is there before; the work goes on. */
  async within<T>(work: Promise<T>, at: number): Promise<T | undefined> {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    const cancel = this.clock.after(Math.max(0, at - this.clock.monotonic()), () => resolve(undefined))
    work.catch(() => {})
    try {
      return await Promise.race([work, promise, this.#ended])
    } finally {
      cancel()
    }
  }

  /** Waits, at most to the end. */
  async pause(delayMs: number): Promise<void> {
    await sleep(this.clock, Math.min(delayMs, this.leftMs), this.signal)
  }

  /** Frees what it holds. */
  close(): void {
    for (const cleanUp of this.#cleanUps) cleanUp()
  }
}
