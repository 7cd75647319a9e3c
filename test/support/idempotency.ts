/** Stores that fail where a test says so, and attempts that show only what matters. */
import type { OnceAttempt } from '../../src/consumer/effectively-once.ts'
import type { IdempotencyStore } from '../../src/idempotency.ts'
import type { ConsumerRecord } from '../../src/record.ts'

/** A method of a store that can be made to fail. */
export type StoreMethod = 'begin' | 'complete' | 'abandon'

/**
 * The store, with `before` and `after` called around each call: what either throws or rejects with is what the caller gets.
 * What `after` throws is an answer that got lost.
 */
export function interceptedStore(
  store: IdempotencyStore,
  { before = async () => {}, after = async () => {} }: Partial<Record<'before' | 'after', Intercept>>,
): IdempotencyStore {
  const around = async <T>(method: StoreMethod, call: () => Promise<T>): Promise<T> => {
    await before(method)
    const result = await call()
    await after(method)
    return result
  }
  return {
    features: store.features,
    begin: (...given) => around('begin', () => store.begin(...given)),
    complete: (...given) => around('complete', () => store.complete(...given)),
    abandon: (...given) => around('abandon', () => store.abandon(...given)),
    close: () => store.close(),
    [Symbol.asyncDispose]: () => store.close(),
  }
}

type Intercept = (method: StoreMethod) => Promise<void>

/** The record at an offset of `orders[0]`. */
export function recordAt(offset: number): ConsumerRecord {
  return { topic: 'orders', partition: 0, offset, timestampMs: 0, key: null, value: null, headers: [] }
}

/** An attempt at the record at offset 0, of 30 seconds, that nobody gives up. */
export function attemptWith(call: () => unknown, parts: Partial<OnceAttempt> = {}): OnceAttempt {
  const signal = new AbortController().signal
  return { groupId: 'shop', record: recordAt(0), timeoutMs: 30_000, signal, call, ...parts }
}
