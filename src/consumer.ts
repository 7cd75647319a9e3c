/**
 * The consumer: reads what its app's group has not handled yet, hands each record to its route, and commits. One
 * `run` is one invocation of a scheduled function; nothing is kept between runs but committed offsets.
 *
 * Delivery is at least once. A committed offset never passes a record that is neither handled nor durable as a dead
 * letter; a run that dies at any point loses nothing, and what it had not committed comes again.
 */
import { groupNameProblem } from './app.ts'
import type { App } from './app.ts'
import { DEFAULT_CLAIM_TTL_MS, DEFAULT_SESSION_TIMEOUT_MS } from './broker.ts'
import type { Broker } from './broker.ts'
import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import { budgetOf } from './consumer/budget.ts'
import type { BudgetOptions } from './consumer/budget.ts'
import type { Place } from './consumer/handling.ts'
import type { RunReport } from './consumer/report.ts'
import { concurrencyOf, DEFAULT_CONCURRENCY, keepsProgress } from './consumer/plan.ts'
import { Run } from './consumer/run.ts'
import type { DeadLetterStore } from './dead-letter.ts'
import { ConfigError } from './errors.ts'
import type { IdempotencyStore } from './idempotency.ts'
import type { Log } from './logger.ts'
import { systemRandom } from './random.ts'
import type { ConsumerRecord } from './record.ts'
import type { Random } from './random.ts'

/** What a consumer works with. */
export interface ConsumerOptions {
  readonly broker: Broker
  /** Where records go that cannot be handled. */
  readonly deadLetters: DeadLetterStore
  /** What routes with `effectively-once` are locked in and remembered by. @default none, and such routes are refused */
  readonly idempotency?: IdempotencyStore
  /** Names this consumer within its group (group.instance.id). Runs of one instance exclude each other. */
  readonly groupInstanceId: string
  /**
   * Records that may be handled at the same time, as far as their routes' ordering allows it. @default as many as the
   * route that asks for most, and at least 4, which leaves room for the run's own calls within the six connections of a
   * Worker; legal 1 to 1000
   */
  readonly concurrency?: number
  /**
   * Most records in one poll (max.poll.records). At most twice as many wait in memory, and five times as many where routes
   * have an order of their own and room for more at once. @default 500, legal 1 to 100000
   */
  readonly maxPollRecords?: number
  /** Most bytes in one poll (fetch.max.bytes). At most twice as many wait in memory. @default 4194304, legal 1 to 1073741824 */
  readonly maxPollBytes?: number
  /** Longest wait of one poll, milliseconds (fetch.max.wait.ms). @default 20000, legal 0 to 300000; never more than a third of `claimTtlMs` */
  readonly maxPollWaitMs?: number
  /** How long the instance stays claimed after a run that died, milliseconds. @default 60000, legal 1000 to 900000 */
  readonly claimTtlMs?: number
  /**
   * How long the instance keeps its partitions when nothing runs, milliseconds (session.timeout.ms): longer than the gap
   * between two runs, or each run joins its group anew. Read when the instance joins. @default 120000, legal 1000 to 1800000
   */
  readonly sessionTimeoutMs?: number
  /** Longest time without a commit while records are being handled, milliseconds. @default 5000, legal 0 to 60000 */
  readonly commitIntervalMs?: number
  /** How long a call to the broker or the dead-letter store may take, milliseconds. @default 10000, legal 1 to 300000 */
  readonly callTimeoutMs?: number
  /**
   * What names a record in dead letters, idempotency keys and logs, and to its handler, where its own partition and offset do
   * not: batches of a queue are numbered anew each time. The same for the same record, always. @default its own
   */
  readonly placeOf?: (record: ConsumerRecord) => Place
  /**
   * Whether the next run will know how often this one tried a record, as commits of this broker are read again or not. Where it
   * will not, attempts for which no run has room are not waited for. @default where the app keeps its progress (see `Ordering`)
   */
  readonly countsAttempts?: boolean
  readonly clock?: Clock
  readonly random?: Random
  /** Takes a line for each record and each run. @default none */
  readonly log?: Log
}

/** How one run is made. */
export interface RunOptions {
  /** Names this run. Unique: two runs with one id would share a claim. 1 to 128 visible ASCII characters. */
  readonly runId: string
  /** When the platform ends the invocation, milliseconds since the epoch. The same as `budget.untilMs`. */
  readonly deadlineMs?: number
  readonly budget?: BudgetOptions
  /** Aborted: the run takes no more work, gives running handlers half of the margin, commits, and returns. */
  readonly signal?: AbortSignal
  /** Ends the run as soon as there is nothing more to read, instead of waiting for new records. @default false */
  readonly stopWhenEmpty?: boolean
}

/** Runs an app. */
export interface Consumer {
  /**
   * Reads, handles and commits until the budget is spent, and says what it did. Failures of the broker, the dead-letter
   * store and handlers are in the report, never thrown.
   * @throws {ConfigError} INVALID_CONFIG for a budget outside its range.
   */
  run(options: RunOptions): Promise<RunReport>
}

const consumerDefaults = Object.freeze({
  concurrency: DEFAULT_CONCURRENCY,
  maxPollRecords: 500,
  maxPollBytes: 4_194_304,
  maxPollWaitMs: 20_000,
  claimTtlMs: DEFAULT_CLAIM_TTL_MS,
  sessionTimeoutMs: DEFAULT_SESSION_TIMEOUT_MS,
  commitIntervalMs: 5_000,
  callTimeoutMs: 10_000,
})

/** The legal range of each number among the options. */
const ranges: readonly (readonly [keyof typeof consumerDefaults, number, number])[] = [
  ['concurrency', 1, 1_000],
  ['maxPollRecords', 1, 100_000],
  ['maxPollBytes', 1, 1_073_741_824],
  ['maxPollWaitMs', 0, 300_000],
  ['claimTtlMs', 1_000, 900_000],
  ['sessionTimeoutMs', 1_000, 1_800_000],
  ['commitIntervalMs', 0, 60_000],
  ['callTimeoutMs', 1, 300_000],
]

/**
 * Makes a consumer of an app.
 * @throws {ConfigError} INVALID_CONFIG listing every option outside its range, or for a broker without claims.
 */
export function createConsumer(app: App, options: ConsumerOptions): Consumer {
  const numbers = numbersOf(app, options)
  const problems = problemsOf(app, options, numbers)
  if (problems.length > 0) throw new ConfigError(`Cannot make the consumer: ${problems.join(' ')}`)
  const { broker, deadLetters, idempotency, placeOf, log, clock = systemClock, random = systemRandom } = options
  const { countsAttempts = keepsProgress(app) } = options
  const group = { groupId: app.groupId, groupInstanceId: options.groupInstanceId }
  const maxPollWaitMs = Math.min(numbers.maxPollWaitMs, numbers.claimTtlMs / 3)
  const settings = {
    ...numbers,
    maxPollWaitMs,
    app,
    broker,
    deadLetters,
    idempotency,
    placeOf,
    countsAttempts,
    group,
    clock,
    random,
    log,
  }
  return {
    async run({ runId, deadlineMs, budget = {}, signal, stopWhenEmpty = false }) {
      if (!/^[\x21-\x7e]{1,128}$/.test(runId)) {
        throw new ConfigError('Cannot run: runId: give 1 to 128 visible ASCII characters.')
      }
      const untilMs = deadlineMs ?? budget.untilMs
      const resolved = budgetOf({ ...budget, ...(untilMs === undefined ? {} : { untilMs }) }, clock)
      return new Run({ ...settings, runId, budget: resolved, signal, stopWhenEmpty }).execute()
    },
  }
}

type Numbers = Record<keyof typeof consumerDefaults, number>

function numbersOf(app: App, options: ConsumerOptions): Numbers {
  const numbers: Numbers = { ...consumerDefaults }
  for (const [name] of ranges) numbers[name] = options[name] ?? consumerDefaults[name]
  numbers.concurrency = options.concurrency ?? concurrencyOf(app)
  return numbers
}

function problemsOf(app: App, options: ConsumerOptions, numbers: Numbers): string[] {
  const problems = ranges.flatMap(([name, min, max]) => {
    const value = numbers[name]
    if (Number.isInteger(value) && value >= min && value <= max) return []
    return [`${name} is ${value}: give an integer from ${min} to ${max}.`]
  })
  const nameProblem = groupNameProblem(options.groupInstanceId)
  if (nameProblem !== undefined) problems.push(`groupInstanceId: ${nameProblem}`)
  if (!options.broker.features.claims) {
    problems.push('The broker has no claims, without which overlapping runs would work on the same records.')
  }
  problems.push(...onceProblems(app, options.idempotency))
  return problems
}

function onceProblems({ routes }: App, store: IdempotencyStore | undefined): string[] {
  const locked = routes.filter(({ options }) => options.delivery === 'effectively-once')
  if (store === undefined) {
    return locked.map(({ name }) => `Route ${name} is effectively-once: give an idempotency store (KEDGE_IDEMPOTENCY).`)
  }
  if (store.features.linearizable) return []
  return locked
    .filter(({ options }) => options.once?.allowNonLinearizable !== true)
    .map(
      ({ name }) =>
        `Route ${name} is effectively-once, and the idempotency store is not linearizable: take another, or set once.allowNonLinearizable where a repeat now and then is harmless.`,
    )
}
