/**
 * PORT: where records go that could not be handled, and what a driver in `dead-letters/` must keep.
 *
 * To implementers: one attempt per call, failures classified by a `DeadLetterStoreError` (code and `retriable`). Methods may be
 * called concurrently. Nothing given is kept or changed after the call settled. What a store cannot do it refuses with
 * UNSUPPORTED and says so in `features`. After `close()` every call rejects with CLOSED.
 */
import type { Call } from './broker.ts'
import type { ConsumerRecord, TimestampMs } from './record.ts'

/**
 * Why a record became a dead letter.
 * - `invalid`: its value does not satisfy the topic's schema, or is not what the schema reads (JSON)
 * - `unroutable`: no route matches it
 * - `rejected`: its handler said it can never be handled
 * - `exhausted`: its handler failed on every attempt
 * - `timeout`: its handler did not settle in time on the last attempt
 * - `too-old`: it was older than the retry policy allows
 * - `oversize`: it is over a limit
 * - `crashed`: it ended the process more than once
 */
export type DeadLetterReason = (typeof deadLetterReasons)[number]

/** Every reason, in the order of the list above. */
export const deadLetterReasons = [
  'invalid',
  'unroutable',
  'rejected',
  'exhausted',
  'timeout',
  'too-old',
  'oversize',
  'crashed',
] as const

/** Whether `text` is a reason, for letters that come back from a store. */
export function isDeadLetterReason(text: string): text is DeadLetterReason {
  return (deadLetterReasons as readonly string[]).includes(text)
}

/** What failed, as data: at most 4 KiB of UTF-8 in all, secrets left out. */
export interface DeadLetterCause {
  /** The class of the error, or the type of what was thrown. */
  readonly name: string
  readonly message: string
  readonly code?: string
  readonly stack?: string
}

/**
 * Names a dead letter: `groupId/topic/partition/offset`, each part percent-encoded, and behind it `/redriveCount` where the
 * record had been redriven. One per group, record and redrive: a record that fails again after a redrive is another letter,
 * so whoever deletes the one that was redriven cannot take the new one away with it.
 */
export type DeadLetterId = string

/** A record that could not be handled, with why. */
export interface DeadLetter {
  readonly id: DeadLetterId
  /** The record as it was read, byte for byte, with its coordinates. */
  readonly record: ConsumerRecord
  readonly groupId: string
  readonly reason: DeadLetterReason
  readonly cause: DeadLetterCause
  /** How often a handler was called for it; 0 where none was. */
  readonly attempts: number
  readonly failedAtMs: TimestampMs
  /** The route that had the record, as the router names it, or null where none had. */
  readonly route: string | null
  /** What letters of one failure have in common, 16 hexadecimal digits: `deadLetterFingerprint`. */
  readonly fingerprint: string
  /** How often a redrive had handed the record to its group again before this failure; 0 where none had. */
  readonly redriveCount: number
}

/** Which letters to list. All conditions must hold. */
export interface DeadLetterQuery {
  readonly topic?: string
  readonly groupId?: string
  readonly reason?: DeadLetterReason
  readonly fingerprint?: string
  /** Letters whose record has exactly this key, as UTF-8 text. A key that is null or not UTF-8 matches none. */
  readonly key?: string
  /** Letters whose record has a header of this name with exactly this value, as UTF-8 text. */
  readonly header?: { readonly key: string; readonly value: string }
  /** Failed at or after. */
  readonly fromMs?: TimestampMs
  /** Failed before. */
  readonly untilMs?: TimestampMs
  /** The cursor of the former page. */
  readonly cursor?: string
  /** @default 100, legal 1 to 1000 */
  readonly limit?: number
}

/** One page of a list. */
export interface Page<T> {
  readonly items: readonly T[]
  /** Give it to the next call; absent on the last page. */
  readonly cursor?: string
}

/** What a store can do. The conformance suite reads this; it has no options of its own. */
export interface DeadLetterFeatures {
  /** A letter put twice is stored once. Without it a repeated put after a lost answer may store a second copy. */
  readonly deduplicates: boolean
  readonly list: boolean
  /**
   * How `list` orders letters: `put` the oldest put first, `record` by group, topic, partition and offset (each as the store
   * names it), `none` as it happens.
   */
  readonly listOrder: 'put' | 'record' | 'none'
  readonly get: boolean
  readonly delete: boolean
  /** Largest letter as the store counts it, bytes; null where there is no limit. */
  readonly maxLetterBytes: number | null
}

/** Where dead letters are kept. */
export interface DeadLetterStore extends AsyncDisposable {
  readonly features: DeadLetterFeatures

  /**
   * Stores a letter whole. Resolves only when it is durable, as far as the store promises it. A letter is not taken for one
   * of another record that was at the same place before its topic was made anew (their `timestampMs` differ): the store
   * keeps both, or rejects with DEAD_LETTER_ID_TAKEN.
   * Rejects with DEAD_LETTER_TOO_LARGE (never trims), DEAD_LETTER_STORE_UNAVAILABLE, TIMEOUT, NETWORK.
   */
  put(letter: DeadLetter, call?: Call): Promise<void>

  /**
   * Letters that match, in the order that `features.listOrder` names. A cursor stays good while letters are put and deleted.
   * A page may hold fewer letters than its limit, or none, and still have a cursor.
   */
  list(query?: DeadLetterQuery, call?: Call): Promise<Page<DeadLetter>>

  /** The letter, or undefined where there is none. */
  get(id: DeadLetterId, call?: Call): Promise<DeadLetter | undefined>

  /** Deletes the letter, of several records at one place that which `get` gives, and says whether there was one. */
  delete(id: DeadLetterId, call?: Call): Promise<boolean>

  /** Idempotent. */
  close(): Promise<void>
}

/** Opens a store from the parts of its URL. One row of a runtime's driver table. */
export type DeadLetterDriver = (url: URL) => DeadLetterStore | Promise<DeadLetterStore>

/** The id of the dead letter of a record in a group, after so many redrives. */
export function deadLetterId(
  groupId: string,
  record: { topic: string; partition: number; offset: number },
  redriveCount = 0,
): DeadLetterId {
  const parts = [groupId, record.topic, String(record.partition), String(record.offset)]
  return [...parts, ...(redriveCount === 0 ? [] : [String(redriveCount)])].map(encodeURIComponent).join('/')
}

/** Letters on one page, unless the query says otherwise. */
export const DEFAULT_LIST_LIMIT = 100
/** Most UTF-8 bytes of a cause's texts together. */
export const MAX_CAUSE_BYTES = 4096
