/**
 * G15: what records that always fail cost the others. One in a hundred fails on each of its four attempts and becomes a dead
 * letter; measured is how fast records of healthy keys are handled, against a run in which none fails. A record with the key
 * of one that fails waits for it by rule, and is no part of the measure.
 */
import { startChild } from './child.ts'
import { goalResult } from './goals.ts'
import { SUBJECT_CORE } from './machine.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { inRounds, spread } from './rounds.ts'
import type { OrderedResult, OrderedRun } from './workers/ordered-run.ts'

const RUN = { keys: 10_000, records: 20_000, concurrency: 100, meanMs: 2.2 } as const

export async function poison(options: BenchOptions): Promise<BenchResult> {
  await using child = await startChild('ordered-run', SUBJECT_CORE)
  const run = (failingPerMille: number) => (): Promise<OrderedResult> =>
    child.call<OrderedResult>('run', { ...RUN, failingPerMille } satisfies OrderedRun)
  const contenders = { healthy: run(0), poisoned: run(10) }
  await inRounds(contenders, 1)
  const results = await inRounds(contenders, options.rounds)

  const rates = (name: string): number[] =>
    (results.get(name) ?? []).map(({ healthy, healthyMs }) => (healthy / healthyMs) * 1000)
  const without = rates('healthy')
  const kept = spread(rates('poisoned').map((rate, round) => rate / (without[round] ?? Number.NaN)))
  console.log(`Records of healthy keys, ${RUN.concurrency} at once, handlers of ${RUN.meanMs} ms on average:\n`)
  printTable(
    ['run', 'records of healthy keys/s', '/ without'],
    [
      ['none fails', whole(spread(without)), ''],
      ['1 % always fail, 3 retries, dead letter', whole(spread(rates('poisoned'))), ratio(kept)],
    ],
  )
  return { goals: { G15: goalResult('G15', kept.median) } }
}
