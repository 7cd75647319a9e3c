/** The rest driver over a gateway whose broker does less than the embedded log, as a Kafka cluster does. */
import { describe, expect, test } from 'vitest'
import { createProducer } from '../../src/producer.ts'
import { defineTopic } from '../../src/topic.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import { refusal } from '../conformance/broker/harness.ts'
import { letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { record } from '../support/records.ts'
import { withCalls } from '../support/consumer.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'

failOnLeaks()

test('a poll whose join still waits says when to come again, and nothing of the group', async () => {
  await using memory = memoryBroker()
  const joining = { records: [], generationId: 7, assignment: [{ topic: 't', partition: 0 }], retryAfterMs: 800 }
  await using server = await startGateway(withCalls(memory, { poll: async () => joining }))
  await using broker = restBroker({ url: server.url })

  const group = { groupId: 'g', groupInstanceId: 'i' }
  const result = await broker.poll({ group, topics: ['t'], maxWaitMs: 0, maxRecords: 1, maxBytes: 1 })

  expect(result).toEqual({ records: [], generationId: 0, assignment: [], retryAfterMs: 800 })
})

describe('a gateway whose broker knows no idempotency keys', () => {
  const orders = defineTopic('orders', 'text')

  test('refuses a key by name, writes nothing, and the driver knows from then on', async () => {
    await using network = await withoutKeys()
    const { broker } = network
    const before = broker.features.idempotencyKeys

    const error = await refusal(broker.produce([record('orders', 'a')], { idempotencyKey: 'k' }), 'UNSUPPORTED')

    expect([error.retriable, before, broker.features.idempotencyKeys]).toEqual([false, true, false])
    expect(await network.values('orders')).toEqual([])
  })

  test('has a producer find out by its first produce, which writes once, and send one request for each after it', async () => {
    await using network = await withoutKeys()

    const metadata = await createProducer(network.broker).produce(orders, 'a')
    await createProducer(network.broker).produce(orders, 'b')

    expect(metadata).toMatchObject({ topic: 'orders', offset: 0 })
    expect(await network.values('orders')).toEqual(['a', 'b'])
    expect(network.keys).toEqual([true, false, false])
  })

  test('has a producer write all of a burst once, and in order', async () => {
    await using network = await withoutKeys()
    const producer = createProducer(network.broker)
    const values = Array.from({ length: 20 }, (_, n) => `${n}`)

    await Promise.all(values.map((value) => producer.produce(orders, value)))

    expect(await network.values('orders')).toEqual(values)
  })

  test('gets the key of its caller, for whom the refusal is', async () => {
    await using network = await withoutKeys()
    const producer = createProducer(network.broker)
    await producer.produce(orders, 'a')

    await refusal(producer.produce(orders, 'b', { idempotencyKey: 'mine' }), 'UNSUPPORTED')

    expect(await network.values('orders')).toEqual(['a'])
  })

  test('has a lost answer be told to the caller, who alone can say whether to produce again', async () => {
    await using network = await withoutKeys()
    const producer = createProducer(network.broker)
    await producer.produce(orders, 'a')
    network.loseNext()

    await refusal(producer.produce(orders, 'b'), 'NETWORK')

    expect(await network.values('orders')).toEqual(['a', 'b'])
  })

  test('keeps dead letters, in a topic that is made for the first', async () => {
    await using network = await withoutKeys()
    await using store = topicDeadLetters({ broker: network.broker })
    const [one, other] = [letterAt(0), letterAt(1)]

    await store.put(one)
    await store.put(other)

    expect(plain((await store.list()).items)).toEqual(plain([one, other]))
    expect(network.keys).toEqual([true, false, false, false])
    await store.put(one)
    expect(plain((await store.list()).items)).toEqual(plain([one, other]))
  })
})

/** A broker over a gateway over one that refuses every key. `keys` tells of each produce whether it had one. */
async function withoutKeys(): Promise<
  { broker: Broker; keys: boolean[]; loseNext(): void; values(topic: string): Promise<unknown[]> } & AsyncDisposable
> {
  const memory = memoryBroker()
  await memory.createTopic({ topic: 'orders' })
  const keys: boolean[] = []
  let isNextLost = false
  const limited = withCalls(memory, {
    features: { ...memory.features, idempotencyKeys: false },
    produce: async (records, options, call) => {
      keys.push(options?.idempotencyKey !== undefined)
      if (options?.idempotencyKey === undefined) return await memory.produce(records, options, call)
      throw new BrokerError('UNSUPPORTED', 'Cannot name a produce: this broker knows no idempotency keys.')
    },
  })
  const server = await startGateway(limited)
  const fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const response = await globalThis.fetch(url, init)
    if (!isNextLost) return response
    isNextLost = false
    await response.text()
    throw new TypeError('connection reset')
  }
  return {
    broker: restBroker({ url: server.url, fetch }),
    keys,
    loseNext: () => (isNextLost = true),
    async values(topic) {
      const limits = { maxWaitMs: 0, maxRecords: 1_000, maxBytes: 1_000_000 }
      const records = await memory.fetch([{ topic, partition: 0, offset: 0 }], limits)
      return records.map(({ value }) => textOf(value).replaceAll('"', ''))
    },
    async [Symbol.asyncDispose]() {
      await server.close()
      await memory.close()
    },
  }
}
