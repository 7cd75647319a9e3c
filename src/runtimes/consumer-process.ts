/**
 * The consumer as a process, where there is no cron or work takes longer than a function may: settings in, run after run,
 * signals obeyed, an exit status out.
 *
 * SIGTERM and SIGINT: takes no more, lets what runs end within its time, commits, leaves with 0; a second one leaves at once.
 * SIGHUP: the same for the run that is on, then the settings are read again and the next run begins with them; those that no
 * run can begin with change nothing.
 * A handler that never gives the event loop back ends it by SIGKILL, so that a supervisor can start it anew.
 */
import { readFileSync } from 'node:fs'
import { parseArgs, parseEnv } from 'node:util'
import type { App } from '../app.ts'
import { readConfig } from '../config.ts'
import { ConfigError } from '../errors.ts'
import { failureText } from './scheduled-run.ts'
import { consume } from './node.ts'
import { guardStalls } from './stall-guard.ts'
import { stopSignal } from './stop-signal.ts'

const help = `Usage: npm run consume [-- --settings FILE] [--drain-ms N] [--stall-ms N]

Consumes with the app of functions/app.ts until it is told to stop. Settings are environment variables,
described in docs/configuration.md.

  --settings FILE  settings that go over those of the environment; read again at SIGHUP
  --drain-ms N     how long handlers may go on after SIGTERM, milliseconds; where KEDGE_RUN_MS is set a quarter of that at
                   most [10000]
  --stall-ms N     how long a handler may keep the event loop to itself until the process ends itself by SIGKILL,
                   milliseconds, 0 for ever [120000]

SIGTERM and SIGINT end it when what it began is handled and committed. SIGHUP reads the settings again.
`

const DEFAULT_DRAIN_MS = 10_000
const MAX_DRAIN_MS = 600_000
/** Twice the life of a claim: long before, another run may have taken the records over. */
const DEFAULT_STALL_MS = 120_000
const MIN_STALL_MS = 1_000
const MAX_STALL_MS = 3_600_000

type Environment = Readonly<Record<string, string | undefined>>

/** Runs the consumer of an app until a signal ends it, and gives the exit status. */
export async function runConsumer(app: App, args: readonly string[], env: Environment): Promise<number> {
  const stop = stopSignal({ hangUpStops: false, endsWithNpm: false })
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        help: { type: 'boolean', short: 'h' },
        settings: { type: 'string' },
        'drain-ms': { type: 'string' },
        'stall-ms': { type: 'string' },
      },
      strict: true,
    })
    if (values.help === true) {
      process.stdout.write(help)
      return 0
    }
    const drainMs = drainOf(values['drain-ms'])
    const stallMs = stallOf(values['stall-ms'])
    const read = (): Environment => settingsOf(env, values.settings)
    using guards = new DisposableStack()
    if (stallMs > 0) guards.use(guardStalls(stallMs))
    await consumeWith(app, read, drainMs, stop)
    return 0
  } catch (failure) {
    console.error(failureText(failure))
    return 2
  }
}

/** Consumes with the settings as they are, and begins anew with others when they are to be read again. */
async function consumeWith(app: App, read: () => Environment, drainMs: number, stop: AbortSignal): Promise<void> {
  let env = read()
  readConfig('functions', env)
  let working: Environment | undefined
  let reload = new AbortController()
  const onHangUp = (): void => {
    try {
      const next = read()
      readConfig('functions', next)
      env = next
      console.log('settings read again')
      reload.abort()
    } catch (failure) {
      console.error(`The settings stay as they were. ${failureText(failure)}`)
    }
  }
  process.on('SIGHUP', onHangUp)
  try {
    while (!stop.aborted) {
      reload = new AbortController()
      const present = env
      try {
        await consume(app, { env, drainMs, signal: AbortSignal.any([stop, reload.signal]) })
        working = present
      } catch (failure) {
        // What only shows when stores are opened is found when the settings are in force already.
        if (!(failure instanceof ConfigError) || working === undefined || working === present) throw failure
        console.error(`The settings are again as they were. ${failureText(failure)}`)
        if (env === present) env = working
      }
    }
  } finally {
    process.off('SIGHUP', onHangUp)
  }
}

function settingsOf(env: Environment, file: string | undefined): Environment {
  if (file === undefined) return env
  try {
    return { ...env, ...parseEnv(readFileSync(file, 'utf8')) }
  } catch (cause) {
    throw new Error(`Cannot read the settings in ${file}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    })
  }
}

function drainOf(text: string | undefined): number {
  const drainMs = text === undefined ? DEFAULT_DRAIN_MS : Number(text)
  if (Number.isInteger(drainMs) && drainMs >= 0 && drainMs <= MAX_DRAIN_MS) return drainMs
  throw new Error(
    `Cannot consume: --drain-ms is ${JSON.stringify(text)}. Give whole milliseconds from 0 to ${MAX_DRAIN_MS}.`,
  )
}

function stallOf(text: string | undefined): number {
  const stallMs = text === undefined ? DEFAULT_STALL_MS : Number(text)
  if (stallMs === 0 || (Number.isInteger(stallMs) && stallMs >= MIN_STALL_MS && stallMs <= MAX_STALL_MS)) return stallMs
  throw new Error(
    `Cannot consume: --stall-ms is ${JSON.stringify(text)}. Give whole milliseconds from ${MIN_STALL_MS} to ${MAX_STALL_MS}, or 0.`,
  )
}
