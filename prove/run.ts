/**
 * `npm run prove -- NAME [--seed N] [--quick]`: tries to break a promise, and says whether it held. The last line of each proof
 * is one JSON object; without a name all of them run, and a table ends the output. Exit status 0 when everything holds.
 */
import { parseArgs } from 'node:util'

import { stopSignal } from '../src/runtimes/stop-signal.ts'
import { batches } from './batches.ts'
import { checker } from './checker.ts'
import { consumer } from './consumer.ts'
import { kafkaFaults } from './kafka-faults.ts'
import { logFsyncError } from './log-fsync-error.ts'
import { logKill } from './log-kill.ts'
import { logPowerLoss } from './log-power-loss.ts'
import { model } from './model.ts'
import { rebalance } from './rebalance.ts'
import { redriveKill } from './redrive-kill.ts'
import { runSim } from './run-sim.ts'
import type { Proof, ProofResult } from './proof.ts'

const proofs: Readonly<Record<string, Proof>> = {
  checker,
  'run-sim': runSim,
  consumer,
  'log-kill': logKill,
  'log-fsync-error': logFsyncError,
  'log-power-loss': logPowerLoss,
  batches,
  model,
  'redrive-kill': redriveKill,
  rebalance,
  'kafka-faults': kafkaFaults,
}

const help = `Usage: npm run prove [-- NAME ... --seed N --quick]

Tries to break what Kedge promises. Exit status 0 when it holds; the last line of a proof is one JSON object:
{"proof": NAME, "seed": N, "runs": .., "violations": 0, ...}. Without a name all proofs run.

${Object.entries(proofs)
  .map(([name, { summary }]) => `  ${name.padEnd(16)} ${summary}`)
  .join('\n')}

  --seed N       where chance begins [1]
  --quick        shorter, for CI
`

const stop = stopSignal()
try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      seed: { type: 'string', default: '1' },
      quick: { type: 'boolean', default: false },
    },
  })
  if (values.help) process.stdout.write(help)
  else process.exitCode = await run(positionals, seedOf(values.seed), values.quick)
} catch (failure) {
  console.error(failure instanceof Error ? failure.message : failure)
  process.exitCode = 2
}
// The signal's handlers and timers would keep the process.
process.exit()

async function run(names: readonly string[], seed: number, quick: boolean): Promise<number> {
  const unknown = names.filter((name) => !Object.hasOwn(proofs, name))
  if (unknown.length > 0) {
    throw new Error(`There is no proof ${unknown.join(', ')}. Choose of ${Object.keys(proofs).join(', ')}.`)
  }
  const rows: { readonly proof: string; readonly seed: number; readonly runs: number; readonly violations: number }[] =
    []
  for (const [name, { prove }] of Object.entries(proofs)) {
    if (names.length > 0 && !names.includes(name)) continue
    console.log(`proof ${name}, seed ${seed}${quick ? ', quick' : ''}`)
    const { runs, violations, figures } = await outcomeOf(prove, seed, quick)
    rows.push({ proof: name, seed, runs, violations })
    console.log(JSON.stringify({ proof: name, seed, runs, violations, ...figures }))
    if (stop.aborted) return 130
  }
  if (names.length === 0) console.table(rows)
  return rows.every(({ runs, violations }) => runs > 0 && violations === 0) ? 0 : 1
}

/** A proof that cannot be made (a program is missing, a gateway does not start) is one that does not hold; the others go on. */
async function outcomeOf(prove: Proof['prove'], seed: number, quick: boolean): Promise<ProofResult> {
  try {
    return await prove({ seed, quick, stop, say: (line) => console.log(line) })
  } catch (failure) {
    const error = failure instanceof Error ? failure.message : String(failure)
    console.error(error)
    return { runs: 0, violations: 1, figures: { error } }
  }
}

function seedOf(text: string): number {
  const seed = Number(text)
  if (Number.isInteger(seed) && seed >= 0 && seed <= 0xffff_ffff) return seed
  throw new Error(`Cannot run: --seed ${text} is not a whole number from 0 to 4294967295.`)
}
