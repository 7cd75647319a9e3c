/** Claims of runs on their instances, as they stand in the members' subscriptions: who has one, until when, and whom it shuts out. */
import { DEFAULT_CLAIM_TTL_MS } from '../../broker.ts'
import type { CommitOptions, GroupInstance, RunPosition } from '../../broker.ts'
import { claimHeld, claimLost } from './group-errors.ts'
import type { StoredClaim } from './subscription.ts'

/** A claim that begins, or begins anew, now, where `before` is what stood there. */
export function claimOf(
  { runId, claimTtlMs = DEFAULT_CLAIM_TTL_MS }: Pick<RunPosition, 'runId' | 'claimTtlMs'>,
  nowMs: number,
  before: StoredClaim | null,
): StoredClaim {
  const claim = { runId, ttlMs: claimTtlMs, until: nowMs + claimTtlMs }
  // Where it is not known who held it, it may have been this run.
  const isAfterLapse = before?.runId === runId ? before.isAfterLapse === true : before !== null && before.runId !== null
  return isAfterLapse ? { ...claim, isAfterLapse } : claim
}

/** Whether less than this part of a claim's life is left. */
export function isAging(claim: StoredClaim | null, part: number, nowMs: number): boolean {
  return claim !== null && claim.until - nowMs < claim.ttlMs * part
}

/** A run, or a caller without one, that begins: what the instance's last run polled and did not commit comes again. */
export function isTaking(claim: StoredClaim | null, run: RunPosition | undefined): boolean {
  if (run === undefined) return claim !== null
  if (claim === null) return true
  return claim.runId !== run.runId
}

/** @throws {BrokerError} CLAIM_HELD where a live claim shuts the caller out */
export function refuseHeld(
  group: GroupInstance,
  claim: StoredClaim | null,
  run: Pick<RunPosition, 'runId'> | undefined,
  nowMs: number,
): void {
  if (claim === null || claim.until <= nowMs) return
  if (run !== undefined && claim.runId === run.runId) return
  // Nobody knows who holds it, but a run does: who polls without runs has none.
  if (run === undefined && claim.runId === null) return
  throw claimHeld(group, claim.until - nowMs)
}

/** @throws {BrokerError} CLAIM_LOST where the committing run does not hold the claim, or another does */
export function requireClaim(
  group: GroupInstance,
  claim: StoredClaim | null,
  { runId }: CommitOptions,
  nowMs: number,
): void {
  const isLive = claim !== null && claim.until > nowMs
  if (runId === undefined) {
    if (isLive && claim.runId !== null) throw claimLost(group, undefined)
    return
  }
  if (!isLive || claim.runId !== runId) throw claimLost(group, runId)
}
