/**
 * `npm run prove -- log-kill`: the gateway over the embedded log is killed a hundred times while eight producers send it a
 * thousand records a second. What was acknowledged is there, at its offset, in its producer's order; no offset has two values.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker } from '../src/broker.ts'
import { restBroker } from '../src/brokers/rest.ts'
import { KedgeError } from '../src/errors.ts'
import { bytesOf } from '../src/record.ts'
import { seeded } from '../test/support/chaos.ts'
import { temporaryFolder } from './embedded-log/folder.ts'
import { storedItems, valueOf } from './embedded-log/stored.ts'
import { gatewayProcess } from './gateway-process.ts'
import { check } from './history/check.ts'
import type { HistoryEvent, Item } from './history/history.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'

const TOPIC = 'kill'
const PARTITIONS = 4
const PRODUCERS = 8
const RECORDS_PER_SECOND = 1_000
/** Most records in one call; on average half as many. */
const MOST_PER_CALL = 7
const RETRY_MS = 20
const SHOWN = 10
/** Fewer acknowledged records than this for each kill show nothing. */
const LEAST_PER_KILL = 50

/** A gateway that dies under load. */
export const logKill: Proof = {
  summary: 'the gateway over the embedded log is killed again and again under load; nothing acknowledged is lost',
  prove,
}

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  const random = seeded(seed)
  const wanted = quick ? 4 : 100
  using folder = temporaryFolder('kill')
  const topics = `${TOPIC}:${PARTITIONS}`
  await using gateway = await gatewayProcess({ KEDGE_BROKER: 'log', KEDGE_DATA: folder.path, KEDGE_TOPICS: topics })
  await gateway.start()
  const producers = new Producers(gateway.url, random)
  const working = producers.work()
  let kills = 0
  let servedMs = 0
  for (; kills < wanted && !stop.aborted; kills++) {
    const startedAt = performance.now()
    await sleep(200 + 700 * random())
    await gateway.kill()
    servedMs += performance.now() - startedAt
    await gateway.start()
    const broker = restBroker({ url: gateway.url })
    // What is read between two kills has to be the same in the end.
    if (kills % 10 === 0) await producers.look(broker)
  }
  producers.stop()
  await working
  const broker = restBroker({ url: gateway.url })
  const log = await storedItems(broker, TOPIC, PARTITIONS)
  const { violations, figures } = check(producers.history, { log }, { mostOverMs: 0, isConsumed: false })
  for (const { kind, detail } of violations.slice(0, SHOWN)) say(`  ${kind}: ${detail}`)
  if (gateway.ended !== undefined) say(`  the gateway ended by itself: ${gateway.ended}`)
  const isVacuous = figures.acknowledged < kills * LEAST_PER_KILL
  if (isVacuous) say(`  nothing was shown: ${figures.acknowledged} records were acknowledged in ${kills} lives`)
  return {
    runs: kills,
    violations: violations.length + (gateway.ended === undefined ? 0 : 1) + (isVacuous ? 1 : 0),
    figures: {
      kills,
      acknowledged: figures.acknowledged,
      unknown: Object.values(figures.failures).reduce((sum, count) => sum + count, 0),
      stored: [...log.values()].reduce((sum, items) => sum + items.length, 0),
      acknowledgedPerSecondServed: Math.round((figures.acknowledged * 1_000) / servedMs),
    },
  }
}

/** Eight of them. Every other one sends a record until it is acknowledged, under an idempotency key; the rest once. */
class Producers {
  readonly history: HistoryEvent[] = []
  readonly #url: string
  readonly #random: () => number
  readonly #stopping = new AbortController()

  constructor(url: string, random: () => number) {
    this.#url = url
    this.#random = random
  }

  stop(): void {
    this.#stopping.abort()
  }

  async work(): Promise<void> {
    await Promise.all(Array.from({ length: PRODUCERS }, (_, index) => this.#produce(`p${index}`, index % 2 === 0)))
  }

  /** Reads what is there, as a reader does who comes between two kills. */
  async look(broker: Broker): Promise<void> {
    const stored = await storedItems(broker, TOPIC, PARTITIONS)
    for (const [place, records] of stored) this.history.push({ type: 'read', place, from: 0, records })
  }

  async #produce(lane: string, hasKeys: boolean): Promise<void> {
    // A driver of its own: one of them would keep the calls of all in order.
    const broker = restBroker({ url: this.#url })
    const everyMs = (1_000 * PRODUCERS) / RECORDS_PER_SECOND
    let dueAt = performance.now()
    for (let seq = 0; !this.#stopping.signal.aborted;) {
      const count = 1 + Math.floor(this.#random() * MOST_PER_CALL)
      const items = Array.from({ length: count }, (_, index) => itemOf(lane, seq + index))
      const idempotencyKey = hasKeys ? `${lane}-${seq}` : undefined
      while (!(await this.#send(broker, items, idempotencyKey))) {
        await sleep(RETRY_MS)
        if (idempotencyKey === undefined) break
      }
      seq += count
      dueAt = Math.max(dueAt + everyMs * count, performance.now() - 200)
      const waitMs = dueAt - performance.now()
      if (waitMs > 0) await sleep(waitMs)
    }
  }

  async #send(broker: Broker, items: readonly Item[], idempotencyKey: string | undefined): Promise<boolean> {
    const options = idempotencyKey === undefined ? {} : { idempotencyKey }
    // One key is for the whole call; each of its records is to be there once.
    for (const item of items) {
      const key = idempotencyKey === undefined ? {} : { idempotencyKey: `${idempotencyKey}/${item.seq}` }
      this.history.push({ type: 'sent', ...item, ...key })
    }
    try {
      const records = items.map(({ lane, content }) => ({
        topic: TOPIC,
        key: bytesOf(lane),
        value: bytesOf(content ?? ''),
      }))
      const results = await broker.produce(records, options, { timeoutMs: 10_000 })
      for (const [index, result] of results.entries()) {
        const item = items[index]
        if (item === undefined || result instanceof Error) throw result
        const place = `${TOPIC}/${result.partition}`
        this.history.push({ type: 'acknowledged', ...item, place, offset: result.offset })
      }
      return true
    } catch (error) {
      const code = error instanceof KedgeError ? error.code : String(error)
      this.history.push({ type: 'failed', kind: 'produce', code })
      return false
    }
  }
}

function itemOf(lane: string, seq: number): Item {
  return { lane, seq, content: valueOf({ lane, seq }, 100) }
}
