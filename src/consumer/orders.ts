/**
 * What operators have paused, as a run goes by it. A run reads it before anything else and works under it to its end; a run
 * that finds it changed ends in good order, and the next one goes by what it is then.
 */
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { KedgeError } from '../errors.ts'
import type { LogEvent } from '../logger.ts'
import { newOperationsTopic, readNewer, readState, untouched } from '../operations/state.ts'
import type { MakeCall, Paused } from '../operations/state.ts'
import { exactTextOf } from '../record.ts'
import type { ConsumerRecord, Offset } from '../record.ts'
import type { Calls } from './calls.ts'
import { runCauseOf } from './cause.ts'

/** What orders need of their run. */
export interface OrdersScope {
  readonly app: App
  readonly broker: Broker
  readonly clock: Clock
  readonly calls: Calls
  /** Aborted when the run does not ask any more. */
  readonly ending: AbortSignal
  /** Everything is paused, or something else than before; another run is worth it after so long, milliseconds. */
  readonly onPaused: (retryAfterMs: number) => void
  readonly log: (event: LogEvent) => void
}

/** How often a run that is on asks for what is paused, milliseconds. A pause takes so long at most. */
const OPERATIONS_CHECK_MS = 15_000

/** The orders of one run. */
export class Orders {
  readonly #scope: OrdersScope
  #paused: Paused = untouched.paused
  /** Of each topic. */
  #keys: ReadonlyMap<string, ReadonlySet<string>> = new Map()
  #endOffset: Offset = 0
  #cancelTimer: (() => void) | undefined
  #isClosed = false

  constructor(scope: OrdersScope) {
    this.#scope = scope
  }

  /** What the run subscribes to: what comes back to a paused topic waits with it. */
  get subscription(): readonly string[] {
    const { subscription, returnTopics } = this.#scope.app
    const { topics } = this.#paused
    if (topics.length === 0) return subscription
    const paused = new Set(topics)
    return subscription.filter((topic) => !paused.has(topic) && !paused.has(returnTopics.get(topic)?.source ?? topic))
  }

  /** Whether an operator has paused the key of a record, as it was read first. */
  isPaused({ topic, key }: ConsumerRecord): boolean {
    if (this.#keys.size === 0 || key === null) return false
    const text = exactTextOf(key)
    return text !== undefined && this.#keys.get(topic)?.has(text) === true
  }

  /** Reads what is in force; nothing for an app that does not ask. Rejects as the broker does. */
  async read(): Promise<void> {
    const { app, broker, calls, ending, onPaused } = this.#scope
    const topic = app.operationsTopic
    if (topic === undefined) return
    const make: MakeCall = (work) => calls.make(work, { signal: ending })
    const { state, endOffset, exists } = await readState(broker, topic, make)
    this.#paused = state.paused
    const byTopic = Map.groupBy(state.paused.keys, (one) => one.topic)
    this.#keys = new Map([...byTopic].map(([name, paused]) => [name, new Set(paused.map(({ key }) => key))]))
    this.#endOffset = endOffset
    if (!exists) await this.#makeTopic(topic)
    if (state.paused.group || this.subscription.length === 0) onPaused(OPERATIONS_CHECK_MS)
    else this.#arm()
  }

  close(): void {
    this.#isClosed = true
    this.#cancelTimer?.()
  }

  /** That there is a topic says to operators who know nothing of the app that its runs ask. */
  async #makeTopic(topic: string): Promise<void> {
    const { broker, calls, log } = this.#scope
    try {
      await calls.make((call) => broker.createTopic(newOperationsTopic(broker, topic), call))
    } catch (error) {
      if (error instanceof KedgeError && error.code === 'TOPIC_ALREADY_EXISTS') return
      // A verb with the app makes it.
      log({ level: 'warn', event: 'operations topic missing', topic, cause: runCauseOf(error).message })
    }
  }

  #arm(): void {
    if (this.#isClosed) return
    this.#cancelTimer = this.#scope.clock.after(OPERATIONS_CHECK_MS, () => void this.#ask())
  }

  async #ask(): Promise<void> {
    const { app, broker, calls, ending, log } = this.#scope
    const topic = app.operationsTopic
    if (this.#isClosed || ending.aborted || topic === undefined) return
    if (!calls.maySpare) return this.#arm()
    try {
      const from = this.#endOffset
      const newer = await calls.make((call) => readNewer(broker, topic, from, call), { signal: ending })
      if (newer !== undefined) this.#heed(newer.state.paused, newer.endOffset)
    } catch (error) {
      // What was in force a moment ago most likely still is.
      if (!ending.aborted) log({ level: 'warn', event: 'operations not read', topic, cause: runCauseOf(error).message })
    }
    this.#arm()
  }

  #heed(paused: Paused, endOffset: Offset): void {
    const isChanged = JSON.stringify(paused) !== JSON.stringify(this.#paused)
    this.#endOffset = endOffset
    if (isChanged && !this.#isClosed) this.#scope.onPaused(paused.group ? OPERATIONS_CHECK_MS : 0)
  }
}
