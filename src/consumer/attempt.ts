/**
 * One call of a handler. A handler that answers at once costs no promise, timer or abort signal; what a handler did
 * after its attempt was given up is ignored. A handler that ignores its signal goes on in the background: then it may
 * overlap with the next attempt, so handlers should pass the signal on to what they wait for.
 */
import type { Clock } from '../clock.ts'
import { HandlerError } from '../errors.ts'
import type { Log, LogValue } from '../logger.ts'
import type { ConsumerRecord, TimestampMs } from '../record.ts'
import type { BatchHandler, Handler, HandlerContext } from '../router.ts'
import { asSeen } from './cause.ts'
import type { Watchdog, Watched } from './watchdog.ts'

/** How an attempt went. `given-up`: for a reason that is not the record's, so nothing is known of it. */
export type AttemptResult =
  | { readonly kind: 'handled' }
  | { readonly kind: 'failed'; readonly error: unknown }
  | { readonly kind: 'timeout'; readonly error: HandlerError }
  | { readonly kind: 'given-up' }

/** What all attempts of a run share. */
export interface AttemptScope {
  readonly clock: Clock
  readonly watchdog: Watchdog
  readonly groupId: string
  /** Monotonic time at which every handler is given up. */
  readonly handleUntil: number
  readonly log: Log | undefined
  /** A handler has kept the event loop to itself for so long, milliseconds. */
  readonly onBusy: (busyMs: number) => void
}

/** What an attempt is made with. */
export interface AttemptWork {
  /** As the handler gets it. */
  readonly typed: ConsumerRecord<unknown> | readonly ConsumerRecord<unknown>[]
  readonly handler: Handler<never> | BatchHandler<never>
  readonly plan: {
    readonly route: string
    readonly timeoutMs: number
    /** The route allows more, and the run has no room for it. */
    readonly isCut: boolean
    readonly retry: { readonly maxAttempts: number }
  }
}

const nowhere = { topic: undefined, partition: undefined, offset: undefined }
const handled: AttemptResult = { kind: 'handled' }

/** One call of a handler, and the context it is given. */
export class Attempt implements HandlerContext, Watched {
  readonly attempt: number
  readonly dueAt: number
  readonly #scope: AttemptScope
  readonly #work: AttemptWork
  #controller: AbortController | undefined
  #settle: ((result: AttemptResult) => void) | undefined
  #reason: Error | undefined

  constructor(scope: AttemptScope, work: AttemptWork, attempt: number, startedAt: number) {
    this.#scope = scope
    this.#work = work
    this.attempt = attempt
    this.dueAt = startedAt + work.plan.timeoutMs
  }

  get route(): string {
    return this.#work.plan.route
  }

  get maxAttempts(): number {
    return this.#work.plan.retry.maxAttempts
  }

  get groupId(): string {
    return this.#scope.groupId
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#reason !== undefined) this.#controller.abort(this.#reason)
    return this.#controller.signal
  }

  get deadlineMs(): TimestampMs {
    const { clock, handleUntil } = this.#scope
    return clock.now() + Math.min(this.dueAt, handleUntil) - clock.monotonic()
  }

  get log(): HandlerContext['log'] {
    return (message: string, fields: Readonly<Record<string, LogValue>> = {}) => {
      const { typed } = this.#work
      const { topic, partition, offset } = 'topic' in typed ? typed : (typed[0] ?? nowhere)
      const records = 'topic' in typed ? undefined : typed.length
      this.#scope.log?.({
        ...fields,
        level: 'info',
        event: 'log',
        message,
        topic,
        partition,
        offset,
        records,
        route: this.route,
      })
    }
  }

  /** Calls the handler; gives the result at once where the handler does. Never throws or rejects. */
  call(): AttemptResult | Promise<AttemptResult> {
    const { handler, typed } = this.#work
    const { clock, onBusy } = this.#scope
    const startedAt = clock.monotonic()
    try {
      // The route table pairs each handler with the records of its own topic, which no type can say for all at once.
      const result = (handler as (given: typeof typed, context: HandlerContext) => unknown)(typed, this)
      return isThenable(result) ? this.#wait(result) : handled
    } catch (error) {
      return { kind: 'failed', error: asSeen(error) }
    } finally {
      onBusy(clock.monotonic() - startedAt)
    }
  }

  /** Called by the watchdog. */
  expire(): void {
    const { timeoutMs, isCut } = this.#work.plan
    const what = isCut ? 'which is all that its run has room for: give runs more time' : 'raise attemptTimeoutMs'
    const separator = isCut ? ', ' : ': '
    const message = `A handler did not settle within ${timeoutMs} ms: on route ${this.route}${separator}${what} or do less per record.`
    const error = new HandlerError('HANDLER_TIMEOUT', message)
    this.#end({ kind: 'timeout', error }, error)
  }

  /** Gives the attempt up for a reason that is not the record's. */
  giveUp(reason: Error): void {
    this.#end({ kind: 'given-up' }, reason)
  }

  #wait(result: PromiseLike<unknown>): Promise<AttemptResult> {
    return new Promise((resolve) => {
      this.#settle = resolve
      this.#scope.watchdog.watch(this)
      const settle = (outcome: AttemptResult): void => {
        this.#scope.watchdog.unwatch(this)
        resolve(outcome)
      }
      Promise.resolve(result).then(
        () => settle(handled),
        (error: unknown) => settle({ kind: 'failed', error: asSeen(error) }),
      )
    })
  }

  #end(result: AttemptResult, reason: Error): void {
    this.#scope.watchdog.unwatch(this)
    this.#reason = reason
    this.#settle?.(result)
    this.#controller?.abort(reason)
  }
}

function isThenable(result: unknown): result is PromiseLike<unknown> {
  return typeof result === 'object' && result !== null && 'then' in result && typeof result.then === 'function'
}
