import { expect, test } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { describeEveryPath } from './every-path.ts'
import { rawCall, type HttpAnswer } from '../support/http.ts'

const limits = {
  bodyBytes: 100_000,
  batchRecords: 5,
  recordBytes: 1000,
  recordHeaders: 3,
  jsonDepth: 10,
  jsonItems: 1000,
  httpHeaders: 20,
  httpHeaderBytes: 4096,
  waitingPolls: 2,
  maxRecords: 4,
  maxWaitMs: 100,
}

/** The same record so many times over. */
function times<T>(count: number, item: T): T[] {
  return Array.from({ length: count }, () => item)
}

function refusal(answer: HttpAnswer): unknown[] {
  const { error } = answer.json as { error: string }
  expect(answer.json).toEqual({ result: '', error, status: answer.status })
  return [answer.status, answer.headers['kedge-error'], answer.headers['kedge-limit']]
}

describeEveryPath(
  'limits',
  (harness) => {
    test.each([false, true])('body-bytes (chunked: %s)', async (chunked) => {
      const body = JSON.stringify({ value: 'x'.repeat(limits.bodyBytes) })

      const answer = await harness().send('POST /produce/blue', { body, chunked })

      expect(refusal(answer)).toEqual([413, 'LIMIT_EXCEEDED', 'body-bytes'])
    })

    test('body-bytes of a webhook', async () => {
      const answer = await harness().send('POST /webhook?topic=blue', { body: Buffer.alloc(limits.bodyBytes + 1) })

      expect(refusal(answer)).toEqual([413, 'LIMIT_EXCEEDED', 'body-bytes'])
    })

    test('a body of exactly the limit is read', async () => {
      const body = `{"value":"x"}${' '.repeat(limits.bodyBytes - 13)}`

      expect((await harness().send('POST /produce/blue', { body })).status).toBe(200)
    })

    test('a length that promises too much is refused before the body comes', async () => {
      const answer = await rawCall(
        harness().url,
        `POST /produce/blue HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n{`,
        '"status":413}',
      )

      expect(answer).toMatch(/^HTTP\/1\.1 413 [^]*kedge-limit: body-bytes/i)
    })

    test('a client that asks with Expect: 100-continue is refused without sending', async () => {
      const answer = await rawCall(
        harness().url,
        `POST /produce/blue HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n`,
        '"status":413}',
      )

      expect(answer).toMatch(/^HTTP\/1\.1 413 /)
    })

    test('a stream that never ends is cut off, and not held', async () => {
      const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`

      const answer = await rawCall(
        harness().url,
        `POST /produce/blue HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(100)}`,
      )

      expect(answer === '' || answer.startsWith('HTTP/1.1 413 ')).toBe(true)
    })

    test('batch-records', async () => {
      const answer = await harness().call('POST /produce/blue', times(6, { value: 'x' }))

      expect(refusal(answer)).toEqual([413, 'LIMIT_EXCEEDED', 'batch-records'])
    })

    test.each([
      ['its value', { value: 'x'.repeat(1001) }],
      ['key and value together', { value: 'x'.repeat(500), key: 'k'.repeat(501) }],
      ['its headers', { value: 'x', headers: [{ key: 'h', value: 'v'.repeat(1000) }] }],
    ])('record-bytes by %s', async (_what, record) => {
      expect(refusal(await harness().call('POST /produce/blue', record))).toEqual([
        413,
        'LIMIT_EXCEEDED',
        'record-bytes',
      ])
    })

    test('record-headers', async () => {
      const headers = times(4, { key: 'h', value: 'v' })

      expect(refusal(await harness().call('POST /produce/blue', { value: 'x', headers }))).toEqual([
        413,
        'LIMIT_EXCEEDED',
        'record-headers',
      ])
    })

    test.each([
      ['a short body', '['.repeat(500)],
      ['a long body', '['.repeat(90_000)],
      ['a value', `{"value":${'['.repeat(30_000)}${']'.repeat(30_000)}}`],
      ['a field nobody knows', `{"value":"x","y":${'{"a":'.repeat(11_000)}1${'}'.repeat(11_000)}}`],
    ])('json-depth in %s', async (_what, body) => {
      const started = systemClock.monotonic()

      const answer = await harness().send('POST /produce/blue', { body })

      expect(refusal(answer)).toEqual([400, 'INVALID_REQUEST', 'json-depth'])
      expect(systemClock.monotonic() - started).toBeLessThan(1000)
    })

    test.each([
      ['POST /produce/blue', `{"value":"x","headers":[${'{},'.repeat(30_000)}{}]}`, 'json-items'],
      ['POST /produce/blue', `{"value":[${'1,'.repeat(40_000)}1]}`, 'json-items'],
      ['POST /fetch', `{"topicPartitionOffsets":[${'1,'.repeat(40_000)}1]}`, 'json-items'],
      ['POST /produce/blue', `[${'{},'.repeat(30_000)}{}]`, 'batch-records'],
      ['POST /commit/g/i', `[${'{},'.repeat(6)}{}]`, 'batch-records'],
      ['POST /offsets/latest', `[${'{},'.repeat(30_000)}{}]`, 'batch-records'],
    ])('%s of a body with a long list: %#', async (line, body, limit) => {
      expect(refusal(await harness().send(line, { body }))).toEqual([413, 'LIMIT_EXCEEDED', limit])
    })

    test('http-headers', async () => {
      const headers = Object.fromEntries(Array.from({ length: 25 }, (_, index) => [`x-${index}`, 'y']))

      expect(refusal(await harness().send('POST /produce/blue', { body: '{"value":"x"}', headers }))).toEqual([
        431,
        'LIMIT_EXCEEDED',
        'http-headers',
      ])
    })

    test('http-header-bytes', async () => {
      const answer = await harness().send('GET /topics', { headers: { 'x-long': 'y'.repeat(5000) } })

      expect(refusal(answer)).toEqual([431, 'LIMIT_EXCEEDED', 'http-header-bytes'])
    })

    test('waiting-polls, while polls that do not wait are served', async () => {
      const body = { topic: 'blue', timeout: 60_000 }
      const waiting = [1, 2].map((n) => harness().call(`POST /consume/g${n}/i`, body))
      while (harness().server.gateway.waiting.count < 2) await new Promise(setImmediate)

      const third = await harness().call('POST /fetch', { topic: 'blue', timeout: 10 })
      const atOnce = await harness().call('POST /fetch', { topic: 'blue', timeout: 0 })

      expect(refusal(third)).toEqual([429, 'OVERLOADED', 'waiting-polls'])
      expect(third.headers['retry-after']).toBe('1')
      expect(atOnce.status).toBe(200)
      expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([200, 200])
    })

    test('maxRecords is capped in silence, since it says "at most"', async () => {
      await harness().call('POST /produce/blue', times(5, { value: 'x' }))

      const answer = await harness().call('POST /fetch', { topic: 'blue', maxRecords: Number.MAX_SAFE_INTEGER })

      expect(answer.json).toHaveLength(4)
    })

    test.each(['gzip', 'br', 'deflate', 'zstd', 'identity, gzip', 'x'])(
      'Content-Encoding %s is 415',
      async (encoding) => {
        const answer = await harness().send('POST /produce/blue', {
          body: '{"value":"x"}',
          headers: { 'content-encoding': encoding },
        })

        expect(refusal(answer)).toEqual([415, 'UNSUPPORTED_MEDIA_TYPE', undefined])
      },
    )

    test('Content-Encoding: identity is none', async () => {
      const headers = { 'content-encoding': 'Identity' }

      expect((await harness().send('POST /produce/blue', { body: '{"value":"x"}', headers })).status).toBe(200)
    })
  },
  { limits },
)
