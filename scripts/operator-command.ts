/** What the commands of an operator have in common: how they end, who runs them, how they read and print. */
import { hostname, userInfo } from 'node:os'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { App } from '../src/app.ts'
import { KedgeError } from '../src/errors.ts'

/** What was asked for cannot be read. */
export class UsageError extends Error {
  override readonly name = 'UsageError' as const
}

/** Runs a command and sets the exit status: what it gives, 1 where it failed, 2 where what was asked for cannot be read. */
export async function runCommand(name: string, command: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await command()
  } catch (failure) {
    const isUsage = failure instanceof UsageError || isParseError(failure)
    const text = failure instanceof Error ? failure.message : String(failure)
    console.error(
      isUsage ? `${text}\nnpm run ${name} -- --help tells more.` : failure instanceof KedgeError ? text : failure,
    )
    process.exitCode = isUsage ? 2 : 1
  }
}

/** The app that a file exports. @throws {UsageError} */
export async function appOf(path: string): Promise<App> {
  const { app } = (await import(pathToFileURL(resolve(path)).href)) as { readonly app?: App }
  if (app === undefined) throw new UsageError(`${path} exports no app.`)
  return app
}

/** A time in milliseconds, given so or as a date. @throws {UsageError} */
export function timeOf(flag: string, text: string): number {
  const timeMs = /^\d+$/.test(text) ? Number(text) : Date.parse(text)
  if (Number.isNaN(timeMs)) throw new UsageError(`--${flag}: ${text} is no time. Write 2026-01-31T12:00:00Z.`)
  return timeMs
}

/** A number. @throws {UsageError} */
export function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^\d+(\.\d+)?$/.test(text)) throw new UsageError(`--${flag}: ${text} is no number.`)
  return Number(text)
}

/** Rows with their cells below each other. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Who runs a command, where nobody says. */
export function whoRuns(): string {
  return `${userInfo().username}@${hostname()}`
}

/** What `parseArgs` throws for flags that it does not know. */
function isParseError(failure: unknown): boolean {
  return failure instanceof TypeError && 'code' in failure && String(failure.code).startsWith('ERR_PARSE_ARGS')
}
