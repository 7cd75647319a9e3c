/** functions/worker.ts as it is shipped, in real workerd, with a gateway behind it over HTTP. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type LocalWorker, openLocalWorker } from '../../scripts/local-worker.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import type { Problem } from '../../src/runtimes/problem.ts'
import { startGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { until } from '../support/until.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const credentials = `Basic ${btoa('shop:caller-secret')}`
const vars = { KEDGE_PRODUCE_USERNAME: 'shop', KEDGE_PRODUCE_PASSWORD: 'caller-secret', KEDGE_RUN_MS: '1200' }
const orders = { topic: 'orders', partition: 0 }

let broker: Broker
let gateway: GatewayServer
let worker: LocalWorker
const lines: string[] = []

beforeAll(async () => {
  broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  gateway = await startGateway(broker)
  worker = await openLocalWorker({
    vars: { ...vars, UPSTASH_KAFKA_REST_URL: gateway.url },
    onLine: (line) => lines.push(line),
  })
})
afterAll(async () => {
  await worker.close()
  await gateway.close()
  await broker.close()
})

async function produce(
  body: unknown,
  headers: Record<string, string> = { authorization: credentials },
): Promise<Response> {
  return await fetch(`${worker.url}/produce/orders`, { method: 'POST', body: JSON.stringify(body), headers })
}

async function committed(): Promise<number | undefined> {
  return (await broker.committed('shop', [orders]))[0]?.offset
}

describe('fetch', () => {
  test('produces what the schema takes', async () => {
    const response = await produce({ key: 'k', value: '{"id":"a1","total":1}' })

    expect(await response.json()).toMatchObject([{ topic: 'orders', partition: 0, offset: 0 }])
    const [record] = await broker.fetch([{ ...orders, offset: 0 }], { maxWaitMs: 0, maxRecords: 1, maxBytes: 1000 })
    expect([textOf(record?.key ?? null), textOf(record?.value ?? null)]).toEqual(['k', '{"id":"a1","total":1}'])
  })

  test('takes a body with GET, as the dialect allows', async () => {
    const answer = await call(worker.url, 'GET /produce/orders', {
      body: { value: { id: 'a2', total: 2 } },
      headers: { authorization: credentials },
    })

    expect(answer.json).toMatchObject([{ topic: 'orders', offset: 1 }])
  })

  test('refuses bad input and callers it does not know', async () => {
    const bad = await produce({ value: { id: 1 } })
    const unknown = await produce({ value: { id: 'a', total: 1 } }, {})

    expect(((await bad.json()) as Problem).errors).toHaveLength(2)
    expect([bad.status, unknown.status]).toEqual([400, 401])
  })
})

describe('scheduled', () => {
  test('handles what is there and what comes, dead-letters what it cannot handle, commits, and ends in time', async () => {
    await broker.produce([{ topic: 'orders', key: null, value: bytesOf('no order') }])
    const startedAt = performance.now()

    const run = worker.tick()
    await produce({ value: { id: 'late', total: 3 } })
    const isOk = await run

    expect(isOk).toBe(true)
    expect(performance.now() - startedAt).toBeLessThan(3000)
    expect(lines.filter((line) => line.startsWith('handled'))).toHaveLength(3)
    expect(lines.filter((line) => line.startsWith('dead-lettered orders partition 0 offset 2'))).toHaveLength(1)
    expect(await committed()).toBe(4)
    const letters = await topicDeadLetters({ broker }).list({ groupId: 'shop', topic: 'orders' })
    expect(letters.items).toMatchObject([{ reason: 'invalid', groupId: 'shop', record: { offset: 2 } }])
  })

  test('two ticks at once never work on the same record', async () => {
    lines.length = 0
    await broker.produce([{ topic: 'orders', key: null, value: bytesOf('{"id":"once","total":1}') }])

    await Promise.all([worker.tick(), worker.tick()])

    expect(lines.filter((line) => line.startsWith('handled'))).toHaveLength(1)
    expect(lines.filter((line) => line.includes('ended=claim-held'))).toHaveLength(1)
  })

  test('while the gateway is away: produce answers 503 and a run fails aloud; when it is back the next run goes on', async () => {
    lines.length = 0
    const before = await committed()
    const port = Number(new URL(gateway.url).port)
    await gateway.close()

    const refused = await produce({ value: { id: 'a', total: 1 } })
    const isOkWithout = await worker.tick()
    gateway = await startGateway(broker, { port })
    const taken = await produce({ value: { id: 'b', total: 1 } })
    const isOkAgain = await worker.tick()

    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(isOkWithout).toBe(false)
    expect(lines.join('\n')).toContain('The run of shop failed')
    expect([taken.status, isOkAgain, await committed()]).toEqual([200, true, (before ?? 0) + 1])
  })
})

test('a Worker with a setting that does not exist serves nothing and says which', async () => {
  const said: string[] = []
  await using misconfigured = await openLocalWorker({
    vars: { ...vars, UPSTASH_KAFKA_REST_URL: gateway.url, KEDGE_GROUP_INSTANC: 'x' },
    onLine: (line) => said.push(line),
  })

  const response = await fetch(`${misconfigured.url}/produce/orders`, { method: 'POST', body: '{}' })
  const isOk = await misconfigured.tick()

  expect(response.status).toBe(500)
  expect(await response.json()).toMatchObject({ code: 'INVALID_CONFIG' })
  expect(isOk).toBe(false)
  // What workerd prints comes on its own way.
  const advice = 'KEDGE_GROUP_INSTANC: there is no such setting; did you mean KEDGE_GROUP_INSTANCE?'
  await until(() => said.join('\n').includes(advice), { what: 'the advice to be printed' })
})
