/**
 * Time as a value that is handed in, so that every wait and every deadline can be driven by a test.
 * `systemClock` is the one place below the runtimes that touches the platform's clock and timers.
 */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. May jump; used for timestamps that are stored or shown. */
  now(): number
  /** Monotonic milliseconds from an arbitrary start. Never jumps back; used for sessions, claims, deadlines and waits. */
  monotonic(): number
  /** Calls `fire` once, `delayMs` from now. The returned function cancels it and may be called at any time. */
  after(delayMs: number, fire: () => void): () => void
}

/** The platform's clock and timers. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, fire) {
    const timer = setTimeout(fire, delayMs)
    return () => clearTimeout(timer)
  },
}

/**
 * Resolves after `delayMs`.
 * @throws the signal's reason as soon as `signal` is aborted.
 */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error)
      return
    }
    const onAbort = (): void => {
      cancel()
      reject(signal?.reason as Error)
    }
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
