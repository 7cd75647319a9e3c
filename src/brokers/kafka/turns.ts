/** Work that is done one after the other where it is about the same thing. */

/** Turns by key. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>()

  /** Whether somebody has the turn. */
  isTaken(key: string): boolean {
    return this.#last.has(key)
  }

  /**
   * Does the work when all that came before it has ended, however it ended. `prelude` comes at once; when it fails, the work
   * gives up its turn, and those behind wait on for those before.
   */
  async take<T>(key: string, work: () => Promise<T>, prelude?: () => Promise<void>): Promise<T> {
    const before = this.#last.get(key)
    const turn = (async () => {
      await prelude?.()
      await before
      return await work()
    })()
    const ended = Promise.allSettled([turn, before])
    this.#last.set(key, ended)
    try {
      return await turn
    } finally {
      void this.#forget(key, ended)
    }
  }

  async #forget(key: string, ended: Promise<unknown>): Promise<void> {
    await ended
    if (this.#last.get(key) === ended) this.#last.delete(key)
  }
}
