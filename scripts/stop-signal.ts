/** When a script is asked to end. */

/** How often to look whether the parent is still there, milliseconds. */
const PARENT_CHECK_MS = 1000

/**
 * Aborted by the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once. Also when npm, which passes
 * signals on, was itself killed without a chance to: nobody could end the script any more.
 */
export function stopSignal(): AbortSignal {
  const controller = new AbortController()
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(130)
    controller.abort()
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal)
  if (process.env['npm_lifecycle_event'] !== undefined) {
    const parent = process.ppid
    setInterval(() => {
      if (process.ppid !== parent) controller.abort()
    }, PARENT_CHECK_MS).unref()
  }
  return controller.signal
}
