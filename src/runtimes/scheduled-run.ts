/**
 * One scheduled run, as every platform does it: the dead-letter store that the settings name, one consumer run within what
 * the platform grants.
 */
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import type { FunctionsConfig } from '../config.ts'
import type { BudgetOptions } from '../consumer/budget.ts'
import type { RunReport } from '../consumer/report.ts'
import { createConsumer } from '../consumer.ts'
import type { ConsumerOptions } from '../consumer.ts'
import { KedgeError } from '../errors.ts'
import type { Log } from '../logger.ts'
import { type DeadLetterDrivers, openDeadLetters, topicDriver } from './open-dead-letters.ts'
import { type IdempotencyDrivers, openIdempotency } from './open-idempotency.ts'

/** What a platform adds to the settings. */
export interface ScheduledRun {
  readonly runId: string
  readonly budget: BudgetOptions
  readonly log: Log
  /** The one that the settings name, opened by the platform. Not closed with the run. */
  readonly broker: Broker
  /** Drivers of dead-letter stores beside `topic`, which every platform has. @default none */
  readonly deadLetters?: DeadLetterDrivers
  /** Drivers of idempotency stores beside `memory`, which every platform has. @default none */
  readonly idempotency?: IdempotencyDrivers
  readonly signal?: AbortSignal
  /** As in `ConsumerOptions`. */
  readonly placeOf?: ConsumerOptions['placeOf']
  /** As in `ConsumerOptions`. */
  readonly countsAttempts?: boolean
  /** Ends the run as soon as there is nothing more to read. @default false */
  readonly stopWhenEmpty?: boolean
}

/** A run ended in a way that somebody should look at. Thrown so that the platform counts it as a failure. */
export class RunFailedError extends Error {
  override readonly name = 'RunFailedError' as const
  readonly report: RunReport

  constructor(report: RunReport, message: string) {
    super(message)
    this.report = report
  }
}

/**
 * Runs the app once.
 * @throws {RunFailedError} when the broker was failing to the end, a partition got no further, or a route's breaker opened.
 * @throws {ConfigError} for a dead-letter store or an idempotency store that this platform does not have, or none where one is needed.
 */
export async function scheduledRun(app: App, config: FunctionsConfig, run: ScheduledRun): Promise<RunReport> {
  const report = await runApp(app, config, run)
  const problem = problemOf(report)
  if (problem !== undefined) throw new RunFailedError(report, problem)
  return report
}

/**
 * Runs the app once, and says what became of it, good or bad.
 * @throws {ConfigError} as `scheduledRun` does
 */
export async function runApp(app: App, config: FunctionsConfig, run: ScheduledRun): Promise<RunReport> {
  const { broker } = run
  await using deadLetters = await openDeadLetters(config.deadLetters, {
    topic: topicDriver(broker),
    ...run.deadLetters,
  })
  const { idempotency: address } = config
  await using idempotency = address === undefined ? undefined : await openIdempotency(address, run.idempotency ?? {})
  const consumer = createConsumer(app, {
    broker,
    deadLetters,
    ...(idempotency === undefined ? {} : { idempotency }),
    groupInstanceId: config.groupInstanceId,
    ...(config.sessionTimeoutMs === undefined ? {} : { sessionTimeoutMs: config.sessionTimeoutMs }),
    ...(run.placeOf === undefined ? {} : { placeOf: run.placeOf }),
    ...(run.countsAttempts === undefined ? {} : { countsAttempts: run.countsAttempts }),
    log: run.log,
  })
  return await consumer.run({
    runId: run.runId,
    budget: run.budget,
    ...(run.signal === undefined ? {} : { signal: run.signal }),
    ...(run.stopWhenEmpty === undefined ? {} : { stopWhenEmpty: run.stopWhenEmpty }),
  })
}

function problemOf({ groupId, stopped, breakers, cause }: RunReport): string | undefined {
  const [first] = stopped
  if (first !== undefined) {
    const others = stopped.length === 1 ? '' : ` and ${stopped.length - 1} more`
    return `The run of ${groupId} could not go on at ${first.topic}[${first.partition}] offset ${first.offset}${others}: ${first.cause.message}`
  }
  const [breaker] = breakers
  if (breaker !== undefined) {
    const { route, deadLettered, settled } = breaker
    return `The run of ${groupId} stopped route ${route}: ${deadLettered} of its last ${settled} records became dead letters. Its offsets stay; see what its handler depends on.`
  }
  return cause === undefined ? undefined : `The run of ${groupId} failed: ${cause.message}`
}

/** What is printed of a failure: our errors' messages say enough, others come with their stack. */
export function failureText(failure: unknown): string {
  if (failure instanceof KedgeError || failure instanceof RunFailedError) return failure.message
  return failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)
}
