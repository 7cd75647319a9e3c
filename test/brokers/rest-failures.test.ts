/** What the rest driver makes of servers that refuse, hang, break off or answer something else: one request, right code. */
import type { ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { restBroker } from '../../src/brokers/rest.ts'
import type { BrokerError, ErrorCode } from '../../src/errors.ts'
import { refusal } from '../conformance/broker/harness.ts'
import { FakeClock } from '../support/clock.ts'
import { json, startServer } from '../support/http-server.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { record } from '../support/records.ts'
import { until } from '../support/until.ts'

failOnLeaks()

/** Produces one record to a server that answers so, expects one request, and gives the error. */
async function expectFailedProduce(
  answer: (response: ServerResponse) => void,
  ...codes: ErrorCode[]
): Promise<BrokerError> {
  await using server = await startServer(answer)
  await using broker = restBroker({ url: server.url })

  const error = await refusal(broker.produce([record('orders', 'v')]), ...codes)

  expect(server.requests).toHaveLength(1)
  return error
}

const MEMBER = { 'Kedge-Generation': '1', 'Kedge-Assignment': 't=0' }
const errorBody = (status: number, error = 'because') => ({ result: '', error, status })

describe('rest › statuses of servers that name no code', () => {
  const rows: [status: number, code: ErrorCode, retriable: boolean][] = [
    [400, 'INVALID_REQUEST', false],
    [401, 'UNAUTHENTICATED', false],
    [403, 'CLUSTER_AUTHORIZATION_FAILED', false],
    [404, 'UNKNOWN_TOPIC_OR_PARTITION', false],
    [405, 'UNSUPPORTED', false],
    [408, 'TIMEOUT', true],
    [409, 'INVALID_REQUEST', false],
    [413, 'MESSAGE_TOO_LARGE', false],
    [418, 'INVALID_REQUEST', false],
    [425, 'OVERLOADED', true],
    [429, 'OVERLOADED', true],
    [431, 'LIMIT_EXCEEDED', false],
    [500, 'UNKNOWN_SERVER_ERROR', true],
    [501, 'UNSUPPORTED', false],
    [502, 'NETWORK', true],
    [503, 'OVERLOADED', true],
    [504, 'TIMEOUT', true],
    [507, 'UNKNOWN_SERVER_ERROR', false],
  ]

  test.each(rows)('%i is %s, retriable: %s', async (status, code, retriable) => {
    const error = await expectFailedProduce((response) => json(response, status, errorBody(status)), code)

    expect(error.retriable).toBe(retriable)
    expect(error.message).toContain('because')
  })

  test('a redirect is followed nowhere', async () => {
    await expectFailedProduce((response) => {
      response.writeHead(307, { Location: 'http://127.0.0.1:1/', 'Content-Type': 'application/json' })
      response.end('[]')
    }, 'BAD_RESPONSE')
  })
})

describe('rest › refusals with the headers of a gateway', () => {
  test('takes code, retriable, wait and limit from them, and the text as it is', async () => {
    const error = await expectFailedProduce(
      (response) =>
        json(response, 429, errorBody(429, 'Cannot wait: try again.'), {
          'Kedge-Error': 'OVERLOADED',
          'Kedge-Retriable': 'true',
          'Kedge-Retry-After-Ms': '1250',
          'Retry-After': '2',
          'Kedge-Limit': 'waiting-polls',
        }),
      'OVERLOADED',
    )

    expect(error.message).toBe('Cannot wait: try again.')
    expect(error).toMatchObject({ retriable: true, retryAfterMs: 1250, limit: 'waiting-polls' })
  })

  test('believes the server on retriable, against what the code says', async () => {
    const headers = { 'Kedge-Error': 'UNKNOWN_TOPIC_OR_PARTITION', 'Kedge-Retriable': 'false' }
    const error = await expectFailedProduce(
      (response) => json(response, 404, errorBody(404), headers),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )

    expect(error.retriable).toBe(false)
    expect(error.errorCode).toBe(3)
  })

  test('goes by the status where the code is of a newer gateway', async () => {
    const headers = { 'Kedge-Error': 'SOMETHING_NEW', 'Kedge-Retriable': 'true' }
    const error = await expectFailedProduce(
      (response) => json(response, 400, errorBody(400), headers),
      'INVALID_REQUEST',
    )

    expect(error.retriable).toBe(true)
  })

  test('reads Retry-After in seconds and as a date', async () => {
    const clock = new FakeClock()
    const later = new Date(clock.now() + 90_000).toUTCString()
    const waits = []
    for (const after of ['3', later, 'soon']) {
      await using server = await startServer((response) =>
        json(response, 503, errorBody(503), { 'Retry-After': after }),
      )
      await using broker = restBroker({ url: server.url, clock })
      waits.push((await refusal(broker.topics(), 'OVERLOADED')).retryAfterMs)
    }

    expect(waits).toEqual([3_000, 90_000, undefined])
  })
})

describe('rest › credentials', () => {
  test('are sent as Basic, in UTF-8', async () => {
    await using server = await startServer((response) => json(response, 200, []))
    await using broker = restBroker({ url: server.url, username: 'ü:', password: 'p:ß=' })

    await broker.topics()

    const [, encoded = ''] = server.requests[0]?.headers.authorization?.split(' ') ?? []
    expect(Buffer.from(encoded, 'base64').toString()).toBe('ü::p:ß=')
  })

  test.each([401, 403])('that are refused with %i fail at once, with one request, for every call', async (status) => {
    await using server = await startServer((response) => json(response, status, errorBody(status)))
    await using broker = restBroker({ url: server.url, username: 'u', password: 'p' })
    const group = { groupId: 'g', groupInstanceId: 'i' }
    const partition = { topic: 't', partition: 0 }
    const limits = { maxWaitMs: 0, maxRecords: 1, maxBytes: 1 }
    const calls = [
      () => broker.produce([record('t', 'v')]),
      () => broker.fetch([{ ...partition, offset: 0 }], limits),
      () => broker.poll({ group, topics: ['t'], ...limits }),
      () => broker.commit(group, [{ ...partition, offset: 0 }]),
      () => broker.committed('g'),
      () => broker.offsets([partition], 'latest'),
      () => broker.topics(),
      () => broker.groups(),
      () => broker.claim(group, { runId: 'r' }),
      () => broker.leave(group),
    ]

    for (const [n, use] of calls.entries()) {
      const error = await refusal(use(), 'UNAUTHENTICATED', 'CLUSTER_AUTHORIZATION_FAILED')
      expect(error.retriable).toBe(false)
      expect(server.requests).toHaveLength(n + 1)
    }
  })

  test('refused with a page in front of the gateway keep their code', async () => {
    await expectFailedProduce((response) => {
      response.writeHead(401, { 'Content-Type': 'text/html' })
      response.end('<html>Sign in</html>')
    }, 'UNAUTHENTICATED')
  })

  test('are never taken from the URL, nor shown', () => {
    expect(() => restBroker({ url: 'http://user:secret@127.0.0.1/' })).toThrow(/username and password/)
    expect(() => restBroker({ url: '//user:secret@x' })).toThrow(/^(?!.*secret)/)
    for (const url of ['', 'localhost:8790', 'ftp://x', 'http://x?y=1', 'http://x/#y']) {
      expect(() => restBroker({ url }), url).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    }
  })
})

describe('rest › answers that are not the protocol', () => {
  const html = (status: number) => (response: ServerResponse) => {
    response.writeHead(status, { 'Content-Type': 'text/html' })
    response.end('<html>gateway</html>')
  }

  test('a page is BAD_RESPONSE', async () => {
    expect((await expectFailedProduce(html(200), 'BAD_RESPONSE')).retriable).toBe(false)
    expect((await expectFailedProduce(html(404), 'BAD_RESPONSE')).retriable).toBe(false)
  })

  test('a page of a proxy that is overloaded may be gone later', async () => {
    expect((await expectFailedProduce(html(502), 'BAD_RESPONSE')).retriable).toBe(true)
    expect((await expectFailedProduce(html(503), 'BAD_RESPONSE')).retriable).toBe(true)
  })

  test('an empty answer is BAD_RESPONSE', async () => {
    await expectFailedProduce((response) => response.end(), 'BAD_RESPONSE')
  })

  const place = { topic: 't', partition: 0, offset: 0, timestamp: 0 }
  test.each<[what: string, body: unknown]>([
    ['an object', {}],
    ['null', null],
    ['too few results', []],
    ['too many results', [place, place]],
    ['an offset as text', [{ ...place, offset: '0' }]],
    ['an unsafe offset', [{ ...place, offset: 2 ** 53 }]],
    ['a list of null', [null]],
  ])('JSON that is no answer to a produce is BAD_RESPONSE: %s', async (_, body) => {
    await expectFailedProduce((response) => json(response, 200, body), 'BAD_RESPONSE')
  })

  test.each<[what: string, headers: Record<string, string>, body: unknown]>([
    ['no generation', { 'Kedge-Assignment': '' }, []],
    ['no assignment', { 'Kedge-Generation': '1' }, []],
    [
      'a wait instead, with records',
      { 'Kedge-Retry-After-Ms': '5' },
      [{ ...place, key: null, value: null, headers: [] }],
    ],
    ['a wait of somebody in front', { 'Retry-After': '5' }, []],
    ['an assignment that goes back', { 'Kedge-Generation': '1', 'Kedge-Assignment': 't=5-2' }, []],
    ['an assignment without end', { 'Kedge-Generation': '1', 'Kedge-Assignment': 't=0-999999999' }, []],
    ['a value that is not base64', MEMBER, [{ ...place, key: null, value: 'not base64!', headers: [] }]],
    ['no headers', MEMBER, [{ ...place, key: null, value: null }]],
  ])('JSON that is no answer to a poll is BAD_RESPONSE: %s', async (_, headers, body) => {
    await using server = await startServer((response) => json(response, 200, body, headers))
    await using broker = restBroker({ url: server.url })

    const request = { group: { groupId: 'g', groupInstanceId: 'i' }, topics: ['t'] }
    await refusal(broker.poll({ ...request, maxWaitMs: 0, maxRecords: 1, maxBytes: 1 }), 'BAD_RESPONSE')
  })
})

describe('rest › servers that are gone or silent', () => {
  test('nobody listening is NETWORK', async () => {
    const { url } = await goneServer()
    await using broker = restBroker({ url })

    const error = await refusal(broker.produce([record('t', 'v')]), 'NETWORK')

    expect(error.retriable).toBe(true)
    expect(error.cause).toBeInstanceOf(Error)
  })

  test('a connection that is cut before the answer is NETWORK, and the produce is sent once', async () => {
    await expectFailedProduce((response) => response.destroy(), 'NETWORK')
  })

  test('a connection that is cut inside the answer is NETWORK, and the produce is sent once', async () => {
    await expectFailedProduce((response) => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': '1000' })
      response.write('[{"topic":"orders"', () => response.destroy())
    }, 'NETWORK')
  })

  test('a connection that was closed while it was idle is no reason to send a produce twice', async () => {
    let answered = 0
    await using server = await startServer((response) => {
      answered += 1
      if (answered === 2) response.destroy()
      else json(response, 200, [{ topic: 't', partition: 0, offset: 0, timestamp: 0 }])
    })
    await using broker = restBroker({ url: server.url })

    await broker.produce([record('t', 'a')])
    await refusal(broker.produce([record('t', 'b')]), 'NETWORK')
    await broker.produce([record('t', 'c')])

    expect(server.requests).toHaveLength(3)
  })

  test('a server that hangs is TIMEOUT after the time of the call, and not before', async () => {
    const clock = new FakeClock()
    await using server = await startServer(() => undefined)
    await using broker = restBroker({ url: server.url, clock })
    const outcome = refusal(broker.produce([record('t', 'v')], {}, { timeoutMs: 1_111 }), 'TIMEOUT')
    await until(() => server.requests.length === 1)

    await clock.advance(1_110)
    expect(clock.pending).toBe(1)
    await clock.advance(1)

    expect((await outcome).retriable).toBe(true)
    expect(server.requests).toHaveLength(1)
    expect(clock.pending).toBe(0)
  })

  test("a server that hangs is TIMEOUT after the driver's own time, a poll's wait on top", async () => {
    const clock = new FakeClock()
    await using server = await startServer(() => undefined)
    await using broker = restBroker({ url: server.url, clock, timeoutMs: 2_000 })
    const producing = refusal(broker.produce([record('t', 'v')]), 'TIMEOUT')
    const fetching = refusal(
      broker.fetch([{ topic: 't', partition: 0, offset: 0 }], { maxWaitMs: 500, maxRecords: 1, maxBytes: 1 }),
      'TIMEOUT',
    )
    await until(() => server.requests.length === 2)

    expect([clock.isWaiting(2_000), clock.isWaiting(2_500)]).toEqual([true, true])
    await clock.advance(2_500)
    await producing
    await fetching
  })

  test('a server that hangs inside its answer is TIMEOUT too', async () => {
    const clock = new FakeClock()
    await using server = await startServer((response) => {
      response.writeHead(200, { 'Content-Type': 'application/json' })
      response.write('[')
    })
    await using broker = restBroker({ url: server.url, clock })
    const outcome = refusal(broker.produce([record('t', 'v')], {}, { timeoutMs: 1_000 }), 'TIMEOUT')
    await until(() => server.requests.length === 1)

    await clock.advance(1_000)

    await outcome
  })

  test('a call that is aborted ends at once, and its connection too', async () => {
    let isClosed = false
    await using server = await startServer((response) => {
      response.on('close', () => {
        isClosed = true
      })
    })
    await using broker = restBroker({ url: server.url })
    const controller = new AbortController()
    const reason = new Error('no longer wanted')
    const produced = broker.produce([record('t', 'v')], {}, { signal: controller.signal })
    await until(() => server.requests.length === 1)

    controller.abort(reason)

    await expect(produced).rejects.toBe(reason)
    await until(() => isClosed)
  })

  test('a fetch function that does not care for its signal delays nobody', async () => {
    const broker = restBroker({ url: 'http://gateway.example', fetch: () => new Promise(() => undefined) })
    const controller = new AbortController()
    const reason = new Error('no longer wanted')
    const topics = broker.topics({ signal: controller.signal })

    controller.abort(reason)

    await expect(topics).rejects.toBe(reason)
  })

  test('closing ends what is in flight with CLOSED', async () => {
    await using server = await startServer(() => undefined)
    const broker = restBroker({ url: server.url })
    const outcome = refusal(broker.topics(), 'CLOSED')
    await until(() => server.requests.length === 1)

    await broker.close()

    await outcome
  })
})

describe('rest › the order of produces', () => {
  test('sends a produce to a topic when the one before is answered, and others at once', async () => {
    const held: (() => void)[] = []
    await using server = await startServer((response) => {
      held.push(() => json(response, 200, [{ topic: 't', partition: 0, offset: 0, timestamp: 0 }]))
    })
    await using broker = restBroker({ url: server.url })

    const all = ['t', 't', 'other', 't'].map((topic, n) => broker.produce([record(topic, `v${n}`)]))
    await until(() => held.length === 2)
    const first = server.requests.map(({ body }) => (JSON.parse(body) as [{ topic: string }])[0].topic)
    for (let n = 0; n < 4; n++) {
      await until(() => held.length > n)
      held[n]?.()
    }
    await Promise.all(all)

    expect(first.sort()).toEqual(['other', 't'])
    const sent = server.requests
      .map(({ body }) => (JSON.parse(body) as [{ topic: string; value: string }])[0])
      .filter(({ topic }) => topic === 't')
    expect(sent.map(({ value }) => Buffer.from(value, 'base64').toString())).toEqual(['v0', 'v1', 'v3'])
  })

  test('a produce that failed holds up none after it', async () => {
    let answered = 0
    await using server = await startServer((response) => {
      answered += 1
      if (answered === 1) response.destroy()
      else json(response, 200, [{ topic: 't', partition: 0, offset: 0, timestamp: 0 }])
    })
    await using broker = restBroker({ url: server.url })

    const first = refusal(broker.produce([record('t', 'a')]), 'NETWORK')
    const second = broker.produce([record('t', 'b')])

    await first
    expect(await second).toHaveLength(1)
  })

  test('a produce that is given up while it waits for its turn is never sent', async () => {
    let finish: (() => void) | undefined
    await using server = await startServer((response) => {
      finish = () => json(response, 200, [{ topic: 't', partition: 0, offset: 0, timestamp: 0 }])
    })
    await using broker = restBroker({ url: server.url })
    const controller = new AbortController()
    const reason = new Error('no longer wanted')

    const first = broker.produce([record('t', 'a')])
    const second = broker.produce([record('t', 'b')], {}, { signal: controller.signal })
    await until(() => finish !== undefined)
    controller.abort(reason)
    await expect(second).rejects.toBe(reason)
    finish?.()
    await first

    expect(server.requests).toHaveLength(1)
  })
})

async function goneServer(): Promise<{ url: string }> {
  await using server = await startServer(() => undefined)
  return { url: server.url }
}

describe('rest › who counts requests', () => {
  test('is told of each before it is sent', async () => {
    await using server = await startServer((response) => json(response, 503, errorBody(503)))
    await using broker = restBroker({ url: server.url })
    const sentBefore: number[] = []
    const onRequest = (): void => void sentBefore.push(server.requests.length)

    await refusal(broker.topics({ onRequest }), 'OVERLOADED')
    await refusal(broker.produce([record('orders', 'v')], {}, { onRequest }), 'OVERLOADED')

    expect(sentBefore).toEqual([0, 1])
  })

  test('keeps one from being sent', async () => {
    await using server = await startServer((response) => json(response, 200, []))
    await using broker = restBroker({ url: server.url })
    const onRequest = (): never => {
      throw new RangeError('enough')
    }

    await expect(broker.topics({ onRequest })).rejects.toThrow('enough')
    expect(server.requests).toHaveLength(0)
  })
})
