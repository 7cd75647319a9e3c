/** Producers that send to a gateway at a steady pace, whatever becomes of it, and note what they were told. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { KedgeError } from '../../src/errors.ts'
import { bytesOf } from '../../src/record.ts'
import type { HistoryEvent, Item } from '../history/history.ts'
import { valueOf } from './stored.ts'

/** What producers send, and where to. */
export interface ProducersOptions {
  /** Of the gateway. */
  readonly url: string
  readonly topic: string
  /** How many of them. Each has a lane, `p0` and so on, which is also its records' key. */
  readonly producers: number
  /** Of all of them. */
  readonly recordsPerSecond: number
  /** Whether a producer sends its records until they are acknowledged, under idempotency keys, or else once. */
  readonly hasKey: (index: number) => boolean
  readonly random: () => number
  /** Takes what is sent, acknowledged and failed. */
  readonly note: (event: HistoryEvent) => void
}

/** Most records in one call; on average half as many. */
const MOST_PER_CALL = 7
const RETRY_MS = 20
/** What they are behind by more than so long is not made up for. */
const MOST_BEHIND_MS = 200
const VALUE_BYTES = 100
const CALL_TIMEOUT_MS = 10_000

/** Some producers, each of which sends one call after the other. */
export class Producers {
  readonly #options: ProducersOptions
  readonly #stopping = new AbortController()

  constructor(options: ProducersOptions) {
    this.#options = options
  }

  /** Makes each end with the call that it is at. */
  stop(): void {
    this.#stopping.abort()
  }

  /** Resolves when all have ended. */
  async work(): Promise<void> {
    const { producers, hasKey } = this.#options
    await Promise.all(Array.from({ length: producers }, (_, index) => this.#produce(`p${index}`, hasKey(index))))
  }

  async #produce(lane: string, hasKey: boolean): Promise<void> {
    const { url, topic, producers, recordsPerSecond, random } = this.#options
    // A driver of its own: one of them would keep the calls of all in order.
    const broker = restBroker({ url })
    const everyMs = (1_000 * producers) / recordsPerSecond
    let dueAt = performance.now()
    for (let seq = 0; !this.#stopping.signal.aborted;) {
      const count = 1 + Math.floor(random() * MOST_PER_CALL)
      const items = Array.from({ length: count }, (_, index) => itemAt(lane, seq + index))
      const idempotencyKey = hasKey ? `${topic}-${lane}-${seq}` : undefined
      while (!(await this.#send(broker, items, idempotencyKey))) {
        await sleep(RETRY_MS)
        if (idempotencyKey === undefined) break
      }
      seq += count
      dueAt = Math.max(dueAt + everyMs * count, performance.now() - MOST_BEHIND_MS)
      const waitMs = dueAt - performance.now()
      if (waitMs > 0) await sleep(waitMs)
    }
  }

  async #send(broker: Broker, items: readonly Item[], idempotencyKey: string | undefined): Promise<boolean> {
    const { topic, note } = this.#options
    const options = idempotencyKey === undefined ? {} : { idempotencyKey }
    // One key is for the whole call; each of its records is to be there once.
    for (const item of items) {
      const key = idempotencyKey === undefined ? {} : { idempotencyKey: `${idempotencyKey}/${item.seq}` }
      note({ type: 'sent', ...item, ...key })
    }
    try {
      const records = items.map(({ lane, content }) => ({ topic, key: bytesOf(lane), value: bytesOf(content ?? '') }))
      const results = await broker.produce(records, options, { timeoutMs: CALL_TIMEOUT_MS })
      for (const [index, result] of results.entries()) {
        const item = items[index]
        if (item === undefined || result instanceof Error) throw result
        const place = `${topic}/${result.partition}`
        note({ type: 'acknowledged', ...item, place, offset: result.offset })
      }
      return true
    } catch (error) {
      const code = error instanceof KedgeError ? error.code : String(error)
      note({ type: 'failed', kind: 'produce', code })
      return false
    }
  }
}

function itemAt(lane: string, seq: number): Item {
  return { lane, seq, content: valueOf({ lane, seq }, VALUE_BYTES) }
}
