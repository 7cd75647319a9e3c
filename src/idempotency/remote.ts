/** What stores over a network share: a call's time limit, and a name for a key that is too long for the system. */
import type { Call } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { digestOf } from '../digest.ts'
import { IdempotencyError } from '../errors.ts'
import { bytesOf } from '../record.ts'
import { withinTime } from '../time-limit.ts'

/** Longest time of one call that names none, milliseconds. */
export const DEFAULT_TIMEOUT_MS = 5_000

/** Runs one attempt within its call's signal and time. @throws the signal's reason · {IdempotencyError} TIMEOUT */
export async function attempt<T>(
  { store, clock, timeoutMs }: { readonly store: string; readonly clock: Clock; readonly timeoutMs: number },
  call: Call | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ms = call?.timeoutMs ?? timeoutMs
  const timedOut = (): Error =>
    new IdempotencyError(
      'TIMEOUT',
      `Cannot use the idempotency store ${store}: no answer within ${ms} ms. The outcome is unknown.`,
    )
  return await withinTime({ signal: call?.signal, timeoutMs: ms, timedOut }, clock, work)
}

/** The key where the system takes it, else a digest of it. */
export async function nameOf(key: string, maxBytes: number): Promise<string> {
  // A key of ours that looked like a digest would have to be one: nobody finds such a text on purpose.
  return bytesOf(key).length <= maxBytes ? key : `sha256:${await digestOf(key)}`
}
