import type { Context, MSKEvent, SQSEvent } from 'aws-lambda'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { defineApp } from '../../src/app.ts'
import type { App } from '../../src/app.ts'
import { base64Of } from '../../src/base64.ts'
import { BatchError, RetryAfterError, SkipError, StopError } from '../../src/handler-errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { BatchHandler, BatchRouteOptions, Handler, RouteOptions } from '../../src/router.ts'
import { lambdaKafkaBatch, lambdaSqsBatch } from '../../src/runtimes/lambda-batch.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { startGateway } from '../support/gateway.ts'

const context = { awsRequestId: 'one', getRemainingTimeInMillis: () => 5_000 } as Context

// Where retry topics and dead-letter topics would be.
beforeEach(() => vi.stubEnv('UPSTASH_KAFKA_REST_URL', 'http://127.0.0.1:9'))
afterEach(() => vi.unstubAllEnvs())

function appOf(handler: Handler, options: RouteOptions = {}): App {
  return defineApp({ groupId: 'shop', router: createRouter().on({ topic: 'orders' }, handler, options) })
}

/** The same with a batch route. */
function batchAppOf(handler: BatchHandler, options: BatchRouteOptions = {}): App {
  return defineApp({ groupId: 'shop', router: createRouter().onBatch({ topic: 'orders' }, handler, options) })
}

/** Hands over, and notes the values of each call. A call fails for `no`, and names `bad` as failed. */
function noting(calls: string[][]): BatchHandler {
  return (records) => {
    const values = records.map(({ value }) => textOf(value))
    calls.push(values)
    if (values.some((value) => value.startsWith('no'))) throw new RetryAfterError(60_000)
    const failures = records.filter(({ value }) => textOf(value).startsWith('bad'))
    if (failures.length > 0) {
      throw new BatchError(failures.map((record) => ({ record, error: new StopError('down') })))
    }
  }
}

type KafkaRecord = MSKEvent['records'][string][number]

function kafkaEvent(partitions: Record<number, readonly string[]>): MSKEvent {
  const records = Object.entries(partitions).map(([partition, values]) => {
    const held = values.map((value, index): KafkaRecord => {
      const place = { topic: 'orders', partition: Number(partition), offset: 100 + index }
      const time = { timestamp: 7, timestampType: 'CREATE_TIME' } as const
      return { ...place, ...time, key: base64Of(bytesOf(value[0] ?? '')), value: base64Of(bytesOf(value)), headers: [] }
    })
    return [`orders-${partition}`, held] as const
  })
  return { eventSource: 'aws:kafka', eventSourceArn: '', bootstrapServers: '', records: Object.fromEntries(records) }
}

describe('a Kafka batch', () => {
  test('reaches its handlers as it was in the log', async () => {
    const seen: ConsumerRecord[] = []
    const handle = lambdaKafkaBatch(appOf((record) => void seen.push(record)))
    const [record] = kafkaEvent({ 3: ['a'] }).records['orders-3'] as [KafkaRecord]
    const headers = [{ a: [-1, 104] }, { b: [] }, { a: [105] }]
    // Null in Kafka is absent in the event.
    const tombstone = { ...record, offset: 101, key: undefined, value: undefined } as unknown as KafkaRecord

    const answer = await handle(
      { ...kafkaEvent({}), records: { 'orders-3': [{ ...record, headers }, tombstone] } },
      context,
    )

    expect(answer).toEqual({ batchItemFailures: [] })
    expect(seen).toEqual([
      {
        topic: 'orders',
        partition: 3,
        offset: 100,
        timestampMs: 7,
        key: bytesOf('a'),
        value: bytesOf('a'),
        headers: [
          { key: 'a', value: new Uint8Array([255, 104]) },
          { key: 'b', value: new Uint8Array() },
          { key: 'a', value: bytesOf('i') },
        ],
      },
      { topic: 'orders', partition: 3, offset: 101, timestampMs: 7, key: null, value: null, headers: [] },
    ])
  })

  test('is answered with the lowest offset of each partition that is to come again', async () => {
    const handle = lambdaKafkaBatch(
      appOf(({ value }) => {
        if (textOf(value) === 'closed') throw new StopError('closed')
      }),
    )

    const answer = await handle(kafkaEvent({ 0: ['a', 'b'], 1: ['a', 'closed', 'b'], 2: ['closed'] }), context)

    expect(answer.batchItemFailures).toEqual([
      { itemIdentifier: { partition: 'orders-1', offset: 101 } },
      { itemIdentifier: { partition: 'orders-2', offset: 100 } },
    ])
  })

  test('leaves a record whose retry does not fit into the invocation to the next one', async () => {
    const seen: string[] = []
    const handle = lambdaKafkaBatch(
      appOf(
        ({ value }) => {
          if (textOf(value) === 'b0') throw new Error('again')
          seen.push(textOf(value))
        },
        { ordering: 'key', retry: { initialMs: 60_000, maxMs: 60_000 } },
      ),
    )

    const answer = await handle(kafkaEvent({ 0: ['a0', 'b0', 'a1', 'b1'] }), context)

    expect(seen).toEqual(['a0', 'a1'])
    expect(answer.batchItemFailures).toEqual([{ itemIdentifier: { partition: 'orders-0', offset: 101 } }])
  })

  test('makes dead letters through the broker that is configured, and has them settled', async () => {
    await using broker = memoryBroker()
    await broker.createTopic({ topic: 'orders' })
    const gateway = await startGateway(broker)
    vi.stubEnv('UPSTASH_KAFKA_REST_URL', gateway.url)
    const handle = lambdaKafkaBatch(appOf(() => Promise.reject(new Error('no')), { retry: { maxAttempts: 1 } }))

    const answer = await handle(kafkaEvent({ 0: ['a'] }), context)
    const [end] = await broker.offsets([{ topic: 'orders.shop-dlt', partition: 0 }], 'latest')
    await gateway.close()

    expect(answer).toEqual({ batchItemFailures: [] })
    expect(end?.offset).toBe(1)
  })

  test.each(['partition', 'key', 'none'] as const)(
    'gets past a record that hangs in every invocation (%s)',
    async (ordering) => {
      await using broker = memoryBroker()
      await broker.createTopic({ topic: 'orders' })
      const gateway = await startGateway(broker)
      vi.stubEnv('UPSTASH_KAFKA_REST_URL', gateway.url)
      const app = appOf(() => new Promise(() => undefined), { ordering, attemptTimeoutMs: 800 })
      // No invocation has room for three attempts, and none knows of those of the one before.
      const short = { ...context, getRemainingTimeInMillis: () => 2_000 }

      const answer = await lambdaKafkaBatch(app)(kafkaEvent({ 0: ['a'] }), short)
      const [end] = await broker.offsets([{ topic: 'orders.shop-dlt', partition: 0 }], 'latest')
      await gateway.close()

      expect(answer).toEqual({ batchItemFailures: [] })
      expect(end?.offset).toBe(1)
    },
  )
})

describe('a Kafka batch for a route that takes batches', () => {
  test('is handed over partition by partition, and is all settled', async () => {
    const calls: string[][] = []
    const handle = lambdaKafkaBatch(batchAppOf(noting(calls), { breaker: null }))

    const answer = await handle(kafkaEvent({ 0: ['a', 'b', 'c'], 1: ['d', 'e'] }), context)

    expect(calls.map((values) => values.join(' ')).toSorted()).toEqual(['a b c', 'd e'])
    expect(answer).toEqual({ batchItemFailures: [] })
  })

  test.each([
    ['partition', 101],
    ['key', 101],
    ['none', 101],
  ] as const)('is split, and answered with the record that is to come again (%s)', async (ordering, offset) => {
    const calls: string[][] = []
    const handle = lambdaKafkaBatch(batchAppOf(noting(calls), { ordering, breaker: null }))

    const answer = await handle(kafkaEvent({ 0: ['a', 'no', 'b', 'c'], 1: ['d'] }), context)

    expect(answer).toEqual({ batchItemFailures: [{ itemIdentifier: { partition: 'orders-0', offset } }] })
    const alone = calls.filter((values) => values.length === 1).flat()
    expect(alone).toEqual(expect.arrayContaining(['a', 'no', 'd']))
    // What waits for the record by its order was not called without it.
    const others = calls.filter((values) => !values.includes('no')).flat()
    expect(others.includes('c')).toBe(ordering !== 'partition')
  })

  test('is answered with the lowest record of each partition that a BatchError names', async () => {
    const calls: string[][] = []
    const handle = lambdaKafkaBatch(batchAppOf(noting(calls), { ordering: 'none', breaker: null }))

    const answer = await handle(kafkaEvent({ 0: ['a', 'bad1', 'b', 'bad2'], 1: ['d'], 2: ['bad3', 'e'] }), context)

    expect(answer).toEqual({
      batchItemFailures: [
        { itemIdentifier: { partition: 'orders-0', offset: 101 } },
        { itemIdentifier: { partition: 'orders-2', offset: 100 } },
      ],
    })
    expect(calls).toHaveLength(3)
  })
})

function sqsEvent(bodies: readonly string[], receiveCount = 1, groups: readonly string[] = []): SQSEvent {
  return {
    Records: bodies.map((body, index) => {
      const attributes = {
        ApproximateReceiveCount: String(receiveCount),
        SentTimestamp: '9',
        SenderId: '',
        ApproximateFirstReceiveTimestamp: '9',
        ...(groups[index] === undefined ? {} : { MessageGroupId: groups[index] }),
      }
      const place = { eventSource: 'aws:sqs', eventSourceARN: '', awsRegion: '', md5OfBody: '', receiptHandle: '' }
      const messageAttributes = { kind: { stringValue: 'x', dataType: 'String' } }
      return { ...place, messageId: `m${index}`, body, attributes, messageAttributes }
    }),
  }
}

describe('an SQS batch', () => {
  test('is answered with the messages that are to come again, and with no others', async () => {
    const seen: string[] = []
    const handle = lambdaSqsBatch(
      appOf(
        ({ value, headers }) => {
          if (textOf(value) === 'bad') throw new StopError('down')
          if (textOf(value) === 'old') throw new SkipError('old')
          seen.push(`${textOf(value)} ${textOf(headers[0]?.value ?? null)}`)
        },
        { ordering: 'none' },
      ),
      { topic: 'orders' },
    )

    const answer = await handle(sqsEvent(['a', 'old', 'bad']), context)

    expect(seen).toEqual(['a x'])
    expect(answer).toEqual({ batchItemFailures: [{ itemIdentifier: 'm2' }] })
  })

  test('keeps the order of a message group: what is behind a failure comes again with it', async () => {
    const handle = lambdaSqsBatch(
      appOf(
        ({ value }) => {
          if (textOf(value) === 'bad') throw new Error('again')
        },
        { ordering: 'key', retry: { initialMs: 60_000, maxMs: 60_000 } },
      ),
      { topic: 'orders' },
    )

    const answer = await handle(sqsEvent(['a', 'bad', 'b', 'c'], 1, ['1', '2', '2', '1']), context)

    expect(answer.batchItemFailures).toEqual([{ itemIdentifier: 'm1' }, { itemIdentifier: 'm2' }])
  })

  test('names a message by its id: the same however often it comes, and another for another', async () => {
    const seen: [string, number, number][] = []
    const handle = lambdaSqsBatch(
      appOf(({ value, partition, offset }) => void seen.push([textOf(value), partition, offset]), { ordering: 'none' }),
      { topic: 'orders' },
    )
    const [a, b] = sqsEvent(['a', 'b']).Records

    await handle({ Records: [a, b].filter((one) => one !== undefined) }, context)
    await handle({ Records: [b, a].filter((one) => one !== undefined) }, context)

    const places = seen.map(([, partition, offset]) => `${partition}/${offset}`)
    expect(seen.map(([value]) => value)).toEqual(['a', 'b', 'b', 'a'])
    expect(places).toEqual([places[0], places[1], places[1], places[0]])
    expect(places[0]).not.toBe(places[1])
    expect(seen.every(([, , offset]) => Number.isSafeInteger(offset))).toBe(true)
  })

  test.each([{ ordering: 'none' }, {}] satisfies RouteOptions[])(
    'counts attempts on from how often a message was received (%j)',
    async (options) => {
      const attempts: number[] = []
      const handle = lambdaSqsBatch(
        appOf((_record, { attempt }) => void attempts.push(attempt), options),
        { topic: 'orders' },
      )

      await handle(sqsEvent(['a'], 3), context)

      expect(attempts).toEqual([3])
    },
  )
})

describe('an SQS batch for a route that takes batches', () => {
  test('is handed over together, and answered with the messages that a BatchError names', async () => {
    const calls: string[][] = []
    const handle = lambdaSqsBatch(batchAppOf(noting(calls), { ordering: 'none', breaker: null }), { topic: 'orders' })

    const answer = await handle(sqsEvent(['a', 'bad', 'b', 'bad too', 'c']), context)

    expect(calls).toEqual([['a', 'bad', 'b', 'bad too', 'c']])
    expect(answer).toEqual({ batchItemFailures: [{ itemIdentifier: 'm1' }, { itemIdentifier: 'm3' }] })
  })

  test('is split, and answered with the message that fails alone', async () => {
    const calls: string[][] = []
    const handle = lambdaSqsBatch(batchAppOf(noting(calls), { ordering: 'none', breaker: null }), { topic: 'orders' })

    const answer = await handle(sqsEvent(['a', 'b', 'no', 'c']), context)

    expect(calls).toEqual([['a', 'b', 'no', 'c'], ['a', 'b'], ['no', 'c'], ['no'], ['c']])
    expect(answer).toEqual({ batchItemFailures: [{ itemIdentifier: 'm2' }] })
  })

  test('keeps the order of a message group: what is behind a failure comes again with it', async () => {
    const calls: string[][] = []
    const handle = lambdaSqsBatch(batchAppOf(noting(calls), { ordering: 'key', breaker: null }), { topic: 'orders' })

    const answer = await handle(sqsEvent(['a', 'no', 'b', 'c'], 1, ['1', '2', '2', '1']), context)

    expect(answer.batchItemFailures).toEqual([{ itemIdentifier: 'm1' }, { itemIdentifier: 'm2' }])
    expect(calls).not.toContainEqual(['b'])
  })

  test('calls what was received before alone, so that it spoils no other', async () => {
    const calls: string[][] = []
    const handle = lambdaSqsBatch(batchAppOf(noting(calls), { ordering: 'none', breaker: null }), { topic: 'orders' })
    const [again] = sqsEvent(['no'], 2).Records
    const [first, second] = sqsEvent(['a', 'b']).Records
    const all = [first, again === undefined ? undefined : { ...again, messageId: 'again' }, second]

    const answer = await handle({ Records: all.filter((one) => one !== undefined) }, context)

    expect(calls.map((values) => values.join(' ')).toSorted()).toEqual(['a', 'b', 'no'])
    expect(answer).toEqual({ batchItemFailures: [{ itemIdentifier: 'again' }] })
  })
})
