/**
 * `npm run prove -- consumer`: one scenario for each promise of the consumer, with as many tries of its own as the promise asks
 * for. `run-sim` lets everything fail at once; here each thing fails where it hurts, and is counted.
 */
import { budgets } from './consumer/budgets.ts'
import { cutAnswers } from './consumer/cut-answers.ts'
import { deadlines } from './consumer/deadlines.ts'
import { deaths } from './consumer/deaths.ts'
import { failurePlans } from './consumer/failure-plans.ts'
import { isolates } from './consumer/isolates.ts'
import { overlaps } from './consumer/overlaps.ts'
import { poison } from './consumer/poison.ts'
import { repeats } from './consumer/repeats.ts'
import type { Scenario } from './consumer/scenario.ts'
import { storeOutages } from './consumer/store-outages.ts'
import { ticks } from './consumer/ticks.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

const scenarios: Readonly<Record<string, Scenario>> = {
  deaths,
  'cut answers': cutAnswers,
  overlaps,
  poison,
  'failure plans': failurePlans,
  'store outages': storeOutages,
  deadlines,
  budgets,
  repeats,
  ticks,
  isolates,
}

/** Where so many plays did not bring what is needed, as many more may. */
const MOST_TIMES_THE_PLAYS = 3
const SHOWN_PLAYS = 5
const SHOWN = 4

/** The consumer, promise by promise. */
export const consumer: Proof = {
  summary:
    'one scenario for each promise of the consumer: killed at each step, overlapping, poisoned, out of time, ...',
  prove,
}

async function prove(options: ProofOptions): Promise<ProofResult> {
  const figures: Record<string, unknown> = {}
  let runs = 0
  let violations = 0
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (options.stop.aborted) break
    const { plays, failed, missing, counts } = await playAll(name, scenario, options)
    runs += plays
    violations += failed + missing
    figures[name] = { plays, ...counts }
    options.say(`  ${name}: ${plays} plays${failed + missing === 0 ? '' : `, ${failed} of them failed`}`)
  }
  return { runs, violations, figures }
}

interface All {
  readonly plays: number
  /** Plays with a violation. */
  readonly failed: number
  /** Things that did not happen, or not often enough. */
  readonly missing: number
  readonly counts: Readonly<Record<string, number>>
}

async function playAll(name: string, scenario: Scenario, { seed, quick, say, stop }: ProofOptions): Promise<All> {
  const wanted = quick ? scenario.plays.quick : scenario.plays.full
  const counts: Record<string, number> = {}
  const lacking = (): string[] => shortOf(scenario.needs, counts, quick)
  let failed = 0
  let plays = 0
  const mayPlay = (): boolean => plays < wanted || (plays < wanted * MOST_TIMES_THE_PLAYS && lacking().length > 0)
  for (; mayPlay() && !stop.aborted; plays++) {
    const played = await scenario.play(seed * 1_000_000 + plays, plays)
    for (const [what, times] of Object.entries(played.counts)) counts[what] = (counts[what] ?? 0) + times
    if (played.violations.length === 0) continue
    failed += 1
    if (failed <= SHOWN_PLAYS) {
      say(`  ${name}, play ${plays} (the same seed replays it):`)
      for (const line of played.violations.slice(0, SHOWN)) say(`    ${line}`)
    }
  }
  const missing = lacking()
  for (const what of missing)
    say(`  ${name}: too little was shown: ${what} ${counts[what] ?? 0} times in ${plays} plays`)
  return { plays, failed, missing: missing.length, counts }
}

/** What did not happen as often as it must have. */
export function shortOf(
  needs: Readonly<Record<string, number>>,
  counts: Readonly<Record<string, number>>,
  quick: boolean,
): string[] {
  return Object.entries(needs).flatMap(([what, times]) => ((counts[what] ?? 0) < (quick ? 1 : times) ? [what] : []))
}
