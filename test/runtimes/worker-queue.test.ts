/** A Worker as the consumer of a Cloudflare Queue, in real workerd. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test, vi } from 'vitest'
import { until } from '../support/until.ts'
import { startModule } from '../support/workerd.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000 })

/** Tells the test's server of each record; `bad` is not handled before its third attempt in all, over two batches. */
const script = (reportUrl: string): string => `
  import { defineApp } from './src/app.ts'
  import { createRouter } from './src/router.ts'
  import { StopError } from './src/handler-errors.ts'
  import { worker } from './src/runtimes/cloudflare.ts'
  const text = new TextDecoder()
  const router = createRouter().on({ topic: 'orders' }, async ({ value, partition, offset }, { attempt }) => {
    const body = JSON.stringify({ values: [text.decode(value)], place: partition + '/' + offset, attempt })
    await (await fetch('${reportUrl}', { method: 'POST', body })).text()
    if (text.decode(value) === 'bad' && attempt < 2) throw new StopError('closed')
  }, { ordering: 'none' })
  const app = defineApp({ groupId: 'shop', router })
  const handlers = worker(app, { queueTopics: { 'orders-queue': 'orders' } })
  export default {
    ...handlers,
    async fetch(request, env) {
      for (const body of await request.json()) await env.QUEUE.send(body, typeof body === 'string' ? { contentType: 'text' } : {})
      const { searchParams } = new URL(request.url)
      if (searchParams.has('large')) await env.QUEUE.send({ count: 5n }, { contentType: 'v8' })
      return new Response('sent')
    },
  }
`

interface Seen {
  readonly values: readonly string[]
  readonly place: string
  readonly attempt: number
}

/** A server that a worker tells what its handler got. */
async function openReport(): Promise<{ readonly url: string; readonly seen: readonly Seen[] } & AsyncDisposable> {
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => {
      seen.push(JSON.parse(body) as Seen)
      response.end('ok')
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.close()
    },
  }
}

test('each message of a queue is handled by the routes of its topic, and comes again alone where it was not', async () => {
  await using report = await openReport()
  const { seen } = report
  const miniflare = await startModule(script(report.url), {
    bindings: { UPSTASH_KAFKA_REST_URL: 'http://127.0.0.1:9' },
    queueProducers: { QUEUE: 'orders-queue' },
    queueConsumers: { 'orders-queue': { maxBatchTimeout: 0.2, maxBatchSize: 10, retryDelay: 0 } },
  })
  try {
    await miniflare.dispatchFetch('http://worker/', { method: 'POST', body: JSON.stringify(['a', 'bad', { n: 1 }]) })
    await until(() => seen.filter(({ values }) => values.includes('bad')).length === 2, {
      what: 'the second attempt',
      timeoutMs: 30_000,
    })
    // Whatever else came again would have come with it.
    await until(() => seen.length >= 4)

    const bad = seen.filter(({ values }) => values.includes('bad'))
    expect(seen.flatMap(({ values }) => values).toSorted()).toEqual(['a', 'bad', 'bad', '{"n":1}'])
    expect(bad.map(({ attempt }) => attempt)).toEqual([1, 2])
    expect(bad[0]?.place).toBe(bad[1]?.place)
  } finally {
    await miniflare.dispose()
  }
})

test('a message whose body JSON cannot say goes back alone', async () => {
  await using report = await openReport()
  const { seen } = report
  const miniflare = await startModule(script(report.url), {
    bindings: { UPSTASH_KAFKA_REST_URL: 'http://127.0.0.1:9' },
    queueProducers: { QUEUE: 'orders-queue' },
    queueConsumers: { 'orders-queue': { maxBatchTimeout: 0.5, maxBatchSize: 10, maxRetries: 1, retryDelay: 0 } },
  })
  try {
    const body = JSON.stringify(['a', { n: 1 }])
    await miniflare.dispatchFetch('http://worker/?large', { method: 'POST', body })
    await until(() => seen.length >= 2, { what: 'the others', timeoutMs: 30_000 })

    expect(seen.flatMap(({ values }) => values).toSorted()).toEqual(['a', '{"n":1}'])
  } finally {
    await miniflare.dispose()
  }
})

/** Tells the test's server of each call; `bad` is named as failed, and `no` fails for all, until they come again. */
const batchScript = (reportUrl: string): string => `
  import { defineApp } from './src/app.ts'
  import { createRouter } from './src/router.ts'
  import { BatchError, StopError } from './src/handler-errors.ts'
  import { worker } from './src/runtimes/cloudflare.ts'
  const text = new TextDecoder()
  const router = createRouter().onBatch({ topic: 'orders' }, async (records, { attempt }) => {
    const values = records.map(({ value }) => text.decode(value))
    await (await fetch('${reportUrl}', { method: 'POST', body: JSON.stringify({ values, place: '', attempt }) })).text()
    if (attempt > 1) return
    if (values.includes('no')) throw new StopError('closed')
    const failures = records.filter((_, index) => values[index] === 'bad')
    if (failures.length > 0) throw new BatchError(failures.map((record) => ({ record, error: new StopError('closed') })))
  }, { ordering: 'none', breaker: null })
  const app = defineApp({ groupId: 'shop', router })
  const handlers = worker(app, { queueTopics: { 'orders-queue': 'orders' } })
  export default {
    ...handlers,
    async fetch(request, env) {
      await env.QUEUE.sendBatch((await request.json()).map((body) => ({ body, contentType: 'text' })))
      return new Response('sent')
    },
  }
`

test.each([
  ['bad', [['a', 'bad', 'b', 'c']]],
  ['no', [['a', 'no', 'b', 'c'], ['a', 'no'], ['a'], ['no']]],
])('messages go to a batch route together, and the one that failed (%s) comes again alone', async (value, calls) => {
  await using report = await openReport()
  const miniflare = await startModule(batchScript(report.url), {
    bindings: { UPSTASH_KAFKA_REST_URL: 'http://127.0.0.1:9' },
    queueProducers: { QUEUE: 'orders-queue' },
    queueConsumers: { 'orders-queue': { maxBatchTimeout: 0.2, maxBatchSize: 10, retryDelay: 0 } },
  })
  try {
    await miniflare.dispatchFetch('http://worker/', { method: 'POST', body: JSON.stringify(['a', value, 'b', 'c']) })
    await until(() => report.seen.some(({ attempt }) => attempt > 1), { what: 'a second delivery', timeoutMs: 30_000 })

    const first = report.seen.filter(({ attempt }) => attempt === 1).map(({ values }) => values)
    expect(first.slice(0, calls.length)).toEqual(calls)
    for (const { values } of report.seen.filter(({ attempt }) => attempt > 1)) expect(values).toHaveLength(1)
    expect(report.seen.flatMap(({ values, attempt }) => (attempt > 1 ? values : []))).toContain(value)
  } finally {
    await miniflare.dispose()
  }
})
