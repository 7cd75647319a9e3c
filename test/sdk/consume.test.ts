/** `@upstash/kafka` as it comes from npm, against a gateway: reading as a group, and committing. */
import type { Consumer } from '@upstash/kafka'
import { expect, test } from 'vitest'
import { failOnLeaks } from '../support/leaks.ts'
import { me, withSdk } from './sdk.ts'

failOnLeaks()

type ConsumeRequest = Parameters<Consumer['consume']>[0]

const success = { result: 'Success', error: '', status: 200 }

test('the first consume of an instance gives the records at once, and makes it visible', async () => {
  await using sdk = await withSdk()
  const { kafka } = sdk
  await kafka.producer().produceMany([
    { topic: 'blue', value: 'a', key: 'k' },
    { topic: 'blue', value: 'b' },
  ])

  const messages = await kafka.consumer().consume({ ...me, topics: ['blue'], autoOffsetReset: 'earliest' })

  expect(
    messages.map(({ topic, partition, offset, key, value, headers }) => [
      topic,
      partition,
      offset,
      key,
      value,
      headers,
    ]),
  ).toEqual([
    ['blue', 0, 0, 'k', 'a', []],
    ['blue', 0, 1, '', 'b', []],
  ])
  expect(await kafka.admin().consumers()).toEqual([
    { name: 'group', instances: [{ name: 'instance', topics: [{ topic: 'blue', partitions: [0] }] }] },
  ])
})

test('consume starts at the end unless it is told otherwise, and waits for its timeout', async () => {
  await using sdk = await withSdk()
  const { kafka, clock } = sdk
  await kafka.producer().produce('blue', 'before')

  const first = kafka.consumer().consume({ ...me, topics: ['blue'], timeout: 1_234 })
  await clock.untilWaiting(1_234)
  await clock.advance(1_234)
  expect(await first).toEqual([])

  const second = kafka.consumer().consume({ ...me, topics: ['blue'], timeout: 2_345 })
  await clock.untilWaiting(2_345)
  await kafka.producer().produce('blue', 'after')
  expect((await second).map(({ value }) => value)).toEqual(['after'])
})

test('consume of several topics reads all of them', async () => {
  await using sdk = await withSdk()
  const { kafka } = sdk
  await kafka.producer().produceMany([
    { topic: 'blue', value: 'b' },
    { topic: 'red', value: 'r', partition: 1 },
  ])

  const messages = await kafka.consumer().consume({ ...me, topics: ['blue', 'red'], autoOffsetReset: 'earliest' })

  expect(messages.map(({ value }) => value).sort()).toEqual(['b', 'r'])
})

test('consume commits on its own: what an earlier call returned, when the interval is over', async () => {
  await using sdk = await withSdk()
  const { kafka, clock } = sdk
  const request: ConsumeRequest = {
    ...me,
    topics: ['blue'],
    autoOffsetReset: 'earliest',
    timeout: 0,
    autoCommitInterval: 100,
  }
  const committed = async (): Promise<number | undefined> =>
    (await kafka.consumer().committed({ ...me, topicPartitions: [{ topic: 'blue', partition: 0 }] }))[0]?.offset
  await kafka.producer().produce('blue', 'a')

  await kafka.consumer().consume(request)
  const atOnce = await committed()
  await clock.advance(101)
  await kafka.consumer().consume(request)

  expect([atOnce, await committed()]).toEqual([-1, 1])
})

test('the default is auto-commit every five seconds', async () => {
  await using sdk = await withSdk()
  const { kafka, clock, broker } = sdk
  await kafka.producer().produce('blue', 'a')
  const consume = () => kafka.consumer().consume({ ...me, topics: ['blue'], autoOffsetReset: 'earliest', timeout: 0 })

  await consume()
  await clock.advance(4_999)
  await consume()
  const before = await broker.committed('group')
  await clock.advance(1)
  await consume()

  expect(before).toEqual([])
  expect(await broker.committed('group')).toEqual([{ topic: 'blue', partition: 0, offset: 1, metadata: null }])
})

test('manual: nothing is committed until commit, which without offsets commits what was consumed', async () => {
  await using sdk = await withSdk()
  const { kafka, clock, broker } = sdk
  const request: ConsumeRequest = {
    ...me,
    topics: ['blue'],
    autoOffsetReset: 'earliest',
    autoCommit: false,
    timeout: 0,
  }
  await kafka.producer().produceMany([
    { topic: 'blue', value: 'a' },
    { topic: 'blue', value: 'b' },
  ])

  await kafka.consumer().consume(request)
  await clock.advance(60_000)
  await kafka.consumer().consume(request)
  const before = await broker.committed('group')
  // The SDK says it resolves with nothing, and resolves with the answer.
  const answer: unknown = await kafka.consumer().commit(me)

  expect(before).toEqual([])
  expect(answer).toEqual(success)
  expect(await broker.committed('group')).toMatchObject([{ offset: 2 }])
})

test('commit stores the offsets it is given exactly, one or several', async () => {
  await using sdk = await withSdk()
  const { kafka } = sdk
  await kafka.consumer().consume({ ...me, topics: ['red'], timeout: 0 })

  await kafka.consumer().commit({ ...me, offset: { topic: 'red', partition: 0, offset: 5 } })
  await kafka.consumer().commit({
    ...me,
    offset: [
      { topic: 'red', partition: 1, offset: 13 },
      { topic: 'red', partition: 1, offset: 37 },
    ],
  })
  const committed = await kafka.consumer().committed({
    ...me,
    topicPartitions: [
      { topic: 'red', partition: 1 },
      { topic: 'red', partition: 0 },
      { topic: 'red', partition: 2 },
    ],
  })

  expect(committed).toEqual([
    { topic: 'red', partition: 1, offset: 37 },
    { topic: 'red', partition: 0, offset: 5 },
    { topic: 'red', partition: 2, offset: -1 },
  ])
})

test('a commit right after a first consume that returned nothing succeeds', async () => {
  await using sdk = await withSdk()

  expect(await sdk.kafka.consumer().consume({ ...me, topics: ['blue'], timeout: 0 })).toEqual([])

  expect(await sdk.kafka.consumer().commit(me)).toEqual(success)
})

test('two instances share the partitions of a topic', async () => {
  await using sdk = await withSdk()
  const { kafka } = sdk
  const other = { ...me, instanceId: 'other' }
  const consume = (who: typeof me) =>
    kafka.consumer().consume({ ...who, topics: ['red'], autoOffsetReset: 'earliest', timeout: 0 })
  await consume(me)
  await consume(other)
  await kafka
    .producer()
    .produceMany([0, 1, 2].map((partition) => ({ topic: 'red', value: `r${partition}`, partition })))

  const mine = await consume(me)
  const theirs = await consume(other)

  expect([mine.length, theirs.length].sort((a, b) => a - b)).toEqual([1, 2])
  expect([...mine, ...theirs].map(({ value }) => value).sort()).toEqual(['r0', 'r1', 'r2'])
})
