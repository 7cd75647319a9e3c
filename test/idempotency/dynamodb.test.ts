import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { IdempotencyStore } from '../../src/idempotency.ts'
import { dynamoDbIdempotency } from '../../src/idempotency/dynamodb.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { describeIdempotencyStore } from '../conformance/idempotency-store/index.ts'
import { FakeClock, START_MS } from '../support/clock.ts'
import { type DynamoDbServer, startDynamoDb, testCredentials } from '../support/dynamodb.ts'

const TABLE = 'kedge-idempotency'
const region = 'us-east-1'

let server: DynamoDbServer
beforeAll(async () => {
  server = await startDynamoDb()
  await server.createTable(TABLE)
})
afterAll(() => server.close())

const storeOn = (endpoint: string, clock?: FakeClock): IdempotencyStore =>
  dynamoDbIdempotency({ table: TABLE, endpoint, region, credentials: testCredentials, ...(clock && { clock }) })

describeIdempotencyStore('dynamodb', {
  async open() {
    const clock = new FakeClock()
    // The clock of the calls' time limits stands still with it, which no case minds.
    const open = (): IdempotencyStore => storeOn(server.url, clock)
    const store = open()
    return { store, other: open, advance: (ms) => clock.advance(ms), close: () => store.close() }
  },
})

describe('the item', () => {
  test('has a time to live in seconds: an hour after the lock, or the end of the outcome', async () => {
    await using store = storeOn(server.url, new FakeClock())
    await store.begin('ttl', { owner: 'a', lockMs: 30_000 })
    const locked = await server.item(TABLE, 'ttl')
    await store.complete('ttl', 'a', bytesOf('x'), { keepMs: 60_500 })

    const done = await server.item(TABLE, 'ttl')

    expect([locked?.['ttl'], locked?.['isDone']]).toEqual([{ N: String(START_MS / 1000 + 3_630) }, { BOOL: false }])
    expect([done?.['ttl'], done?.['isDone']]).toEqual([{ N: String(START_MS / 1000 + 61) }, { BOOL: true }])
  })
})

describe('a server that sends the item along with a refusal, as AWS does', () => {
  const refusal = (item: object): string =>
    JSON.stringify({
      __type: 'com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException',
      message: 'The conditional request failed',
      Item: item,
    })

  test('is asked once for a begin', async () => {
    await using raw = await rawServer(() => ({
      status: 400,
      body: refusal({
        key: { S: 'k' },
        owner: { S: 'other' },
        expiresAtMs: { N: String(START_MS + 9_000) },
        isDone: { BOOL: false },
      }),
    }))
    await using store = storeOn(raw.url, new FakeClock())

    expect(await store.begin('k', { owner: 'a', lockMs: 1_000 })).toEqual({ kind: 'in-progress', retryAfterMs: 9_000 })
    expect(raw.requests).toHaveLength(1)
    expect(raw.requests[0]).toMatchObject({ ReturnValuesOnConditionCheckFailure: 'ALL_OLD' })
  })

  test('gives the outcome without another request', async () => {
    const item = {
      key: { S: 'k' },
      owner: { S: 'other' },
      expiresAtMs: { N: '1' },
      isDone: { BOOL: true },
      outcome: { B: 'b2s=' },
    }
    await using raw = await rawServer(() => ({ status: 400, body: refusal(item) }))
    await using store = storeOn(raw.url)

    const found = await store.begin('k', { owner: 'a', lockMs: 1_000 })

    expect(found.kind === 'done' && textOf(found.outcome)).toBe('ok')
    expect(raw.requests).toHaveLength(1)
  })
})

test('a key that is freed between the refused write and the look is in progress for a millisecond', async () => {
  await using raw = await rawServer((target) =>
    target.endsWith('GetItem')
      ? { status: 200, body: '{}' }
      : { status: 400, body: '{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}' },
  )
  await using store = storeOn(raw.url)

  expect(await store.begin('k', { owner: 'a', lockMs: 1_000 })).toEqual({ kind: 'in-progress', retryAfterMs: 1 })
})

describe('failures', () => {
  test('a table that does not exist is a wrong setting, not a reason to retry', async () => {
    await using store = dynamoDbIdempotency({
      table: 'no-such-table',
      endpoint: server.url,
      region,
      credentials: testCredentials,
    })

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code: 'INVALID_CONFIG',
      retriable: false,
    })
  })

  test('a server that goes away fails the call by name, and serves again when it is back', async () => {
    const first = await startDynamoDb()
    await first.createTable(TABLE)
    const { url } = first
    await using store = storeOn(url)
    await store.begin('a', { owner: 'a', lockMs: 30_000 })
    await first.close()

    await expect(store.complete('a', 'a', bytesOf('x'), { keepMs: 1_000 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code: 'IDEMPOTENCY_STORE_UNAVAILABLE',
      retriable: true,
    })

    await using second = await startDynamoDb(Number(new URL(url).port))
    await second.createTable(TABLE)
    expect((await store.begin('a', { owner: 'a', lockMs: 30_000 })).kind).toBe('started')
  })

  test.each([
    [500, 'InternalServerError', 'IDEMPOTENCY_STORE_UNAVAILABLE', true],
    [503, 'x', 'IDEMPOTENCY_STORE_UNAVAILABLE', true],
    [400, 'ProvisionedThroughputExceededException', 'IDEMPOTENCY_STORE_UNAVAILABLE', true],
    [400, 'ThrottlingException', 'IDEMPOTENCY_STORE_UNAVAILABLE', true],
    [400, 'AccessDeniedException', 'CLUSTER_AUTHORIZATION_FAILED', false],
    [400, 'UnrecognizedClientException', 'UNAUTHENTICATED', false],
    [400, 'ValidationException', 'INVALID_REQUEST', false],
  ])('an answer %i %s is %s, asked once', async (status, type, code, retriable) => {
    const body = JSON.stringify({ __type: `com.amazonaws.dynamodb.v20120810#${type}`, message: 'no' })
    await using raw = await rawServer(() => ({ status, body }))
    await using store = storeOn(raw.url)

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code,
      retriable,
    })

    expect(raw.requests).toHaveLength(1)
  })

  test('a server that never answers ends with TIMEOUT, or with the reason of the abort', async () => {
    await using raw = await rawServer(() => undefined)
    await using store = storeOn(raw.url)
    const controller = new AbortController()
    const reason = new Error('the run is over')

    const waiting = store.begin('k', { owner: 'a', lockMs: 1 }, { signal: controller.signal })
    await expect(store.begin('k', { owner: 'a', lockMs: 1 }, { timeoutMs: 50 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      retriable: true,
    })
    controller.abort(reason)

    await expect(waiting).rejects.toBe(reason)
  })
})

describe('settings', () => {
  test.each(['', 'ab', 'a table', 'a'.repeat(256)])('refuses the table %j at once', (table) => {
    expect(() => dynamoDbIdempotency({ table })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test('refuses a client that retries by itself, and takes one that does not', async () => {
    const settings = { endpoint: server.url, region, credentials: testCredentials }
    await using retrying = dynamoDbIdempotency({ table: TABLE, client: new DynamoDBClient(settings) })
    await using once = dynamoDbIdempotency({
      table: TABLE,
      client: new DynamoDBClient({ ...settings, maxAttempts: 1 }),
    })

    await expect(retrying.begin('client', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
    expect((await once.begin('client', { owner: 'a', lockMs: 1 })).kind).toBe('started')
  })
})

/** An HTTP server that answers requests of the SDK as told; undefined: never. */
async function rawServer(
  answer: (target: string) => { readonly status: number; readonly body: string } | undefined,
): Promise<AsyncDisposable & { readonly url: string; readonly requests: unknown[] }> {
  const requests: unknown[] = []
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    requests.push(JSON.parse(await bodyOf(request)))
    const answered = answer(String(request.headers['x-amz-target']))
    if (answered === undefined) return
    response.writeHead(answered.status, { 'content-type': 'application/x-amz-json-1.0' }).end(answered.body)
  }
  const raw = createServer((request, response) => void serve(request, response))
  raw.listen(0, '127.0.0.1')
  await once(raw, 'listening')
  return {
    url: `http://127.0.0.1:${(raw.address() as AddressInfo).port}`,
    requests,
    async [Symbol.asyncDispose]() {
      raw.closeAllConnections()
      raw.close()
      await once(raw, 'close')
    },
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
