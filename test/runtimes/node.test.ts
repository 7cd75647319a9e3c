import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { type App, defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { consume } from '../../src/runtimes/node.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import { defineTopic } from '../../src/topic.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'

const orders = defineTopic('orders', z.object({ id: z.string() }))
const group = { groupId: 'shop', groupInstanceId: 'cron-1' }

let broker: Broker
let gateway: GatewayServer
let handled: string[]
let app: App
beforeEach(async () => {
  broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  gateway = await startGateway(broker)
  handled = []
  const router = createRouter().on(orders, ({ value }) => handled.push(value.id))
  app = defineApp({ groupId: 'shop', router })
})
afterEach(async () => {
  await gateway.close()
  await broker.close()
})

/** A run lasts a second, and a busy machine takes its time. */
const PATIENCE = { timeoutMs: 15_000 }

async function write(id: string): Promise<void> {
  await broker.produce([{ topic: 'orders', key: null, value: bytesOf(JSON.stringify({ id })) }])
}

function settings(): Record<string, string> {
  return { UPSTASH_KAFKA_REST_URL: gateway.url, KEDGE_RUN_MS: '1000' }
}

test('consumes run after run until it is told to stop, and gives its claim back', async () => {
  const stop = new AbortController()
  const events: LogEvent[] = []
  const consuming = consume(app, { env: settings(), signal: stop.signal, log: (event) => events.push(event) })

  await write('a')
  await until(() => handled.includes('a'), PATIENCE)
  await until(() => events.some(({ event }) => event === 'run ended'), PATIENCE)
  await write('b')
  await until(() => handled.includes('b'), PATIENCE)
  stop.abort()
  await consuming

  // On a busy machine a commit may come too late for its run of a second, and its record comes again.
  expect([...new Set(handled)]).toEqual(['a', 'b'])
  expect(await broker.committed('shop')).toMatchObject([{ topic: 'orders', offset: 2 }])
  await broker.claim(group, { runId: 'the-next-one' })
})

test('a handler has as long as its route allows, though that is longer than a run is by itself', async () => {
  const stop = new AbortController()
  const lefts: number[] = []
  const router = createRouter().on(orders, (_order, { deadlineMs }) => void lefts.push(deadlineMs - Date.now()), {
    attemptTimeoutMs: 600_000,
  })
  const consuming = consume(defineApp({ groupId: 'shop', router }), {
    env: { UPSTASH_KAFKA_REST_URL: gateway.url },
    signal: stop.signal,
    log: () => undefined,
  })

  await write('a')
  await until(() => lefts.length > 0, PATIENCE)
  stop.abort()
  await consuming

  expect(lefts[0]).toBeGreaterThan(590_000)
})

test('survives its gateway: a failed run is reported, and it goes on when the gateway is back', async () => {
  const stop = new AbortController()
  const failures: unknown[] = []
  const port = Number(new URL(gateway.url).port)
  await gateway.close()

  const consuming = consume(app, {
    env: settings(),
    signal: stop.signal,
    log: () => undefined,
    onFailure: (failure) => failures.push(failure),
  })
  await until(() => failures.length > 0, PATIENCE)
  gateway = await startGateway(broker, { port })
  await write('a')
  await until(() => handled.length === 1, PATIENCE)
  stop.abort()
  await consuming

  expect(String(failures[0])).toContain('The run of shop failed')
})

test('after a run whose breaker opened it waits until it is time to probe, and no longer', async () => {
  const stop = new AbortController()
  const clock = new FakeClock()
  const failures: unknown[] = []
  const router = createRouter().on(orders, () => Promise.reject(new Error('down')), { retry: { maxAttempts: 1 } })
  for (let n = 0; n < 10; n++) await write(`${n}`)

  const consuming = consume(defineApp({ groupId: 'shop', router }), {
    env: settings(),
    signal: stop.signal,
    clock,
    log: () => undefined,
    onFailure: (failure) => failures.push(failure),
  })
  await until(() => failures.length === 1 && clock.pending === 1, PATIENCE)
  // Longer than a first failure of another kind would have it wait.
  await clock.advance(25_000)
  const stillWaits = clock.pending === 1
  await clock.advance(35_000)
  await until(() => failures.length === 2, PATIENCE)
  stop.abort()
  await consuming

  expect(stillWaits).toBe(true)
  expect(failures.map(String)).toEqual([
    expect.stringContaining('3 of its last 3 records became dead letters'),
    expect.stringContaining('3 of its last 3 records became dead letters'),
  ])
})

test('wrong settings end it at once, an unknown dead-letter store too', async () => {
  const { signal } = new AbortController()

  await expect(consume(app, { env: {}, signal })).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
  await expect(consume(app, { env: { ...settings(), KEDGE_DEAD_LETTERS: 'redis:x' }, signal })).rejects.toThrow('redis')
})
