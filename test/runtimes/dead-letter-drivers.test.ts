import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { describe, expect, onTestFinished, test, vi } from 'vitest'

import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { workerDeadLetterDrivers } from '../../src/runtimes/worker-dead-letter-drivers.ts'
import { deadLetterDrivers } from '../../src/runtimes/dead-letter-drivers.ts'
import { openDeadLetters } from '../../src/runtimes/open-dead-letters.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { startS3 } from '../support/s3.ts'
import { startSqs } from '../support/sqs.ts'

const open = (addresses: string): Promise<DeadLetterStore> => openDeadLetters(addresses, deadLetterDrivers)

function newDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'kedge-drivers-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  return dir
}

function awsSettings(): void {
  vi.stubEnv('AWS_REGION', 'us-east-1')
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
}

describe('on Lambda and Node', () => {
  test('sqlite: is a file, by a path with any characters', async () => {
    const path = join(newDir(), 'dead letters.db')
    await using store = await open(`sqlite:${encodeURI(path)}`)

    await store.put(letter())

    expect(existsSync(path)).toBe(true)
    expect(plain((await store.list()).items)).toEqual(plain([letter()]))
  })

  test.each([
    ['s3://letters', 'dead-letters/shop/orders/0/0000000000000000.json'],
    ['s3://letters/a/b%20c/', 'a/b c/shop/orders/0/0000000000000000.json'],
  ])('%s is a bucket, found as the SDK finds it', async (address, key) => {
    await using server = await startS3()
    await server.createBucket('letters')
    awsSettings()
    vi.stubEnv('AWS_ENDPOINT_URL_S3', server.url)
    await using store = await open(address)

    await store.put(letter())

    expect(await server.keysOf('letters')).toEqual([key])
  })

  test.each(['sqlite:/data/100%/letters.db', 's3://letters/50%off'])(
    '%s is refused, with what to write',
    async (address) => {
      await expect(open(address)).rejects.toMatchObject({
        name: 'ConfigError',
        message: expect.stringContaining('Write %25 for a percent sign.') as unknown,
      })
    },
  )

  test('several are a chain: what is too large for a queue is in the file behind it', async () => {
    await using server = await startSqs()
    awsSettings()
    const queueUrl = await server.createQueue('letters', { MaximumMessageSize: '2048' })
    await using store = await open(`sqs+${queueUrl} sqlite:${join(newDir(), 'letters.db')}`)

    await store.put(letterAt(0))
    await store.put(letterAt(1, { record: { value: new Uint8Array(4_096) } }))

    expect(await server.receiveAll(queueUrl)).toHaveLength(1)
    expect((await store.list()).items.map(({ record }) => record.offset)).toEqual([1])
  })

  test.each([
    's3:',
    's3:letters',
    's3://key:hunter2@letters',
    's3://letters?region=eu-west-1',
    'sqlite:',
    'sqlite://letters.db',
    'sqlite:letters.db#hunter2',
    'd1:DB',
    'topic',
    ' , ',
  ])('%j is refused, secrets kept', async (address) => {
    const failure: unknown = await open(address).catch((thrown: unknown) => thrown)

    expect(failure).toMatchObject({ name: 'ConfigError', code: 'INVALID_CONFIG' })
    expect(String(failure)).not.toContain('hunter2')
  })
})

describe('on Workers', () => {
  const nothing = (): undefined => undefined
  const env = {
    DB: { prepare: nothing, batch: nothing },
    BUCKET: {
      put: nothing,
      get: nothing,
      head: nothing,
      list: nothing,
      delete: nothing,
      createMultipartUpload: nothing,
    },
    QUEUE: { send: nothing, sendBatch: nothing },
    TEXT: 'a variable',
  }

  test.each(['d1:DB', 'r2:BUCKET', 'r2:BUCKET/a/b', 'queue:QUEUE', 'queue:QUEUE,d1:DB\nr2:BUCKET'])(
    '%j is opened',
    async (address) => {
      await using store = await openDeadLetters(address, workerDeadLetterDrivers(env))

      expect(store.features).toBeDefined()
    },
  )

  test.each([
    'd1:',
    'd1:MISSING',
    'd1:BUCKET',
    'd1:DB/table',
    'r2:QUEUE',
    'r2:DB',
    'queue:TEXT',
    'queue:QUEUE/more',
    'queue:constructor',
    'sqs+https://x',
    'd1:DB?a=b',
  ])('%j is refused', async (address) => {
    await expect(openDeadLetters(address, workerDeadLetterDrivers(env))).rejects.toMatchObject({
      code: 'INVALID_CONFIG',
    })
  })
})

test('what was opened before a refusal is closed', async () => {
  const store = memoryDeadLetters()

  await expect(openDeadLetters('memory: nowhere:', { memory: () => store })).rejects.toMatchObject({
    code: 'INVALID_CONFIG',
  })

  await expect(store.list()).rejects.toMatchObject({ code: 'CLOSED' })
})
