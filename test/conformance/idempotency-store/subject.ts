/** What the cases of the suite are about: one opened store, and keys. */
import type { IdempotencyStore } from '../../../src/idempotency.ts'

/** A store for one test. It may hold keys of others. */
export interface OpenedIdempotencyStore {
  readonly store: IdempotencyStore
  /** Another store over the same system, as another process would open it; undefined where there is only one. */
  readonly other: (() => IdempotencyStore) | undefined
  /** Lets so many milliseconds pass, for the clock by which locks expire. */
  readonly advance: (ms: number) => Promise<void>
  readonly close: () => Promise<void>
}

/** What the cases get: the store of the running test. */
export type Subject = () => OpenedIdempotencyStore

let keys = 0
/** A key that no other test uses. */
export function freshKey(): string {
  return `shop/orders/0/${(keys += 1)}`
}
