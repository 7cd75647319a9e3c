/**
 * PORT: what is remembered of work that must not be done twice, and what a driver in `idempotency/` must keep.
 *
 * A key is free, or it is locked by an owner until a moment, or it has an outcome until a moment. `begin` takes a free key,
 * `complete` puts an outcome in the place of the owner's lock, `abandon` frees it. What has expired is free.
 *
 * To implementers:
 * - *Atomicity.* Each call looks and writes in one step of the system behind it (one conditional write, one transaction).
 *   Whatever runs at once, in this process or elsewhere: of the begins of a free key exactly one is `started`. A system
 *   that cannot promise this says `linearizable: false`.
 * - *Clocks.* A lock expires by the store's own clock where it has one, else by the wall clock of the caller, which
 *   arrives as an option. Then callers whose clocks differ see a lock expire earlier or later by as much. `complete` and
 *   `abandon` ask for the owner alone and never for the time: a lock that expired and was not taken over is still its
 *   owner's. A store may forget an expired lock after an hour, not before.
 * - *At once.* Methods may be called concurrently, for one key too. One attempt per call; failures are classified by an
 *   `IdempotencyError` (code and `retriable`). Nothing given is kept or changed after the call settled.
 * - *Repeats.* Every call may be repeated by its owner when its answer was lost, and then gives what the first one gave.
 * - Keys and outcomes may hold what users sent: neither may stand in a message.
 *
 * After `close()` every call rejects with CLOSED.
 */
import type { Call } from './broker.ts'

/** Names one piece of work: 1 to 4,096 UTF-8 bytes. Unequal texts are unequal keys. */
export type IdempotencyKey = string

/** What a lock is taken with. */
export interface BeginOptions {
  /** Names one attempt, and no other one: 1 to 128 UTF-8 bytes. */
  readonly owner: string
  /** How long the lock is held unless the owner ends it, milliseconds: a whole number from 1 to 86,400,000. */
  readonly lockMs: number
}

/** What a begin found. */
export type BeginResult =
  /** The lock is the owner's. */
  | { readonly kind: 'started' }
  /** Another owner's lock is live, and expires after so many milliseconds (1 or more) unless it is ended before. */
  | { readonly kind: 'in-progress'; readonly retryAfterMs: number }
  /** The work was done, with this outcome. */
  | { readonly kind: 'done'; readonly outcome: Uint8Array }

/** How an outcome is kept. */
export interface CompleteOptions {
  /** How long, milliseconds: a whole number from 1 to 31,622,400,000 (366 days). After that the key is free. */
  readonly keepMs: number
}

/** What a store can do. The conformance suite reads this; it has no options of its own. */
export interface IdempotencyFeatures {
  /**
   * Of the begins of a free key exactly one is `started`, and a complete never goes over another owner's lock. Without it
   * two begins that come close together may both start.
   */
  readonly linearizable: boolean
  /** Locks and outcomes survive the process. */
  readonly durable: boolean
  /** Longest outcome, bytes. */
  readonly maxOutcomeBytes: number
}

/** Where it is remembered. */
export interface IdempotencyStore extends AsyncDisposable {
  readonly features: IdempotencyFeatures

  /**
   * Takes the lock on a key, unless another owner's lock is live or an outcome is stored. An expired lock is taken over.
   * A begin of the owner that holds the lock is `started` again, and the lock counts anew from now.
   * Rejects with INVALID_REQUEST, IDEMPOTENCY_STORE_UNAVAILABLE, TIMEOUT (the lock may be taken), CLOSED.
   */
  begin(key: IdempotencyKey, options: BeginOptions, call?: Call): Promise<BeginResult>

  /**
   * Stores the outcome if the lock is still the owner's. Resolves only when it is durable, as far as the store promises
   * that. A repeated complete of the owner changes nothing: the first outcome is kept.
   * Rejects with LOCK_LOST when another owner has the key or nobody does, LIMIT_EXCEEDED (`outcome-bytes`; never trims),
   * INVALID_REQUEST, IDEMPOTENCY_STORE_UNAVAILABLE, TIMEOUT (the outcome may be stored), CLOSED.
   */
  complete(
    key: IdempotencyKey,
    owner: string,
    outcome: Uint8Array,
    options: CompleteOptions,
    call?: Call,
  ): Promise<void>

  /**
   * Frees the key if the lock is the owner's, so that the next begin need not wait; else changes nothing.
   * Rejects with INVALID_REQUEST, IDEMPOTENCY_STORE_UNAVAILABLE, TIMEOUT, CLOSED.
   */
  abandon(key: IdempotencyKey, owner: string, call?: Call): Promise<void>

  /** Idempotent. Locks stay as they are. */
  close(): Promise<void>
}

/** Opens a store from the parts of its URL. One row of a runtime's driver table. */
export type IdempotencyDriver = (url: URL) => IdempotencyStore | Promise<IdempotencyStore>

/** Most UTF-8 bytes of a key. A driver whose system takes less stores a digest of what is longer. */
export const MAX_KEY_BYTES = 4_096
/** Most UTF-8 bytes of an owner. */
export const MAX_OWNER_BYTES = 128
/** Most bytes of an outcome: it is a note of what was done, not the thing itself. */
export const MAX_OUTCOME_BYTES = 65_536
/** The longest lock, milliseconds: a day. */
export const MAX_LOCK_MS = 86_400_000
/** The longest time for which an outcome is kept, milliseconds: 366 days. */
export const MAX_KEEP_MS = 31_622_400_000
/** How long a store remembers an expired lock at least, milliseconds: an hour. */
export const EXPIRED_LOCK_MS = 3_600_000
