/** G19: the embedded log in process against append + fdatasync, with 1, 64 and 1,000 records in one flush. */
import { rmSync } from 'node:fs'

import type { AppendRun } from './workers/append.ts'
import type { LogRun } from './workers/log.ts'
import { startChild } from './child.ts'
import { goalResult } from './goals.ts'
import { SUBJECT_CORE, scratchFolder } from './machine.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Comparison, type Contenders, type Sample, compare } from './rounds.ts'

const RECORD_BYTES = 1024
const GROUPS = [1, 64, 1000] as const
const CALLERS = 64

export async function log(options: BenchOptions): Promise<BenchResult> {
  const comparisons = new Map<number, Comparison>()
  for (const group of GROUPS) comparisons.set(group, await compareGroup(group, options))

  console.log(`Records of ${RECORD_BYTES} B, D2: flushed before each produce resolves:\n`)
  printTable(
    ['records in a flush, system', 'records/s', '/ append', 'CPU us/record', 'core busy'],
    [...comparisons].flatMap(([group, comparison]) =>
      [...comparison.rates.keys()].map((name) => [
        `${group}, ${titles[name] ?? name}`,
        whole(comparison.rates.get(name)),
        ratio(comparison.ratio(name, 'append')),
        ratio(comparison.cpu.get(name), 1),
        ratio(comparison.busy.get(name)),
      ]),
    ),
  )
  const worst = Math.min(...[...comparisons.values()].map((comparison) => comparison.ratio('log', 'append').median))
  return { goals: { G19: goalResult('G19', worst) } }
}

const titles: Readonly<Record<string, string>> = {
  append: 'append + fdatasync',
  log: 'log, one produce of all',
  callers: `log, ${CALLERS} callers of one record each`,
}

async function compareGroup(group: number, options: BenchOptions): Promise<Comparison> {
  const dir = scratchFolder()
  await using append = await startChild('append', SUBJECT_CORE)
  await using embedded = await startChild('log', SUBJECT_CORE)
  const contenders = (runMs: number): Contenders => {
    const settings = { dir, recordBytes: RECORD_BYTES, group, runMs }
    return {
      append: () => append.call<Sample>('run', settings satisfies AppendRun),
      log: () => embedded.call<Sample>('run', { ...settings, callers: 1 } satisfies LogRun),
      ...(group === CALLERS && {
        callers: () => embedded.call<Sample>('run', { ...settings, group: 1, callers: CALLERS } satisfies LogRun),
      }),
    }
  }
  await compare(contenders(options.warmUpMs), 1)
  const comparison = await compare(contenders(options.runMs), options.rounds)
  rmSync(dir, { recursive: true })
  return comparison
}
