/**
 * The fast lane must not be seen: whatever bytes a client sends, in whatever pieces, the answers are those of a gateway
 * without it.
 */
import { once } from 'node:events'
import { type Socket, connect } from 'node:net'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { Broker, Call, PollRequest } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { type GatewayServer, serveGateway } from '../../src/runtimes/node-gateway.ts'

let broker: Broker
let withLane: GatewayServer
let without: GatewayServer

beforeAll(async () => {
  broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  withLane = await serveGateway({ broker })
  without = await serveGateway({ broker, hotPath: false })
})
afterAll(async () => {
  await Promise.all([withLane.close(), without.close()])
  await broker.close()
})

const opened = async (server: GatewayServer): Promise<Socket> => {
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  socket.setNoDelay(true)
  await once(socket, 'connect')
  return socket
}

/** Everything the server says to these pieces, each sent when the one before was taken by the kernel. */
async function answers(server: GatewayServer, pieces: readonly string[]): Promise<string> {
  const socket = await opened(server)
  let said = ''
  socket.on('data', (bytes) => {
    said += bytes.toString('latin1')
  })
  socket.on('error', () => {})
  const closed = once(socket, 'close')
  for (const piece of pieces) {
    await new Promise((resolve) => socket.write(piece, 'latin1', resolve))
    await new Promise((resolve) => setImmediate(resolve))
  }
  socket.end()
  await closed
  return comparable(said)
}

/** Without what differs from one call to the next, and with the headers of each answer in one order. */
function comparable(said: string): string {
  return said
    .replace(/"(offset|timestamp)":\d+/g, '"$1":0')
    .split(/(?=HTTP\/1\.1 \d)/)
    .map((answer) => {
      const [head = '', ...body] = answer.split('\r\n\r\n')
      const [status = '', ...headers] = head.split('\r\n')
      const kept = headers
        .map((line) => line.toLowerCase())
        .filter((line) => !/^(date|content-length|keep-alive|connection):/.test(line))
      return [status, ...kept.sort(), '', ...body].join('\n')
    })
    .join('\n')
}

const BODY = '{"value":"v"}'
const post = (
  body = BODY,
  lines: readonly string[] = ['Host: 127.0.0.1', `Content-Length: ${body.length}`],
  start = 'POST /produce/orders HTTP/1.1',
): string => `${[start, ...lines].join('\r\n')}\r\n\r\n${body}`

const host = 'Host: 127.0.0.1'
const length = `Content-Length: ${BODY.length}`

describe('the answers of both are the same', () => {
  test.each<readonly [string, readonly string[]]>([
    ['a plain produce', [post()]],
    ['three, one after the other', [post(), post(), post()]],
    ['three in one piece', [post() + post() + post()]],
    ['one and a half, and then the rest', [post() + post().slice(0, 70), post().slice(70)]],
    ['a head and then its body', [post().slice(0, -BODY.length), BODY]],
    ['a produce byte by byte', post().split('')],
    ['a hot call, a cold one, a hot one', [post(), `GET /topics HTTP/1.1\r\n${host}\r\n\r\n`, post()]],
    ['an unknown topic', [post(BODY, [host, length], 'POST /produce/none HTTP/1.1')]],
    ['a path that is none', [post(BODY, [host, length], 'POST /produces HTTP/1.1')]],
    ['a method that is not allowed', [post(BODY, [host, length], 'DELETE /produce/orders HTTP/1.1')]],
    ['a body that is not JSON', [post('{"value":')]],
    ['an empty body', [post('')]],
    ['a body that is not UTF-8', [post('{"value":"\xff\xfe"}')]],
    ['text beyond ASCII in the answer', [post('{"valeur":"\xc3\xa9"}')]],
    ['a length too short', [post(BODY, [host, 'Content-Length: 3'])]],
    ['a length too long', [post(BODY, [host, 'Content-Length: 50'])]],
    ['a length with a sign', [post(BODY, [host, `Content-Length: +${BODY.length}`])]],
    ['a length with leading zeros', [post(BODY, [host, `Content-Length: 0${BODY.length}`])]],
    ['two equal lengths', [post(BODY, [host, length, length])]],
    ['two lengths that differ', [post(BODY, [host, length, 'Content-Length: 0'])]],
    ['no length', [post(BODY, [host])]],
    ['a length and chunks', [post('0\r\n\r\n', [host, 'Content-Length: 5', 'Transfer-Encoding: chunked'])]],
    ['chunks', [post('d\r\n{"value":"v"}\r\n0\r\n\r\n', [host, 'Transfer-Encoding: chunked'])]],
    ['chunks under another name', [post(BODY, [host, length, 'Transfer-Encoding : chunked'])]],
    ['no host', [post(BODY, [length])]],
    ['two hosts', [post(BODY, [host, 'Host: elsewhere', length])]],
    ['a foreign host', [post(BODY, ['Host: kedge.example', length])]],
    ['a foreign page', [post(BODY, [host, 'Origin: http://evil.example', length])]],
    ['connection: close', [post(BODY, [host, length, 'Connection: close'])]],
    ['connection: Keep-Alive', [post(BODY, [host, length, 'Connection: Keep-Alive'])]],
    ['an upgrade', [post(BODY, [host, length, 'Connection: Upgrade', 'Upgrade: h2c'])]],
    ['HTTP/1.0', [post(BODY, [host, length], 'POST /produce/orders HTTP/1.0')]],
    ['HTTP/2.0', [post(BODY, [host, length], 'POST /produce/orders HTTP/2.0')]],
    ['an absolute target', [post(BODY, [host, length], 'POST http://127.0.0.1/produce/orders HTTP/1.1')]],
    ['a target with a NUL', [post(BODY, [host, length], 'POST /produce/or\0ders HTTP/1.1')]],
    ['a target with raw UTF-8', [post(BODY, [host, length], 'POST /produce/\xc3\xa9 HTTP/1.1')]],
    ['a target with percent signs', [post(BODY, [host, length], 'POST /produce/%6frders HTTP/1.1')]],
    ['a target with a bad percent sign', [post(BODY, [host, length], 'POST /produce/%zz HTTP/1.1')]],
    ['a query', [post(BODY, [host, length], 'POST /produce/orders?a=b HTTP/1.1')]],
    ['lines that end with LF', [post().replaceAll('\r\n', '\n')]],
    ['a folded header', [post(BODY, [host, 'X-A: 1\r\n  2', length])]],
    ['a header without a name', [post(BODY, [host, ': x', length])]],
    ['a header with a NUL', [post(BODY, [host, 'X-A: \0', length])]],
    ['an empty header', [post(BODY, [host, 'X-A:', length])]],
    ['headers in any case, with any space', [post(BODY, ['hOST:127.0.0.1  ', `CONTENT-LENGTH:\t${BODY.length}`])]],
    ['an encoded body', [post(BODY, [host, length, 'Content-Encoding: gzip'])]],
    ['base64', [post('{"value":"AP8="}', [host, 'Content-Length: 16', 'Kedge-Encoding: base64'])]],
    ['bad base64', [post(BODY, [host, length, 'Kedge-Encoding: base64'])]],
    ['two hundred headers', [post(BODY, [host, length, ...Array.from({ length: 200 }, (_, at) => `X-${at}: 1`)])]],
    ['a head of 40 KiB', [post(BODY, [host, length, `X-A: ${'a'.repeat(40_960)}`])]],
    ['a body of 300 KiB', [post(`{"value":"${'v'.repeat(307_200)}"}`)]],
    ['what is not HTTP', ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03']],
    ['an empty line first', [`\r\n${post()}`]],
    ['nothing', []],
  ])('%s', async (_what, pieces) => {
    const [lane, plain] = [await answers(withLane, pieces), await answers(without, pieces)]

    expect(lane).toBe(plain)
  })
})

describe('the lane', () => {
  test('aborts a poll whose client went away', async () => {
    const polled = Promise.withResolvers<AbortSignal | undefined>()
    const watched = new Proxy(broker, {
      get(target, name) {
        if (name === 'poll') {
          return (request: PollRequest, call?: Call) => {
            polled.resolve(call?.signal)
            return target.poll(request, call)
          }
        }
        const member: unknown = Reflect.get(target, name)
        return typeof member === 'function' ? (member.bind(target) as unknown) : member
      },
    })
    await using server = await serveGateway({ broker: watched })
    const socket = await opened(server)
    const body = '{"topic":"orders","timeout":60000}'
    socket.write(post(body, [host, `Content-Length: ${body.length}`], 'POST /consume/g/i HTTP/1.1'))
    const signal = await polled.promise

    socket.destroy()

    if (signal === undefined) throw new Error('the poll has no signal')
    if (!signal.aborted) await once(signal, 'abort')
    expect(signal.aborted).toBe(true)
  })

  test('ends idle connections at close, and answers those in flight first', async () => {
    const server = await serveGateway({ broker })
    const idle = await opened(server)
    idle.write(post())
    await once(idle, 'data')
    const busy = await opened(server)
    const body = '{"topic":"orders","timeout":60000}'
    let said = ''
    busy.on('data', (bytes) => {
      said += bytes.toString()
    })
    busy.write(post(body, [host, `Content-Length: ${body.length}`], 'POST /consume/closing/i HTTP/1.1'))
    while ((await broker.groups()).every(({ groupId }) => groupId !== 'closing')) {
      await new Promise((resolve) => setImmediate(resolve))
    }

    await Promise.all([server.close(), once(idle, 'close'), once(busy, 'close')])

    expect(said).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(said).toMatch(/connection: close/i)
  })

  test('answers a silent connection as node:http does', async () => {
    const silence = async (hotPath: boolean): Promise<string> => {
      await using server = await serveGateway({ broker, hotPath, headersTimeoutMs: 100 })
      const socket = await opened(server)
      let said = ''
      socket.on('data', (bytes) => {
        said += bytes.toString()
      })
      await once(socket, 'close')
      return comparable(said)
    }

    expect(await silence(true)).toBe(await silence(false))
  })
})
