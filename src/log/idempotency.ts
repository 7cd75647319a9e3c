/** Idempotency keys: what a produce with a key answered, kept for a day beside the records it wrote. */
import type { ProduceResult } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import type { RecordMetadata } from '../record.ts'
import type { LogStore } from './store.ts'

const IDEMPOTENCY_KEY_TTL_MS = 86_400_000
const KEY = /^[\x21-\x7e]{1,255}$/

type StoredResult = RecordMetadata | { readonly code: ErrorCode; readonly message: string; readonly limit?: string }

/** The keys of produces, stored and in flight. */
export class IdempotencyKeys {
  readonly #store: LogStore
  readonly #inFlight = new Set<string>()

  constructor(store: LogStore) {
    this.#store = store
  }

  /**
   * Begins a produce with a key: returns the stored results of a former one, or undefined and the key is in flight.
   * @throws {BrokerError} IDEMPOTENCY_KEY_IN_FLIGHT, IDEMPOTENCY_KEY_REUSED, INVALID_REQUEST
   */
  begin(key: string, fingerprint: string, nowMs: number): ProduceResult[] | undefined {
    if (!KEY.test(key)) {
      throw new BrokerError('INVALID_REQUEST', 'Invalid idempotency key: it takes 1 to 255 visible ASCII characters.')
    }
    if (this.#inFlight.has(key)) {
      throw new BrokerError(
        'IDEMPOTENCY_KEY_IN_FLIGHT',
        'Cannot produce: an earlier produce with this idempotency key has not ended yet. Try again.',
      )
    }
    const stored = this.#store.idempotencyKey(key)
    if (stored === undefined || stored.expiresAtMs <= nowMs) {
      this.#inFlight.add(key)
      return undefined
    }
    if (stored.fingerprint !== fingerprint) {
      throw new BrokerError(
        'IDEMPOTENCY_KEY_REUSED',
        'Cannot produce: this idempotency key was used for other records. Use a new one.',
      )
    }
    return (JSON.parse(stored.results) as StoredResult[]).map((result) =>
      'code' in result ? new BrokerError(result.code, result.message, result) : result,
    )
  }

  /** Remembers the results inside the transaction that writes the records. */
  remember(store: LogStore, key: string, fingerprint: string, results: readonly ProduceResult[], nowMs: number): void {
    const stored: StoredResult[] = results.map((result) =>
      result instanceof BrokerError
        ? { code: result.code, message: result.message, ...(result.limit !== undefined && { limit: result.limit }) }
        : result,
    )
    store.putIdempotencyKey(key, {
      fingerprint,
      results: JSON.stringify(stored),
      expiresAtMs: nowMs + IDEMPOTENCY_KEY_TTL_MS,
    })
  }

  /** Ends a produce with a key, whatever became of it. */
  end(key: string): void {
    this.#inFlight.delete(key)
  }
}
