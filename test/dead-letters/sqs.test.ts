import { SQSClient } from '@aws-sdk/client-sqs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { decodeDeadLetter, encodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { MAX_SQS_MESSAGE_BYTES, sqsDeadLetters } from '../../src/dead-letters/sqs.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { rawServer } from '../support/raw-server.ts'
import { type SqsServer, startSqs, testCredentials } from '../support/sqs.ts'

let server: SqsServer
let queues = 0
beforeAll(async () => {
  server = await startSqs()
})
afterAll(() => server.close())

const nextName = (suffix = ''): string => `letters-${(queues += 1)}${suffix}`
const storeOn = (queueUrl: string): DeadLetterStore =>
  sqsDeadLetters({ queueUrl, region: 'us-east-1', credentials: testCredentials })
const lettersIn = async (queueUrl: string): Promise<ReturnType<typeof decodeDeadLetter>[]> =>
  (await server.receiveAll(queueUrl)).map(decodeDeadLetter)

for (const [name, suffix, attributes] of [
  ['sqs, standard queue', '', undefined],
  ['sqs, FIFO queue', '.fifo', { FifoQueue: 'true' }],
] as const) {
  describeDeadLetterStore(name, {
    async open() {
      const queueUrl = await server.createQueue(nextName(suffix), attributes)
      const store = storeOn(queueUrl)
      return { store, stored: () => lettersIn(queueUrl), close: () => store.close() }
    },
  })
}

describe('sqs limits', () => {
  test('stores a letter that fills a message to its last byte and refuses one byte more', async () => {
    const queueUrl = await server.createQueue(nextName())
    await using store = storeOn(queueUrl)
    const filled = (route: number): ReturnType<typeof letter> => letter({ route: 'r'.repeat(route) })
    const attributes = 'reasonStringexhausted'.length + 'topicStringorders'.length + 'groupStringshop'.length
    const room = MAX_SQS_MESSAGE_BYTES - attributes - encodeDeadLetter(filled(0)).length

    await store.put(filled(room))
    await expect(store.put(filled(room + 1))).rejects.toMatchObject({
      code: 'DEAD_LETTER_TOO_LARGE',
      limit: 'MaximumMessageSize',
    })

    expect(plain(await lettersIn(queueUrl))).toEqual(plain([filled(room)]))
  })

  test("refuses what is over the queue's own limit by the same name, with the limit in the message", async () => {
    const queueUrl = await server.createQueue(nextName(), { MaximumMessageSize: '2048' })
    await using store = storeOn(queueUrl)

    const put = store.put(letter({ record: { value: new Uint8Array(4096) } }))

    await expect(put).rejects.toMatchObject({ code: 'DEAD_LETTER_TOO_LARGE', retriable: false })
    await expect(put).rejects.toThrow(/accepts 2048\b/)
    expect(await lettersIn(queueUrl)).toEqual([])
  })

  test('a FIFO queue takes letters of a topic whose name is too long for a message group', async () => {
    const queueUrl = await server.createQueue(nextName('.fifo'), { FifoQueue: 'true' })
    await using store = storeOn(queueUrl)
    const given = letter({ record: { topic: 't'.repeat(249) } })

    await store.put(given)

    expect(plain(await lettersIn(queueUrl))).toEqual(plain([given]))
  })
})

describe('sqs failures', () => {
  test('a queue that does not exist is a wrong setting, not a reason to retry', async () => {
    await using store = storeOn(`${server.url}/000000000000/no-such-queue`)

    await expect(store.put(letter())).rejects.toMatchObject({
      name: 'DeadLetterStoreError',
      code: 'INVALID_CONFIG',
      retriable: false,
    })
  })

  test('a server that goes away fails the put by name, and nothing is lost when it is back', async () => {
    const first = await startSqs()
    const queueUrl = await first.createQueue('letters')
    const given = Array.from({ length: 6 }, (_, offset) => letterAt(offset))
    await using store = storeOn(queueUrl)
    for (const one of given.slice(0, 2)) await store.put(one)
    const before = await first.receiveAll(queueUrl)
    await first.close()

    const refused = await Promise.allSettled(given.slice(2).map((one) => store.put(one)))
    await using second = await startSqs(Number(new URL(queueUrl).port))
    await second.createQueue('letters')
    for (const one of given.slice(2)) await store.put(one)

    expect(refused.map((result) => (result.status === 'rejected' ? (result.reason as unknown) : result))).toEqual(
      given.slice(2).map(() =>
        expect.objectContaining({
          name: 'DeadLetterStoreError',
          code: 'DEAD_LETTER_STORE_UNAVAILABLE',
          retriable: true,
        }),
      ),
    )
    const all = [...before, ...(await second.receiveAll(queueUrl))].map(decodeDeadLetter)
    expect(plain(all)).toEqual(plain(given))
  })

  test.each([
    [503, 'x', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [500, 'InternalFailure', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [400, 'RequestThrottled', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [429, 'x', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [403, 'AccessDeniedException', 'CLUSTER_AUTHORIZATION_FAILED', false],
    [403, 'SignatureDoesNotMatch', 'UNAUTHENTICATED', false],
    [400, 'InvalidMessageContents', 'INVALID_REQUEST', false],
  ])('an answer %i %s is %s, asked once', async (status, type, code, retriable) => {
    const body = JSON.stringify({ __type: `com.amazonaws.sqs#${type}`, message: 'no' })
    await using raw = await rawServer((socket) =>
      socket.end(
        `HTTP/1.1 ${status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
      ),
    )
    await using store = storeOn(`${raw.url}/0/q`)

    await expect(store.put(letter())).rejects.toMatchObject({ name: 'DeadLetterStoreError', code, retriable })

    expect(raw.requests()).toBe(1)
  })

  test('an answer that is not SQS is unavailable when it is a gateway error', async () => {
    await using raw = await rawServer((socket) =>
      socket.end('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 9\r\nconnection: close\r\n\r\n<html></>'),
    )
    await using store = storeOn(`${raw.url}/0/q`)

    await expect(store.put(letter())).rejects.toMatchObject({ code: 'DEAD_LETTER_STORE_UNAVAILABLE', retriable: true })
  })

  test('a connection that is cut in the middle is unavailable', async () => {
    await using raw = await rawServer((socket) => socket.destroy())
    await using store = storeOn(`${raw.url}/0/q`)

    await expect(store.put(letter())).rejects.toMatchObject({ code: 'DEAD_LETTER_STORE_UNAVAILABLE', retriable: true })
    expect(raw.requests()).toBe(1)
  })

  test('a server that never answers ends with TIMEOUT, or with the reason of the abort', async () => {
    await using raw = await rawServer(() => {})
    await using store = storeOn(`${raw.url}/0/q`)
    const controller = new AbortController()
    const reason = new Error('the run is over')

    await expect(store.put(letter(), { timeoutMs: 50 })).rejects.toMatchObject({
      name: 'DeadLetterStoreError',
      code: 'TIMEOUT',
      retriable: true,
    })
    const waiting = store.put(letter(), { signal: controller.signal })
    await raw.untilRequests(2)
    controller.abort(reason)
    await expect(waiting).rejects.toBe(reason)
  })
})

describe('sqs settings', () => {
  test.each(['', 'letters', 'sqs://x/y', '/000/letters'])('refuses the queue URL %j at once', (queueUrl) => {
    expect(() => sqsDeadLetters({ queueUrl })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test('refuses a client that retries by itself, and takes one that does not', async () => {
    const queueUrl = await server.createQueue(nextName())
    const settings = { endpoint: server.url, region: 'us-east-1', credentials: testCredentials }
    const retrying = sqsDeadLetters({ queueUrl, client: new SQSClient(settings) })
    const once = sqsDeadLetters({ queueUrl, client: new SQSClient({ ...settings, maxAttempts: 1 }) })

    await expect(retrying.put(letter())).rejects.toMatchObject({ code: 'INVALID_CONFIG', retriable: false })
    await once.put(letter())

    expect(await lettersIn(queueUrl)).toHaveLength(1)
  })
})
