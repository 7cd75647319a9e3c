/** One attempt at something foreign, ended by its caller's signal or by time, whatever it does then. */
import type { Clock } from './clock.ts'
import { abortError } from './errors.ts'

/** What may end an attempt before its answer does. */
export interface TimeLimit {
  readonly signal?: AbortSignal | undefined
  readonly timeoutMs: number
  /** Makes the error of an attempt whose time is over. */
  readonly timedOut: () => Error
}

/**
 * Runs one attempt. Settles at once when its signal or its time ends; the attempt's own signal is aborted with it.
 * @throws the signal's reason · what `timedOut` makes · what `work` rejects with
 */
export async function withinTime<T>(
  { signal, timeoutMs, timedOut }: TimeLimit,
  clock: Clock,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (signal?.aborted === true) throw abortError(signal)
  const controller = new AbortController()
  const { promise: ended, reject } = Promise.withResolvers<never>()
  const end = (reason: Error): void => {
    reject(reason)
    controller.abort(reason)
  }
  const onAbort = (): void => {
    if (signal !== undefined) end(abortError(signal))
  }
  const cancelTimer = clock.after(timeoutMs, () => end(timedOut()))
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work(controller.signal), ended])
  } finally {
    cancelTimer()
    signal?.removeEventListener('abort', onAbort)
  }
}
