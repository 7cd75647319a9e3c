/** What a client can send that is not quite HTTP: answered with 4xx in the documented shape, or cut; never served. */
import { expect, test } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { describeEveryPath } from './every-path.ts'
import { rawCall } from '../support/http.ts'

const host = 'Host: 127.0.0.1\r\n'
const body = '{"value":"smuggled"}'
const length = `Content-Length: ${body.length}\r\n`
const post = 'POST /produce/blue HTTP/1.1\r\n'

const malformed: Readonly<Record<string, string | Uint8Array>> = {
  'no HTTP at all': 'GARBAGE\r\n\r\n',
  'a TLS hello': Uint8Array.of(0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5, 13, 10, 13, 10),
  NULs: '\0\0\0\0\r\n\r\n',
  'an unknown version': `GET / HTTP/9.9\r\n${host}\r\n`,
  'an unknown method': `BREW / HTTP/1.1\r\n${host}\r\n`,
  'no Host': 'GET /topics HTTP/1.1\r\n\r\n',
  'a header without a colon': `${post}${host}Bad header\r\n\r\n`,
  'a header that begins with a space': `${post} Host: x\r\n${host}\r\n`,
  'a folded header': `${post}${host}X-A: b\r\n c\r\n${length}\r\n${body}`,
  'a space before the colon': `${post}${host}Content-Length : 20\r\n\r\n${body}`,
  'a NUL in a header': `${post}${host}X-A: b\0c\r\n${length}\r\n${body}`,
  'a bare CR in a header': `${post}${host}X-A: b\rX-B: c\r\n${length}\r\n${body}`,
  'lengths that differ': `${post}${host}Content-Length: 3\r\n${length}\r\n${body}`,
  'a length and chunks': `${post}${host}${length}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'a negative length': `${post}${host}Content-Length: -1\r\n\r\n${body}`,
  'a length in hexadecimal': `${post}${host}Content-Length: 0x14\r\n\r\n${body}`,
  'a length beyond all numbers': `${post}${host}Content-Length: 99999999999999999999999\r\n\r\n${body}`,
  'an unknown transfer encoding': `${post}${host}Transfer-Encoding: gzip\r\n\r\n${body}`,
  'chunked, but not last': `${post}${host}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`,
  'chunked twice': `${post}${host}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`,
  'a chunk size that is no number': `${post}${host}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n`,
  'a chunk longer than it says': `${post}${host}Transfer-Encoding: chunked\r\n\r\n3\r\n${body}\r\n0\r\n\r\n`,
  'a negative chunk': `${post}${host}Transfer-Encoding: chunked\r\n\r\n-5\r\n${body}\r\n0\r\n\r\n`,
  'a chunk size that overflows': `${post}${host}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n`,
  'chunk extensions without end': `${post}${host}Transfer-Encoding: chunked\r\n\r\n5;${'x'.repeat(20_000)}\r\nhello\r\n0\r\n\r\n`,
  'headers without end': `${post}${host}${'X-A: b\r\n'.repeat(5000)}`,
  'one header without end': `${post}${host}X-A: ${'b'.repeat(50_000)}`,
  'a target without end': `GET /${'x'.repeat(50_000)} HTTP/1.1\r\n${host}\r\n`,
  'a target that is no path': `GET topics HTTP/1.1\r\n${host}\r\n`,
  'a space in the target': `GET /produce/blue/a b HTTP/1.1\r\n${host}\r\n`,
  'a control character in the target': `GET /produce/blue/\u0001 HTTP/1.1\r\n${host}\r\n`,
  'bytes beyond ASCII in the target': `GET /produce/blue/ü HTTP/1.1\r\n${host}\r\n`,
  'a Host of which no address can be made': 'GET /topics HTTP/1.1\r\nHost: {}[]\r\n\r\n',
  'an expectation it cannot meet': `${post}${host}Expect: miracles\r\n${length}\r\n${body}`,
  'a tunnel': `CONNECT example.com:443 HTTP/1.1\r\n${host}\r\n`,
  'HTTP/2 without asking': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
}

describeEveryPath('malformed requests', (harness) => {
  test.each(Object.entries(malformed))('%s', async (_what, sent) => {
    const answer = await rawCall(harness().url, sent, '"status":')

    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
    expect(answer).toMatch(/content-type: application\/json/i)
    expect(answer).toMatch(/kedge-error: [A-Z_]+/i)
    expect(answer).toMatch(/\r\n\r\n\{"result":"","error":".+","status":/)
    expect(await storedCount(harness().broker)).toBe(0)
    expect((await harness().call('GET /readyz')).status).toBe(200)
  })

  test('a second request inside the body of the first is never served', async () => {
    const inner = `POST /produce/blue HTTP/1.1\r\n${host}${length}\r\n${body}`
    for (const head of [
      'Content-Length: 0\r\nContent-Length: 99\r\n',
      'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n',
    ]) {
      await rawCall(harness().url, `GET /topics HTTP/1.1\r\n${host}${head}\r\n0\r\n\r\n${inner}`, '"status":4')
    }

    expect(await storedCount(harness().broker)).toBe(0)
  })

  test('two requests in one packet are both answered, in order', async () => {
    const one = `POST /produce/blue HTTP/1.1\r\n${host}${length}\r\n${body}`
    const last = `GET /topics HTTP/1.1\r\n${host}Connection: close\r\n\r\n`

    const answer = await rawCall(harness().url, one + one + last)

    expect(answer.match(/HTTP\/1\.1 200/g)).toHaveLength(3)
    expect(answer.indexOf('"offset":0')).toBeLessThan(answer.indexOf('"offset":1'))
    expect(answer.indexOf('"offset":1')).toBeLessThan(answer.indexOf('{"blue":1'))
  })

  test('raw JSON in the request line is read, as small devices send it', async () => {
    await rawCall(harness().url, `GET /produce/blue/{"a":"|"} HTTP/1.1\r\n${host}Connection: close\r\n\r\n`)

    expect((await harness().call('POST /fetch', { topic: 'blue' })).json).toMatchObject([{ value: '{"a":"|"}' }])
  })

  test('HTTP/1.0 and absolute targets are served', async () => {
    expect(await rawCall(harness().url, 'GET /topics HTTP/1.0\r\nHost: localhost\r\n\r\n')).toContain('{"blue":1')
    expect(
      await rawCall(harness().url, `GET http://localhost/topics HTTP/1.1\r\n${host}Connection: close\r\n\r\n`),
    ).toContain('{"blue":1')
  })
})

describeEveryPath(
  'slow requests',
  (harness) => {
    test.each([
      ['in its headers', `${post}${host}`],
      ['in its body', `${post}${host}${length}\r\n{"val`],
    ])('that stop %s are answered with 408 and ended', async (_where, sent) => {
      const answer = await rawCall(harness().url, sent)

      expect(answer).toMatch(/^HTTP\/1\.1 408 [^]*kedge-error: SLOW_REQUEST[^]*"status":408\}$/i)
    })
  },
  { headersTimeoutMs: 200, requestTimeoutMs: 300 },
)

async function storedCount(broker: Broker): Promise<number> {
  const [end] = await broker.offsets([{ topic: 'blue', partition: 0 }], 'latest')
  return end?.offset ?? -1
}
