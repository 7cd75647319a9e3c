/** G13: what finding a record's route and calling its handler costs over a bare loop, with 1, 10 and 100 routes. */
import type { RouterRun } from './workers/router.ts'
import { startChild } from './child.ts'
import { goalResult } from './goals.ts'
import { SUBJECT_CORE } from './machine.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Comparison, type Contenders, type Sample, type Spread, compare } from './rounds.ts'

const ROUTES = [1, 10, 100] as const

export async function router(options: BenchOptions): Promise<BenchResult> {
  const comparisons = new Map<number, Comparison>()
  for (const routes of ROUTES) comparisons.set(routes, await compareRoutes(routes, options))

  console.log('Batches of 1,000 records of 1 KiB in memory, no schema, handlers that return at once:\n')
  printTable(
    ['routes', 'bare loop, records/s', 'router, records/s', 'bare us/record', 'router us/record', 'overhead us'],
    [...comparisons].map(([routes, comparison]) => [
      String(routes),
      whole(comparison.rates.get('bare')),
      whole(comparison.rates.get('routed')),
      ratio(comparison.cpu.get('bare'), 3),
      ratio(comparison.cpu.get('routed'), 3),
      overheadUs(comparison).toFixed(3),
    ]),
  )
  return { goals: { G13: goalResult('G13', Math.max(...[...comparisons.values()].map(overheadUs))) } }
}

/** Of the medians, as a difference has no ratio. */
function overheadUs({ rates }: Comparison): number {
  return usPerRecord(rates.get('routed')) - usPerRecord(rates.get('bare'))
}

function usPerRecord(rate: Spread | undefined): number {
  return 1_000_000 / (rate?.median ?? Number.NaN)
}

/** A process for each contender, as V8 optimises a loop for what ran in it before. */
async function compareRoutes(routes: number, options: BenchOptions): Promise<Comparison> {
  await using bare = await startChild('router', SUBJECT_CORE)
  await using routed = await startChild('router', SUBJECT_CORE)
  const contenders = (runMs: number): Contenders => ({
    bare: () => bare.call<Sample>('bare', { routes, runMs } satisfies RouterRun),
    routed: () => routed.call<Sample>('routed', { routes, runMs } satisfies RouterRun),
  })
  await compare(contenders(options.warmUpMs), 1)
  // Awaited here: the processes end with this function.
  return await compare(contenders(options.runMs), options.rounds)
}
