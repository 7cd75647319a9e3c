import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { BrokerError, RecordError } from '../../src/errors.ts'
import type { ErrorCode } from '../../src/errors.ts'
import { headersOf } from '../../src/headers.ts'
import { createProducer } from '../../src/producer.ts'
import type { Producer, ProducerOptions } from '../../src/producer.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { defineTopic } from '../../src/topic.ts'
import { FakeClock } from '../support/clock.ts'
import { finish, withCalls } from '../support/consumer.ts'

const orders = defineTopic('orders', z.object({ id: z.string(), total: z.number() }))
const small = defineTopic('orders', 'text', { maxRecordBytes: 10 })

interface Bench {
  readonly clock: FakeClock
  readonly broker: Broker
  readonly producer: Producer
  /** What is stored, in order. */
  readonly stored: () => Promise<ConsumerRecord[]>
}

async function openBench(
  wrap: (broker: Broker) => Broker = (broker) => broker,
  options: ProducerOptions = {},
): Promise<Bench> {
  const clock = new FakeClock()
  const broker = memoryBroker({ clock })
  await broker.createTopic({ topic: 'orders', partitions: 1 })
  return {
    clock,
    broker,
    producer: createProducer(wrap(broker), { clock, random: () => 0.5, ...options }),
    stored: () =>
      broker.fetch([{ topic: 'orders', partition: 0, offset: 0 }], { maxWaitMs: 0, maxRecords: 1000, maxBytes: 1e6 }),
  }
}

/** A broker whose produce fails so often, before or after it wrote. */
function failing(
  times: number,
  code: ErrorCode,
  effect: 'before' | 'after',
  seen: unknown[] = [],
): (broker: Broker) => Broker {
  let left = times
  return (broker) =>
    withCalls(broker, {
      produce: async (records, options, call) => {
        seen.push(options)
        if (left <= 0) return await broker.produce(records, options, call)
        left -= 1
        if (effect === 'after') await broker.produce(records, options, call)
        throw new BrokerError(code, 'failed')
      },
    })
}

describe('produce', () => {
  test('writes the value as it was given, with key, headers, partition and time', async () => {
    const { producer, stored } = await openBench()
    const trimmed = defineTopic('orders', v.pipe(v.string(), v.trim()))

    const metadata = await producer.produce(trimmed, '  a ', {
      key: 'k',
      headers: { h: '1' },
      partition: 0,
      timestampMs: 7,
    })
    await producer.produce(orders, { id: 'b', total: 1 }, { key: new Uint8Array([255]) })

    expect(metadata).toEqual({ topic: 'orders', partition: 0, offset: 0, timestampMs: 7 })
    expect(await stored()).toMatchObject([
      { key: bytesOf('k'), value: bytesOf('"  a "'), headers: headersOf({ h: '1' }), timestampMs: 7 },
      { key: new Uint8Array([255]), value: bytesOf('{"id":"b","total":1}'), headers: [] },
    ])
  })

  test('refuses a value with every issue, and writes nothing', async () => {
    const { producer, stored } = await openBench()

    const refused = producer.produce(orders, { id: 1, total: 'x' } as never)

    await expect(refused).rejects.toMatchObject({
      name: 'RecordError',
      code: 'INVALID_RECORD',
      issues: [{ path: ['id'] }, { path: ['total'] }],
    })
    expect(await stored()).toEqual([])
  })

  test('refuses a record over the limit of its topic by name, key and headers counted', async () => {
    const { producer, stored } = await openBench()

    await producer.produce(small, '12345', { key: '12', headers: { a: '12' } })
    const refused = producer.produce(small, '12345', { key: '123', headers: { a: '12' } })

    await expect(refused).rejects.toMatchObject({ code: 'MESSAGE_TOO_LARGE', limit: 'maxRecordBytes' })
    expect(await stored()).toHaveLength(1)
  })

  test('keeps the order in which it was called', async () => {
    const { producer, stored } = await openBench()

    await Promise.all(Array.from({ length: 50 }, (_, n) => producer.produce(small, `${n}`)))

    expect((await stored()).map(({ value }) => textOf(value))).toEqual(Array.from({ length: 50 }, (_, n) => `${n}`))
  })
})

describe('several records', () => {
  test('are written all, in order', async () => {
    const { producer, stored } = await openBench()

    const results = await producer.produceMany(small, [{ value: 'a' }, { value: 'b', key: 'k' }])

    expect(results.map(({ offset }) => offset)).toEqual([0, 1])
    expect((await stored()).map(({ value }) => textOf(value))).toEqual(['a', 'b'])
  })

  test('are refused all with the issues of all, by index', async () => {
    const { producer, stored } = await openBench()
    const slow = defineTopic(
      'orders',
      z.string().refine(async (text) => text !== 'bad', 'is bad'),
    )

    const refused = producer.produceMany(slow, [{ value: 'bad' }, { value: 'good' }, { value: 3 as never }])

    await expect(refused).rejects.toMatchObject({ issues: [{ path: [0] }, { path: [2] }] })
    await expect(producer.produceMany(small, [{ value: 'a' }, { value: 'x'.repeat(11) }])).rejects.toMatchObject({
      code: 'MESSAGE_TOO_LARGE',
    })
    expect(await stored()).toEqual([])
  })

  test('each for itself have a result or an error each', async () => {
    const { producer, stored } = await openBench()

    const results = await producer.produceEach(small, [
      { value: 'a' },
      { value: 5 as never },
      { value: 'x'.repeat(11) },
      { value: 'b', partition: 9 },
      { value: 'c' },
    ])

    expect(results).toMatchObject([
      { offset: 0 },
      { code: 'INVALID_RECORD' },
      { code: 'MESSAGE_TOO_LARGE' },
      { code: 'UNKNOWN_TOPIC_OR_PARTITION' },
      { offset: 1 },
    ])
    expect(results[1]).toBeInstanceOf(RecordError)
    expect((await stored()).map(({ value }) => textOf(value))).toEqual(['a', 'c'])
  })

  test('none at all ask nobody', async () => {
    const { producer, broker } = await openBench()
    await broker.close()

    expect(await producer.produceMany(small, [])).toEqual([])
    expect(await producer.produceEach(small, [{ value: 1 as never }])).toMatchObject([{ code: 'INVALID_RECORD' }])
  })
})

describe('a failed produce', () => {
  test.each(['before', 'after'] as const)(
    'is made again %s its effect, under one key, and writes once',
    async (effect) => {
      const seen: unknown[] = []
      const { producer, stored, clock } = await openBench(failing(3, 'NETWORK', effect, seen))

      await finish(clock, producer.produce(small, 'a'))

      expect(await stored()).toHaveLength(1)
      expect(seen).toHaveLength(4)
      expect(new Set(seen.map((options) => JSON.stringify(options))).size).toBe(1)
      expect(seen[0]).toMatchObject({ idempotencyKey: expect.stringMatching(/^[\x21-\x7e]{1,255}$/) as unknown })
    },
  )

  test('is not made again without a key, for it may have been written', async () => {
    const seen: unknown[] = []
    const noKeys = (broker: Broker): Broker =>
      withCalls(failing(1, 'TIMEOUT', 'after', seen)(broker), {
        features: { ...broker.features, idempotencyKeys: false },
      })
    const { producer, stored } = await openBench(noKeys)
    const refusing = await openBench(failing(1, 'TIMEOUT', 'after', seen))

    await expect(producer.produce(small, 'a')).rejects.toMatchObject({ code: 'TIMEOUT' })
    await expect(refusing.producer.produce(small, 'a', { idempotencyKey: null })).rejects.toMatchObject({
      code: 'TIMEOUT',
    })
    expect(await stored()).toHaveLength(1)
    expect(seen).toEqual([{ atomic: true }, { atomic: true }])
  })

  test('that the broker was too busy for is made again even without a key', async () => {
    const { producer, stored, clock } = await openBench(failing(2, 'OVERLOADED', 'before'))

    await finish(clock, producer.produce(small, 'a', { idempotencyKey: null }))

    expect(await stored()).toHaveLength(1)
  })

  test('is not made again where that cannot help', async () => {
    const seen: unknown[] = []
    const { producer } = await openBench(failing(9, 'TOPIC_AUTHORIZATION_FAILED', 'before', seen))

    await expect(producer.produce(small, 'a')).rejects.toMatchObject({ code: 'TOPIC_AUTHORIZATION_FAILED' })
    expect(seen).toHaveLength(1)
  })

  test('is given up when its time is over', async () => {
    const { producer, clock } = await openBench(failing(Number.POSITIVE_INFINITY, 'NETWORK', 'before'))
    const from = clock.monotonic()

    await expect(finish(clock, producer.produce(small, 'a', { timeoutMs: 3_000 }))).rejects.toMatchObject({
      code: 'NETWORK',
    })
    expect(clock.monotonic() - from).toBeLessThanOrEqual(3_100)
  })

  test('is given up when its signal is aborted, with the reason of the signal', async () => {
    const abort = new AbortController()
    const reason = new Error('client left')
    const { producer, clock } = await openBench(failing(Number.POSITIVE_INFINITY, 'NETWORK', 'before'))
    const producing = producer.produce(small, 'a', { signal: abort.signal })
    await clock.advance(20)

    abort.abort(reason)

    await expect(producing).rejects.toBe(reason)
    await expect(producer.produce(small, 'a', { signal: abort.signal })).rejects.toBe(reason)
  })

  test('uses the key of its caller, under which the caller may repeat it', async () => {
    const { producer, stored } = await openBench()

    const first = await producer.produce(small, 'a', { idempotencyKey: 'order-1' })
    const second = await producer.produce(small, 'a', { idempotencyKey: 'order-1' })

    expect(second).toEqual(first)
    expect(await stored()).toHaveLength(1)
    await expect(producer.produce(small, 'b', { idempotencyKey: 'order-1' })).rejects.toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    })
  })
})
