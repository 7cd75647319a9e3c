/**
 * `npm run prove -- checker`: the checker of histories, by which the other proofs judge, finds every bug that a product like this
 * one has had, wherever it did harm, and has no complaint about a product that is right.
 */
import { seeded } from '../test/support/chaos.ts'
import { bugs } from './checker/bugs.ts'
import type { Bug } from './checker/bugs.ts'
import { live } from './checker/product.ts'
import { check } from './history/check.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

const STEPS = 400
const MOST_OVER_MS = 0
const SHOWN = 5

/** The checker is neither blind nor a liar. */
export const checker: Proof = {
  summary: 'the checker of histories finds each seeded bug, and nothing where there is none',
  prove: (options) => Promise.resolve(prove(options)),
}

function prove({ seed, quick, say, stop }: ProofOptions): ProofResult {
  const seeds = Array.from({ length: quick ? 20 : 500 }, (_, index) => seed * 100_000 + index)
  const falseAlarms = seeds.filter((each) => {
    const kinds = kindsOf(each)
    if (kinds.size > 0) say(`  seed ${each}: a history that may be was called ${[...kinds].join(', ')}`)
    return kinds.size > 0
  })
  let missed = 0
  let harmful = 0
  const found: Record<string, number> = {}
  for (const bug of Object.keys(bugs) as Bug[]) {
    if (stop.aborted) break
    const outcome = hunt(bug, seeds, say)
    missed += outcome.missed + (outcome.harmful === 0 ? 1 : 0)
    harmful += outcome.harmful
    if (outcome.harmful > 0 && outcome.missed === 0) found[bug] = outcome.harmful
    say(`  ${bug}: found in ${outcome.harmful - outcome.missed} of ${outcome.harmful} histories that it harmed`)
  }
  const count = Object.keys(bugs).length
  return {
    runs: seeds.length + harmful,
    violations: missed + falseAlarms.length,
    figures: {
      bugs: count,
      bugsFound: Object.keys(found).length,
      correctHistories: seeds.length,
      falseAlarms: falseAlarms.length,
      harmedHistories: harmful,
      missed,
    },
  }
}

/** Looks for a bug in every history that it harmed. */
function hunt(bug: Bug, seeds: readonly number[], say: (line: string) => void): { harmful: number; missed: number } {
  let harmful = 0
  let missed = 0
  for (const seed of seeds) {
    const { history, remains, harm } = live({ random: seeded(seed), steps: STEPS, bug })
    if (harm === 0) continue
    harmful += 1
    const { violations } = check(history, remains, { mostOverMs: MOST_OVER_MS })
    const expected: readonly string[] = bugs[bug]
    if (violations.some(({ kind }) => expected.includes(kind))) continue
    missed += 1
    if (missed <= SHOWN) say(`  seed ${seed}: ${bug} was not found`)
  }
  if (harmful === 0) say(`  ${bug} did no harm with any seed: nothing was shown`)
  return { harmful, missed }
}

function kindsOf(seed: number): Set<string> {
  const { history, remains } = live({ random: seeded(seed), steps: STEPS })
  return new Set(check(history, remains, { mostOverMs: MOST_OVER_MS }).violations.map(({ kind }) => kind))
}
