/**
 * An application: its group, topics and routes, free of any platform. Everything is checked when it is defined, so that
 * a mistake ends the start and not a record.
 */
import { backoffDefaults, MAX_WAIT_MS } from './backoff.ts'
import type { AutoOffsetReset } from './broker.ts'
import { ConfigError } from './errors.ts'
import { MAX_KEEP_MS } from './idempotency.ts'
import { matchNames, onceNames, routeNames, unknownNames } from './option-names.ts'
import type { NamesOf } from './option-names.ts'
import { operationsTopicName, redriveTopicName, retryTopicName } from './return-topic.ts'
import type { ReturnTopic } from './return-topic.ts'
import { ambiguities, compileRoutes } from './route-table.ts'
import type { RouteTable } from './route-table.ts'
import { createRouter, matchTopicName } from './router.ts'
import { deliveries, orderings } from './router.ts'
import type { BreakerOptions, Otherwise, RetryOptions, Route, RouteOptions, Router } from './router.ts'
import { topicNameProblem } from './topic.ts'
import type { Topic } from './topic.ts'

/** What an application is made of. */
export interface AppOptions {
  /** The consumer group (group.id): 1 to 249 characters without control characters, and not `.` or `..`. */
  readonly groupId: string
  /** Topics to subscribe to beside those that routes name, and topics that are only produced to. @default [] */
  readonly topics?: readonly Topic[]
  /** @default a router without routes */
  readonly router?: Router
  /** What happens to a record whose handler failed. Routes may override it. */
  readonly retry?: RetryOptions
  /**
   * How long one attempt of a handler may take, milliseconds; never longer than its run has room for. @default 30000, legal 1
   * to 82800000 (23 hours)
   */
  readonly attemptTimeoutMs?: number
  /** Where a group without committed offsets starts (auto.offset.reset). @default 'earliest', so that nothing is passed over */
  readonly autoOffsetReset?: AutoOffsetReset
  /** How much may be put off at a time on routes whose ordering is `key` or `none`. */
  readonly parking?: ParkingOptions
  /** When a route stops because too much of it becomes dead letters; null: never. Routes may override it. */
  readonly breaker?: BreakerOptions | null
  /**
   * A record that was in hand in so many deaths of its process is not called again, but made a dead letter (`crashed`).
   * Fewer than 2 would take the first record after any death for its cause. @default 2, legal 2 to 100
   */
  readonly maxCrashes?: number
  /**
   * Reads `<topic>.<group>-redrive` of each topic as well, through which a redrive brings dead letters back to this group
   * and to no other. @default false
   */
  readonly redrive?: boolean
  /**
   * Runs ask at their start, and now and then, what an operator has paused (`<group>.operations`): two calls of a run, and
   * one more every 15 seconds. @default false
   */
  readonly operations?: boolean
  /**
   * What a run does where a committed offset is ahead of the log's end or behind its start: leaves the partition and says how to
   * mend it (`stop`), or goes on at an end of the log. Costs three calls of a run. @default the broker begins by
   * `autoOffsetReset`, or at the log start where records were deleted, and only it says so
   */
  readonly onOffsetAnomaly?: OffsetAnomalyPolicy
  /** Names that topics may have, beside Kafka's own rule. @default /^[a-z0-9_.]+$/ */
  readonly topicNames?: RegExp
}

/** What is done about a committed offset that is not where the log is. */
export type OffsetAnomalyPolicy = 'stop' | 'earliest' | 'latest'

/** Bounds for records that wait for a retry, and those that wait behind them. */
export interface ParkingOptions {
  /** Most records. @default 1000, legal 1 to 100000 */
  readonly maxRecords?: number
  /** Most bytes of keys, values and headers. @default 8388608, legal 1 to 1073741824 */
  readonly maxBytes?: number
  /**
   * What happens when a bound is reached: nothing more is read until some of it is settled (`wait`), or the record that has
   * waited longest becomes a dead letter (`dead-letter`). @default 'wait'
   */
  readonly whenFull?: 'wait' | 'dead-letter'
}

/** Bounds with nothing left open. */
export type Parking = Required<ParkingOptions>

/** A checked application. Made by `defineApp`. */
export interface App {
  readonly groupId: string
  /** Every defined topic by its name: those listed and those of the routes. */
  readonly topics: ReadonlyMap<string, Topic>
  /** The names of the topics that have routes or are listed, and of those that bring records back, sorted. */
  readonly subscription: readonly string[]
  /** Topics that bring records back to this group, by name. */
  readonly returnTopics: ReadonlyMap<string, ReturnTopic>
  /** Where operators' orders stand; undefined where runs do not ask. */
  readonly operationsTopic: string | undefined
  readonly routes: readonly Route[]
  readonly table: RouteTable
  readonly otherwise: Otherwise
  readonly retry: RetryPolicy
  readonly attemptTimeoutMs: number
  readonly autoOffsetReset: AutoOffsetReset
  /** Undefined where runs do not look. */
  readonly onOffsetAnomaly: OffsetAnomalyPolicy | undefined
  readonly parking: Parking
  readonly breaker: BreakerPolicy | null
  readonly maxCrashes: number
}

/** When a breaker opens, with nothing left open. */
export type BreakerPolicy = Required<BreakerOptions>

/** A retry policy with nothing left open. */
export type RetryPolicy = Required<RetryOptions>

/** The retry policy of an app that names none: three attempts, 100 ms growing to 1 s between them. */
export const retryDefaults: RetryPolicy = Object.freeze({
  ...backoffDefaults,
  maxAttempts: 3,
  maxAgeMs: null,
  when: () => 'retry' as const,
  topicDelaysMs: [],
})

const breakerDefaults: BreakerPolicy = Object.freeze({
  probes: 3,
  minDeadLetters: 20,
  maxDeadLetters: null,
  share: 0.5,
  windowMs: 60_000,
  openMs: 60_000,
})

const parkingDefaults: Parking = Object.freeze({ maxRecords: 1_000, maxBytes: 8_388_608, whenFull: 'wait' })

const appNames: NamesOf<AppOptions> = {
  groupId: true,
  topics: true,
  router: true,
  retry: true,
  attemptTimeoutMs: true,
  autoOffsetReset: true,
  parking: true,
  breaker: true,
  maxCrashes: true,
  redrive: true,
  operations: true,
  onOffsetAnomaly: true,
  topicNames: true,
}

const DEFAULT_ATTEMPT_TIMEOUT_MS = 30_000
/** A lock lasts for an attempt and a margin, and a day at most. */
const MAX_ATTEMPT_TIMEOUT_MS = 82_800_000
const MAX_CONCURRENCY = 1_000
const MAX_STAGES = 10
const MAX_BATCH_RECORDS = 10_000
const MAX_STAGE_MS = 604_800_000
const DEFAULT_MAX_CRASHES = 2
const MAX_CRASHES = 100
const DEFAULT_TOPIC_NAMES = /^[a-z0-9_.]+$/

/**
 * Checks and compiles an application.
 * @throws {ConfigError} INVALID_CONFIG listing every problem at once.
 */
export function defineApp(options: AppOptions): App {
  const { groupId, topics = [], router = createRouter(), topicNames = DEFAULT_TOPIC_NAMES } = options
  const listed = [...topics, ...router.routes.map(({ match }) => match.topic)]
  const subscription = [...new Set(listed.map((topic) => (typeof topic === 'string' ? topic : topic.name)))].sort()
  const retry = retryPolicy(retryDefaults, options.retry)
  const returning = returnTopicsOf(options, subscription, router.routes, retry)
  const defined = listed.filter((topic) => typeof topic !== 'string').map((topic) => topic.narrows ?? topic)
  const problems = [
    ...unknownNames('', options, appNames),
    ...groupIdProblems(groupId),
    ...operationsProblems(options, subscription),
    ...flagProblems('redrive', options.redrive),
    ...flagProblems('operations', options.operations),
    ...wordProblems('autoOffsetReset', options.autoOffsetReset, ['earliest', 'latest', 'none']),
    ...wordProblems('onOffsetAnomaly', options.onOffsetAnomaly, ['stop', 'earliest', 'latest']),
    ...subscription.flatMap((name) => nameProblems(name, topicNames)),
    ...twinProblems(defined),
    ...collisionProblems(subscription),
    ...routeProblems(router.routes, retry),
    ...returning.flatMap((topic) => (typeof topic === 'string' ? [topic] : [])),
    ...retryProblems('retry', options.retry ?? {}),
    ...timeoutProblems('attemptTimeoutMs', options.attemptTimeoutMs),
    ...parkingProblems(options.parking ?? {}),
    ...breakerProblems('breaker', options.breaker),
    ...rangeProblems('maxCrashes', options.maxCrashes, 2, MAX_CRASHES, true),
  ]
  if (subscription.length === 0) problems.push('There is no topic: list one in topics or add a route.')
  if (problems.length > 0) {
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
    throw new ConfigError(`Cannot define the app: ${count}:\n${problems.map((problem) => `- ${problem}`).join('\n')}`)
  }
  const returnTopics = returning.filter((topic) => typeof topic !== 'string')
  return {
    groupId,
    operationsTopic: options.operations === true ? operationsTopicName(groupId) : undefined,
    returnTopics: new Map(returnTopics.map((topic) => [topic.name, topic])),
    topics: new Map(defined.map((topic) => [topic.name, topic])),
    subscription: [...subscription, ...returnTopics.map(({ name }) => name)].sort(),
    routes: [...router.routes],
    table: compileRoutes(router.routes),
    otherwise: router.fallback,
    retry,
    attemptTimeoutMs: options.attemptTimeoutMs ?? DEFAULT_ATTEMPT_TIMEOUT_MS,
    autoOffsetReset: options.autoOffsetReset ?? 'earliest',
    onOffsetAnomaly: options.onOffsetAnomaly,
    parking: {
      maxRecords: options.parking?.maxRecords ?? parkingDefaults.maxRecords,
      maxBytes: options.parking?.maxBytes ?? parkingDefaults.maxBytes,
      whenFull: options.parking?.whenFull ?? parkingDefaults.whenFull,
    },
    breaker: breakerPolicy(breakerDefaults, options.breaker),
    maxCrashes: options.maxCrashes ?? DEFAULT_MAX_CRASHES,
  }
}

/** A policy with some fields replaced; `undefined` replaces nothing. */
export function retryPolicy(base: RetryPolicy, over: RetryOptions = {}): RetryPolicy {
  return {
    maxAttempts: over.maxAttempts ?? base.maxAttempts,
    maxAgeMs: over.maxAgeMs === undefined ? base.maxAgeMs : over.maxAgeMs,
    initialMs: over.initialMs ?? base.initialMs,
    maxMs: over.maxMs ?? Math.max(base.maxMs, over.initialMs ?? 0),
    factor: over.factor ?? base.factor,
    when: over.when ?? base.when,
    topicDelaysMs: over.topicDelaysMs ?? base.topicDelaysMs,
  }
}

/** The topics that bring records back, or what is wrong with one. */
function returnTopicsOf(
  { groupId, redrive = false }: AppOptions,
  sources: readonly string[],
  routes: readonly Route[],
  retry: RetryPolicy,
): (ReturnTopic | string)[] {
  const stages = new Map<string, number>()
  for (const { match, options } of routes) {
    const source = matchTopicName(match)
    const { length } = retryPolicy(retry, options.retry).topicDelaysMs
    stages.set(source, Math.max(stages.get(source) ?? 0, length))
  }
  return sources.flatMap((source) => {
    const retries = Array.from({ length: Math.min(stages.get(source) ?? 0, MAX_STAGES) }, (_, index) => index + 1)
    return [...retries, ...(redrive ? [0] : [])].map((stage) => {
      const name = stage === 0 ? redriveTopicName(source, groupId) : retryTopicName(source, groupId, stage)
      if (name !== undefined) return { name, source, stage }
      return `Topic ${source}: no topic can be called after it and the group ${JSON.stringify(groupId)}, through which records would come back: choose a group id of letters, digits, dots, dashes and underscores.`
    })
  })
}

/** A policy with some fields replaced; null: no breaker. */
export function breakerPolicy(base: BreakerPolicy | null, over?: BreakerOptions | null): BreakerPolicy | null {
  if (over === undefined) return base
  if (over === null) return null
  const under = base ?? breakerDefaults
  return {
    probes: over.probes ?? under.probes,
    minDeadLetters: over.minDeadLetters ?? under.minDeadLetters,
    maxDeadLetters: over.maxDeadLetters === undefined ? under.maxDeadLetters : over.maxDeadLetters,
    share: over.share ?? under.share,
    windowMs: over.windowMs ?? under.windowMs,
    openMs: over.openMs ?? under.openMs,
  }
}

function groupIdProblems(groupId: unknown): string[] {
  const problem = groupNameProblem(groupId)
  return problem === undefined ? [] : [`groupId ${JSON.stringify(groupId)}: ${problem}`]
}

/** Topics are called after a group that reads what is paused, and it reads nothing else there. */
function operationsProblems({ groupId, operations }: AppOptions, subscription: readonly string[]): string[] {
  if (operations !== true) return []
  const name = operationsTopicName(groupId)
  if (name === undefined) {
    return [
      `operations: no topic can be called after the group ${JSON.stringify(groupId)}: choose a group id of letters, digits, dots, dashes and underscores.`,
    ]
  }
  return subscription.includes(name) ? [`operations: ${name} is a topic of the app: call that one differently.`] : []
}

/** What is wrong with the name of a group or an instance by the gateway's rule, or undefined. */
export function groupNameProblem(name: unknown): string | undefined {
  const isLegal = typeof name === 'string' && /^(?!\.{1,2}$)[^\p{Cc}\p{Cs}\u2028\u2029]{1,249}$/u.test(name)
  return isLegal ? undefined : 'give 1 to 249 characters, none of them a control character, and not . or ...'
}

function nameProblems(name: string, topicNames: RegExp): string[] {
  const problem = topicNameProblem(name)
  if (problem !== undefined) return [`Topic ${JSON.stringify(name)}: ${problem}`]
  // A fresh copy without g and y: their lastIndex would make the answer depend on the call before.
  const rule = new RegExp(topicNames.source, topicNames.flags.replace(/[gy]/g, ''))
  return rule.test(name)
    ? []
    : [`Topic ${name}: the name does not match ${String(topicNames)}: rename it or set topicNames.`]
}

function twinProblems(topics: readonly Topic[]): string[] {
  const groups = Map.groupBy(new Set(topics), (topic) => topic.name)
  return [...groups].flatMap(([name, group]) =>
    group.length === 1 ? [] : [`Topic ${name} is defined ${group.length} times: define it once and share it.`],
  )
}

/** Kafka refuses two topics that differ in dots and underscores only: their metrics would have one name. */
function collisionProblems(names: readonly string[]): string[] {
  const groups = Map.groupBy(names, (name) => name.replaceAll('.', '_'))
  return [...groups.values()].flatMap((group) =>
    group.length === 1
      ? []
      : [`Topics ${group.join(' and ')} differ in dots and underscores only, which Kafka refuses.`],
  )
}

function routeProblems(routes: readonly Route[], retry: RetryPolicy): string[] {
  const byName = Map.groupBy(routes, (route) => route.name)
  const tied = ambiguities(routes)
  return [
    ...routes.flatMap((route) => [
      ...unknownNames(`Route ${route.name}: `, route.options, routeNames),
      ...matchProblems(route),
      ...retryProblems(`Route ${route.name}: retry`, route.options.retry ?? {}),
      ...timeoutProblems(`Route ${route.name}: attemptTimeoutMs`, route.options.attemptTimeoutMs),
      ...orderProblems(`Route ${route.name}: `, route.options, retryPolicy(retry, route.options.retry)),
      ...breakerProblems(`Route ${route.name}: breaker`, route.options.breaker),
      ...batchProblems(`Route ${route.name}: `, route),
    ]),
    ...[...byName].flatMap(([name, group]) =>
      group.length > 1 && !tied.some(([a]) => a.name === name)
        ? [`${group.length} routes are called ${name}: give each a name of its own.`]
        : [],
    ),
    ...tied.map(
      ([a, b]) =>
        `Routes ${a.name} and ${b.name} can match one record with equally many conditions: ` +
        'add a route with the conditions of both, or make one of them narrower.',
    ),
  ]
}

function matchProblems({ name, match }: Route): string[] {
  const problems = unknownNames(`Route ${name}: the condition `, match, matchNames)
  if (name === '') problems.push(`A route of topic ${matchTopicName(match)} has an empty name.`)
  if (match.value !== undefined && typeof match.topic !== 'string' && match.topic.format !== 'json') {
    problems.push(
      `Route ${name}: conditions on the value need a JSON topic, and ${match.topic.name} is ${match.topic.format}.`,
    )
  }
  for (const [path, expected] of Object.entries(match.value ?? {})) {
    if (expected !== null && !['string', 'number', 'boolean'].includes(typeof expected)) {
      problems.push(`Route ${name}: value.${path} is compared with a string, number, boolean or null only.`)
    }
  }
  for (const [key, expected] of Object.entries(match.headers ?? {})) {
    if (typeof expected !== 'string') problems.push(`Route ${name}: header ${key} is compared with a string only.`)
  }
  if (match.key !== undefined && match.key !== null && typeof match.key !== 'string') {
    problems.push(`Route ${name}: the key is compared with a string or null only.`)
  }
  return problems
}

function retryProblems(where: string, retry: RetryOptions): string[] {
  const initialMs = retry.initialMs ?? 0
  return [
    ...unknownNames(`${where}.`, retry, retryDefaults),
    ...rangeProblems(`${where}.maxAttempts`, retry.maxAttempts, 1, 100, true),
    ...rangeProblems(`${where}.maxAgeMs`, retry.maxAgeMs ?? undefined, 1, Number.MAX_SAFE_INTEGER, true),
    ...rangeProblems(`${where}.initialMs`, retry.initialMs, 0, MAX_WAIT_MS, true),
    ...rangeProblems(`${where}.maxMs`, retry.maxMs, initialMs, MAX_WAIT_MS, true),
    ...rangeProblems(`${where}.factor`, retry.factor, 1, 100, false),
    ...stageProblems(`${where}.topicDelaysMs`, retry.topicDelaysMs ?? []),
    ...(retry.when === undefined || typeof retry.when === 'function'
      ? []
      : [`${where}.when is no function: give one that says what an error calls for.`]),
  ]
}

/** What is wrong with what a route says of order, concurrency and delivery. */
function orderProblems(
  where: string,
  { ordering, concurrency, delivery, retry, once }: RouteOptions,
  { topicDelaysMs }: RetryPolicy,
): string[] {
  const problems = [
    ...wordProblems(`${where}ordering`, ordering, orderings),
    ...wordProblems(`${where}delivery`, delivery, deliveries),
    ...rangeProblems(`${where}concurrency`, concurrency, 1, MAX_CONCURRENCY, true),
  ]
  if (delivery === 'at-most-once' && (retry?.maxAttempts ?? 1) > 1) {
    problems.push(`${where}at-most-once calls a handler once: leave retry.maxAttempts out, or take at-least-once.`)
  }
  if (once !== undefined && delivery !== 'effectively-once') {
    problems.push(
      `${where}once says how to deliver effectively once: set delivery to effectively-once, or leave it out.`,
    )
  }
  problems.push(...unknownNames(`${where}once.`, once, onceNames))
  problems.push(...rangeProblems(`${where}once.keepMs`, once?.keepMs, 1, MAX_KEEP_MS, true))
  if (topicDelaysMs.length > 0 && ordering !== 'none') {
    problems.push(`${where}retry topics keep no order: set ordering to none, or leave retry.topicDelaysMs out.`)
  }
  if (topicDelaysMs.length > 0 && delivery === 'at-most-once') {
    problems.push(`${where}at-most-once tries nothing again: leave retry.topicDelaysMs out, or take at-least-once.`)
  }
  return problems
}

function batchProblems(where: string, { batch, options }: Route): string[] {
  if (batch === undefined) return []
  const problems = rangeProblems(`${where}maxBatchRecords`, batch.maxRecords, 1, MAX_BATCH_RECORDS, true)
  const { delivery = 'at-least-once' } = options
  if (delivery === 'at-most-once' || delivery === 'effectively-once') {
    problems.push(
      `${where}a batch that fails is called again in parts, so it cannot be ${delivery}: leave delivery out, or take on instead of onBatch.`,
    )
  }
  return problems
}

function parkingProblems(parking: ParkingOptions): string[] {
  const { maxRecords, maxBytes, whenFull } = parking
  return [
    ...unknownNames('parking.', parking, parkingDefaults),
    ...rangeProblems('parking.maxRecords', maxRecords, 1, 100_000, true),
    ...rangeProblems('parking.maxBytes', maxBytes, 1, 1_073_741_824, true),
    ...wordProblems('parking.whenFull', whenFull, ['wait', 'dead-letter']),
  ]
}

function breakerProblems(where: string, breaker: BreakerOptions | null | undefined): string[] {
  if (breaker === undefined || breaker === null) return []
  return [
    ...unknownNames(`${where}.`, breaker, breakerDefaults),
    ...rangeProblems(`${where}.probes`, breaker.probes, 1, 1_000, true),
    ...rangeProblems(`${where}.minDeadLetters`, breaker.minDeadLetters, 1, 1_000_000, true),
    ...rangeProblems(`${where}.maxDeadLetters`, breaker.maxDeadLetters ?? undefined, 1, 1_000_000, true),
    ...rangeProblems(`${where}.share`, breaker.share, 0.01, 1, false),
    ...rangeProblems(`${where}.windowMs`, breaker.windowMs, 1_000, 3_600_000, true),
    ...rangeProblems(`${where}.openMs`, breaker.openMs, 1_000, 3_600_000, true),
  ]
}

function flagProblems(where: string, flag: boolean | undefined): string[] {
  if (flag === undefined || typeof flag === 'boolean') return []
  return [`${where} is ${JSON.stringify(flag)}: give true or false.`]
}

function wordProblems(where: string, word: string | undefined, words: readonly string[]): string[] {
  if (word === undefined || words.includes(word)) return []
  return [`${where} is ${JSON.stringify(word)}: choose of ${words.join(', ')}.`]
}

function stageProblems(where: string, delaysMs: readonly number[]): string[] {
  if (delaysMs.length > MAX_STAGES) return [`${where} has ${delaysMs.length} waits: give up to ${MAX_STAGES}.`]
  return delaysMs.flatMap((delayMs, index) => rangeProblems(`${where}[${index}]`, delayMs, 1_000, MAX_STAGE_MS, true))
}

function timeoutProblems(where: string, timeoutMs: number | undefined): string[] {
  return rangeProblems(where, timeoutMs, 1, MAX_ATTEMPT_TIMEOUT_MS, true)
}

function rangeProblems(
  where: string,
  value: number | undefined,
  min: number,
  max: number,
  wholeOnly: boolean,
): string[] {
  if (value === undefined) return []
  const isLegal = wholeOnly ? Number.isSafeInteger(value) : Number.isFinite(value)
  if (isLegal && value >= min && value <= max) return []
  return [`${where} is ${String(value)}: give ${wholeOnly ? 'an integer' : 'a number'} from ${min} to ${max}.`]
}
