/** `@upstash/kafka` as it comes from npm, against a gateway: administration, and what users see of failures. */
import { createHash } from 'node:crypto'
import { UpstashError } from '@upstash/kafka'
import { afterEach, expect, test, vi } from 'vitest'
import { failOnLeaks } from '../support/leaks.ts'
import { me, withSdk } from './sdk.ts'

failOnLeaks()

afterEach(() => {
  vi.unstubAllGlobals()
})

test('topics are shown with their numbers of partitions', async () => {
  await using sdk = await withSdk()

  expect(await sdk.kafka.admin().topics()).toEqual({ blue: 1, red: 3 })
})

test('no consumers are an empty list, and a removed one is gone with its group', async () => {
  await using sdk = await withSdk()
  const admin = sdk.kafka.admin()
  const before = await admin.consumers()
  await sdk.kafka.consumer().consume({ ...me, topics: ['red'], timeout: 0 })
  const during = await admin.consumers()

  await admin.removeConsumerInstance('group', 'instance')

  expect(before).toEqual([])
  expect(during).toEqual([
    { name: 'group', instances: [{ name: 'instance', topics: [{ topic: 'red', partitions: [0, 1, 2] }] }] },
  ])
  expect(await admin.consumers()).toEqual([])
})

test('committedOffsets and topicPartitionOffsets take one partition or several', async () => {
  await using sdk = await withSdk()
  const { kafka } = sdk
  const partition = { topic: 'red', partition: 1 }
  const [first] = await kafka.producer().produceMany([
    { topic: 'red', value: 'a', partition: 1 },
    { topic: 'red', value: 'b', partition: 1 },
  ])
  await kafka.consumer().consume({ ...me, topics: ['red'], timeout: 0 })
  await kafka.consumer().commit({ ...me, offset: { ...partition, offset: 1 } })
  const admin = kafka.admin()
  const at = (timestamp: number | 'earliest' | 'latest') =>
    admin.topicPartitionOffsets({ timestamp, topicPartitions: [partition, { topic: 'blue', partition: 0 }] })

  expect(await admin.committedOffsets({ ...me, topicPartition: partition })).toEqual([{ ...partition, offset: 1 }])
  expect(await admin.committedOffsets({ ...me, topicPartitions: [partition, { topic: 'red', partition: 0 }] })).toEqual(
    [
      { ...partition, offset: 1 },
      { topic: 'red', partition: 0, offset: -1 },
    ],
  )
  expect((await at('earliest')).map(({ offset }) => offset)).toEqual([0, 0])
  expect((await at('latest')).map(({ offset }) => offset)).toEqual([2, 0])
  expect((await at(first?.timestamp ?? 0)).map(({ offset }) => offset)).toEqual([0, 0])
  expect(await admin.topicPartitionOffsets({ timestamp: 'latest', topicPartition: partition })).toEqual([
    { ...partition, offset: 2 },
  ])
})

test('failures are UpstashErrors with the text of the gateway, after the six attempts of the SDK', async () => {
  hurryTheSdk()
  await using sdk = await withSdk()

  const removed = sdk.kafka.admin().removeConsumerInstance('group', 'nobody')
  const error = await removed.catch((error: unknown) => error)

  expect(error).toBeInstanceOf(UpstashError)
  expect(error).toMatchObject({ name: 'UpstashError', status: 404, result: '' })
  expect((error as UpstashError).message).toContain('nobody')
})

test('the credentials of the SDK let it in, and wrong ones are answered with 403', async () => {
  hurryTheSdk()
  const entry = (password: string) => ({
    username: 'user',
    passwordSha256: createHash('sha256').update(password).digest('hex'),
    scopes: [{ verbs: ['produce', 'consume', 'admin'] as const, topics: ['*'], groups: ['*'] }],
  })
  await using right = await withSdk({ credentials: [entry('pass')] })
  await using wrong = await withSdk({ credentials: [entry('other')] })

  expect(await right.kafka.producer().produce('blue', 'a')).toMatchObject({ topic: 'blue', offset: 0 })
  await expect(wrong.kafka.producer().produce('blue', 'a')).rejects.toMatchObject({ name: 'UpstashError', status: 403 })
  expect(await wrong.broker.offsets([{ topic: 'blue', partition: 0 }], 'latest')).toMatchObject([{ offset: 0 }])
})

/** Its waits between attempts add up to 15 seconds; here they pass at once. */
function hurryTheSdk(): void {
  const wait = globalThis.setTimeout
  vi.stubGlobal('setTimeout', (fire: () => void, ms?: number) => {
    const isWaitOfSdk = ms !== undefined && [500, 1_000, 2_000, 4_000, 8_000].includes(ms)
    return wait(fire, isWaitOfSdk ? 0 : ms)
  })
}
