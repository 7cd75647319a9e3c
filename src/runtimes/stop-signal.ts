/** When a process is asked to end. */
import { readFileSync } from 'node:fs'

/** How often to look whether npm is still there, milliseconds. */
const PARENT_CHECK_MS = 250
/** A Ctrl-C reaches the process twice, from the terminal and from npm: only a later signal is a second one. */
const TWICE_MS = 1000

/** What else may end a process. */
export interface StopOptions {
  /** SIGHUP asks it to end too. @default true */
  readonly hangUpStops?: boolean
  /**
   * So does the end of the npm that runs it, or of what started npm: right for a script at a terminal, wrong for a process
   * that is to outlive its terminal. @default true
   */
  readonly endsWithNpm?: boolean
}

/**
 * npm passes signals to the shell in which it runs a script, and a shell that waits keeps a SIGINT to itself: so the long
 * scripts of package.json begin with `exec`, which makes the process npm's own child.
 *
 * Aborted by the first SIGINT, SIGTERM or SIGHUP; one that comes a second later or more ends the process at once with 130.
 * Also when npm, which passes signals on, was itself killed without a chance to: nobody would end the script any more.
 */
export function stopSignal({ hangUpStops = true, endsWithNpm = true }: StopOptions = {}): AbortSignal {
  const controller = new AbortController()
  let firstAt: number | undefined
  const onSignal = (): void => {
    firstAt ??= performance.now()
    if (performance.now() - firstAt > TWICE_MS) process.exit(130)
    controller.abort()
  }
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, onSignal)
  if (hangUpStops) process.on('SIGHUP', onSignal)
  if (endsWithNpm && process.env['npm_lifecycle_event'] !== undefined) {
    const [parent, grandparent] = ancestors()
    setInterval(() => {
      const [parentNow, grandparentNow] = ancestors()
      if (parentNow !== parent || grandparentNow !== grandparent) controller.abort()
    }, PARENT_CHECK_MS).unref()
  }
  return controller.signal
}

/** npm runs scripts by a shell, which may stand between: so the parent's parent counts too, where the system tells it. */
function ancestors(): [parent: number, grandparent: number] {
  try {
    // The fourth field; the second is the command in parentheses, which may hold anything.
    const stat = readFileSync(`/proc/${process.ppid}/stat`, 'utf8')
    return [process.ppid, Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])]
  } catch {
    // No /proc here: the parent alone has to do.
    return [process.ppid, 0]
  }
}
