/** The requests that people paste from old documentation: by hand, over a socket, byte for byte as curl sends them. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { failOnLeaks } from '../support/leaks.ts'
import { withSdk } from './sdk.ts'

failOnLeaks()

interface RawAnswer {
  readonly status: number
  readonly json: unknown
}

/** Writes a request line and body as they are, which `fetch` and `URL` would not let through. */
async function send(
  url: string,
  line: string,
  body = '',
  type = 'application/x-www-form-urlencoded',
): Promise<RawAnswer> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  const headers = body === '' ? '' : `Content-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`
  socket.end(`${line} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: close\r\n${headers}\r\n${body}`)
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(socket, 'close')
  const [head = '', ...rest] = Buffer.concat(chunks).toString().split('\r\n\r\n')
  return { status: Number(head.split(' ')[1]), json: JSON.parse(rest.join('\r\n\r\n')) as unknown }
}

const place = (offset: number, topic = 'blue', partition = 0) => ({
  topic,
  partition,
  offset,
  timestamp: expect.any(Number) as number,
})
const success = { result: 'Success', error: '', status: 200 }

test('GET /produce/{topic}/{message} stores the rest of the path, and answers one object', async () => {
  await using sdk = await withSdk()

  const plain = await send(sdk.url, 'GET /produce/blue/hello')
  const keyed = await send(sdk.url, 'GET /produce/blue/h%C3%A4llo%20you?key=my%20key')
  const raw = await send(sdk.url, 'GET /produce/blue/{"a":1}')
  const withSlashes = await send(sdk.url, 'GET /produce/blue/https://example.com/x')

  expect([plain, keyed, raw, withSlashes].map(({ json }) => json)).toEqual([0, 1, 2, 3].map((offset) => place(offset)))
  const messages = await sdk.kafka.consumer().fetch({ topic: 'blue', partition: 0, offset: 0 })
  expect(messages.map(({ key, value }) => [key, value])).toEqual([
    ['', 'hello'],
    ['my key', 'hällo you'],
    ['', '{"a":1}'],
    ['', 'https://example.com/x'],
  ])
})

test('curl -d sends JSON as a form, and is read as JSON', async () => {
  await using sdk = await withSdk()

  const one = await send(sdk.url, 'POST /produce/blue', '{"value":"a","key":"k"}')
  const many = await send(sdk.url, 'POST /produce/blue', '[{"value":"b"},{"value":"c"}]')
  const topics = await send(
    sdk.url,
    'POST /produce',
    '[{"topic":"blue","value":"d"},{"topic":"red","partition":2,"value":"e"}]',
  )
  const trailing = await send(sdk.url, 'POST /produce/blue', '[{"value":"f"},]')

  expect(one.json).toEqual([place(0)])
  expect(many.json).toEqual([place(1), place(2)])
  expect(topics.json).toEqual([place(3), place(0, 'red', 2)])
  expect(trailing.json).toEqual([place(4)])
})

test.each(['text/plain;charset=UTF-8', 'application/octet-stream', 'undefined', 'application/json'])(
  'the content type %s is not looked at',
  async (type) => {
    await using sdk = await withSdk()

    expect((await send(sdk.url, 'POST /produce/blue', '{"value":"a"}', type)).json).toEqual([place(0)])
  },
)

test('GET with a body is read like POST', async () => {
  await using sdk = await withSdk()

  const produced = await send(sdk.url, 'GET /produce', '{"topic":"blue","value":"a"}')
  const fetched = await send(sdk.url, 'GET /fetch', '{"topic":"blue","partition":0,"offset":0}')
  const consumed = await send(sdk.url, 'GET /consume/group/instance', '{"topic":"blue","timeout":0}')
  const committed = await send(sdk.url, 'GET /commit/group/instance', '{"topic":"blue","partition":0,"offset":1}')
  const asked = await send(sdk.url, 'GET /committed/group/instance', '{"topic":"blue","partition":0}')
  const offsets = await send(sdk.url, 'GET /offsets/latest', '{"topic":"blue","partition":0}')

  expect(produced.json).toEqual([place(0)])
  expect(fetched.json).toEqual([{ ...place(0), key: '', value: 'a', headers: [] }])
  expect(consumed.json).toEqual([])
  expect(committed.json).toEqual(success)
  expect(asked.json).toEqual([{ topic: 'blue', partition: 0, offset: 1 }])
  expect(offsets.json).toEqual([{ topic: 'blue', partition: 0, offset: 1 }])
})

test('a trailing slash makes no difference', async () => {
  await using sdk = await withSdk()

  expect((await send(sdk.url, 'POST /produce/', '{"topic":"blue","value":"a"}')).json).toEqual([place(0)])
  expect((await send(sdk.url, 'POST /produce/blue/', '{"value":"b"}')).json).toEqual([place(1)])
  expect((await send(sdk.url, 'POST /fetch/', '{"topic":"blue","partition":0,"offset":1}')).json).toHaveLength(1)
  expect((await send(sdk.url, 'GET /topics/')).json).toEqual({ blue: 1, red: 3 })
})

test('a group needs no body: topic in the path, commit of what was read, removal', async () => {
  await using sdk = await withSdk()
  await send(sdk.url, 'GET /consume/group/instance/blue?timeout=0')
  await send(sdk.url, 'GET /produce/blue/a')

  const consumed = await send(sdk.url, 'GET /consume/group/instance/blue?timeout=1000')
  const committed = await send(sdk.url, 'GET /commit/group/instance')
  const asked = await send(sdk.url, 'POST /committed/group/instance?timeout=500', '[{"topic":"blue","partition":0}]')
  const consumers = await send(sdk.url, 'GET /consumers')
  const removed = await send(sdk.url, 'DELETE /delete-consumer/group/instance')
  const again = await send(sdk.url, 'POST /delete-consumer/group/instance')

  expect(consumed.json).toEqual([{ ...place(0), key: '', value: 'a', headers: [] }])
  expect(committed.json).toEqual(success)
  expect(asked.json).toEqual([{ topic: 'blue', partition: 0, offset: 1 }])
  expect(consumers.json).toEqual([
    { name: 'group', instances: [{ name: 'instance', topics: [{ topic: 'blue', partitions: [0] }] }] },
  ])
  expect(removed.json).toEqual(success)
  expect(again).toEqual({ status: 404, json: { result: '', error: expect.any(String) as string, status: 404 } })
})

test('a webhook stores its body as it is, and the headers that are not HTTP', async () => {
  await using sdk = await withSdk()

  const stored = await send(
    sdk.url,
    'POST /webhook?topic=blue',
    'not=json&at all',
    'text/plain\r\nX-GitHub-Event: push',
  )

  expect(stored.json).toEqual([place(0)])
  const [message] = await sdk.kafka.consumer().fetch({ topic: 'blue', partition: 0, offset: 0 })
  expect([message?.value, message?.headers]).toEqual(['not=json&at all', [{ key: 'X-GitHub-Event', value: 'push' }]])
})

test('what cannot be understood is answered in the same shape', async () => {
  await using sdk = await withSdk()
  const refused = (status: number) => ({
    status,
    json: { result: '', error: expect.any(String) as string, status },
  })

  expect(await send(sdk.url, 'POST /produce/blue', '{"value":')).toEqual(refused(400))
  expect(await send(sdk.url, 'POST /produce/blue', '{}')).toEqual(refused(400))
  expect(await send(sdk.url, 'POST /produce/unknown', '{"value":"a"}')).toEqual(refused(404))
  expect(await send(sdk.url, 'GET /nowhere')).toEqual(refused(404))
  expect(await send(sdk.url, 'DELETE /produce')).toEqual(refused(405))
  expect(await send(sdk.url, 'POST /consume/group/instance', '{"topics":[]}')).toEqual(refused(400))
})
