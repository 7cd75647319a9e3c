/**
 * G14: how near order by key comes to the best that is possible, 100 records at once, handlers of 2.2 ms: the time of a run
 * against the longest chain of one key, or all the work shared out evenly, whichever is more.
 */
import { startChild } from './child.ts'
import { goalResult } from './goals.ts'
import { SUBJECT_CORE } from './machine.ts'
import { type BenchOptions, type BenchResult, printTable, ratio } from './report.ts'
import { type Spread, inRounds, spread } from './rounds.ts'
import type { OrderedResult, OrderedRun } from './workers/ordered-run.ts'

const CONCURRENCY = 100
const MEAN_MS = 2.2
/** A single key is worked off one record after the other, so that it gets fewer of them. */
const CASES = [
  { keys: 1, records: 500 },
  { keys: 10, records: 2_000 },
  { keys: 100, records: 10_000 },
  { keys: 1_000, records: 10_000 },
  { keys: 10_000, records: 10_000 },
] as const

export async function keyOrder(options: BenchOptions): Promise<BenchResult> {
  await using child = await startChild('ordered-run', SUBJECT_CORE)
  const runs = CASES.map(({ keys, records }) => {
    const run = { keys, records, concurrency: CONCURRENCY, meanMs: MEAN_MS, failingPerMille: 0 } satisfies OrderedRun
    return [String(keys), () => child.call<OrderedResult>('run', run)] as const
  })
  await inRounds(Object.fromEntries(runs), 1)
  const results = await inRounds(Object.fromEntries(runs), options.rounds)

  const over = (keys: number): Spread => {
    const found = results.get(String(keys)) ?? []
    return spread(found.map(({ elapsedMs, idealMs }) => elapsedMs / idealMs))
  }
  const figure = (keys: number, of: 'elapsedMs' | 'idealMs'): string =>
    ratio(spread((results.get(String(keys)) ?? []).map((one) => one[of])), 0)
  console.log(`Handlers of ${MEAN_MS} ms on average, ${CONCURRENCY} records at once, 4 partitions:\n`)
  printTable(
    ['keys', 'records', 'ideal ms', 'run ms', '/ ideal'],
    CASES.map(({ keys, records }) => [
      String(keys),
      String(records),
      figure(keys, 'idealMs'),
      figure(keys, 'elapsedMs'),
      ratio(over(keys)),
    ]),
  )
  return { goals: { G14: goalResult('G14', Math.max(...CASES.map(({ keys }) => over(keys).median))) } }
}
