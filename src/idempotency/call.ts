/** What every store does with a call before its own work: refuse what is no key, owner, time or outcome. */
import type { Call } from '../broker.ts'
import { IdempotencyError, abortError } from '../errors.ts'
import {
  MAX_KEEP_MS,
  MAX_KEY_BYTES,
  MAX_LOCK_MS,
  MAX_OUTCOME_BYTES,
  MAX_OWNER_BYTES,
  type BeginOptions,
  type CompleteOptions,
} from '../idempotency.ts'
import { bytesOf } from '../record.ts'

/** What all calls of a store are checked against. */
export interface CallScope {
  /** The store's name, for messages. */
  readonly store: string
  readonly isClosed: boolean
}

/** @throws {IdempotencyError} CLOSED, INVALID_REQUEST · the reason of an aborted signal */
export function checkBegin(scope: CallScope, key: string, { owner, lockMs }: BeginOptions, call?: Call): void {
  checkCall(scope, key, owner, call)
  checkWhole(scope, 'lockMs', lockMs, MAX_LOCK_MS)
}

/** @throws {IdempotencyError} CLOSED, INVALID_REQUEST, LIMIT_EXCEEDED · the reason of an aborted signal */
export function checkComplete(
  scope: CallScope,
  key: string,
  owner: string,
  outcome: Uint8Array,
  { keepMs }: CompleteOptions,
  call?: Call,
): void {
  checkCall(scope, key, owner, call)
  checkWhole(scope, 'keepMs', keepMs, MAX_KEEP_MS)
  if (outcome.length <= MAX_OUTCOME_BYTES) return
  throw new IdempotencyError(
    'LIMIT_EXCEEDED',
    `Cannot store an outcome in the idempotency store ${scope.store}: it has ${outcome.length} bytes and ${MAX_OUTCOME_BYTES} are allowed. Store a reference instead.`,
    { limit: 'outcome-bytes' },
  )
}

/** @throws {IdempotencyError} CLOSED, INVALID_REQUEST · the reason of an aborted signal */
export function checkCall({ store, isClosed }: CallScope, key: string, owner: string, call: Call | undefined): void {
  if (isClosed) throw new IdempotencyError('CLOSED', `Cannot use the idempotency store ${store}: it is closed.`)
  if (call?.signal?.aborted === true) throw abortError(call.signal)
  checkText(store, 'key', key, MAX_KEY_BYTES)
  checkText(store, 'owner', owner, MAX_OWNER_BYTES)
}

/** The error of a complete whose lock is another owner's, or nobody's. */
export function lockLost(store: string): IdempotencyError {
  return new IdempotencyError(
    'LOCK_LOST',
    `Cannot store an outcome in the idempotency store ${store}: the lock lapsed and is no longer this owner's. Look again, and take a longer lock.`,
  )
}

function checkText(store: string, what: string, text: unknown, maxBytes: number): void {
  if (typeof text === 'string' && text !== '' && text.isWellFormed() && bytesOf(text).length <= maxBytes) return
  throw new IdempotencyError(
    'INVALID_REQUEST',
    `Cannot use the idempotency store ${store}: the ${what} must be a well-formed text of 1 to ${maxBytes} UTF-8 bytes.`,
    { limit: `${what}-bytes` },
  )
}

function checkWhole({ store }: CallScope, what: string, value: number, most: number): void {
  if (Number.isSafeInteger(value) && value >= 1 && value <= most) return
  throw new IdempotencyError(
    'INVALID_REQUEST',
    `Cannot use the idempotency store ${store}: ${what} is ${String(value)}. Give a whole number from 1 to ${most}.`,
  )
}
