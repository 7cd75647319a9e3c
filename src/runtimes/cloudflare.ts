/**
 * Cloudflare Workers: HTTP requests go to the produce function, cron ticks become consumer runs. Settings are variables
 * and secrets of the Worker, read once for each isolate.
 */
import type { App } from '../app.ts'
import { type FunctionsConfig, readConfig } from '../config.ts'
import { workerDeadLetterDrivers } from './worker-dead-letter-drivers.ts'
import { consoleLog } from './log-line.ts'
import { openBroker } from './open-broker.ts'
import { problemResponse } from './problem.ts'
import { produceApp, type ProduceOptions } from './produce-app.ts'
import { failureText, scheduledRun } from './scheduled-run.ts'
import { workerIdempotencyDrivers } from './worker-idempotency-drivers.ts'

/** Variables, secrets and other bindings of the Worker. */
export type WorkerEnv = Readonly<Record<string, unknown>>

/** What a Worker exports. */
export interface Worker {
  fetch(request: Request, env: WorkerEnv): Promise<Response>
  scheduled(controller: unknown, env: WorkerEnv): Promise<void>
}

/** Leaves enough of the minute for the next tick to find the claim free. */
const DEFAULT_RUN_MS = 55_000
/** Sub-requests of one invocation on the free plan. */
const DEFAULT_SUBREQUESTS = 50

/** A Worker for an app. */
export function worker(app: App, options: ProduceOptions = {}): Worker {
  const opened = new WeakMap<WorkerEnv, Opened>()

  async function open(env: WorkerEnv): Promise<Opened> {
    let functions = opened.get(env)
    if (functions === undefined) {
      const config = readConfig('functions', env)
      const onFailure = (failure: unknown): void => console.error(failureText(failure))
      const produce = produceApp(app, await openBroker(config.broker, {}), config, { onFailure, ...options })
      functions = { config, produce: async (request) => await produce.fetch(request) }
      opened.set(env, functions)
    }
    return functions
  }

  return {
    async fetch(request, env) {
      try {
        const functions = await open(env)
        return await functions.produce(request)
      } catch (failure) {
        console.error(failureText(failure))
        return problemResponse(failure)
      }
    },
    async scheduled(_controller, env) {
      try {
        const { config } = await open(env)
        await using broker = await openBroker(config.broker, {})
        await scheduledRun(app, config, {
          broker,
          runId: crypto.randomUUID(),
          budget: {
            runMs: config.runMs ?? DEFAULT_RUN_MS,
            maxCalls: config.runSubrequests ?? DEFAULT_SUBREQUESTS,
          },
          log: consoleLog,
          idempotency: workerIdempotencyDrivers(env),
          deadLetters: workerDeadLetterDrivers(env),
        })
      } catch (failure) {
        console.error(failureText(failure))
        throw failure
      }
    },
  }
}

interface Opened {
  readonly config: FunctionsConfig
  produce(request: Request): Promise<Response>
}
