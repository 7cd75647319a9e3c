/**
 * Which records go into one batch: what can be begun now, of one lane and one route, in the order of their offsets. Records
 * that were tried before, in this run or an earlier one, are no part of any: each is known to fail, and is tried alone.
 */
import type { ConsumerRecord } from '../record.ts'
import type { Found } from './handling.ts'
import { chainKeyOf } from './lane.ts'
import type { Entry, Lane } from './lane.ts'
import type { Plan } from './plan.ts'

/** What taking a batch needs of its run. */
export interface BatchSource {
  readonly find: (record: ConsumerRecord) => Found
  /** Takes the first record that waits away: an earlier run has settled it. */
  readonly passOver: (record: ConsumerRecord) => void
  /** Whether a record has to wait for its own reasons. */
  readonly isPaused: (record: ConsumerRecord) => boolean
}

/** Begins the records at the front of a lane, as far as they may be called together. The first of them may be. */
export function takeBatch(lane: Lane, plan: Plan, { find, passOver, isPaused }: BatchSource): readonly Entry[] {
  const entries: Entry[] = []
  const keys = new Set<string>()
  const most = mostTogether(plan)
  for (let record = lane.first; record !== undefined && entries.length < most; record = lane.first) {
    if (lane.isSettled(record.offset)) {
      passOver(record)
      continue
    }
    const found = (lane.found ??= find(record))
    if (found.plan !== plan || !mayJoin(lane, record, found) || isPaused(record)) break
    const key = chainKeyOf(record, plan)
    if (key !== undefined) {
      // One that waits for a record of this batch comes behind it; for any other it has to wait.
      if (!keys.has(key) && lane.firstOf(key) !== undefined) break
      keys.add(key)
    }
    entries.push(lane.begin(record, found, key))
  }
  return entries
}

/** Whether a record of a batch route was never tried. */
export function mayJoin(lane: Lane, record: ConsumerRecord, found: Found): boolean {
  if (lane.strikesOf(record.offset) > 0) return false
  const known = lane.known(record, found)
  return found.returned === undefined && (known === undefined || (known.attempts === 0 && known.dueAtMs === 0))
}

/** An entry whose turn has come, and those that waited for it and may be called together with it. */
export function entriesBehind(entry: Entry): readonly Entry[] {
  const { lane, found } = entry
  const chain = lane.chainOf(entry).slice(0, mostTogether(found.plan))
  const end = chain.findIndex((one) => one !== entry && !mayFollow(one, found.plan))
  return end === -1 ? chain : chain.slice(0, end)
}

function mayFollow({ lane, record, found, attempts, dueAtMs, isLeft }: Entry, plan: Plan): boolean {
  if (lane.strikesOf(record.offset) > 0) return false
  return found.plan === plan && found.returned === undefined && attempts === 0 && dueAtMs === 0 && !isLeft
}

/** While a route's breaker probes, no more records than would open it, with those that are being handled already. */
function mostTogether({ batch, breaker, records }: Plan): number {
  const most = (breaker?.mostAtOnce ?? Number.POSITIVE_INFINITY) - records
  return Math.max(1, Math.min(batch?.maxRecords ?? 1, most))
}
