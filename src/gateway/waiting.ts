/**
 * Calls that wait for records. At most so many at once; given up when the client goes away; and ended, with an answer,
 * when the server closes: the call is then asked once more without waiting, so that its answer is a whole one.
 */
import { abortError, GatewayError } from '../errors.ts'
import { limitNames } from './limits.ts'

type Attempt<T> = (maxWaitMs: number, signal: AbortSignal) => Promise<T>

/** The calls that wait now. */
export class WaitingCalls {
  readonly #most: number
  readonly #waiting = new Set<AbortController>()
  readonly #drained = new GatewayError('CLOSED', 'The gateway is closing.')
  #draining = false

  constructor(most: number) {
    this.#most = most
  }

  /** How many wait now. */
  get count(): number {
    return this.#waiting.size
  }

  get draining(): boolean {
    return this.#draining
  }

  /** Ends all that wait and lets none wait any more. */
  drain(): void {
    this.#draining = true
    for (const controller of this.#waiting) controller.abort(this.#drained)
  }

  /**
   * Makes a call that may wait.
   * @throws {GatewayError} OVERLOADED with the limit `waiting-polls`
   * @throws the client's abort reason
   */
  async run<T>(maxWaitMs: number, client: AbortSignal, attempt: Attempt<T>): Promise<T> {
    if (maxWaitMs === 0 || this.#draining) return attempt(0, client)
    if (this.#waiting.size >= this.#most) {
      throw new GatewayError(
        'OVERLOADED',
        `Cannot wait for records: ${this.#most} calls wait already. Try again in a second, or send "timeout": 0.`,
        { limit: limitNames.waitingPolls, retryAfterMs: 1000 },
      )
    }
    if (client.aborted) throw abortError(client)
    const controller = new AbortController()
    const onAbort = (): void => controller.abort(client.reason)
    client.addEventListener('abort', onAbort, { once: true })
    this.#waiting.add(controller)
    try {
      return await attempt(maxWaitMs, controller.signal)
    } catch (error) {
      if (error !== this.#drained) throw error
      return await attempt(0, client)
    } finally {
      this.#waiting.delete(controller)
      client.removeEventListener('abort', onAbort)
    }
  }
}
