/** Judges how much came again where partitions went from one process to another. */
import type { Place } from '../history/history.ts'
import { MAX_POLL_RECORDS, MOST_IN_HAND } from './instance.ts'
import type { Entry } from './journal.ts'

/** What came again to one process. */
export interface CameAgain {
  /** The process. */
  readonly by: string
  /** Partitions that it took over from others. */
  readonly moves: number
  /** Records of them that were handled again since, by whichever process. */
  readonly records: number
}

interface Holder {
  readonly by: string
  readonly generationId: number
}

/** Counts for each process that took partitions over what was handled again of them while it had them. */
export function cameAgain(entries: readonly Entry[]): CameAgain[] {
  const holders = new Map<Place, Holder>()
  const handled = new Set<string>()
  const found = new Map<string, { by: string; moves: number; records: number }>()
  const of = (by: string): { by: string; moves: number; records: number } => {
    const counted = found.get(by) ?? { by, moves: 0, records: 0 }
    found.set(by, counted)
    return counted
  }
  for (const { by, event } of entries) {
    if (event.type === 'polled') {
      for (const place of event.assignment ?? []) {
        const before = holders.get(place)
        // An answer that was long on its way says what was.
        if (before !== undefined && (before.by === by || before.generationId > event.generationId)) continue
        if (before !== undefined) of(by).moves += 1
        holders.set(place, { by, generationId: event.generationId })
      }
    }
    if (event.type !== 'handled') continue
    const { place, offset } = event
    if (handled.has(`${place}@${offset}`)) of(holders.get(place)?.by ?? by).records += 1
    handled.add(`${place}@${offset}`)
  }
  return [...found.values()]
}

/** What came again in all, and what of it was too much. */
export interface JudgedAgain {
  readonly violations: readonly string[]
  readonly moves: number
  readonly cameAgain: number
  readonly mostAgainPerMove: number
}

/**
 * For each partition that moves, no more than a run has in hand may come again to whoever takes it; and over all of them no more
 * than a batch, which is what a run handles between two commits.
 */
export function judgeAgain(found: readonly CameAgain[]): JudgedAgain {
  const moves = found.reduce((sum, one) => sum + one.moves, 0)
  const records = found.reduce((sum, one) => sum + one.records, 0)
  const violations = found
    .filter((one) => one.records > one.moves * MOST_IN_HAND)
    .map((one) => `${one.records} records came again when ${one.by} took ${one.moves} partitions over`)
  if (records > moves * MAX_POLL_RECORDS)
    violations.push(`${records} records came again when ${moves} partitions moved`)
  const most = Math.max(0, ...found.map((one) => one.records / Math.max(1, one.moves)))
  return { violations, moves, cameAgain: records, mostAgainPerMove: Math.ceil(most) }
}
