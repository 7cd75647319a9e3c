/** How benches print: plain tables for people, one JSON object at the end for programs. */
import { type GoalName, type GoalResult, goals, verdict } from './goals.ts'
import type { Spread } from './rounds.ts'

/** What one bench answers. */
export interface BenchResult {
  readonly goals: Readonly<Partial<Record<GoalName, GoalResult>>>
}

/** How long a bench may take. */
export interface BenchOptions {
  readonly rounds: number
  /** How long a contender runs in a round, milliseconds. */
  readonly runMs: number
  /** How long it runs before the first round, uncounted, milliseconds. */
  readonly warmUpMs: number
}

/** Prints rows under a head, columns as wide as they need to be; the first column is left-aligned. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd()
  console.log(line(head))
  console.log(widths.map((width) => '-'.repeat(width)).join('  '))
  for (const row of rows) console.log(line(row))
  console.log('')
}

/** Prints what became of each goal. */
export function printGoals(results: BenchResult['goals']): void {
  const named = Object.entries(results) as [GoalName, GoalResult][]
  printTable(
    ['goal', 'value', 'floor', 'target', 'reached'],
    named.map(([name, result]) => [
      `${name} ${goals[name].what}`,
      String(result.value),
      String(result.floor),
      String(result.target),
      verdict(result),
    ]),
  )
}

/** `12,345 (11,000-13,000)` */
export function whole(figure: Spread | undefined): string {
  return spreadText(figure, (value) => Math.round(value).toLocaleString('en-US'))
}

/** `0.78 (0.74-0.81)` */
export function ratio(figure: Spread | undefined, digits = 2): string {
  return spreadText(figure, (value) => value.toFixed(digits))
}

function spreadText(figure: Spread | undefined, text: (value: number) => string): string {
  return figure === undefined ? '' : `${text(figure.median)} (${text(figure.min)}-${text(figure.max)})`
}
