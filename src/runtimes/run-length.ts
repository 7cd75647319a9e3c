/** How long the runs of a process are, which no platform ends: long enough for what the app asks of one. */
import type { App } from '../app.ts'

/** Long enough to matter little, short enough that the report is of use. */
const LEAST_RUN_MS = 60_000
/** An attempt has nine tenths of a run's time for handlers. */
const RUN_PER_ATTEMPT = 1.25
/** So much of a run at most is its margin, and so much of that is for handlers that are draining. */
const RUN_PER_MARGIN = 2
const MARGIN_PER_DRAIN = 2

/** The length of a run and its margin, milliseconds: room for the longest attempt of the app, and for draining. */
export function processRun(app: App, drainMs: number): { readonly runMs: number; readonly marginMs: number } {
  const marginMs = MARGIN_PER_DRAIN * drainMs
  // A batch is split for half of a run, and then has one record at a time.
  const attempts = app.routes.map(
    ({ options, batch }) => (options.attemptTimeoutMs ?? app.attemptTimeoutMs) * (batch === undefined ? 1 : 2),
  )
  const longestMs = Math.max(app.attemptTimeoutMs, ...attempts)
  const runMs = Math.max(LEAST_RUN_MS, Math.ceil(longestMs * RUN_PER_ATTEMPT) + marginMs, RUN_PER_MARGIN * marginMs)
  return { runMs, marginMs }
}
