/** What an app says of its routes, with nothing left open: one plan for each route, for the time of a run. */
import type { App, RetryPolicy } from '../app.ts'
import { breakerPolicy, retryPolicy } from '../app.ts'
import type { BatchHandler, OnceOptions, Ordering, Route, RouteOptions } from '../router.ts'
import { Breaker } from './breaker.ts'
import type { EffectivelyOnce } from './effectively-once.ts'

/** How records of a route are handled. */
export interface Plan {
  /** The route's name. */
  readonly route: string
  readonly ordering: Ordering
  /** Most records at once. */
  readonly concurrency: number
  /** Its records are committed before they are handled. */
  readonly isAtMostOnce: boolean
  readonly retry: RetryPolicy
  readonly timeoutMs: number
  /** The route allows an attempt more, and the run has no room for it. */
  readonly isCut: boolean
  readonly breaker: Breaker | undefined
  /** Its handler is called under a lock. */
  readonly once: EffectivelyOnce | undefined
  /** Its records are handled together. */
  readonly batch: BatchPlan | undefined
  /** What is being handled: records, or batches of them. */
  active: number
  /** Records that are being handled, those of batches counted one by one. */
  records: number
}

/** How records of a route are handled together. */
export interface BatchPlan {
  readonly handler: BatchHandler<never>
  /** Most records in one call. */
  readonly maxRecords: number
  /** So long after its first call a batch that fails is not halved any more, milliseconds: each record is called alone. */
  readonly splitMs: number
}

/** What handlers that take records without a route are called. */
const OTHERWISE = 'otherwise'
/** Waits up to here are over within a run, most of the time. */
const LONG_WAIT_MS = 10_000
/** Unless the consumer says more. Leaves room for the run's own calls within the six connections of a Worker. */
export const DEFAULT_CONCURRENCY = 4

/** The plans of a run. */
export class Plans {
  /** Of records that no route takes. */
  readonly otherwise: Plan
  readonly #plans = new Map<Route, Plan>()

  /**
   * An attempt that may take longer than `usableMs` would never be seen to time out. `onceOf` makes what handlers are called
   * through on routes with `effectively-once`.
   */
  constructor(app: App, usableMs: number, onceOf: (options: OnceOptions) => EffectivelyOnce) {
    const planOf = (
      route: string,
      options: RouteOptions,
      begins: 'half-open' | 'closed' = 'half-open',
      batch?: BatchPlan,
    ): Plan => {
      const isAtMostOnce = options.delivery === 'at-most-once'
      const retry = retryPolicy(app.retry, options.retry)
      const breaker = breakerPolicy(app.breaker, options.breaker)
      const askedMs = options.attemptTimeoutMs ?? app.attemptTimeoutMs
      const roomMs = batch?.splitMs ?? usableMs
      return {
        route,
        ordering: orderingOf(options),
        concurrency: options.concurrency ?? Number.POSITIVE_INFINITY,
        isAtMostOnce,
        retry: isAtMostOnce ? { ...retry, maxAttempts: 1 } : retry,
        once: options.delivery === 'effectively-once' ? onceOf(options.once ?? {}) : undefined,
        breaker: breaker === null ? undefined : new Breaker(breaker, begins),
        batch,
        timeoutMs: Math.max(1, Math.min(askedMs, roomMs)),
        isCut: askedMs > roomMs,
        active: 0,
        records: 0,
      }
    }
    // They keep their order, which retry topics do not; and a topic without routes has none that anybody reads.
    // Where no handler takes them, none can succeed, which is what would close a breaker.
    const begins = typeof app.otherwise === 'function' ? 'half-open' : 'closed'
    this.otherwise = planOf(OTHERWISE, { retry: { topicDelaysMs: [] } }, begins)
    for (const route of app.routes) {
      const { name, options, batch } = route
      // A record that hangs must be found, and then seen to time out alone, within one run: half of it for each.
      const together = batch === undefined ? undefined : { ...batch, splitMs: usableMs / 2 }
      this.#plans.set(route, planOf(name, options, 'half-open', together))
    }
  }

  /** Every plan. */
  get all(): readonly Plan[] {
    return [this.otherwise, ...this.#plans.values()]
  }

  of(route: Route): Plan {
    return this.#plans.get(route) ?? this.otherwise
  }
}

/** Whether one more record of a route may be handled now. */
export function hasRoom({ active, records, concurrency, breaker }: Plan): boolean {
  return active < concurrency && (breaker === undefined || records < breaker.mostAtOnce)
}

/** Whether commits of an app carry what is settled and put off behind their offsets. Of a batch some may be settled before others. */
export function keepsProgress({ routes, retry }: App): boolean {
  if (retry.maxMs >= LONG_WAIT_MS) return true
  return routes.some(
    ({ options, batch }) =>
      batch !== undefined ||
      orderingOf(options) !== 'partition' ||
      retryPolicy(retry, options.retry).maxMs >= LONG_WAIT_MS,
  )
}

/** Most records at once where the consumer does not say: as many as any route asks for. */
export function concurrencyOf({ routes }: App): number {
  return Math.max(DEFAULT_CONCURRENCY, ...routes.map(({ options }) => options.concurrency ?? 0))
}

/** The order of a route that may say nothing of it. */
export function orderingOf({ ordering, concurrency }: RouteOptions): Ordering {
  return ordering ?? (concurrency === undefined ? 'partition' : 'key')
}
