/**
 * G13: what routes cost over a bare loop, with 1, 10 and 100 of them: finding the route and calling its handler, and then
 * everything that a consumer run does for a record (context, order, progress, budget) over a loop of poll, for and commit.
 */
import type { RouterRun } from './workers/router.ts'
import { startChild } from './child.ts'
import { goalResult } from './goals.ts'
import { SUBJECT_CORE } from './machine.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Comparison, type Contenders, type Sample, compare } from './rounds.ts'

const ROUTES = [1, 10, 100] as const

export async function router(options: BenchOptions): Promise<BenchResult> {
  const inMemory = await compareAll('bare', 'routed', options)
  const inProcess = await compareAll('polled', 'run', options)

  console.log('Batches of 1,000 records of 1 KiB, no schema, handlers that return at once:\n')
  printTable(
    ['routes, contender', 'records/s', 'CPU us/record', 'overhead us/record'],
    [...rowsOf(inMemory, titles.memory), ...rowsOf(inProcess, titles.process)],
  )
  const all = [...inMemory.values(), ...inProcess.values()]
  return { goals: { G13: goalResult('G13', Math.max(...all.map(overheadUs))) } }
}

const titles = {
  memory: ['bare loop over an array', 'routes over an array'],
  process: ['poll, bare loop, commit', 'consumer run'],
} as const

function rowsOf(comparisons: ReadonlyMap<number, Comparison>, [bare, ours]: readonly [string, string]): string[][] {
  return [...comparisons].flatMap(([routes, comparison]) => {
    const [reference, subject] = [...comparison.rates.keys()]
    return [
      [`${routes}, ${bare}`, whole(comparison.rates.get(reference ?? '')), cpuOf(comparison, reference), ''],
      [
        `${routes}, ${ours}`,
        whole(comparison.rates.get(subject ?? '')),
        cpuOf(comparison, subject),
        overheadUs(comparison).toFixed(3),
      ],
    ]
  })
}

function cpuOf(comparison: Comparison, contender: string | undefined): string {
  return ratio(comparison.cpu.get(contender ?? ''), 3)
}

/** Processor time, of the medians, as a difference has no ratio. It is nearly the same on a busy machine. */
function overheadUs({ cpu }: Comparison): number {
  const [reference, subject] = [...cpu.values()]
  return (subject?.median ?? Number.NaN) - (reference?.median ?? Number.NaN)
}

async function compareAll(reference: string, subject: string, options: BenchOptions): Promise<Map<number, Comparison>> {
  const comparisons = new Map<number, Comparison>()
  for (const routes of ROUTES) comparisons.set(routes, await compareRoutes(routes, [reference, subject], options))
  return comparisons
}

/** A process for each contender, as V8 optimises a loop for what ran in it before. */
async function compareRoutes(
  routes: number,
  names: readonly [string, string],
  options: BenchOptions,
): Promise<Comparison> {
  await using first = await startChild('router', SUBJECT_CORE)
  await using second = await startChild('router', SUBJECT_CORE)
  const [reference, subject] = names
  const contenders = (runMs: number): Contenders => ({
    [reference]: () => first.call<Sample>(reference, { routes, runMs } satisfies RouterRun),
    [subject]: () => second.call<Sample>(subject, { routes, runMs } satisfies RouterRun),
  })
  await compare(contenders(options.warmUpMs), 1)
  // Awaited here: the processes end with this function.
  return await compare(contenders(options.runMs), options.rounds)
}
