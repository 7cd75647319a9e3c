/** How long one call may take, and what ends it early. Whatever a call waits for, it waits for through its deadline. */
import type { Call } from '../../broker.ts'
import type { Clock } from '../../clock.ts'
import { sleep } from '../../clock.ts'
import { abortError, BrokerError } from '../../errors.ts'

/** The calls that end with a signal: one listener for all of them, where many calls share one. */
const watching = new WeakMap<AbortSignal, Set<Deadline>>()

/** The patience of one call. */
export class Deadline {
  readonly clock: Clock
  /** Monotonic. */
  readonly at: number
  readonly #ended: Promise<never>
  readonly #reject: (error: Error) => void
  readonly #signals: readonly AbortSignal[]
  readonly #cancelTimer: (() => void) | undefined
  #error: Error | undefined
  #controller: AbortController | undefined

  /** Without a limit it ends by its signals only. `closing` is aborted, with its error as reason, when the broker closes. */
  constructor(clock: Clock, limitMs: number | undefined, call: Call, closing: AbortSignal) {
    this.clock = clock
    this.at = clock.monotonic() + (limitMs ?? Number.POSITIVE_INFINITY)
    const { promise, reject } = Promise.withResolvers<never>()
    this.#ended = promise
    this.#reject = reject
    // Whether anything races with it or not, its end is no unhandled rejection.
    promise.catch(() => {})
    this.#cancelTimer = limitMs === undefined ? undefined : clock.after(limitMs, () => this.end(lateAfter(limitMs)))
    this.#signals = call.signal === undefined ? [closing] : [call.signal, closing]
    for (const signal of this.#signals) watch(signal, this)
  }

  /** Aborted with the error that the call rejects with. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#error !== undefined) this.#controller.abort(this.#error)
    }
    return this.#controller.signal
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

  /** Ends the call with an error, unless it has ended. */
  end(error: Error): void {
    if (this.#error !== undefined) return
    this.#error = error
    this.#reject(error)
    this.#controller?.abort(error)
  }

  /** Frees what it holds, and ends what still waits through it: the call is over. */
  close(): void {
    this.#cancelTimer?.()
    for (const signal of this.#signals) watching.get(signal)?.delete(this)
    this.end(over)
  }
}

const over = new BrokerError('ABORTED', 'The call is over.')

function watch(signal: AbortSignal, deadline: Deadline): void {
  if (signal.aborted) {
    deadline.end(abortError(signal))
    return
  }
  const known = watching.get(signal)
  if (known !== undefined) {
    known.add(deadline)
    return
  }
  const deadlines = new Set([deadline])
  watching.set(signal, deadlines)
  const endAll = (): void => {
    for (const one of deadlines) one.end(abortError(signal))
  }
  signal.addEventListener('abort', endAll, { once: true })
}

/** The error of a call whose time is over. */
export function lateAfter(limitMs: number): BrokerError {
  return new BrokerError('TIMEOUT', `Kafka did not answer within ${Math.round(limitMs)} ms; the outcome is unknown.`)
}
