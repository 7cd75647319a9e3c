/**
 * Routes: which handler gets which record, by topic, key, headers and fields of the value. The route with the most
 * conditions wins. `createRouter()` collects routes; `defineApp` has them checked and compiled (`route-table.ts`).
 */
import type { BackoffOptions } from './backoff.ts'
import type { LogValue } from './logger.ts'
import type { ConsumerRecord, TimestampMs } from './record.ts'
import type { Topic } from './topic.ts'

/** What a handler is told besides the record. */
export interface HandlerContext {
  /** Aborted when the attempt is given up: its time is over, the run ends, or the partition moved away. */
  readonly signal: AbortSignal
  /** 1 on the first attempt; counted on over runs where the app keeps its progress (see `Ordering`). */
  readonly attempt: number
  /** The most attempts that the route's policy allows. On the last one a retry of the handler's own is of no use to Kedge's. */
  readonly maxAttempts: number
  readonly groupId: string
  /** The name of the route that chose this handler. */
  readonly route: string
  /** When the attempt will be given up. */
  readonly deadlineMs: TimestampMs
  /** Writes a log line with the record's coordinates; of a batch those of its first record, and how many there are. */
  readonly log: (message: string, fields?: Readonly<Record<string, LogValue>>) => void
}

/**
 * Handles one record. Returning or resolving means: handled, whatever the value. Throwing or rejecting means that the
 * retry policy decides; `reject(reason)` means: never try again; see
 * `handler-errors.ts` for what else can be said.
 */
export type Handler<V = Uint8Array | null> = (record: ConsumerRecord<V>, context: HandlerContext) => unknown

/**
 * Handles records of one partition and route together, in the order of their offsets. Returning or resolving means: all of
 * them are handled. Throwing or rejecting means that some are not: the batch is split until they stand alone, and some of the
 * others may come again with it. `BatchError` names them instead.
 */
export type BatchHandler<V = Uint8Array | null> = (
  records: readonly ConsumerRecord<V>[],
  context: HandlerContext,
) => unknown

/** A value that a condition on the record's value can ask for. */
export type FieldValue = string | number | boolean | null

/** Which records a route takes. All conditions must hold. */
export interface RouteMatch {
  /** A defined topic: the handler gets the parsed, checked value. A name: it gets the bytes. */
  readonly topic: Topic | string
  /** The record's key, as UTF-8 text; null for records without a key. */
  readonly key?: string | null
  /** Header values by header key, as UTF-8 text. Of several headers with one key the last counts. */
  readonly headers?: Readonly<Record<string, string>>
  /**
   * Fields of the value (which must be JSON) by path: names and array indexes joined by dots, `'issue.labels.0'`.
   * Read before the schema is asked. A dot that belongs to a name is written `\\.`.
   */
  readonly value?: Readonly<Record<string, FieldValue>>
}

/** What the handler of a match gets as the record's value. */
export type MatchedValue<M> =
  M extends Topic<infer _Input, infer Output>
    ? Output
    : M extends { readonly topic: Topic<infer _Input, infer Output> }
      ? Output
      : Uint8Array | null

/** When and how often a failed record is tried again within a run. */
export interface RetryOptions extends BackoffOptions {
  /** Attempts in all; 1 means no retry. @default 3, legal 1 to 100 */
  readonly maxAttempts?: number
  /** A failed record whose timestamp is older than this is not tried again, milliseconds; null: no limit. @default null */
  readonly maxAgeMs?: number | null
  /**
   * Says what a failure calls for, before the number of attempts is asked. Errors of `handler-errors.ts` never come here.
   * @default every failure is retried
   */
  readonly when?: (error: unknown) => RetryDecision
  /**
   * For routes whose ordering is `none`: what failed on every attempt goes to the topic `<topic>.<group>-retry-1`, is tried
   * again after the first of these waits, then goes to `-retry-2` and so on, and becomes a dead letter after the last. Its
   * offset is committed meanwhile. Milliseconds. @default [] , legal up to 10 waits of 1000 to 604800000
   */
  readonly topicDelaysMs?: readonly number[]
}

/** What a failure calls for: another attempt as far as the policy goes, a dead letter, nothing, or the end of its partition for this run. */
export type RetryDecision = 'retry' | 'dead-letter' | 'skip' | 'stop'

/**
 * Which records wait for each other.
 * - `partition`: a record waits for everything before it in its partition, and holds up everything behind it.
 * - `key`: it waits for those before it with its key; records without a key wait for nobody. While one is put off, other
 *   keys go on, in later runs too.
 * - `none`: it waits for nobody.
 *
 * With `key` and `none` records are settled out of order. A commit then remembers, within Kafka's 4,096 bytes of metadata,
 * what is settled behind its offset, and how often the others were tried.
 */
export type Ordering = (typeof orderings)[number]

/** Every ordering. */
export const orderings = ['partition', 'key', 'none'] as const

/**
 * What a crash costs.
 * - `at-least-once`: the record is committed when it is handled; it may be handled again.
 * - `at-most-once`: it is committed before its handler is called, once; it may be lost. Not in batches that a platform hands
 *   over, whose records come again as the platform says.
 * - `effectively-once`: at least once, and under a lock on the record's idempotency key in the consumer's idempotency store:
 *   a handler that returned is not called for that key again, as long as the store remembers it.
 */
export type Delivery = (typeof deliveries)[number]

/** Every delivery. */
export const deliveries = ['at-least-once', 'at-most-once', 'effectively-once'] as const

/** What a route may settle for itself. */
export interface RouteOptions {
  /** Names the route in logs, reports and dead letters. @default its conditions, for example `orders key=eu` */
  readonly name?: string
  /** How long one attempt may take, milliseconds. @default the app's `attemptTimeoutMs`, legal 1 to 82800000 */
  readonly attemptTimeoutMs?: number
  /** Overrides the app's policy, field by field. */
  readonly retry?: RetryOptions
  /** @default 'key' where `concurrency` is given, else 'partition' */
  readonly ordering?: Ordering
  /**
   * Most records of this route that are handled at once, over all partitions of a run. More than the consumer's
   * `concurrency` allows are never. @default no limit of its own, legal 1 to 1000
   */
  readonly concurrency?: number
  /** @default 'at-least-once' */
  readonly delivery?: Delivery
  /** With `effectively-once`: what is kept of a record that was handled. */
  readonly once?: OnceOptions
  /** When the route stops because too much of it becomes dead letters; null: never. @default the app's */
  readonly breaker?: BreakerOptions | null
}

/** What a batch route may settle for itself. Its `delivery` is `at-least-once`; its `concurrency` counts batches. */
export interface BatchRouteOptions extends RouteOptions {
  /** Most records in one call of the handler. @default 100, legal 1 to 10000 */
  readonly maxBatchRecords?: number
}

/** How a record is recognised that was handled before. */
export interface OnceOptions {
  /**
   * The business key, from the record as its handler gets it: what two records have in common that ask for one effect. It
   * counts within the group and topic. @default the record's own place: group, topic, partition, offset
   */
  readonly key?: (record: ConsumerRecord<unknown>) => string
  /** How long it is remembered, milliseconds. @default 604800000 (a week), legal 1 to 31622400000 */
  readonly keepMs?: number
  /** Takes a store that is not linearizable, with which two attempts may run at once and repeat an effect. @default false */
  readonly allowNonLinearizable?: boolean
}

/**
 * When so many dead letters come out of a route that it had better stop for the rest of the run. Each run begins with the
 * route half open, until one of its records is handled.
 */
export interface BreakerOptions {
  /**
   * Dead letters whose handler failed that open it while it is half open, and records that are then handled at once. Not more than
   * `minDeadLetters`. @default 3, legal 1 to 1000
   */
  readonly probes?: number
  /** Fewer within the window never open it after that. @default 20, legal 1 to 1000000 */
  readonly minDeadLetters?: number
  /** So many within the window open it, whatever their share; null: only the share counts. @default null, legal 1 to 1000000 */
  readonly maxDeadLetters?: number | null
  /** The part of the records of the window that must be dead letters. @default 0.5, legal 0.01 to 1 */
  readonly share?: number
  /** The window, milliseconds. @default 60000, legal 1000 to 3600000 */
  readonly windowMs?: number
  /**
   * The run ends so long after it opened, if it has not ended before, so that the next one probes. Milliseconds.
   * @default 60000, legal 1000 to 3600000
   */
  readonly openMs?: number
}

/**
 * What happens to a record that no route takes: it becomes a dead letter (`unroutable`), is passed over and counted as
 * skipped, stops its partition until a run whose router takes it, or goes to a handler, which gets its bytes.
 */
export type Otherwise = 'dead-letter' | 'skip' | 'stop' | Handler

/** A route as it was given. */
export interface Route {
  readonly name: string
  readonly match: RouteMatch
  /** That of a batch route calls the batch handler with one record. */
  readonly handler: Handler<never>
  /** Where its records are handled together. */
  readonly batch?: RouteBatch
  readonly options: RouteOptions
}

/** How a route handles records together. */
export interface RouteBatch {
  readonly handler: BatchHandler<never>
  /** Most records in one call. */
  readonly maxRecords: number
}

/** Collects routes. Every method returns the router itself. */
export interface Router {
  /** Adds a route. The handler's record is typed by the topic. */
  on<const M extends Topic | RouteMatch>(match: M, handler: Handler<MatchedValue<M>>, options?: RouteOptions): Router
  /**
   * Adds a route whose handler gets several records at once: those of one partition that can be begun now, one after the
   * other, from 1 to `maxBatchRecords`. It does not wait for more.
   */
  onBatch<const M extends Topic | RouteMatch>(
    match: M,
    handler: BatchHandler<MatchedValue<M>>,
    options?: BatchRouteOptions,
  ): Router
  /** Says what happens to records that no route takes. @default 'dead-letter' */
  otherwise(policy: Otherwise): Router
  readonly routes: readonly Route[]
  readonly fallback: Otherwise
}

const DEFAULT_BATCH_RECORDS = 100

/** Makes an empty router. */
export function createRouter(): Router {
  const routes: Route[] = []
  let fallback: Otherwise = 'dead-letter'
  const router: Router = {
    on(match, handler, options = {}) {
      if (typeof handler !== 'function')
        throw new TypeError('A route needs a handler: a function of record and context.')
      const full = routeMatchOf(match)
      routes.push({ name: options.name ?? matchName(full), match: full, handler, options })
      return router
    },
    onBatch(match, handler, { maxBatchRecords = DEFAULT_BATCH_RECORDS, ...options } = {}) {
      if (typeof handler !== 'function')
        throw new TypeError('A batch route needs a handler: a function of records and context.')
      const full = routeMatchOf(match)
      const name = options.name ?? matchName(full)
      const one: Handler<never> = (record, context) => handler([record], context)
      routes.push({ name, match: full, handler: one, batch: { handler, maxRecords: maxBatchRecords }, options })
      return router
    },
    otherwise(policy) {
      if (typeof policy !== 'function' && policy !== 'dead-letter' && policy !== 'skip' && policy !== 'stop') {
        throw new TypeError("otherwise takes 'dead-letter', 'skip', 'stop' or a handler.")
      }
      fallback = policy
      return router
    },
    routes,
    get fallback() {
      return fallback
    },
  }
  return router
}

/** The name of the topic of a match. */
export function matchTopicName(match: RouteMatch): string {
  return typeof match.topic === 'string' ? match.topic : match.topic.name
}

/** A defined topic alone is a match too. */
function routeMatchOf(match: Topic | RouteMatch): RouteMatch {
  return 'topic' in match ? match : { topic: match }
}

/** What a route without a name is called. Stable as long as its conditions are. */
function matchName(match: RouteMatch): string {
  const parts = [matchTopicName(match)]
  if (match.key !== undefined) parts.push(`key=${match.key ?? 'null'}`)
  for (const [key, value] of Object.entries(match.headers ?? {})) parts.push(`header.${key}=${value}`)
  for (const [path, value] of Object.entries(match.value ?? {})) parts.push(`value.${path}=${String(value)}`)
  return parts.join(' ')
}
