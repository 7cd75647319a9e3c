/**
 * R5, a bare loop over records and one handler, and the same records through compiled routes; then the same for a broker in
 * this process: a loop of poll, handle and commit, and a consumer run, which routes and does all else that a run does.
 */
import { type App, defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { type ConsumerRecord, bytesOf } from '../../src/record.ts'
import { type HandlerContext, createRouter } from '../../src/router.ts'
import { jsonValue } from '../payload.ts'
import type { Sample } from '../rounds.ts'
import { serve } from './serve.ts'

export interface RouterRun {
  /** 1: a route for the topic. 10: one topic, ten keys. 100: ten topics, ten keys each. */
  readonly routes: number
  readonly runMs: number
}

const BATCH = 1000

let handled = 0
const context = Object.freeze({}) as HandlerContext

serve({
  async bare({ routes, runMs }: RouterRun): Promise<Sample> {
    const records = recordsFor(routes)
    const handler = handlerNumber(0)
    return timed(runMs, async () => {
      for (const record of records) {
        const result: unknown = handler(record)
        if (result instanceof Promise) await result
      }
    })
  },
  async routed({ routes, runMs }: RouterRun): Promise<Sample> {
    const records = recordsFor(routes)
    const { table } = appWith(routes, 'bench')
    return timed(runMs, async () => {
      for (const record of records) {
        const found = table.find(record)
        if (found === undefined || found === 'unreadable') throw new Error('a record has no route')
        const result: unknown = found.route.handler(record as never, context)
        if (result instanceof Promise) await result
      }
    })
  },
  async polled({ routes, runMs }: RouterRun): Promise<Sample> {
    const broker = await brokerWith(routes)
    const handler = handlerNumber(0)
    const { subscription } = appWith(routes, 'bench')
    return timed(runMs, async (batch) => {
      const group = { groupId: `polled-${batch}`, groupInstanceId: 'bench' }
      const request = { group, topics: subscription, autoOffsetReset: 'earliest', ...LIMITS } as const
      for (;;) {
        const { records } = await broker.poll(request)
        if (records.length === 0) break
        for (const record of records) {
          const result: unknown = handler(record)
          if (result instanceof Promise) await result
        }
        await broker.commit(group, 'polled')
      }
      await broker.leave(group)
    })
  },
  async run({ routes, runMs }: RouterRun): Promise<Sample> {
    const broker = await brokerWith(routes)
    return timed(runMs, async (batch) => {
      const consumer = createConsumer(appWith(routes, `run-${batch}`), {
        broker,
        deadLetters: memoryDeadLetters(),
        groupInstanceId: 'bench',
        maxPollRecords: LIMITS.maxRecords,
        maxPollBytes: LIMITS.maxBytes,
      })
      const deadlineMs = Date.now() + 60_000
      await consumer.run({ runId: `run-${batch}`, deadlineMs, stopWhenEmpty: true })
    })
  },
})

const LIMITS = { maxWaitMs: 0, maxRecords: 1000, maxBytes: 4_194_304 } as const
/** Batches of records in the broker, all read by each poll loop and each run. */
const BROKER_BATCHES = 20
const brokers = new Map<number, Promise<Broker>>()

function brokerWith(routes: number): Promise<Broker> {
  const made = brokers.get(routes) ?? fill(routes)
  brokers.set(routes, made)
  return made
}

async function fill(routes: number): Promise<Broker> {
  const broker = memoryBroker()
  for (const topic of new Set(placesOf(routes).map((place) => place.topic))) await broker.createTopic({ topic })
  const records = recordsFor(routes).map(({ topic, key, value }) => ({ topic, key, value }))
  for (let batch = 0; batch < BROKER_BATCHES; batch += 1) await broker.produce(records)
  return broker
}

function appWith(routes: number, groupId: string): App {
  const router = createRouter()
  for (const { topic, key } of placesOf(routes)) {
    router.on(key === undefined ? { topic } : { topic, key }, handlerNumber(router.routes.length))
  }
  return defineApp({ groupId, router })
}

/** Functions with code of their own, so that no call site sees one function only. */
const handlers: readonly ((record: ConsumerRecord) => void)[] = [
  ({ offset }) => {
    if (offset >= 0) handled += 1
  },
  ({ partition }) => {
    if (partition === 0) handled += 1
  },
  ({ topic }) => {
    if (topic !== '') handled += 1
  },
  ({ value }) => {
    if (value !== null) handled += 1
  },
  ({ timestampMs }) => {
    if (timestampMs >= 0) handled += 1
  },
  ({ headers }) => {
    if (headers.length === 0) handled += 1
  },
]

function handlerNumber(number: number): (record: ConsumerRecord) => void {
  return handlers[number % handlers.length] ?? (() => {})
}

function placesOf(routes: number): { readonly topic: string; readonly key?: string }[] {
  if (routes === 1) return [{ topic: 'topic0' }]
  return Array.from({ length: routes }, (_, index) => ({
    topic: `topic${Math.floor(index / 10)}`,
    key: `App\\Jobs\\Job${index % 10}`,
  }))
}

function recordsFor(routes: number): ConsumerRecord[] {
  const places = placesOf(routes)
  const value = bytesOf(jsonValue(1024))
  return Array.from({ length: BATCH }, (_, offset) => {
    const { topic, key = 'some key' } = places[(offset * 7) % places.length] ?? { topic: '' }
    return { topic, partition: 0, offset, timestampMs: 0, key: bytesOf(key), value, headers: [] }
  })
}

let batches = 0

/** Runs whole batches until the time is over. */
async function timed(runMs: number, batch: (number: number) => Promise<void>): Promise<Sample> {
  const before = handled
  const cpu = process.cpuUsage()
  const start = performance.now()
  do {
    batches += 1
    await batch(batches)
  } while (performance.now() - start < runMs)
  const elapsedMs = performance.now() - start
  const { user, system } = process.cpuUsage(cpu)
  const records = handled - before
  if (records === 0 || records % BATCH !== 0) throw new Error(`${records} records were handled`)
  return { records, elapsedMs, cpuUs: user + system }
}
