/** Who waits for what: calls that have nothing to answer yet, woken by an append, a rebalance or the close. */
import type { Clock } from '../clock.ts'

/** Calls that wait, by the names of what they wait for. */
export class Waiters {
  readonly #wakers = new Map<string, Set<() => void>>()

  /** Wakes everybody who waits for one of the names. */
  wake(name: string): void {
    for (const waker of this.#wakers.get(name) ?? []) waker()
  }

  wakeAll(): void {
    for (const wakers of this.#wakers.values()) for (const waker of wakers) waker()
  }

  /** Resolves at the first wake of one of the names, when the time is over, or when the signal is aborted. */
  wait(names: readonly string[], timeoutMs: number, clock: Clock, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        cancel()
        signal?.removeEventListener('abort', done)
        for (const name of names) this.#remove(name, done)
        resolve()
      }
      const cancel = clock.after(timeoutMs, done)
      signal?.addEventListener('abort', done, { once: true })
      for (const name of names) this.#add(name, done)
      if (signal?.aborted === true) done()
    })
  }

  #add(name: string, waker: () => void): void {
    const wakers = this.#wakers.get(name)
    if (wakers === undefined) this.#wakers.set(name, new Set([waker]))
    else wakers.add(waker)
  }

  #remove(name: string, waker: () => void): void {
    const wakers = this.#wakers.get(name)
    wakers?.delete(waker)
    if (wakers?.size === 0) this.#wakers.delete(name)
  }
}
