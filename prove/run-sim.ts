/**
 * `npm run prove -- run-sim`: the consumer's runs in simulated worlds. Networks lose and delay, processes die between any two
 * steps, ticks come late, twice or not at all, instances come and go, clocks are set, handlers fail and hang, the dead-letter
 * store goes down. Each seed is one world; all that happens in it comes from the seed.
 */
import type { Proof, ProofOptions, ProofResult } from './proof.ts'
import { type Counts, simulate } from './run-sim/simulation.ts'

const SEEDS = 10_000
const QUICK_SEEDS = 150
const SHOWN_SEEDS = 10
const SHOWN = 4
/** Things that must have happened, or nothing was proved. */
const expected = [
  'ticks',
  'doubledTicks',
  'skippedTicks',
  'crashes',
  'freezes',
  'records',
  'handled',
  'letters',
  'handledAgain',
  'retried',
  'lostRequests',
  'lostAnswers',
  'lateRequests',
  'refusals',
  'batchesOfMany',
  'batchesThatFailed',
  'batchesWithNames',
  'batchesThatHung',
  'storeOutages',
  'clockSteps',
  'leaves',
  'rebalances',
  'ended claim-held',
  'ended claim-lost',
  'ended calls',
  'ended stopped',
  'failed commit ILLEGAL_GENERATION',
  'failed commit CLAIM_LOST',
]

/** Runs of the consumer while everything around them fails. */
export const runSim: Proof = {
  summary: 'simulated worlds in which all that a run depends on fails; nothing is lost, skipped or committed too far',
  prove,
}

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  const count = quick ? QUICK_SEEDS : SEEDS
  const counts: Counts = {}
  let violations = 0
  let failed = 0
  let runs = 0
  for (; runs < count && !stop.aborted; runs++) {
    const result = await simulate({ seed: seed * 1_000_000 + runs })
    for (const [name, number] of Object.entries(result.counts)) counts[name] = (counts[name] ?? 0) + number
    if (result.violations.length === 0) continue
    violations += result.violations.length
    failed += 1
    if (failed <= SHOWN_SEEDS) tell(say, runs, result.violations)
  }
  const missing = expected.filter((name) => (counts[name] ?? 0) === 0)
  for (const name of missing) say(`  nothing was shown: there was no ${name} in ${runs} worlds`)
  return { runs, violations: violations + missing.length, figures: { failedWorlds: failed, counts } }
}

function tell(say: (line: string) => void, world: number, violations: readonly string[]): void {
  say(`  world ${world} (the seed's ${world}. world; the same seed replays it):`)
  for (const line of violations.slice(0, SHOWN)) say(`    ${line}`)
  if (violations.length > SHOWN) say(`    and ${violations.length - SHOWN} more`)
}
