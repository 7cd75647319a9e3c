/** The rest driver leans on the insides of `@upstash/kafka`; these fail when a new version has moved them. */
import { readFile } from 'node:fs/promises'
import { Kafka } from '@upstash/kafka'
import { expect, test } from 'vitest'
import { restBroker } from '../../src/brokers/rest.ts'
import { json, startServer } from '../support/http-server.ts'
import { record } from '../support/records.ts'

interface SdkRequest {
  readonly method: 'get' | 'post'
  readonly path: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
}

/** An SDK whose client is a recorder, replaced as the driver replaces it. */
function recorded(): { kafka: Kafka; requests: SdkRequest[] } {
  const requests: SdkRequest[] = []
  const take = (method: 'get' | 'post') => async (request: Omit<SdkRequest, 'method'>) => {
    requests.push({ method, ...request })
    return []
  }
  const sdk = new Kafka({ url: 'http://kedge.invalid', username: '', password: '' })
  const client = { get: take('get'), post: take('post') }
  return { kafka: Object.create(sdk, { client: { value: client } }) as Kafka, requests }
}

test('the SDK keeps its HTTP client in the property `client`', () => {
  const kafka = new Kafka({ url: 'http://kedge.invalid', username: 'u', password: 'p' })

  expect(Object.keys(kafka)).toEqual(['client'])
  for (const part of [kafka.producer(), kafka.consumer(), kafka.admin()]) expect(Object.keys(part)).toEqual(['client'])
})

test('producer, consumer and admin speak only through get and post of that client, in these shapes', async () => {
  const { kafka, requests } = recorded()
  const names = { consumerGroupId: 'g', instanceId: 'i' }
  const partition = { topic: 't', partition: 0 }

  await kafka.producer().produceMany([{ topic: 't', value: 'dg==', key: 'aw==', partition: 1, timestamp: 2 }])
  await kafka
    .consumer()
    .fetch({ topicPartitionOffsets: [{ ...partition, offset: 3 }], timeout: 4 }, { parallel: false })
  await kafka.consumer().consume({
    ...names,
    topics: ['t'],
    timeout: 5,
    autoCommit: false,
    autoCommitInterval: 6,
    autoOffsetReset: 'none',
  })
  await kafka.consumer().consume({ ...names, topics: ['t', 'u'] })
  await kafka.consumer().commit(names)
  await kafka.consumer().commit({ ...names, offset: [{ ...partition, offset: 7 }] })
  await kafka.consumer().committed({ ...names, topicPartitions: [partition] })
  await kafka.admin().topicPartitionOffsets({ timestamp: 'latest', topicPartitions: [partition] })
  await kafka.admin().topicPartitionOffsets({ timestamp: 8, topicPartitions: [partition] })
  await kafka.admin().removeConsumerInstance('g', 'i')

  expect(requests).toEqual([
    {
      method: 'post',
      path: ['produce'],
      body: [{ topic: 't', key: 'aw==', partition: 1, timestamp: 2, value: 'dg==' }],
    },
    { method: 'post', path: ['fetch'], body: { topicPartitionOffsets: [{ ...partition, offset: 3 }], timeout: 4 } },
    {
      method: 'post',
      path: ['consume', 'g', 'i'],
      headers: {
        'Kafka-Enable-Auto-Commit': 'false',
        'Kafka-Auto-Commit-Interval': '6',
        'Kafka-Auto-Offset-Reset': 'none',
      },
      body: { topic: 't', timeout: 5 },
    },
    { method: 'post', path: ['consume', 'g', 'i'], headers: {}, body: { topics: ['t', 'u'] } },
    { method: 'post', path: ['commit', 'g', 'i'], body: undefined },
    { method: 'post', path: ['commit', 'g', 'i'], body: [{ ...partition, offset: 7 }] },
    { method: 'post', path: ['committed', 'g', 'i'], body: [partition] },
    { method: 'post', path: ['offsets', 'latest'], body: [partition] },
    { method: 'post', path: ['offsets', '8'], body: [partition] },
    { method: 'post', path: ['delete-consumer', 'g', 'i'] },
  ])
})

test('the version is pinned, since private parts are used', async () => {
  const own = JSON.parse(await readFile('package.json', 'utf8')) as { dependencies: Record<string, string> }

  expect(own.dependencies['@upstash/kafka']).toMatch(/^\d+\.\d+\.\d+$/)
})

test('the driver puts null values, bytes and extensions on the wire', async () => {
  await using server = await startServer((response) =>
    json(response, 200, [
      { topic: 't', partition: 0, offset: 0, timestamp: 0 },
      { topic: 't', partition: 0, offset: 1, timestamp: 0 },
    ]),
  )
  await using broker = restBroker({ url: `${server.url}/prefix/` })

  await broker.produce(
    [
      record('t', null, { key: '' }),
      record('t', Uint8Array.of(0xff), {
        partition: 3,
        timestampMs: 9,
        headers: [
          ['h', null],
          ['h', 'v'],
        ],
      }),
    ],
    { idempotencyKey: 'once', atomic: false },
  )

  const [request] = server.requests
  expect(request?.method).toBe('POST')
  expect(request?.url).toBe('/prefix/produce')
  expect(request?.headers).toMatchObject({
    'content-type': 'application/json',
    'kedge-encoding': 'base64',
    'kedge-results': 'each',
    'idempotency-key': 'once',
  })
  expect(request?.headers['connection']).not.toBe('close')
  expect(JSON.parse(request?.body ?? '')).toEqual([
    { topic: 't', key: '', value: null },
    { topic: 't', partition: 3, timestamp: 9, headers: [{ key: 'h' }, { key: 'h', value: 'dg==' }], value: '/w==' },
  ])
})

test('the driver encodes every segment of a path', async () => {
  await using server = await startServer((response) => json(response, 200, []))
  await using broker = restBroker({ url: server.url })

  await broker.leave({ groupId: 'a/b?c#d', groupInstanceId: 'ü %2F+' })

  expect(server.requests.map(({ url }) => url)).toEqual(['/delete-consumer/a%2Fb%3Fc%23d/%C3%BC%20%252F%2B'])
})
