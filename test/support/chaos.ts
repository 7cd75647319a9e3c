/** A seeded source of chance, and a broker and store that lose requests and answers, and die, as chance has it. */
import type { Broker } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { BrokerError, DeadLetterStoreError } from '../../src/errors.ts'
import { withCalls } from './consumer.ts'

/** Numbers from 0 to 1, always the same for a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export interface ChaosOptions {
  readonly random: () => number
  /** How likely a call fails before it had an effect. */
  readonly lostRequests?: number
  /** How likely a call fails after it had its effect. */
  readonly lostAnswers?: number
  /** The process dies at so many steps: every second step of a call is before its effect, every other after it. */
  readonly diesAt?: number
}

/** One life of a process: what it calls may fail, and after its death nothing it calls has an effect or an end. */
export class Chaos {
  steps = 0
  readonly #options: ChaosOptions

  constructor(options: ChaosOptions) {
    this.#options = options
  }

  get isDead(): boolean {
    return this.steps >= (this.#options.diesAt ?? Number.POSITIVE_INFINITY)
  }

  /** Passes one point at which the process may die. Never resolves for a dead one. */
  async step(): Promise<void> {
    this.steps += 1
    if (this.isDead) await new Promise(() => undefined)
  }

  broker(broker: Broker): Broker {
    return withCalls(broker, {
      poll: this.#unreliable(broker.poll.bind(broker), networkError),
      commit: this.#unreliable(broker.commit.bind(broker), networkError),
      claim: this.#unreliable(broker.claim.bind(broker), networkError),
      release: this.#unreliable(broker.release.bind(broker), networkError),
    })
  }

  letters(store: DeadLetterStore): DeadLetterStore {
    return { ...store, put: this.#unreliable(store.put.bind(store), () => new DeadLetterStoreError('NETWORK', 'lost')) }
  }

  #unreliable<A extends unknown[], R>(
    call: (...args: A) => Promise<R>,
    error: () => Error,
  ): (...args: A) => Promise<R> {
    const { random, lostRequests = 0, lostAnswers = 0 } = this.#options
    return async (...args) => {
      await this.step()
      if (random() < lostRequests) throw error()
      const answer = await call(...args)
      await this.step()
      if (random() < lostAnswers) throw error()
      return answer
    }
  }
}

function networkError(): Error {
  return new BrokerError('NETWORK', 'lost')
}
