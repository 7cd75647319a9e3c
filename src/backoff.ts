/** How long to wait before trying again: exponential with full jitter (a uniformly random part of a growing ceiling). */
import type { Random } from './random.ts'

/** Waits between tries. */
export interface BackoffOptions {
  /** Ceiling of the first wait, milliseconds. @default 100, legal 0 to 86400000 */
  readonly initialMs?: number
  /** The ceiling never grows beyond this, milliseconds. @default 1000, legal `initialMs` to 86400000 */
  readonly maxMs?: number
  /** How much the ceiling grows each time. @default 2, legal 1 to 100 */
  readonly factor?: number
}

/** Waits with nothing left open. */
export type Backoff = Required<BackoffOptions>

/**
 * The longest wait that may be asked for, milliseconds: a day. A deadline must be a date that a commit can remember, whatever
 * the other side asks for.
 */
export const MAX_WAIT_MS = 86_400_000

/** Waits of 100 ms growing to 1 s. */
export const backoffDefaults: Backoff = Object.freeze({ initialMs: 100, maxMs: 1_000, factor: 2 })

/** The longest wait before retry number `retry` (1 is the first), milliseconds. Never falls as `retry` grows. */
export function backoffCeilingMs(backoff: Backoff, retry: number): number {
  // A large power overflows to Infinity, which is fine for every first wait but 0.
  if (backoff.initialMs === 0) return 0
  return Math.min(backoff.maxMs, backoff.initialMs * backoff.factor ** (retry - 1))
}

/**
 * The wait before retry number `retry` (1 is the first), milliseconds: 0 up to the ceiling, and never less than
 * `atLeastMs`, which is what the other side asked for.
 */
export function backoffMs(backoff: Backoff, retry: number, random: Random, atLeastMs = 0): number {
  return Math.max(atLeastMs, Math.floor(random() * backoffCeilingMs(backoff, retry)))
}
