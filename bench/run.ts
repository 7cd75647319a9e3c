/**
 * `npm run bench -- <name> [--quick]`: runs one bench (or, without a name, all of them), each against its reference loop in
 * the same run. The last line of each is one JSON object: its goals with value, floor and target.
 */
import { loadavg } from 'node:os'

import { drain } from './drain.ts'
import { cronTax } from './cron-tax.ts'
import { kafkaDrain } from './kafka-drain.ts'
import { kafkaProduce } from './kafka-produce.ts'
import { keyOrder } from './key-order.ts'
import { log } from './log.ts'
import { LOAD_CORE, flushUs, machine, pinSelf, stolenTicks } from './machine.ts'
import { poison } from './poison.ts'
import { produce } from './produce.ts'
import { type BenchOptions, type BenchResult, printGoals } from './report.ts'
import { router } from './router.ts'

const benches: Readonly<Record<string, (options: BenchOptions) => Promise<BenchResult>>> = {
  produce,
  drain,
  router,
  log,
  'key-order': keyOrder,
  poison,
  'kafka-produce': kafkaProduce,
  'kafka-drain': kafkaDrain,
  'cron-tax': cronTax,
}

const full: BenchOptions = { rounds: 5, runMs: 2500, warmUpMs: 1500 }
/** For CI: says whether it works and which way the wind blows, not how fast it is. */
const quick: BenchOptions = { rounds: 3, runMs: 300, warmUpMs: 300 }

const args = process.argv.slice(2)
const options = args.includes('--quick') ? quick : full
const names = args.filter((arg) => arg !== '--quick')
const unknown = names.filter((name) => !Object.hasOwn(benches, name))
if (unknown.length > 0) {
  console.error(
    `There is no bench ${unknown.join(', ')}. Choose of ${Object.keys(benches).join(', ')}; --quick is short.`,
  )
  process.exit(2)
}

pinSelf(LOAD_CORE)
for (const name of names.length > 0 ? names : Object.keys(benches)) {
  const before = { flush: flushUs(), ticks: stolenTicks() }
  const loadBefore = loadavg()[0] ?? 0
  console.log(`bench ${name}: ${options.rounds} rounds of ${options.runMs} ms each`)
  console.log(`${machine()}\n`)
  const result = await benches[name]?.(options)
  const after = { flush: flushUs(), ticks: stolenTicks() }
  const stolen = (after.ticks.stolen - before.ticks.stolen) / (after.ticks.all - before.ticks.all)
  console.log(
    `F0 (append 1 KiB + fdatasync, median): ${before.flush.toFixed(0)} us before, ${after.flush.toFixed(0)} us after; steal ${(stolen * 100).toFixed(1)} %\n`,
  )
  if (loadBefore > 1 || after.flush > 2 * before.flush || before.flush > 2 * after.flush) {
    console.log(
      `Not a quiet machine: load ${loadBefore.toFixed(1)} before the bench began. The figures say little; run it again.\n`,
    )
  }
  printGoals(result?.goals ?? {})
  console.log(JSON.stringify({ bench: name, goals: result?.goals ?? {} }))
}
