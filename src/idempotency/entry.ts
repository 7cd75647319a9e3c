/** What stands under a key, and what the calls of the port make of it: the rules of the port, once for every store that reads and then writes. */
import type { BeginResult } from '../idempotency.ts'

/** A lock (`outcome: null`) or an outcome, until it expires. */
export interface Entry {
  readonly owner: string
  readonly expiresAtMs: number
  readonly outcome: Uint8Array | null
}

const started: BeginResult = { kind: 'started' }

/** What a begin of `owner` gives. After `started` the caller writes the new lock. */
export function beginOn(entry: Entry | undefined, owner: string, nowMs: number): BeginResult {
  if (entry === undefined || entry.expiresAtMs <= nowMs) return started
  if (entry.outcome !== null) return { kind: 'done', outcome: entry.outcome }
  if (entry.owner === owner) return started
  return { kind: 'in-progress', retryAfterMs: entry.expiresAtMs - nowMs }
}

/** What a complete of `owner` does: write the outcome, nothing because it is written, or fail. */
export function completeOn(entry: Entry | undefined, owner: string): 'write' | 'written' | 'lost' {
  if (entry?.owner !== owner) return 'lost'
  return entry.outcome === null ? 'write' : 'written'
}

/** Whether an abandon of `owner` frees the key. */
export function canAbandon(entry: Entry | undefined, owner: string): boolean {
  return entry?.owner === owner && entry.outcome === null
}
