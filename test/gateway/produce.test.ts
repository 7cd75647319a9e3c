import { expect, test } from 'vitest'
import { embeddedBroker } from '../../src/log/engine.ts'
import { memoryStore } from '../../src/log/memory-store.ts'
import { startGateway } from '../support/gateway.ts'
import { call } from '../support/http.ts'
import { until } from '../support/until.ts'
import { describeEveryPath, type Harness } from './every-path.ts'

/** All records of a topic's partition, as the dialect shows them. */
async function stored(harness: Harness, topic = 'blue', partition = 0): Promise<Record<string, unknown>[]> {
  const answer = await harness.call('POST /fetch', { topic, partition, offset: 0, timeout: 0 })
  return answer.json as Record<string, unknown>[]
}

const place = { topic: 'blue', partition: 0, offset: 0, timestamp: expect.any(Number) as number }

describeEveryPath('produce', (harness) => {
  test.each([
    ['an object', 'POST /produce/blue', { value: 'x' }],
    ['a list', 'POST /produce/blue', [{ value: 'x' }]],
    ['an object with its topic', 'POST /produce', { topic: 'blue', value: 'x' }],
    ['a list with topics', 'POST /produce', [{ topic: 'blue', value: 'x' }]],
    ['a body on GET', 'GET /produce/blue', { value: 'x' }],
    ['a body on GET with its topic', 'GET /produce', { topic: 'blue', value: 'x' }],
    ['a trailing slash', 'POST /produce/blue/', { value: 'x' }],
    ['a trailing slash after the verb', 'POST /produce/', { topic: 'blue', value: 'x' }],
    ['a trailing comma', 'POST /produce/blue', '[{"value":"x"},]'],
    ['white space around', 'POST /produce/blue', ' \n{"value":"x"}\r\n'],
    ['unknown fields', 'POST /produce/blue', { value: 'x', topic: 'red', more: { a: [1] } }],
    ['nulls for what is optional', 'POST /produce/blue', { value: 'x', key: null, partition: null, headers: null }],
    ['an encoded topic', 'POST /produce/bl%75e', { value: 'x' }],
    ['a query it does not know', 'POST /produce/blue?x=%', { value: 'x' }],
  ])('answers %s with a list of metadata', async (_what, line, body) => {
    const answer = await harness().call(line, body)

    expect(answer.status).toBe(200)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.json).toEqual([place])
    expect(await stored(harness())).toEqual([{ ...place, key: '', value: 'x', headers: [] }])
  })

  test.each([
    'application/json',
    'application/x-www-form-urlencoded',
    'text/plain;charset=UTF-8',
    'undefined',
    'x/y; z',
  ])('reads the body whatever its content type: %s', async (type) => {
    const answer = await harness().call('POST /produce/blue', { value: 'x' }, { 'content-type': type })

    expect(answer.status).toBe(200)
  })

  test.each([
    ['a number', '5', '5'],
    ['a number beyond 53 bits', '12345678901234567890', '12345678901234567890'],
    ['a number beyond doubles', '1e400', '1e400'],
    ['a boolean', 'true', 'true'],
    ['an object, members in order and doubled', '{ "b" : 1, "a" : [ 1, 2 ], "b" : 2 }', '{"b":1,"a":[1,2],"b":2}'],
    ['an empty string', '""', ''],
    ['text beyond ASCII', '"ü€😀\\u0000\\ufeff"', 'ü€😀\u0000\ufeff'],
    ['a byte order mark first', '"\\ufeffx"', '\ufeffx'],
    ['the replacement character itself', '"\ufffd"', '\ufffd'],
    ['null', 'null', ''],
  ])('carries %s as a value', async (_what, json, text) => {
    const answer = await harness().call('POST /produce/blue', `{"value":${json}}`)

    expect(answer.status).toBe(200)
    expect((await stored(harness()))[0]?.['value']).toBe(text)
  })

  test('keeps the order of a list over topics and partitions', async () => {
    const answer = await harness().call('POST /produce', [
      { topic: 'red', partition: 1, value: 'a' },
      { topic: 'blue', value: 'b' },
      { topic: 'red', partition: 1, value: 'c', timestamp: 1_000 },
    ])

    expect(answer.json).toEqual([
      { topic: 'red', partition: 1, offset: 0, timestamp: expect.any(Number) },
      place,
      { topic: 'red', partition: 1, offset: 1, timestamp: 1000 },
    ])
  })

  test('keeps key, headers and their order, duplicates and nulls', async () => {
    const headers = [
      { key: 'a', value: '1' },
      { key: 'a', value: '2' },
      { key: '', value: null },
      { key: 'ü', value: 'ü' },
    ]

    await harness().call('POST /produce/blue', { value: 'x', key: 'ключ', headers })

    expect((await stored(harness()))[0]).toMatchObject({
      key: 'ключ',
      headers: [headers[0], headers[1], { key: '', value: '' }, headers[3]],
    })
  })

  test('takes an empty key for none', async () => {
    await harness().call('POST /produce/blue', { value: 'x', key: '' })
    const base64 = await harness().call('POST /fetch', { topic: 'blue' }, { 'kedge-encoding': 'base64' })

    expect(base64.json).toMatchObject([{ key: null }])
  })

  test('answers an empty list with an empty list', async () => {
    expect((await harness().call('POST /produce/blue', [])).json).toEqual([])
    expect((await harness().call('POST /produce', [])).json).toEqual([])
  })

  test.each([
    ['no body', undefined, 400],
    ['an empty body', '', 400],
    ['malformed JSON', '{"value":', 400],
    ['a bare string', '"x"', 400],
    ['a number', '5', 400],
    ['null', 'null', 400],
    ['a list in a list', [[{ value: 'x' }]], 400],
    ['no value', { key: 'k' }, 400],
    ['a number as key', { value: 'x', key: 5 }, 400],
    ['a negative partition', { value: 'x', partition: -1 }, 400],
    ['a partition beyond int32', { value: 'x', partition: 2 ** 31 }, 400],
    ['a fraction as partition', { value: 'x', partition: 0.5 }, 400],
    ['a text as partition', { value: 'x', partition: '0' }, 400],
    ['a negative timestamp', { value: 'x', timestamp: -1 }, 400],
    ['a text as timestamp', { value: 'x', timestamp: '5' }, 400],
    ['a timestamp beyond 2^53', '{"value":"x","timestamp":9007199254740993}', 400],
    ['headers that are no list', { value: 'x', headers: { a: 'b' } }, 400],
    ['a header without a name', { value: 'x', headers: [{ value: 'b' }] }, 400],
    ['a number as header value', { value: 'x', headers: [{ key: 'a', value: 1 }] }, 400],
    ['a lone surrogate', '{"value":"\\ud800"}', 400],
    ['bytes that are not UTF-8', Buffer.from('{"value":"\xff"}', 'latin1'), 400],
    ['a partition the topic has not', { value: 'x', partition: 7 }, 404],
  ])('refuses %s', async (_what, body, status) => {
    const answer = await harness().call('POST /produce/blue', body)

    expect(answer.status).toBe(status)
    expect(answer.json).toEqual({ result: '', error: expect.stringMatching(/.{10}/), status })
    expect(answer.headers['kedge-error']).toBeTypeOf('string')
    expect(await stored(harness())).toEqual([])
  })

  test.each([
    ['POST /produce/nope', { value: 'x' }, 404],
    ['POST /produce', { topic: 'nope', value: 'x' }, 404],
    ['POST /produce', { value: 'x' }, 400],
    ['POST /produce', { topic: 5, value: 'x' }, 400],
    ['POST /produce', { topic: 'a/b', value: 'x' }, 400],
  ])('refuses a topic that is not one: %s %j', async (line, body, status) => {
    expect((await harness().call(line, body)).status).toBe(status)
  })

  test('takes 1e3 for a thousand, which JSON says it is', async () => {
    const answer = await harness().call('POST /produce/blue', '{"value":"x","timestamp":1e3,"partition":0e0}')

    expect(answer.json).toEqual([{ ...place, timestamp: 1000 }])
  })

  test('writes nothing of a batch with one record that cannot be taken', async () => {
    const answer = await harness().call('POST /produce', [
      { topic: 'blue', value: 'good' },
      { topic: 'nope', value: 'bad' },
    ])

    expect(answer.status).toBe(404)
    expect(await stored(harness())).toEqual([])
  })
})

describeEveryPath('produce with the message in the path', (harness) => {
  test.each([
    ['GET /produce/blue/hello', 'hello'],
    ['POST /produce/blue/hello', 'hello'],
    ['GET /produce/blue/a%20b%2Fc', 'a b/c'],
    ['GET /produce/blue/http://x.example/y', 'http://x.example/y'],
    ['GET /produce/blue/a/', 'a/'],
    ['GET /produce/blue/a+b', 'a+b'],
    ['GET /produce/blue/{"a":"b"}', '{"a":"b"}'],
    ['GET /produce/blue/%7B%22a%22%3A1%7D', '{"a":1}'],
    ['GET /produce/blue/%C3%BC', 'ü'],
    ['GET /produce/blue/../x', '../x'],
  ])('%s', async (line, value) => {
    const answer = await harness().call(line)

    expect(answer.json).toEqual(place)
    expect(await stored(harness())).toMatchObject([{ value, key: '' }])
  })

  test('takes the key from the query', async () => {
    await harness().call('GET /produce/blue/x?key=a+%C3%BC')

    expect(await stored(harness())).toMatchObject([{ key: 'a ü' }])
  })

  test('refuses what is not percent-encoded UTF-8', async () => {
    expect((await harness().call('GET /produce/blue/%ff')).status).toBe(400)
  })
})

describeEveryPath('webhook', (harness) => {
  test('takes the body as it is and the headers that are not plain HTTP', async () => {
    const body = Buffer.from([0, 255, 0x7b, 0x22])

    const answer = await harness().call('POST /webhook?topic=blue', body, {
      'Stripe-Signature': 't=1,v1=ü',
      'X-GitHub-Event': 'push',
      'Content-Type': 'application/json',
      'User-Agent': 'x',
      Accept: '*/*',
      'X-Forwarded-For': '1.2.3.4',
      Authorization: 'Basic eDp5',
      Cookie: 'a=b',
    })
    const read = await harness().call('POST /fetch', { topic: 'blue' }, { 'kedge-encoding': 'base64' })

    expect(answer.json).toEqual([place])
    expect(read.json).toMatchObject([
      {
        key: null,
        value: body.toString('base64'),
        headers: [
          { key: 'Stripe-Signature', value: Buffer.from('t=1,v1=ü', 'latin1').toString('base64') },
          { key: 'X-GitHub-Event', value: Buffer.from('push').toString('base64') },
        ],
      },
    ])
  })

  test.each([
    ['POST /webhook', 400],
    ['POST /webhook?topic=', 400],
    ['POST /webhook?topic=nope', 404],
    ['GET /webhook?topic=blue', 200],
    ['POST /webhook/?topic=blue', 200],
  ])('%s answers %i', async (line, status) => {
    expect((await harness().call(line)).status).toBe(status)
  })
})

describeEveryPath('produce extensions', (harness) => {
  const base64 = { 'kedge-encoding': 'base64' }

  test('carries any bytes with base64, and null apart from empty', async () => {
    const records = [
      { key: '', value: 'AP8=', headers: [{ key: 'h', value: '/w==' }] },
      { key: null, value: null, headers: [{ key: 'h', value: null }] },
      { key: 'gA==', value: '', headers: [{ key: 'h', value: '' }] },
    ]

    const answer = await harness().call('POST /produce/blue', records, base64)
    const read = await harness().call('POST /fetch', { topic: 'blue' }, base64)

    expect(answer.status).toBe(200)
    expect(read.json).toMatchObject(records)
  })

  test('shows what is not UTF-8 as U+FFFD in text', async () => {
    await harness().call('POST /produce/blue', { value: 'YWL/YWI=' }, base64)

    expect(await stored(harness())).toMatchObject([{ value: 'ab\ufffdab' }])
  })

  test.each(['AP8', 'AP-_', '!', 'A===', ' AP8=', 'AP8=\n'])('refuses %j, which is not base64', async (value) => {
    const answer = await harness().call('POST /produce/blue', { value }, base64)

    expect([answer.status, answer.headers['kedge-error']]).toEqual([400, 'INVALID_RECORD'])
  })

  test('refuses an encoding it does not know', async () => {
    expect((await harness().call('POST /produce/blue', { value: 'x' }, { 'kedge-encoding': 'hex' })).status).toBe(400)
  })

  test('answers each record for itself with Kedge-Results: each', async () => {
    const answer = await harness().call(
      'POST /produce',
      [
        { topic: 'blue', value: 'a' },
        { topic: 'nope', value: 'b' },
        { topic: 'blue', value: 'c' },
      ],
      { 'kedge-results': 'each' },
    )

    expect(answer.status).toBe(207)
    expect(answer.json).toEqual([
      place,
      { result: '', error: expect.any(String), status: 404, code: 'UNKNOWN_TOPIC_OR_PARTITION' },
      { ...place, offset: 1 },
    ])
  })

  test('answers 200 with Kedge-Results: each when all are stored', async () => {
    const answer = await harness().call('POST /produce/blue', [{ value: 'a' }], { 'kedge-results': 'each' })

    expect([answer.status, answer.json]).toEqual([200, [place]])
  })

  test('stores once what comes twice with one idempotency key, and tells the same', async () => {
    const key = { 'idempotency-key': '"order-1"' }

    const first = await harness().call('POST /produce/blue', { value: 'a' }, key)
    const second = await harness().call('POST /produce/blue', { value: 'a' }, { 'idempotency-key': 'order-1' })
    const other = await harness().call('POST /produce/blue', { value: 'b' }, key)

    expect(second.json).toEqual(first.json)
    expect([other.status, other.headers['kedge-error']]).toEqual([422, 'IDEMPOTENCY_KEY_REUSED'])
    expect(await stored(harness())).toHaveLength(1)
  })

  test.each([
    ['with the message in the path', 'GET /produce/blue/a', undefined, 'GET /produce/blue/b'],
    ['a webhook', 'POST /webhook?topic=blue', 'a', 'GET /webhook?topic=blue'],
  ])('stores once what comes twice with one idempotency key: %s', async (_what, line, body, otherLine) => {
    const key = { 'idempotency-key': 'order-1' }

    const first = await harness().call(line, body, key)
    const second = await harness().call(line, body, key)
    const other = await harness().call(otherLine, undefined, key)

    expect([first.status, second.json]).toEqual([200, first.json])
    expect([other.status, other.headers['kedge-error']]).toEqual([422, 'IDEMPOTENCY_KEY_REUSED'])
    expect(await stored(harness())).toMatchObject([{ value: 'a', headers: [] }])
  })

  test.each(['""', 'a b', 'x'.repeat(256), '"a'])('refuses the idempotency key %j', async (key) => {
    const answer = await harness().call('POST /produce/blue', { value: 'a' }, { 'idempotency-key': key })

    expect(answer.status).toBe(400)
  })
})

test('a produce whose idempotency key is in flight is answered with 409, and may come again', async () => {
  const transactions: (() => void)[] = []
  await using broker = embeddedBroker(memoryStore(), { defer: (run) => transactions.push(run) })
  await broker.createTopic({ topic: 'blue' })
  await using server = await startGateway(broker)
  const produce = () =>
    call(server.url, 'POST /produce/blue', { body: { value: 'a' }, headers: { 'idempotency-key': 'order-1' } })
  transactions.length = 0

  const first = produce()
  await until(() => transactions.length > 0)
  const second = await produce()
  for (const run of transactions) run()

  expect([second.status, second.headers['kedge-error'], second.headers['kedge-retriable']]).toEqual([
    409,
    'IDEMPOTENCY_KEY_IN_FLIGHT',
    'true',
  ])
  expect((await first).json).toEqual([place])
  expect((await produce()).json).toEqual((await first).json)
})
