import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { claimCheck, claimedLetter } from '../../src/dead-letters/claim-check.ts'
import { decodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { s3DeadLetters } from '../../src/dead-letters/s3.ts'
import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { MAX_SQS_MESSAGE_BYTES, sqsDeadLetters } from '../../src/dead-letters/sqs.ts'
import { DeadLetterStoreError } from '../../src/errors.ts'
import { bytesOf } from '../../src/record.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { type S3Server, startS3 } from '../support/s3.ts'
import { type SqsServer, startSqs, testCredentials } from '../support/sqs.ts'

let sqs: SqsServer
let s3: S3Server
let names = 0
beforeAll(async () => {
  sqs = await startSqs()
  s3 = await startS3()
})
afterAll(async () => {
  await sqs.close()
  await s3.close()
})

const settings = { region: 'us-east-1', credentials: testCredentials } as const
async function newQueue(attributes?: Record<string, string>): Promise<string> {
  return await sqs.createQueue(`letters-${(names += 1)}`, attributes)
}
async function newBucket(): Promise<() => DeadLetterStore> {
  const bucket = `letters-${(names += 1)}`
  await s3.createBucket(bucket)
  return () => s3DeadLetters({ bucket, endpoint: s3.url, forcePathStyle: true, ...settings })
}

describeDeadLetterStore('claim check of sqs and s3', {
  async open() {
    const queueUrl = await newQueue()
    const bucket = await newBucket()
    const objects = bucket()
    const store = claimCheck(sqsDeadLetters({ queueUrl, ...settings }), { objects: bucket() })
    return {
      store,
      async stored() {
        const messages = (await sqs.receiveAll(queueUrl)).map(decodeDeadLetter)
        return await Promise.all(messages.map((message) => claimedLetter(message, objects)))
      },
      async close() {
        await store.close()
        await objects.close()
      },
    }
  },
})

// Every letter of the suite is over 400 bytes and becomes a reference; with 1,500 some do.
for (const overBytes of [400, 1_500]) {
  describeDeadLetterStore(`claim check of sqlite and memory, over ${overBytes} bytes`, {
    async open() {
      const inner = sqliteDeadLetters({ path: ':memory:' })
      const store = claimCheck(inner, { objects: memoryDeadLetters(), overBytes })
      return {
        store,
        stored: async () => (await store.list({ limit: 1000 })).items,
        close: () => store.close(),
      }
    },
  })
}

const large = (parts: Parameters<typeof letter>[0] = {}): DeadLetter =>
  letter({ ...parts, record: { value: new Uint8Array(2_000).fill(7), ...parts.record } })

describe('a large letter', () => {
  test('leaves a small reference with its coordinates, cause and fingerprint in the store', async () => {
    const store = memoryDeadLetters()
    const objects = memoryDeadLetters()
    const given = large({ redriveCount: 2, record: { key: bytesOf('k'), headers: [{ key: 'h', value: null }] } })

    await claimCheck(store, { objects, overBytes: 1_000 }).put(given)

    const [reference] = (await store.list()).items
    const { record, ...told } = given
    expect(reference).toMatchObject(told)
    expect(reference?.record).toMatchObject({ ...record, value: null, headers: [{ key: 'kedge-claim-check' }] })
    expect(plain((await objects.list()).items)).toEqual(plain([given]))
  })

  test('is durable before its reference is put: when the objects fail, nothing is stored', async () => {
    const store = memoryDeadLetters()
    const objects = memoryDeadLetters({ maxLetters: 0 })

    const put = claimCheck(store, { objects, overBytes: 1_000 }).put(large())

    await expect(put).rejects.toMatchObject({ code: 'DEAD_LETTER_STORE_UNAVAILABLE', retriable: true })
    expect((await store.list()).items).toEqual([])
  })

  test('whose reference fails can be put again, and is the first one then', async () => {
    const objects = memoryDeadLetters()
    const first = large({ attempts: 1 })
    await expect(
      claimCheck(memoryDeadLetters({ maxLetters: 0 }), { objects, overBytes: 1_000 }).put(first),
    ).rejects.toMatchObject({ retriable: true })
    const store = claimCheck(memoryDeadLetters(), { objects, overBytes: 1_000 })

    await store.put(large({ attempts: 2 }))

    expect(plain((await store.list()).items)).toEqual(plain([first]))
  })

  test('that only the queue itself knows to be too large goes to the objects as well', async () => {
    const queueUrl = await newQueue({ MaximumMessageSize: '2048' })
    const objects = memoryDeadLetters()
    await using store = claimCheck(sqsDeadLetters({ queueUrl, ...settings }), { objects })

    await store.put(large())

    const [message] = (await sqs.receiveAll(queueUrl)).map(decodeDeadLetter)
    expect(message?.record.value).toBeNull()
    expect(plain((await objects.list()).items)).toEqual(plain([large()]))
  })

  test('that fills a message of SQS to the limit less its attributes stays in the queue, and a larger one does not', async () => {
    const queueUrl = await newQueue()
    const objects = memoryDeadLetters()
    await using store = claimCheck(sqsDeadLetters({ queueUrl, ...settings }), { objects })
    const bytes = (MAX_SQS_MESSAGE_BYTES * 3) / 4

    await store.put(letterAt(0, { record: { value: new Uint8Array(bytes - 2_000) } }))
    await store.put(letterAt(1, { record: { value: new Uint8Array(bytes) } }))

    expect((await objects.list()).items.map(({ record }) => record.offset)).toEqual([1])
  })

  test('is deleted with its reference', async () => {
    const inner = memoryDeadLetters()
    const objects = memoryDeadLetters()
    const store = claimCheck(inner, { objects, overBytes: 1_000 })
    await store.put(large())

    expect(await store.delete(large().id)).toBe(true)

    expect([(await inner.list()).items, (await objects.list()).items]).toEqual([[], []])
    expect(await store.delete(large().id)).toBe(false)
  })

  test('is found by a header, by a long key and by a short one, though its reference has less', async () => {
    const store = claimCheck(memoryDeadLetters(), { objects: memoryDeadLetters(), overBytes: 1_000 })
    const long = 'k'.repeat(1_025)
    await store.put(large({ record: { offset: 1, key: bytesOf(long), headers: [{ key: 'h', value: bytesOf('1') }] } }))
    await store.put(large({ record: { offset: 2, key: bytesOf('short') } }))
    const offsets = async (query: Parameters<DeadLetterStore['list']>[0]): Promise<number[]> =>
      (await store.list(query)).items.map(({ record }) => record.offset)

    expect(await offsets({ header: { key: 'h', value: '1' } })).toEqual([1])
    expect(await offsets({ header: { key: 'kedge-claim-check', value: '1' } })).toEqual([])
    expect(await offsets({ key: long })).toEqual([1])
    expect(await offsets({ key: 'short' })).toEqual([2])
  })

  test('that is gone while its reference is there fails by name, and its reference can be deleted', async () => {
    const objects = memoryDeadLetters()
    const store = claimCheck(memoryDeadLetters(), { objects, overBytes: 1_000 })
    await store.put(large())
    await objects.delete(large().id)

    await expect(store.get(large().id)).rejects.toMatchObject({ code: 'BAD_RESPONSE', retriable: false })
    await expect(store.list()).rejects.toThrow(/dead letter shop\/orders\/0\/0\b/)
    expect(await store.delete(large().id)).toBe(true)
    expect(await store.list()).toEqual({ items: [] })
  })
})

test('a letter that is deleted while it is listed or got is none that was lost', async () => {
  const objects = memoryDeadLetters()
  const get = objects.get.bind(objects)
  const store = claimCheck(memoryDeadLetters(), { objects, overBytes: 0 })
  objects.get = async (id, call) => {
    if (id === letterAt(1).id) await store.delete(id)
    return await get(id, call)
  }
  for (const offset of [0, 1, 2]) await store.put(letterAt(offset))

  expect(plain((await store.list()).items)).toEqual(plain([letterAt(0), letterAt(2)]))
  await store.put(letterAt(1))
  expect(await store.get(letterAt(1).id)).toBeUndefined()
})

test('a page of large letters ends early rather than fetch more than 8 MiB or 120 of them, and the next one goes on', async () => {
  const objects = memoryDeadLetters()
  let fetched: string[] = []
  const get = objects.get.bind(objects)
  objects.get = async (id, call) => {
    fetched.push(id)
    return await get(id, call)
  }
  const store = claimCheck(memoryDeadLetters(), { objects, overBytes: 1_000 })
  for (let offset = 0; offset < 250; offset += 1) {
    const bytes = offset < 20 ? 1_000_000 : 1_000
    await store.put(letterAt(offset, { record: { value: new Uint8Array(bytes) } }))
  }

  const pages: number[] = []
  let cursor: string | undefined
  do {
    fetched = []
    const page = await store.list(cursor === undefined ? { limit: 1_000 } : { limit: 1_000, cursor })
    pages.push(page.items.length)
    expect(fetched).toHaveLength(page.items.length)
    cursor = page.cursor
  } while (cursor !== undefined)

  expect(pages.slice(0, 3)).toEqual([6, 6, 6])
  expect(Math.max(...pages)).toBeLessThanOrEqual(120)
  expect(pages.reduce((sum, page) => sum + page, 0)).toBe(250)
})

test('a record that was made to look like a reference comes back as it is', async () => {
  const store = claimCheck(memoryDeadLetters(), { objects: memoryDeadLetters() })
  const forged = letter({ record: { value: null, headers: [{ key: 'kedge-claim-check', value: bytesOf('{}') }] } })

  await store.put(forged)

  expect(plain((await store.list()).items)).toEqual(plain([forged]))
})

test('any other failure of the store is its own', async () => {
  const failure = new DeadLetterStoreError('UNAUTHENTICATED', 'no')
  const store: DeadLetterStore = Object.assign(memoryDeadLetters(), { put: () => Promise.reject(failure) })
  const objects = memoryDeadLetters()

  await expect(claimCheck(store, { objects }).put(letter())).rejects.toBe(failure)

  expect((await objects.list()).items).toEqual([])
})

test('a store of large letters that cannot give them back is refused at once', async () => {
  const queue = sqsDeadLetters({ queueUrl: await newQueue(), ...settings })

  expect(() => claimCheck(memoryDeadLetters(), { objects: queue })).toThrow(
    expect.objectContaining({ code: 'INVALID_CONFIG' }),
  )
})
