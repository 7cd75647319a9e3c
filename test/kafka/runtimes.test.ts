/** What a user starts, over a real cluster: the gateway, Lambda functions, a Node process, the demo. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { buildLambda } from '../../scripts/build-lambda.ts'
import { httpApiEvent } from '../../scripts/lambda/http-api-event.ts'
import { openLocalLambda } from '../../scripts/lambda/local-lambda.ts'
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { readConfig } from '../../src/config.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { createProducer } from '../../src/producer.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { openGateway, type OpenGateway } from '../../src/runtimes/gateway-process.ts'
import { consume } from '../../src/runtimes/node.ts'
import { defineTopic } from '../../src/topic.ts'
import { call } from '../support/http.ts'
import { until } from '../support/until.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'

const orders = defineTopic('orders', 'text')
const everything = { maxWaitMs: 0, maxRecords: 1_000, maxBytes: 10_000_000 }
const cluster = { KEDGE_BROKER: `kafka://${bootstrapServers()}` }

let admin: KafkaAdmin
let broker: Broker
beforeAll(async () => {
  admin = await kafkaAdmin()
})
afterAll(() => admin[Symbol.asyncDispose]())
beforeEach(async () => {
  await admin.wipe()
  broker = kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
})
afterEach(() => broker.close())

async function valuesOf(topic: string): Promise<(string | null)[]> {
  const records = await broker.fetch([{ topic, partition: 0, offset: 0 }], everything)
  return records.map(({ value }) => (value === null ? null : textOf(value)))
}

function gateway(env: Record<string, string> = {}): Promise<OpenGateway> {
  return openGateway(
    readConfig('gateway', { ...cluster, KEDGE_GATEWAY_PORT: '0', KEDGE_TOPICS: 'orders,bills:2', ...env }),
  )
}

test('the gateway makes the topics that are missing, and leaves those that are there', async () => {
  await broker.createTopic({ topic: 'bills', partitions: 5 })

  await using served = await gateway()

  expect((await call(served.url, 'GET /topics')).json).toEqual({ bills: 5, orders: 1 })
})

test('an idempotency key is refused by name, and what Kedge makes up by itself is gone without', async () => {
  await using served = await gateway()
  await using rest = restBroker({ url: served.url })
  const producer = createProducer(rest)

  const refused = await call(served.url, 'POST /produce/orders', {
    body: { value: 'a' },
    headers: { 'Idempotency-Key': 'once' },
  })
  for (const value of ['b', 'c']) await producer.produce(orders, value)

  expect([refused.status, refused.headers['kedge-error']]).toEqual([501, 'UNSUPPORTED'])
  expect(await valuesOf('orders')).toEqual(['b', 'c'])
  expect(rest.features.idempotencyKeys).toBe(false)
})

test('two gateways serve one instance in turn', async () => {
  await using one = await gateway()
  await using other = await gateway()
  const earliest = { 'Kafka-Auto-Offset-Reset': 'earliest', 'Kafka-Enable-Auto-Commit': 'false' }
  const seen: unknown[] = []

  for (let n = 0; n < 6; n++) {
    await call(one.url, 'POST /produce/orders', { body: { value: `v${n}` } })
    const { url } = n % 2 === 0 ? one : other
    const body = { topic: 'orders', timeout: 5_000 }
    const answer = await call(url, 'POST /consume/g/i', { body, headers: earliest })
    seen.push(...(answer.json as { value: unknown }[]).map(({ value }) => value))
  }

  expect(seen).toEqual(['v0', 'v1', 'v2', 'v3', 'v4', 'v5'])
})

test('a Node process consumes from the cluster without a gateway, dead letters included', async () => {
  await broker.createTopic({ topic: 'orders' })
  await broker.produce(['good', 'bad'].map((value) => ({ topic: 'orders', key: null, value: bytesOf(value) })))
  const handled: string[] = []
  const router = createRouter().on({ topic: 'orders' }, ({ value }) => {
    if (textOf(value) === 'bad') throw new Error('poison')
    handled.push(textOf(value))
  })
  const app = defineApp({ groupId: 'shop', router, autoOffsetReset: 'earliest', retry: { maxAttempts: 1 } })
  const stop = new AbortController()
  await using letters = topicDeadLetters({ broker })

  const consuming = consume(app, { env: cluster, signal: stop.signal, log: () => undefined })
  await until(async () => (await letters.list()).items.length === 1, { timeoutMs: 20_000 })
  stop.abort()
  await consuming

  expect(handled).toEqual(['good'])
  expect(await broker.committed('shop')).toMatchObject([{ topic: 'orders', offset: 2 }])
})

test('Lambda functions produce to the cluster and consume from it without a gateway', async () => {
  const taskRoot = mkdtempSync(join(tmpdir(), 'kedge-kafka-lambda-'))
  await buildLambda({ outdir: taskRoot })
  await broker.createTopic({ topic: 'orders' })
  const lines: string[] = []
  const onLine = (line: string): void => void lines.push(line)
  const env = { ...cluster, KEDGE_PRODUCE_AUTH: 'none' }
  try {
    await using produce = await openLocalLambda({ taskRoot, handler: 'produce/index.handler', env, onLine })
    await using run = await openLocalLambda({
      taskRoot,
      handler: 'consume/index.handler',
      env,
      onLine,
      timeoutMs: 4_000,
    })
    const running = run.invoke({ source: 'aws.events' })
    await until(async () => (await broker.groups()).some(({ members }) => members.length > 0), { timeoutMs: 20_000 })
    const event = httpApiEvent('POST', '/produce/orders', {}, '{"value":{"id":"a","total":1}}')
    const produced = await produce.invoke(event)
    await running

    if (produced.kind !== 'response') throw new Error(`${JSON.stringify(produced)}\n${lines.join('\n')}`)
    expect(JSON.parse(produced.body) as APIGatewayProxyStructuredResultV2).toMatchObject({ statusCode: 200 })
    expect(lines).toContain('handled orders partition 0 offset 0')
    expect(await broker.committed('shop')).toMatchObject([{ topic: 'orders', offset: 1 }])
  } finally {
    rmSync(taskRoot, { recursive: true })
  }
})

test('the demo counts every delivery, and leaves nothing in the cluster', async () => {
  const child = spawn(process.execPath, ['scripts/demo.ts'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...cluster },
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [out, err, status] = await Promise.all([text(child.stdout), text(child.stderr), ended])

  expect([status, err]).toEqual([0, ''])
  expect(out).toContain(`in Kafka at ${bootstrapServers()}`)
  expect(out).toContain('Every delivery is in the log once')
  expect([await broker.topics(), await broker.groups()]).toEqual([[], []])
}, 120_000)
