/** What the commands of an operator have in common: how they end, who runs them, how they read and print. */
import { appendFileSync, existsSync } from 'node:fs'
import { hostname, userInfo } from 'node:os'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { App } from '../src/app.ts'
import { ConfigError, KedgeError } from '../src/errors.ts'

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
    const text = messageOf(failure)
    console.error(
      isUsage ? `${text}\nnpm run ${name} -- --help tells more.` : failure instanceof KedgeError ? text : failure,
    )
    process.exitCode = isUsage ? 2 : 1
  }
}

/** The app that a file exports. @throws {UsageError} */
export async function appOf(path: string): Promise<App> {
  if (!existsSync(path)) throw new UsageError(`--app: there is no file ${path}. Give the one that exports the app.`)
  const { app } = (await import(pathToFileURL(resolve(path)).href)) as { readonly app?: App }
  if (app === undefined) throw new UsageError(`${path} exports no app.`)
  return app
}

/** What `Date.parse` reads in one way only. It reads nearly anything: -1 and `offset 41` are days of 2001 to it. */
const DATE = /^(\d{4}-\d{2}-\d{2})([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/
/** Of a time since 1973. One with fewer digits is a year, or in seconds; one with more is in smaller units. */
const MILLISECONDS = /^\d{12,15}$/

/** A time in milliseconds, given so or as a date. @throws {UsageError} */
export function timeOf(flag: string, text: string): number {
  if (MILLISECONDS.test(text)) return Number(text)
  const day = DATE.exec(text)?.[1]
  const timeMs = day !== undefined && isDay(day) ? Date.parse(text) : Number.NaN
  if (!Number.isNaN(timeMs)) return timeMs
  const why = /^\d+$/.test(text) ? 'no time in milliseconds since 1970, which has 12 to 15 digits' : 'no time'
  throw new UsageError(`--${flag}: ${text} is ${why}. Write 2026-01-31T12:00:00Z.`)
}

/** Whether the month has that day: `Date.parse` goes on into the next one. */
function isDay(day: string): boolean {
  const midnightMs = Date.parse(`${day}T00:00:00Z`)
  return !Number.isNaN(midnightMs) && new Date(midnightMs).toISOString().startsWith(day)
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

/** Appends audit records to a file, as lines of JSON. What it gives throws a {ConfigError} where the file cannot be written. */
export function auditFile(path: string): (record: object) => void {
  return (record) => {
    try {
      appendFileSync(path, `${JSON.stringify(record)}\n`)
    } catch (error) {
      throw new ConfigError(`Cannot write the audit: ${messageOf(error)}. Give a file that can be written as --audit.`)
    }
  }
}

/** What a failure says. */
export function messageOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure)
}

/** Who runs a command, where nobody says. */
export function whoRuns(): string {
  return `${userInfo().username}@${hostname()}`
}

/** What `parseArgs` throws for flags that it does not know. */
function isParseError(failure: unknown): boolean {
  return failure instanceof TypeError && 'code' in failure && String(failure.code).startsWith('ERR_PARSE_ARGS')
}
