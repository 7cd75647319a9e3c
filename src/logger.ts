/**
 * Log lines as data. Behaviour hands out events; a runtime decides how a line looks and where it goes. An event never
 * carries a record's key, value or headers.
 */

/** How much a line matters. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** What may stand in an event's fields. */
export type LogValue = string | number | boolean | null | undefined

/** One line: what happened, to which record or run, and what is known of it. */
export interface LogEvent {
  readonly level: LogLevel
  /** What happened, in a word or two: `handled`, `dead-lettered`, `run ended`, ... */
  readonly event: string
  readonly [field: string]: LogValue
}

/** Takes one event. Must return at once; what it throws is ignored. */
export type Log = (event: LogEvent) => void
