/** A log event as one readable line: what happened, to which record, and what else is known. */
import type { Log, LogEvent, LogValue } from '../logger.ts'

/** `handled orders partition 0 offset 12 route=orders attempts=1`. Fields without a value are left out. */
export function logLine(event: LogEvent): string {
  const { level: _level, event: what, topic, partition, offset, ...fields } = event
  const where = [
    ...(topic === undefined ? [] : [String(topic)]),
    ...(partition === undefined ? [] : [`partition ${String(partition)}`]),
    ...(offset === undefined ? [] : [`offset ${String(offset)}`]),
  ]
  const rest = Object.entries(fields)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => `${name}=${shown(value)}`)
  return [what, ...where, ...rest].join(' ')
}

/** Prints events as lines: errors where the platform looks for errors, all else on the standard output. */
export const consoleLog: Log = (event) => {
  if (event.level === 'error') console.error(logLine(event))
  else if (event.level !== 'debug') console.log(logLine(event))
}

/** Quoted where it would not read as one word; never more than one line. */
function shown(value: LogValue): string {
  const text = String(value)
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)
}
