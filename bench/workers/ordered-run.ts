/**
 * A consumer run over a broker in this process whose handlers wait: what order by key, concurrency and records that always
 * fail make of its time. Waits end on time, which the platform's timers, a millisecond and more apart, do not.
 */
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { type ProducerRecord, bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { seeded } from '../../test/support/chaos.ts'
import { serve } from './serve.ts'

export interface OrderedRun {
  readonly records: number
  readonly keys: number
  readonly concurrency: number
  /** Handlers take from nothing to twice as long. */
  readonly meanMs: number
  /** Of a thousand records, so many fail each time. */
  readonly failingPerMille: number
}

export interface OrderedResult {
  readonly elapsedMs: number
  /** What no schedule can beat: the longest chain of one key, or all the work shared out evenly. */
  readonly idealMs: number
  /** Records of keys of which no record fails: the others wait behind one that does, which is what order means. */
  readonly healthy: number
  /** When the last of them was handled. */
  readonly healthyMs: number
}

const PARTITIONS = 4
const RETRIES = 3

/** Ends waits when they are due, by asking the time in every turn of the event loop. */
class Waits {
  readonly #due: { readonly at: number; readonly resolve: () => void }[] = []
  #isTurning = false

  wait(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#due.push({ at: performance.now() + ms, resolve })
    if (!this.#isTurning) this.#turn()
    return promise
  }

  #turn(): void {
    this.#isTurning = this.#due.length > 0
    if (!this.#isTurning) return
    const now = performance.now()
    for (let index = this.#due.length - 1; index >= 0; index -= 1) {
      const one = this.#due[index]
      if (one === undefined || one.at > now) continue
      one.resolve()
      this.#due[index] = this.#due.at(-1) ?? one
      this.#due.pop()
    }
    setImmediate(() => this.#turn())
  }
}

serve({ run })

async function run(options: OrderedRun): Promise<OrderedResult> {
  const { records, keys, concurrency, meanMs, failingPerMille } = options
  const random = seeded(1)
  const plan = Array.from({ length: records }, (_, n) => ({
    key: n % keys,
    ms: 2 * meanMs * random(),
    isFailing: random() * 1000 < failingPerMille,
  }))
  const failingKeys = new Set(plan.filter(({ isFailing }) => isFailing).map(({ key }) => key))
  await using broker = memoryBroker()
  await fill(broker, plan)
  const waits = new Waits()
  const start = performance.now()
  let healthy = 0
  let healthyMs = 0
  const router = createRouter().on(
    { topic: 'bench' },
    async ({ value }) => {
      const { key, ms, isFailing } = plan[new DataView((value ?? new Uint8Array(4)).slice().buffer).getUint32(0)] ?? {}
      await waits.wait(ms ?? 0)
      if (isFailing === true) throw new Error('always')
      if (key === undefined || failingKeys.has(key)) return
      healthy += 1
      healthyMs = performance.now() - start
    },
    { ordering: 'key', concurrency, retry: { maxAttempts: 1 + RETRIES, initialMs: 50, maxMs: 200 } },
  )
  const consumer = createConsumer(defineApp({ groupId: 'bench', router, topicNames: /./ }), {
    broker,
    deadLetters: memoryDeadLetters(),
    groupInstanceId: 'bench',
  })
  const report = await consumer.run({ runId: 'bench', deadlineMs: Date.now() + 120_000, stopWhenEmpty: true })
  const elapsedMs = performance.now() - start
  const failing = plan.filter(({ isFailing }) => isFailing).length
  if (report.handled !== records - failing || (report.deadLettered.exhausted ?? 0) !== failing) {
    throw new Error(`not every record had its end: ${JSON.stringify(report)}`)
  }
  const chains = new Float64Array(keys)
  for (const { key, ms } of plan) chains[key] = (chains[key] ?? 0) + ms
  const all = chains.reduce((sum, ms) => sum + ms, 0)
  return { elapsedMs, idealMs: Math.max(all / concurrency, ...chains), healthy, healthyMs }
}

async function fill(broker: Broker, plan: readonly { readonly key: number }[]): Promise<void> {
  await broker.createTopic({ topic: 'bench', partitions: PARTITIONS })
  const records = plan.map(({ key }, n): ProducerRecord => {
    const value = new Uint8Array(4)
    new DataView(value.buffer).setUint32(0, n)
    return { topic: 'bench', key: bytesOf(`key-${key}`), value }
  })
  for (let at = 0; at < records.length; at += 1000) await broker.produce(records.slice(at, at + 1000))
}
