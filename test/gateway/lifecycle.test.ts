import { expect, test } from 'vitest'
import { BrokerError } from '../../src/errors.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { serveGateway } from '../../src/runtimes/node-gateway.ts'
import { startGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { describeEveryPath, openHarness, type Harness } from './every-path.ts'

const long = { topic: 'blue', timeout: 60_000 }

async function untilWaiting(harness: Harness, count: number): Promise<void> {
  while (harness.server.gateway.waiting.count !== count) await new Promise(setImmediate)
}

describeEveryPath('a client that goes away', (harness) => {
  test.each([
    ['POST /consume/g/i', long],
    ['GET /consume/g/i', long],
    ['GET /consume/g/i/blue?timeout=60000', undefined],
    ['POST /fetch', long],
  ])('ends its wait: %s', async (line, body) => {
    const client = new AbortController()
    const lost = harness().send(line, { body, signal: client.signal })
    await untilWaiting(harness(), 1)

    client.abort()

    await expect(lost).rejects.toMatchObject({ name: 'AbortError' })
    await untilWaiting(harness(), 0)
    expect((await harness().call('GET /readyz')).status).toBe(200)
  })

  test('loses nothing to a wait that was given up', async () => {
    const client = new AbortController()
    const lost = harness().send('POST /consume/g/i', { body: long, signal: client.signal })
    await untilWaiting(harness(), 1)
    client.abort()
    await expect(lost).rejects.toMatchObject({ name: 'AbortError' })
    await untilWaiting(harness(), 0)
    await harness().call('POST /produce/blue', { value: 'kept' })

    expect((await harness().call('POST /consume/g/i', long)).json).toMatchObject([{ value: 'kept' }])
  })
})

describeEveryPath('close', (harness) => {
  test('ends waits with a whole answer, and takes no more connections', async () => {
    const consume = harness().call('POST /consume/g/i', long, { 'kedge-run': 'r' })
    const fetch = harness().call('POST /fetch', long)
    await untilWaiting(harness(), 2)

    await harness().server.close()

    expect(await consume).toMatchObject({ status: 200, json: [], headers: { 'kedge-assignment': 'blue=0' } })
    expect(await fetch).toMatchObject({ status: 200, json: [], headers: { connection: 'close' } })
    await expect(harness().call('GET /healthz')).rejects.toThrow(/ECONNREFUSED|ECONNRESET/)
    await harness().server.close()
  })

  test('leaves the broker to its owner', async () => {
    await harness().server.close()

    expect(await harness().broker.topics()).toHaveLength(2)
  })
})

test('a broker that is closed answers 503, and readyz says so', async () => {
  await using server = await startGateway(closedBroker())

  const ready = await call(server.url, 'GET /readyz')
  const produce = await call(server.url, 'POST /produce/blue', { body: { value: 'x' } })

  expect([ready.status, produce.status]).toEqual([503, 503])
  expect(produce.headers['kedge-error']).toBe('CLOSED')
  expect((await call(server.url, 'GET /healthz')).status).toBe(200)
})

test('what is no error of ours is answered without its text, and told to the log', async () => {
  const seen: unknown[] = []
  const failure = new Error('/secret/file')
  const broker = { ...closedBroker(), topics: () => Promise.reject(failure) } as Broker
  await using server = await startGateway(broker, { onError: (error) => seen.push(error) })

  const answer = await call(server.url, 'GET /topics')

  expect([answer.status, answer.headers['kedge-error']]).toEqual([500, 'UNKNOWN_SERVER_ERROR'])
  expect(answer.text).not.toContain('secret')
  expect(seen).toEqual([failure])
})

test.each(['0.0.0.0', '::', '192.0.2.1', 'example.com', '128.0.0.1'])(
  'without credentials it refuses to listen on %s',
  async (host) => {
    await using broker = memoryBroker()

    await expect(serveGateway({ broker, host })).rejects.toMatchObject({ name: 'ConfigError', code: 'INVALID_CONFIG' })
  },
)

test('a port in use is an error of start', async () => {
  const one = await openHarness()
  const port = Number(new URL(one.url).port)

  await expect(serveGateway({ broker: one.broker, port })).rejects.toMatchObject({ code: 'EADDRINUSE' })
  await one.server.close()
})

describeEveryPath('without credentials, a web page', (harness) => {
  const topics = 'GET /topics'
  test.each<[string, Record<string, string>, number]>([
    ['is refused by its origin', { origin: 'https://evil.example' }, 403],
    ['is refused by the null origin', { origin: 'null' }, 403],
    ['is refused on another port', { origin: 'http://localhost:3000' }, 403],
    ['is refused by a mark of its browser', { 'sec-fetch-site': 'cross-site' }, 403],
    ['is refused under a name re-pointed at loopback', { host: 'evil.example' }, 403],
    ['is served from the gateway itself', { 'sec-fetch-site': 'same-origin' }, 200],
    ['typed by hand is served', { 'sec-fetch-site': 'none' }, 200],
    ['is no web page where there is no mark', {}, 200],
    ['may name loopback as it likes', { host: 'localhost:8790' }, 200],
  ])('%s', async (_what, headers, status) => {
    expect((await harness().send(topics, { headers })).status).toBe(status)
    expect((await harness().send('POST /produce/blue', { headers, body: '{"value":"x"}' })).status).toBe(status)
    expect((await harness().send('GET /openapi.json', { headers })).status).toBe(200)
  })
})

const allowed = 'https://app.example'

describeEveryPath(
  'CORS',
  (harness) => {
    test('lets an allowed origin in, errors included', async () => {
      for (const line of ['GET /topics', 'GET /nope', 'POST /produce/blue']) {
        const answer = await harness().send(line, { headers: { origin: allowed } })

        expect(answer.headers['access-control-allow-origin']).toBe(allowed)
        expect(answer.headers['vary']).toBe('Origin')
        expect(answer.headers['access-control-allow-credentials']).toBeUndefined()
      }
    })

    test('answers a preflight', async () => {
      const answer = await harness().send('OPTIONS /produce/blue', {
        headers: {
          origin: allowed,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'authorization,kedge-run',
        },
      })

      expect(answer.status).toBe(200)
      expect(answer.headers['access-control-allow-headers']).toBe('authorization,kedge-run')
    })

    test.each([
      'https://app.example.evil',
      'https://evil-app.example',
      'http://app.example',
      'HTTPS://APP.EXAMPLE',
      'https://app.example:444',
      'null',
    ])('refuses %s', async (origin) => {
      const answer = await harness().send('GET /topics', { headers: { origin } })

      expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([403, undefined])
    })
  },
  { corsOrigins: [allowed] },
)

describeEveryPath('CORS, not configured', (harness) => {
  test('says nothing of it, and OPTIONS is no method', async () => {
    const answer = await harness().send('OPTIONS /topics', { headers: { 'access-control-request-method': 'GET' } })

    expect([answer.status, answer.headers['allow']]).toEqual([405, 'GET, POST'])
    expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
  })
})

/** A broker of which only the closed end is of interest. */
function closedBroker(): Broker {
  const broker = memoryBroker()
  const closed = (): Promise<never> => Promise.reject(new BrokerError('CLOSED', 'The broker is closed.'))
  return Object.assign(Object.create(broker) as Broker, { topics: closed, produce: closed })
}
