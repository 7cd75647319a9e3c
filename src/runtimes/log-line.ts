/** A log event as one readable line: what happened, to which record, and what else is known. */
import type { Log, LogEvent, LogValue } from '../logger.ts'

/** `handled orders partition 0 offset 12 attempts=2`. Fields without a value are left out. */
export function logLine(event: LogEvent): string {
  const { level: _level, event: name, message, topic, partition, offset, ...fields } = event
  // A handler's own line is what the handler calls it.
  const what = name === 'log' && message !== undefined ? String(message) : name
  const where = [
    ...(topic === undefined ? [] : [String(topic)]),
    ...(partition === undefined ? [] : [`partition ${String(partition)}`]),
    ...(offset === undefined ? [] : [`offset ${String(offset)}`]),
  ]
  const other = name === 'log' ? fields : { message, ...fields }
  const rest = Object.entries(other)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => `${name}=${shown(value)}`)
  return [what, ...where, ...rest].join(' ')
}

/** Prints events as lines: errors where the platform looks for errors, all else on the standard output. */
export const consoleLog: Log = (event) => {
  if (isIdleRun(event) || event.level === 'debug') return
  if (event.level === 'error') console.error(logLine(event))
  else console.log(logLine(event))
}

/** Prints what a driver has to say as lines where they are in nobody's way. */
export const noticeLog: Log = (event) => {
  if (event.level !== 'debug') console.error(logLine(event))
}

/** A run that had nothing to do ends every minute, and says nothing by it. */
function isIdleRun({ event, ended, polled }: LogEvent): boolean {
  return event === 'run ended' && ended === 'deadline' && polled === 0
}

/** Quoted where it would not read as one word; never more than one line. */
function shown(value: LogValue): string {
  const text = typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(1) : String(value)
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)
}
