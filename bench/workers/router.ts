/** R5, a bare loop over records and one handler, and the same records through compiled routes. */
import { defineApp } from '../../src/app.ts'
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
    const router = createRouter()
    for (const { topic, key } of placesOf(routes)) {
      router.on(key === undefined ? { topic } : { topic, key }, handlerNumber(router.routes.length))
    }
    const { table } = defineApp({ groupId: 'bench', router })
    return timed(runMs, async () => {
      for (const record of records) {
        const found = table.find(record)
        if (found === undefined || found === 'unreadable') throw new Error('a record has no route')
        const result: unknown = found.route.handler(record as never, context)
        if (result instanceof Promise) await result
      }
    })
  },
})

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

async function timed(runMs: number, batch: () => Promise<void>): Promise<Sample> {
  const before = handled
  const cpu = process.cpuUsage()
  const start = performance.now()
  let batches = 0
  do {
    await batch()
    batches += 1
  } while (performance.now() - start < runMs)
  const elapsedMs = performance.now() - start
  const { user, system } = process.cpuUsage(cpu)
  const records = handled - before
  if (records !== batches * BATCH) throw new Error(`${records} of ${batches * BATCH} records were handled`)
  return { records, elapsedMs, cpuUs: user + system }
}
