/** Kills a process at one of its calls: from that call on nothing is answered any more. */
import type { Broker } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'

/** What becomes of the call at which it dies, and of all after it. */
export interface Death {
  readonly how: string
  /** The call itself is still made. */
  readonly isMade: boolean
  /** It fails, instead of never being answered. */
  readonly isHeard: boolean
}

/** Every way to die. */
export const deaths: readonly Death[] = [
  { how: 'before a call was made', isMade: false, isHeard: false },
  { how: 'before it heard the answer', isMade: true, isHeard: false },
  { how: 'by a call that fails', isMade: false, isHeard: true },
  { how: 'by a call that succeeds and says it failed', isMade: true, isHeard: true },
]

/** Counts the calls of a process to its broker and store. */
export class Killer {
  calls = 0
  readonly #fatal: number
  readonly #death: Death

  constructor(fatal: number, death: Death) {
    this.#fatal = fatal
    this.#death = death
  }

  get hasKilled(): boolean {
    return this.calls >= this.#fatal
  }

  watch<T extends Broker | DeadLetterStore>(target: T, features: object = {}): T {
    return new Proxy(target, {
      get: (_, name) => {
        const value = Reflect.get(target, name) as unknown
        if (name === 'features') return { ...target.features, ...features }
        if (typeof value !== 'function') return value
        return async (...args: unknown[]) => await this.#call(() => Reflect.apply(value, target, args) as unknown)
      },
    })
  }

  async #call(make: () => unknown): Promise<unknown> {
    this.calls += 1
    if (this.calls < this.#fatal) return await make()
    if (this.calls === this.#fatal && this.#death.isMade) await make()
    if (this.#death.isHeard) throw new Error('killed')
    return await new Promise(() => undefined)
  }
}
