import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { DeadLetter, DeadLetterQuery, DeadLetterStore } from '../../src/dead-letter.ts'
import { encodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { type S3DeadLettersOptions, s3DeadLetters } from '../../src/dead-letters/s3.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { rawServer } from '../support/raw-server.ts'
import { type S3Server, startS3 } from '../support/s3.ts'
import { testCredentials } from '../support/sqs.ts'

let server: S3Server
let buckets = 0
beforeAll(async () => {
  server = await startS3()
})
afterAll(() => server.close())

const settings = { region: 'us-east-1', credentials: testCredentials, forcePathStyle: true } as const
const storeOn = (bucket: string, options: Partial<S3DeadLettersOptions> = {}): DeadLetterStore =>
  s3DeadLetters({ bucket, endpoint: server.url, ...settings, ...options })
async function newBucket(): Promise<string> {
  const bucket = `letters-${(buckets += 1)}`
  await server.createBucket(bucket)
  return bucket
}
async function all(store: DeadLetterStore, query: DeadLetterQuery = {}): Promise<DeadLetter[]> {
  const letters: DeadLetter[] = []
  let cursor: string | undefined
  do {
    const page = await store.list(cursor === undefined ? query : { ...query, cursor })
    letters.push(...page.items)
    cursor = page.cursor
  } while (cursor !== undefined)
  return letters
}

for (const [name, options] of [
  ['s3', {}],
  ['s3, at the root of the bucket', { prefix: '' }],
] as const) {
  describeDeadLetterStore(name, {
    async open() {
      const bucket = await newBucket()
      const store = storeOn(bucket, options)
      const reader = storeOn(bucket, options)
      return {
        store,
        stored: () => all(reader),
        async close() {
          await store.close()
          await reader.close()
        },
      }
    },
  })
}

describe('the objects', () => {
  test('are named by group, topic, partition and offset, in the order of offsets', async () => {
    const bucket = await newBucket()
    await using store = storeOn(bucket)
    for (const offset of [10, 9, Number.MAX_SAFE_INTEGER]) {
      await store.put(letterAt(offset, { groupId: 'einkauf/größe', record: { partition: 3 } }))
    }

    expect(await server.keysOf(bucket)).toEqual(
      ['0000000000000009', '0000000000000010', '9007199254740991'].map(
        (offset) => `dead-letters/einkauf%2Fgr%C3%B6%C3%9Fe/orders/3/${offset}.json`,
      ),
    )
  })

  test.each([
    ['', 'orders'],
    ['..', '.'],
    ['a/../b', 'orders'],
    ['g'.repeat(2_000), 't'.repeat(249)],
    ['ключ'.repeat(300), 'orders'],
  ])('of group %j and topic %j are found again', async (groupId, topic) => {
    const bucket = await newBucket()
    await using store = storeOn(bucket)
    const given = letter({ groupId, record: { topic } })
    await store.put(given)
    await store.put(letter({ groupId: `${groupId}x`, record: { topic } }))

    expect(plain([(await store.get(given.id)) ?? letter()])).toEqual(plain([given]))
    expect(plain(await all(store, { groupId }))).toEqual(plain([given]))
    expect(await store.delete(given.id)).toBe(true)
    expect(await all(store)).toHaveLength(1)
    for (const key of await server.keysOf(bucket)) expect(key.length).toBeLessThanOrEqual(1_024)
  })

  test('of others in the bucket are passed over', async () => {
    const bucket = await newBucket()
    await using store = storeOn(bucket)
    await store.put(letter())
    for (const Key of [
      'readme.txt',
      'dead-letters/readme.txt',
      'dead-letters/shop/orders/x/1.json',
      'dead-letters-2/a',
    ]) {
      await server.client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: 'not a letter' }))
    }

    expect(plain(await all(store))).toEqual(plain([letter()]))
  })

  test('that two writers make at once are one, the first', async () => {
    const bucket = await newBucket()
    await using one = storeOn(bucket)
    await using other = storeOn(bucket)
    const first = letter({ attempts: 1 })
    await one.put(first)

    await Promise.all([one.put(letter({ attempts: 2 })), other.put(letter({ attempts: 3 }))])

    expect(plain(await all(other))).toEqual(plain([first]))
  })
})

describe('a list', () => {
  test('reads no more than it may for a page and goes on from its cursor', async () => {
    await using store = storeOn(await newBucket(), { maxScanObjects: 3 })
    for (let offset = 0; offset < 8; offset += 1) {
      await store.put(letterAt(offset, { reason: offset === 7 ? 'timeout' : 'exhausted' }))
    }

    const first = await store.list({ reason: 'timeout' })

    expect(first).toEqual({ items: [], cursor: expect.any(String) as string })
    expect((await all(store, { reason: 'timeout' })).map(({ record }) => record.offset)).toEqual([7])
  })

  test('ends its page early rather than hold more than 8 MiB of letters', async () => {
    await using store = storeOn(await newBucket())
    for (let offset = 0; offset < 8; offset += 1) {
      await store.put(letterAt(offset, { record: { value: new Uint8Array(1_500_000) } }))
    }

    const { items, cursor } = await store.list()

    expect(items).toHaveLength(6)
    expect((await store.list({ cursor: cursor ?? '' })).items).toHaveLength(2)
  })

  test('goes through more letters than S3 lists at once', async () => {
    const bucket = await newBucket()
    await using store = storeOn(bucket)
    const given = Array.from({ length: 1_010 }, (_, offset) => letterAt(offset))
    for (let at = 0; at < given.length; at += 50) {
      await Promise.all(
        given.slice(at, at + 50).map((one) =>
          server.client.send(
            new PutObjectCommand({
              Bucket: bucket,
              Key: `dead-letters/shop/orders/0/${String(one.record.offset).padStart(16, '0')}.json`,
              Body: encodeDeadLetter(one),
            }),
          ),
        ),
      )
    }

    const read = await all(store, { limit: 1_000 })

    expect(read.map(({ record }) => record.offset)).toEqual(given.map(({ record }) => record.offset))
  })
})

describe('s3 failures', () => {
  test('a bucket that does not exist is a wrong setting, not a reason to retry', async () => {
    await using store = storeOn('no-such-bucket')

    await expect(store.put(letter())).rejects.toMatchObject({
      name: 'DeadLetterStoreError',
      code: 'INVALID_CONFIG',
      retriable: false,
    })
  })

  test('a server that goes away fails the put by name, and nothing is lost when it is back', async () => {
    const first = await startS3()
    await using store = s3DeadLetters({ bucket: 'letters', endpoint: first.url, ...settings })
    await first.createBucket('letters')
    await store.put(letterAt(0))
    await first.close()

    await expect(store.put(letterAt(1))).rejects.toMatchObject({
      code: 'DEAD_LETTER_STORE_UNAVAILABLE',
      retriable: true,
    })
    await using second = await startS3(Number(new URL(first.url).port))
    await second.createBucket('letters')
    await store.put(letterAt(1))

    expect((await store.list()).items.map(({ record }) => record.offset)).toEqual([1])
  })

  test.each([
    [503, 'SlowDown', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [500, 'InternalError', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [409, 'ConditionalRequestConflict', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [429, 'x', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    [403, 'AccessDenied', 'CLUSTER_AUTHORIZATION_FAILED', false],
    [403, 'SignatureDoesNotMatch', 'UNAUTHENTICATED', false],
    [400, 'EntityTooLarge', 'DEAD_LETTER_TOO_LARGE', false],
    [400, 'InvalidRequest', 'INVALID_REQUEST', false],
  ])('an answer %i %s is %s, asked once', async (status, code, expected, retriable) => {
    const body = `<Error><Code>${code}</Code><Message>no</Message></Error>`
    await using raw = await rawServer((socket) =>
      socket.end(
        `HTTP/1.1 ${status} X\r\ncontent-type: application/xml\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
      ),
    )
    await using store = storeOn('b', { endpoint: raw.url })

    await expect(store.put(letter())).rejects.toMatchObject({ name: 'DeadLetterStoreError', code: expected, retriable })

    expect(raw.requests()).toBe(1)
  })

  test('a server that never answers ends with TIMEOUT', async () => {
    await using raw = await rawServer(() => {})
    await using store = storeOn('b', { endpoint: raw.url })

    const timeoutMs = 50
    for (const call of [
      () => store.put(letter(), { timeoutMs }),
      () => store.list({}, { timeoutMs }),
      () => store.get(letter().id, { timeoutMs }),
      () => store.delete(letter().id, { timeoutMs }),
    ]) {
      await expect(call()).rejects.toMatchObject({ name: 'DeadLetterStoreError', code: 'TIMEOUT', retriable: true })
    }
  })
})

describe('s3 settings', () => {
  test('a bucket without a name is refused at once', () => {
    expect(() => s3DeadLetters({ bucket: '' })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test('a client that retries by itself is refused, and one that does not is taken and left open', async () => {
    const bucket = await newBucket()
    await using retrying = storeOn(bucket, { client: new S3Client({ ...settings, endpoint: server.url }) })
    const once = storeOn(bucket, { client: server.client })

    for (const call of [
      () => retrying.put(letter()),
      () => retrying.list(),
      () => retrying.get(letter().id),
      () => retrying.delete(letter().id),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: 'INVALID_CONFIG', retriable: false })
    }
    await once.put(letter())
    await once.close()

    expect(await server.keysOf(bucket)).toHaveLength(1)
  })
})
