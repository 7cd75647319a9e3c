/**
 * The way between a process and what it calls. Requests and answers are late or lost; a request may arrive when its caller has
 * long given it up, or is dead; the other side may refuse for now or for good.
 */
import type { Call } from '../../src/broker.ts'
import type { Clock } from '../../src/clock.ts'
import { abortError, BrokerError } from '../../src/errors.ts'
import type { ErrorCode } from '../../src/errors.ts'
import type { SimulatedProcess } from './process.ts'

/** How likely each fault is, in one call. */
export interface Weather {
  readonly lostRequests: number
  readonly lostAnswers: number
  /** Requests that arrive up to 20 s late. */
  readonly lateRequests: number
  readonly refusals: number
  /** Longest time that a request, and an answer, needs, milliseconds. */
  readonly mostDelayMs: number
}

/** Nothing fails, and nothing takes longer than a millisecond. */
export const fairWeather: Weather = {
  lostRequests: 0,
  lostAnswers: 0,
  lateRequests: 0,
  refusals: 0,
  mostDelayMs: 0,
}

/** How often each fault struck. */
export interface FaultCounts {
  lostRequests: number
  lostAnswers: number
  lateRequests: number
  refusals: number
}

/** A request on its way. */
export interface Sending<R> {
  readonly process: SimulatedProcess
  readonly call: Call | undefined
  /** What it does where it arrives; told whether its caller still waits. */
  readonly serve: (isAwaited: () => boolean, call: Call) => Promise<R>
  /** The refusals it may meet. */
  readonly refusals: readonly ErrorCode[]
}

const LATE_MS = 20_000
const RESET_MS = 5

/** A network with weather. */
export class Network {
  weather: Weather = fairWeather
  readonly faults: FaultCounts = { lostRequests: 0, lostAnswers: 0, lateRequests: 0, refusals: 0 }
  readonly #clock: Clock
  readonly #random: () => number

  constructor(clock: Clock, random: () => number) {
    this.#clock = clock
    this.#random = random
  }

  /** Sends a request and waits as its caller does: until the answer, the time limit or the abort. */
  send<R>({ process, call, serve, refusals }: Sending<R>): Promise<R> {
    process.calls += 1
    if (!process.passes()) return new Promise(() => {})
    return new Promise((resolve, reject) => {
      const { signal, timeoutMs } = call ?? {}
      const served = new AbortController()
      let isAwaited = true
      const end = (settle: () => void): void => {
        if (!isAwaited) return
        isAwaited = false
        cancelTimeout()
        signal?.removeEventListener('abort', onAbort)
        // Half of the servers notice that their client is gone.
        if (this.#random() < 0.5) served.abort(new BrokerError('ABORTED', 'The client is gone.'))
        process.wake(() => {
          if (process.passes()) settle()
        })
      }
      const onAbort = (): void => {
        if (signal !== undefined) end(() => reject(abortError(signal)))
      }
      const cancelTimeout = process.after(timeoutMs ?? Number.MAX_SAFE_INTEGER, () =>
        end(() => reject(new BrokerError('TIMEOUT', 'There was no answer.'))),
      )
      signal?.addEventListener('abort', onAbort, { once: true })
      if (signal?.aborted === true) return onAbort()
      this.#carry({
        serve: () => serve(() => isAwaited && !process.isDead, { signal: served.signal }),
        refusals,
        answer: (result) => end(() => resolve(result)),
        fail: (error) => end(() => reject(error)),
      })
    })
  }

  #carry<R>({ serve, refusals, answer, fail }: Carried<R>): void {
    const { lostRequests, lostAnswers, lateRequests, refusals: refused, mostDelayMs } = this.weather
    const fate = this.#random()
    if (fate < lostRequests) {
      this.faults.lostRequests += 1
      return this.#reset(fail)
    }
    if (fate < lostRequests + refused) {
      this.faults.refusals += 1
      const code = refusals[Math.floor(this.#random() * refusals.length)] ?? 'NOT_COORDINATOR'
      return this.#later(mostDelayMs, () => fail(new BrokerError(code, 'Refused by the simulation.')))
    }
    const isAnswerLost = this.#random() < lostAnswers
    const isLate = this.#random() < lateRequests
    if (isLate) this.faults.lateRequests += 1
    this.#later(isLate ? LATE_MS : mostDelayMs, () => {
      serve().then(
        (result) => {
          if (!isAnswerLost) return this.#later(mostDelayMs, () => answer(result))
          this.faults.lostAnswers += 1
          return this.#reset(fail)
        },
        (error: unknown) => this.#later(mostDelayMs, () => fail(error)),
      )
    })
  }

  /** The caller hears of a lost message at once, or by its time limit only. */
  #reset(fail: (error: unknown) => void): void {
    if (this.#random() < 0.6) this.#later(RESET_MS, () => fail(new BrokerError('NETWORK', 'The connection was lost.')))
  }

  /** Nothing arrives in no time: else a run whose time is as good as over would ask for ever within one moment. */
  #later(mostMs: number, arrive: () => void): void {
    this.#clock.after(1 + Math.floor(this.#random() * mostMs), arrive)
  }
}

interface Carried<R> {
  readonly serve: () => Promise<R>
  readonly refusals: readonly ErrorCode[]
  readonly answer: (result: R) => void
  readonly fail: (error: unknown) => void
}
