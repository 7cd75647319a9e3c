/**
 * Node: a process that consumes for as long as it lives, run after run, where there is no cron or a minute is too long.
 * The app is the same that a Worker or Lambda runs, and so are the settings.
 *
 * A run that fails is printed and followed by the next one after a wait that grows; nothing but its signal ends the loop.
 */
import type { App } from '../app.ts'
import { backoffMs, type Backoff } from '../backoff.ts'
import { type Clock, sleep, systemClock } from '../clock.ts'
import { readConfig } from '../config.ts'
import { ConfigError } from '../errors.ts'
import type { Log } from '../logger.ts'
import { systemRandom } from '../random.ts'
import { brokerDrivers } from './broker-drivers.ts'
import { deadLetterDrivers } from './dead-letter-drivers.ts'
import { idempotencyDrivers } from './idempotency-drivers.ts'
import { consoleLog } from './log-line.ts'
import { openBroker } from './open-broker.ts'
import { processRun } from './run-length.ts'
import { failureText, RunFailedError, scheduledRun } from './scheduled-run.ts'

/** How a process consumes. */
export interface ConsumeOptions {
  /** Aborted: the run takes no more work, commits, and the call resolves. */
  readonly signal: AbortSignal
  /** @default process.env */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** @default prints lines */
  readonly log?: Log
  /** Takes each failure of a run. @default prints it */
  readonly onFailure?: (failure: unknown) => void
  /**
   * How long handlers that run when the signal is aborted may go on, milliseconds; with `KEDGE_RUN_MS` a quarter of that at most.
   * @default 1000
   */
  readonly drainMs?: number
  readonly clock?: Clock
}

const DEFAULT_DRAIN_MS = 1_000
/** Waits after runs that failed one after the other. */
const failureBackoff: Backoff = { initialMs: 500, maxMs: 30_000, factor: 2 }

/**
 * Consumes until the signal is aborted.
 * @throws {ConfigError} INVALID_CONFIG for wrong settings.
 */
export async function consume(app: App, options: ConsumeOptions): Promise<void> {
  const { signal, env = process.env, log = consoleLog, clock = systemClock } = options
  const { drainMs = DEFAULT_DRAIN_MS } = options
  const { onFailure = (failure) => console.error(failureText(failure)) } = options
  const config = readConfig('functions', env)
  const { runMs, marginMs } = processRun(app, drainMs)
  await using broker = await openBroker(config.broker, brokerDrivers)
  let failures = 0
  while (!signal.aborted) {
    try {
      const report = await scheduledRun(app, config, {
        runId: crypto.randomUUID(),
        budget: {
          runMs: config.runMs ?? runMs,
          // A run that is to be short has a margin of its own choice, unless somebody asked for one.
          ...(options.drainMs === undefined ? {} : { marginMs }),
          ...(config.runSubrequests === undefined ? {} : { maxCalls: config.runSubrequests }),
        },
        log,
        broker,
        deadLetters: deadLetterDrivers,
        idempotency: idempotencyDrivers,
        signal,
      })
      failures = 0
      if (report.ended === 'claim-held' || report.ended === 'paused') {
        await wait(report.retryAfterMs ?? failureBackoff.initialMs)
      }
    } catch (failure) {
      if (failure instanceof ConfigError) throw failure
      onFailure(failure)
      await wait(pauseAfter(failure))
    }
  }

  function pauseAfter(failure: unknown): number {
    const { ended, retryAfterMs = 0 } = failure instanceof RunFailedError ? failure.report : {}
    // The breaker says when to probe; other routes need not wait for longer.
    if (ended === 'breaker-open') return retryAfterMs
    failures += 1
    return backoffMs(failureBackoff, failures, systemRandom)
  }

  async function wait(delayMs: number): Promise<void> {
    // Rejects when the signal is aborted, which the loop sees by itself.
    await sleep(clock, delayMs, signal).catch(() => undefined)
  }
}
