import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { readConfig } from '../../src/config.ts'
import { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import type { Problem } from '../../src/runtimes/problem.ts'
import { produceApp, type ProduceOptions } from '../../src/runtimes/produce-app.ts'
import { defineTopic } from '../../src/topic.ts'
import { withCalls } from '../support/consumer.ts'
import { startGateway } from '../support/gateway.ts'

const orders = defineTopic('orders', z.object({ id: z.string(), total: z.number() }))
const notes = defineTopic('notes', 'text')
const brief = defineTopic('brief', 'text', { maxRecordBytes: 10 })
const tree: z.ZodType = z.object({ in: z.array(z.lazy(() => tree)) })
const trees = defineTopic('trees', tree)
const app = defineApp({ groupId: 'shop', topics: [orders, notes, brief, trees] })
const order = { id: 'a1', total: 9.5 }
const open = { KEDGE_PRODUCE_AUTH: 'none' }
const closed = { KEDGE_PRODUCE_USERNAME: 'php', KEDGE_PRODUCE_PASSWORD: 'pa:ss==' }
const all = { maxWaitMs: 0, maxRecords: 100, maxBytes: 1_000_000 }

let broker: Broker
beforeEach(async () => {
  broker = memoryBroker()
  for (const topic of ['orders', 'notes', 'brief', 'trees', 'raw']) await broker.createTopic({ topic })
})
afterEach(() => broker.close())

async function call(
  target: string,
  init: RequestInit = {},
  env: Record<string, string> = open,
  options: ProduceOptions = {},
): Promise<Response> {
  const config = readConfig('functions', { UPSTASH_KAFKA_REST_URL: 'http://127.0.0.1:1', ...env })
  return await produceApp(app, broker, config, options).request(`http://produce.example${target}`, init)
}

async function post(target: string, body: unknown, env?: Record<string, string>): Promise<Response> {
  return await call(target, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) }, env)
}

/** The answer's problem, which always holds what clients of Upstash read. */
async function problemOf(response: Response): Promise<Problem> {
  const problem = (await response.json()) as Problem
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  expect(problem).toMatchObject({ status: response.status, result: '', error: problem.detail })
  return problem
}

interface Stored {
  readonly key: string | null
  readonly value: string
  readonly headers: readonly [string, string][]
}

async function stored(topic: string): Promise<Stored[]> {
  const records = await broker.fetch([{ topic, partition: 0, offset: 0 }], all)
  return records.map(({ key, value, headers }) => ({
    key: key === null ? null : textOf(key),
    value: textOf(value),
    headers: headers.map((header) => [header.key, textOf(header.value)]),
  }))
}

describe('the shapes of Upstash', () => {
  test.each([
    ['value as JSON text', { value: JSON.stringify(order) }],
    ['value as an object', { value: order }],
  ])('POST /produce/{topic} takes one record, %s, and answers a list', async (_name, body) => {
    const response = await post('/produce/orders', { key: 'k', ...body, headers: [{ key: 'h', value: 'v' }] })

    expect(response.status).toBe(200)
    expect(await response.json()).toEqual([
      { topic: 'orders', partition: 0, offset: 0, timestamp: expect.any(Number) as number },
    ])
    expect(await stored('orders')).toEqual([{ key: 'k', value: JSON.stringify(order), headers: [['h', 'v']] }])
  })

  test('POST /produce takes a list over several topics and answers in its order', async () => {
    const response = await post('/produce', [
      { topic: 'notes', value: 'first' },
      { topic: 'orders', value: order },
      { topic: 'notes', value: 'second' },
    ])

    expect(await response.json()).toMatchObject([
      { topic: 'notes', offset: 0 },
      { topic: 'orders', offset: 0 },
      { topic: 'notes', offset: 1 },
    ])
  })

  test('GET /produce/{topic}/{message} takes the value from the path and answers one object', async () => {
    const message = encodeURIComponent(JSON.stringify(order))

    const response = await call(`/produce/orders/${message}?key=k1`)

    expect(await response.json()).toMatchObject({ topic: 'orders', partition: 0, offset: 0 })
    expect(await stored('orders')).toMatchObject([{ key: 'k1', value: JSON.stringify(order) }])
  })

  test('a message may hold slashes', async () => {
    await call('/produce/notes/http://a.example/b%2Fc')

    expect(await stored('notes')).toMatchObject([{ value: 'http://a.example/b/c' }])
  })

  test('POST /webhook keeps the body as it is and the headers that are not plain HTTP', async () => {
    const body = ' {"id": "a1",\n "total": 9.50} '
    const headers = { 'Stripe-Signature': 't=1', 'User-Agent': 'x', Cookie: 'c', 'Content-Type': 'application/json' }

    const response = await call('/webhook?topic=orders', { method: 'POST', body, headers })

    expect(await response.json()).toMatchObject([{ topic: 'orders', offset: 0 }])
    expect(await stored('orders')).toEqual([{ key: null, value: body, headers: [['stripe-signature', 't=1']] }])
  })

  test('a webhook gets the key that the deployment chooses', async () => {
    const webhookKey = (request: Request): string | null => request.headers.get('x-repository')
    const init = { method: 'POST', body: 'x', headers: { 'x-repository': 'r7' } }

    await call('/webhook?topic=notes', init, open, { webhookKey })

    expect(await stored('notes')).toMatchObject([{ key: 'r7' }])
  })

  test('bytes come through as base64', async () => {
    const init = { method: 'POST', body: '{"value":"/w=="}', headers: { 'Kedge-Encoding': 'base64' } }

    await call('/produce/raw', init, { ...open, KEDGE_PRODUCE_RAW_TOPICS: 'raw' })

    const [record] = await broker.fetch([{ topic: 'raw', partition: 0, offset: 0 }], all)
    expect(record?.value).toEqual(Uint8Array.of(0xff))
  })

  test('an empty list writes nothing and is no mistake', async () => {
    expect(await (await post('/produce', [])).json()).toEqual([])
  })

  test('an idempotency key makes a repeated call one write', async () => {
    const init = { method: 'POST', body: JSON.stringify({ value: order }), headers: { 'Idempotency-Key': 'o"nce' } }
    const quoted = { ...init, headers: { 'Idempotency-Key': '"o\\"nce"' } }

    const first: unknown = await (await call('/produce/orders', init)).json()
    const second: unknown = await (await call('/produce/orders', quoted)).json()
    const other = await call('/produce/orders', { ...init, body: JSON.stringify({ value: { ...order, id: 'b' } }) })

    expect(second).toEqual(first)
    expect(await stored('orders')).toHaveLength(1)
    expect(await problemOf(other)).toMatchObject({ status: 422, code: 'IDEMPOTENCY_KEY_REUSED' })
  })

  test('a broker without idempotency keys takes records, and refuses a key by name instead of passing it over', async () => {
    const behind = broker
    const limited = withCalls(behind, {
      features: { ...behind.features, idempotencyKeys: false },
      produce: async (records, options, call) => {
        if (options?.idempotencyKey === undefined) return await behind.produce(records, options, call)
        throw new BrokerError('UNSUPPORTED', 'Cannot name a produce: this broker knows no idempotency keys.')
      },
    })
    await using gateway = await startGateway(limited)
    broker = restBroker({ url: gateway.url })
    const init = { method: 'POST', body: JSON.stringify({ value: order }) }

    const taken = await call('/produce/orders', init)
    const refused = await call('/produce/orders', { ...init, headers: { 'Idempotency-Key': 'once' } })

    expect(taken.status).toBe(200)
    expect(await problemOf(refused)).toMatchObject({ status: 501, code: 'UNSUPPORTED', retriable: false })
    expect(await stored('orders')).toHaveLength(1)
    await behind.close()
  })
})

describe('bad input', () => {
  test('every complaint of the schema is listed, and nothing is written', async () => {
    const response = await post('/produce/orders', [
      { value: order },
      { value: { id: 7 } },
      { value: JSON.stringify({ ...order, total: 'much' }) },
    ])

    const problem = await problemOf(response)
    expect(problem).toMatchObject({ status: 400, code: 'INVALID_RECORD', retriable: false })
    expect(problem.errors.map(({ pointer }) => pointer)).toEqual(['#/1/value/id', '#/1/value/total', '#/2/value/total'])
    expect(await stored('orders')).toEqual([])
  })

  test('every complaint about the shape is listed', async () => {
    const body = [{ topic: 'orders' }, { value: 'x' }, { topic: 'orders', value: 'x', partition: -1, key: 5 }, [], 3]

    const problem = await problemOf(await post('/produce', body))

    const pointers = problem.errors.map(({ pointer }) => pointer)
    expect(pointers).toEqual(
      expect.arrayContaining(['#/0/value', '#/1/topic', '#/2/partition', '#/2/key', '#/3', '#/4']),
    )
    expect(problem.status).toBe(400)
  })

  test('complaints of every kind are listed together', async () => {
    const body = [
      { topic: 'orders', value: order },
      { topic: 'orders' },
      { topic: 'orders', value: {} },
      { topic: 'nowhere', value: 'x' },
      { topic: 'notes', value: 'a', key: '\ud800', headers: [{ key: 'h', value: '\udfff' }] },
      { topic: 'brief', value: '12345678901' },
    ]

    const problem = await problemOf(await post('/produce', body))

    expect(problem).toMatchObject({ status: 400, code: 'INVALID_RECORD' })
    expect(problem.errors.map(({ pointer }) => pointer).sort()).toEqual(
      ['#/1/value', '#/2/value/id', '#/2/value/total', '#/3', '#/4/key', '#/4/headers/0', '#/5'].sort(),
    )
    expect(await stored('orders')).toEqual([])
  })

  test('every part that is not base64 is listed', async () => {
    const body = JSON.stringify([{ value: 'AP8=' }, { value: '!', key: 'AP8' }, { value: 5 }])
    const init = { method: 'POST', body, headers: { 'Kedge-Encoding': 'base64' } }

    const problem = await problemOf(await call('/produce/notes', init))

    expect(problem).toMatchObject({ status: 400, code: 'INVALID_RECORD' })
    expect(problem.errors.map(({ pointer }) => pointer)).toEqual(['#/1/key', '#/1/value', '#/2/value', '#/0/value'])
    expect(await stored('notes')).toEqual([])
  })

  test.each([
    ['/produce/brief', '{"value":"12345678","key":"123"}'],
    ['/produce', '[{"topic":"brief","value":"ok"},{"topic":"brief","value":"12345678901"}]'],
    ['/webhook?topic=brief', '12345678901'],
  ])('a record over the limit of its topic in the app, by %s', async (target, body) => {
    const response = await post(target, body)

    expect(await problemOf(response)).toMatchObject({ status: 413, code: 'MESSAGE_TOO_LARGE', retriable: false })
    expect(response.headers.get('kedge-limit')).toBe('maxRecordBytes')
    expect(await stored('brief')).toEqual([])
  })

  test('a body over the limit of a call, by its name', async () => {
    const response = await post('/produce/notes', ' '.repeat(16_777_217))

    expect(await problemOf(response)).toMatchObject({ status: 413, code: 'LIMIT_EXCEEDED' })
    expect(response.headers.get('kedge-limit')).toBe('body-bytes')
  })

  test('a value nested deeper than a schema that contains itself can follow', async () => {
    const value = `${'{"in":['.repeat(50_000)}${']}'.repeat(50_000)}`

    const problem = await problemOf(await post('/produce/trees', { value }))

    expect(problem).toMatchObject({ status: 400, code: 'INVALID_RECORD', errors: [{ pointer: '#/value' }] })
    expect(await stored('trees')).toEqual([])
  })

  test.each([
    ['no JSON', '{"value":', 400, 'INVALID_REQUEST'],
    ['no body', '', 400, 'INVALID_RECORD'],
    ['a value that is no JSON', '{"value":"no json"}', 400, 'INVALID_RECORD'],
    ['null for a schema that wants an object', '{"value":null}', 400, 'INVALID_RECORD'],
    ['deep nesting', `{"value":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 400, 'INVALID_REQUEST'],
    ['a lone surrogate', '{"value":"\\ud800"}', 400, 'INVALID_RECORD'],
    ['too many records', `[${'{"value":{"id":"a","total":1}},'.repeat(10_001)}]`, 413, 'LIMIT_EXCEEDED'],
    [
      'a partition that is not there',
      '{"value":{"id":"a","total":1},"partition":9}',
      404,
      'UNKNOWN_TOPIC_OR_PARTITION',
    ],
  ])('%s', async (_name, body, status, code) => {
    expect(await problemOf(await post('/produce/orders', body))).toMatchObject({ status, code })
    expect(await stored('orders')).toEqual([])
  })

  test('a body that is not UTF-8', async () => {
    const response = await call('/produce/orders', { method: 'POST', body: Uint8Array.of(0x22, 0xff, 0x22) })

    expect((await problemOf(response)).status).toBe(400)
  })

  test('a record over the size of its topic is refused by the gateway behind', async () => {
    await broker.createTopic({ topic: 'small', maxRecordBytes: 10 })

    const response = await post('/produce/small', { value: 'x'.repeat(11) }, { ...open, KEDGE_PRODUCE_RAW_TOPICS: '*' })

    expect(await problemOf(response)).toMatchObject({ status: 413, code: 'MESSAGE_TOO_LARGE' })
  })

  test.each(['raw', '__proto__', 'constructor'])('a topic the app does not have: %s', async (topic) => {
    const problem = await problemOf(await post(`/produce/${topic}`, { value: 'x' }))

    expect(problem).toMatchObject({ status: 404, code: 'UNKNOWN_TOPIC_OR_PARTITION' })
  })

  test.each(['a%0d%0ab', 'a%00', 'ü', 'x'.repeat(250), 'a%2Fb'])('a topic name that cannot be: %s', async (topic) => {
    expect((await problemOf(await post(`/produce/${topic}`, { value: 'x' }))).status).toBe(400)
  })

  test('a raw topic is taken when it is allowed, and its value as it comes', async () => {
    const response = await post('/produce/raw', { value: 'no json' }, { ...open, KEDGE_PRODUCE_RAW_TOPICS: 'raw' })

    expect(response.status).toBe(200)
    expect(await stored('raw')).toMatchObject([{ value: 'no json' }])
  })

  test('another path, another method, an unknown wish', async () => {
    const deleted = await call('/produce/orders', { method: 'DELETE' })
    const each = { method: 'POST', body: '{}', headers: { 'Kedge-Results': 'each' } }

    expect(await problemOf(await call('/consume/g/i'))).toMatchObject({ status: 404, code: 'UNKNOWN_ROUTE' })
    expect(deleted.headers.get('allow')).toBe('GET, POST')
    expect(await problemOf(deleted)).toMatchObject({ status: 405 })
    expect(await problemOf(await call('/produce/orders', each))).toMatchObject({ status: 501, code: 'UNSUPPORTED' })
    expect((await problemOf(await call('/webhook', { method: 'POST', body: 'x' }))).status).toBe(400)
    expect((await problemOf(await call('/produce/orders/%ff'))).status).toBe(400)
  })
})

describe('who may call', () => {
  const basic = (pair: string): Record<string, string> => ({ authorization: `Basic ${btoa(pair)}` })

  test('nobody while nothing is configured, and the answer says what to set', async () => {
    const problem = await problemOf(await post('/produce/orders', { value: order }, {}))

    expect(problem.status).toBe(401)
    expect(problem.detail).toContain('KEDGE_PRODUCE_USERNAME')
    expect(problem.detail).toContain('KEDGE_PRODUCE_AUTH=none')
  })

  test.each([
    ['the right pair', basic('php:pa:ss=='), 200],
    ['no credentials', {}, 401],
    ['garbled ones', { authorization: 'Basic %%%' }, 401],
    ['a wrong password', basic('php:pa:ss='), 403],
    ['a wrong name', basic('phq:pa:ss=='), 403],
  ])('%s', async (_name, headers: Record<string, string>, status) => {
    const init = { method: 'POST', body: JSON.stringify({ value: order }), headers }

    const response = await call('/produce/orders', init, closed)

    expect(response.status).toBe(status)
    expect(response.headers.has('www-authenticate')).toBe(status === 401)
    expect(await stored('orders')).toHaveLength(status === 200 ? 1 : 0)
  })

  test('a webhook may sign in by its query, other calls may not', async () => {
    const query = 'user=php&pass=pa:ss=='

    const webhook = await call(`/webhook?topic=notes&${query}`, { method: 'POST', body: 'x' }, closed)

    expect(webhook.status).toBe(200)
    expect((await post(`/produce/notes?${query}`, { value: 'x' }, closed)).status).toBe(401)
  })
})

describe('the gateway behind', () => {
  test('down: 503 with Retry-After', async () => {
    await broker.close()
    broker = restBroker({ url: 'http://127.0.0.1:1' })

    const response = await post('/produce/orders', { value: order })

    expect(response.headers.get('retry-after')).toBe('1')
    expect(await problemOf(response)).toMatchObject({ status: 503, code: 'NETWORK', retriable: true })
  })

  test("refusing this function's credentials: 502, and not the caller's fault", async () => {
    const behind = broker
    await using gateway = await startGateway(behind, { credentials: [] })
    broker = restBroker({ url: gateway.url, username: 'function', password: 'wrong' })

    const problem = await problemOf(await post('/produce/orders', { value: order }))

    await behind.close()
    expect(problem).toMatchObject({ status: 502, code: 'SASL_AUTHENTICATION_FAILED' })
    expect(problem.detail).toContain("this function's own credentials")
  })
})
