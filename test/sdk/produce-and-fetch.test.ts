/** `@upstash/kafka` as it comes from npm, against a gateway: producing, and reading without a group. */
import { expect, test } from 'vitest'
import { START_MS } from '../support/clock.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { withSdk } from './sdk.ts'

failOnLeaks()

test('produce answers where the message is, and fetch finds it there', async () => {
  await using sdk = await withSdk()

  const produced = await sdk.kafka.producer().produce('red', 'hello', {
    partition: 2,
    timestamp: START_MS - 1,
    key: 'k',
    headers: [
      { key: 'b', value: '1' },
      { key: 'a', value: '2' },
      { key: 'b', value: '3' },
    ],
  })
  const messages = await sdk.kafka.consumer().fetch({ topic: 'red', partition: 2, offset: 0, timeout: 1_000 })

  expect(produced).toEqual({ topic: 'red', partition: 2, offset: 0, timestamp: START_MS - 1 })
  expect(messages).toEqual([
    {
      ...produced,
      key: 'k',
      value: 'hello',
      headers: [
        { key: 'b', value: '1' },
        { key: 'a', value: '2' },
        { key: 'b', value: '3' },
      ],
    },
  ])
})

test('produce sends what is no text as JSON', async () => {
  await using sdk = await withSdk()

  for (const value of [{ a: [1, null] }, 5, true, null, [1, 2]]) await sdk.kafka.producer().produce('blue', value)
  const messages = await sdk.kafka.consumer().fetch({ topic: 'blue', partition: 0, offset: 0 })

  expect(messages.map(({ value }) => value)).toEqual(['{"a":[1,null]}', '5', 'true', 'null', '[1,2]'])
  expect(messages.map(({ key, headers }) => [key, headers])).toEqual(Array.from({ length: 5 }, () => ['', []]))
})

test('produceMany answers in the order of the requests, over topics', async () => {
  await using sdk = await withSdk()

  const produced = await sdk.kafka.producer().produceMany([
    { topic: 'red', value: 'r', partition: 1 },
    { topic: 'blue', value: { b: 1 }, key: 'k' },
    { topic: 'red', value: 's', partition: 1, headers: [{ key: 'h', value: 'ü' }] },
  ])

  expect(produced.map(({ topic, partition, offset }) => [topic, partition, offset])).toEqual([
    ['red', 1, 0],
    ['blue', 0, 0],
    ['red', 1, 1],
  ])
})

test('fetch reads several partitions, each for itself or all in one request', async () => {
  await using sdk = await withSdk()
  const { kafka } = sdk
  await kafka.producer().produceMany([
    { topic: 'red', value: 'r0', partition: 0 },
    { topic: 'red', value: 'r1', partition: 1 },
    { topic: 'blue', value: 'b0' },
    { topic: 'blue', value: 'b1' },
  ])
  const request = {
    topic: 'blue',
    partition: 0,
    offset: 1,
    topicPartitionOffsets: [
      { topic: 'red', partition: 0, offset: 0 },
      { topic: 'red', partition: 1, offset: 0 },
    ],
    timeout: 1_000,
  }

  const parallel = await kafka.consumer().fetch(request)
  const together = await kafka.consumer().fetch(request, { parallel: false })

  expect(parallel.map(({ value }) => value)).toEqual(['r0', 'r1', 'b1'])
  expect(together.map(({ value }) => value).sort()).toEqual(['b1', 'r0', 'r1'])
})

test('fetch answers empty at the log end after its timeout', async () => {
  await using sdk = await withSdk()
  const fetched = sdk.kafka.consumer().fetch({ topic: 'blue', partition: 0, offset: 0, timeout: 1_234 })
  await sdk.clock.untilWaiting(1_234)

  await sdk.clock.advance(1_234)

  expect(await fetched).toEqual([])
})
