/**
 * Idempotency in the memory of this process: gone with it, and unknown to every other process. For tests, trials and a
 * single process whose repeats come from itself.
 */
import { type Clock, systemClock } from '../clock.ts'
import { IdempotencyError } from '../errors.ts'
import { EXPIRED_LOCK_MS, MAX_OUTCOME_BYTES, type IdempotencyFeatures, type IdempotencyStore } from '../idempotency.ts'
import { type CallScope, checkBegin, checkCall, checkComplete, lockLost } from './call.ts'
import { type Entry, beginOn, canAbandon, completeOn } from './entry.ts'

/** Options of `memoryIdempotency`. */
export interface MemoryIdempotencyOptions {
  /** Most keys held. One more is refused, never exchanged for one that has not expired. @default 100000, legal 1 and more */
  readonly maxKeys?: number
  /** Decides when locks and outcomes expire; its monotonic time counts. @default the platform's */
  readonly clock?: Clock
}

const memoryIdempotencyDefaults = { maxKeys: 100_000, clock: systemClock } satisfies Required<MemoryIdempotencyOptions>

const features: IdempotencyFeatures = Object.freeze({
  linearizable: true,
  durable: false,
  maxOutcomeBytes: MAX_OUTCOME_BYTES,
})

/** Opens an empty store. */
export function memoryIdempotency(options: MemoryIdempotencyOptions = {}): IdempotencyStore {
  const maxKeys = options.maxKeys ?? memoryIdempotencyDefaults.maxKeys
  const clock = options.clock ?? memoryIdempotencyDefaults.clock
  const entries = new Map<string, Entry>()
  let isClosed = false
  const scope = (): CallScope => ({ store: 'memory', isClosed })

  function makeRoom(nowMs: number): void {
    if (entries.size < maxKeys) return
    for (const [key, { expiresAtMs, outcome }] of entries) {
      // The owner of an expired lock may still come.
      const forgetAtMs = outcome === null ? expiresAtMs + EXPIRED_LOCK_MS : expiresAtMs
      if (forgetAtMs <= nowMs) entries.delete(key)
    }
    if (entries.size < maxKeys) return
    throw new IdempotencyError(
      'IDEMPOTENCY_STORE_UNAVAILABLE',
      `Cannot lock another key in the idempotency store memory: it holds ${maxKeys} already. Raise maxKeys or keep outcomes for less long.`,
      { limit: 'maxKeys' },
    )
  }

  return {
    features,
    async begin(key, { owner, lockMs }, call) {
      checkBegin(scope(), key, { owner, lockMs }, call)
      const nowMs = Math.ceil(clock.monotonic())
      const result = beginOn(entries.get(key), owner, nowMs)
      if (result.kind === 'done') return { kind: 'done', outcome: Uint8Array.from(result.outcome) }
      if (result.kind === 'started') {
        if (!entries.has(key)) makeRoom(nowMs)
        entries.set(key, { owner, expiresAtMs: nowMs + lockMs, outcome: null })
      }
      return result
    },
    async complete(key, owner, outcome, { keepMs }, call) {
      checkComplete(scope(), key, owner, outcome, { keepMs }, call)
      const what = completeOn(entries.get(key), owner)
      if (what === 'lost') throw lockLost('memory')
      if (what === 'written') return
      entries.set(key, { owner, expiresAtMs: Math.ceil(clock.monotonic()) + keepMs, outcome: Uint8Array.from(outcome) })
    },
    async abandon(key, owner, call) {
      checkCall(scope(), key, owner, call)
      if (canAbandon(entries.get(key), owner)) entries.delete(key)
    },
    async close() {
      isClosed = true
      entries.clear()
    },
    async [Symbol.asyncDispose]() {
      await this.close()
    },
  }
}
