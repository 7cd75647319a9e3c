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
    const body = JSON.stringify({ value: text.decode(value), place: partition + '/' + offset, attempt })
    await (await fetch('${reportUrl}', { method: 'POST', body })).text()
    if (text.decode(value) === 'bad' && attempt < 2) throw new StopError('closed')
  }, { ordering: 'none' })
  const app = defineApp({ groupId: 'shop', router })
  const handlers = worker(app, { queueTopics: { 'orders-queue': 'orders' } })
  export default {
    ...handlers,
    async fetch(request, env) {
      for (const body of await request.json()) await env.QUEUE.send(body, typeof body === 'string' ? { contentType: 'text' } : {})
      return new Response('sent')
    },
  }
`

interface Seen {
  readonly value: string
  readonly place: string
  readonly attempt: number
}

test('each message of a queue is handled by the routes of its topic, and comes again alone where it was not', async () => {
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
  const miniflare = await startModule(script(`http://127.0.0.1:${port}`), {
    bindings: { UPSTASH_KAFKA_REST_URL: 'http://127.0.0.1:9' },
    queueProducers: { QUEUE: 'orders-queue' },
    queueConsumers: { 'orders-queue': { maxBatchTimeout: 0.2, maxBatchSize: 10, retryDelay: 0 } },
  })
  try {
    await miniflare.dispatchFetch('http://worker/', { method: 'POST', body: JSON.stringify(['a', 'bad', { n: 1 }]) })
    await until(() => seen.filter(({ value }) => value === 'bad').length === 2, {
      what: 'the second attempt',
      timeoutMs: 30_000,
    })
    // Whatever else came again would have come with it.
    await until(() => seen.length >= 4)

    const bad = seen.filter(({ value }) => value === 'bad')
    expect(seen.map(({ value }) => value).toSorted()).toEqual(['a', 'bad', 'bad', '{"n":1}'])
    expect(bad.map(({ attempt }) => attempt)).toEqual([1, 2])
    expect(bad[0]?.place).toBe(bad[1]?.place)
  } finally {
    await miniflare.dispose()
    server.close()
  }
})
