/** Letters that a queue hands over: as Lambda's mapping does it from a real queue, and by a real Cloudflare Queue. */
import { DeleteMessageCommand, ReceiveMessageCommand } from '@aws-sdk/client-sqs'
import type { Context, SQSBatchResponse, SQSEvent } from 'aws-lambda'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { type App, defineApp } from '../../src/app.ts'
import { type Broker, DEFAULT_CLAIM_TTL_MS } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { claimCheck } from '../../src/dead-letters/claim-check.ts'
import { encodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { sqsDeadLetters } from '../../src/dead-letters/sqs.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { redriveHanded } from '../../src/runtimes/handed-letters.ts'
import { lambdaRedrive } from '../../src/runtimes/lambda-redrive.ts'
import { letterAt } from '../conformance/dead-letter-store/letters.ts'
import { startGateway } from '../support/gateway.ts'
import { type SqsServer, startSqs, testCredentials } from '../support/sqs.ts'
import { until } from '../support/until.ts'
import { startModule } from '../support/workerd.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000 })

/** A group whose handler fails until it is mended, and what it handled. */
class Shop implements AsyncDisposable {
  readonly broker: Broker = memoryBroker()
  readonly handled: string[] = []
  readonly lines: LogEvent[] = []
  isMended = false
  readonly app: App = defineApp({
    groupId: 'shop',
    redrive: true,
    retry: { maxAttempts: 1 },
    breaker: null,
    router: createRouter().on({ topic: 'orders' }, ({ value }) => {
      if (!this.isMended) throw new Error('no')
      this.handled.push(textOf(value ?? new Uint8Array()))
    }),
  })

  #runs = 0

  /** Fails a record for each value, into the store. */
  async fail(deadLetters: DeadLetterStore, values: readonly string[]): Promise<void> {
    await this.broker.createTopic({ topic: 'orders' })
    await this.broker.produce(values.map((value) => ({ topic: 'orders', key: null, value: bytesOf(value) })))
    await this.drain(deadLetters)
    this.isMended = true
  }

  async drain(deadLetters: DeadLetterStore = memoryDeadLetters()): Promise<void> {
    const runId = `run-${(this.#runs += 1)}`
    const consumer = createConsumer(this.app, { broker: this.broker, deadLetters, groupInstanceId: 'i' })
    await consumer.run({ runId, stopWhenEmpty: true })
  }

  redrive(bodies: readonly string[], timeMs = 30_000): Promise<readonly boolean[]> {
    const log = (event: LogEvent): number => this.lines.push(event)
    return redriveHanded(this.app, { broker: this.broker, bodies, actor: 'ann', timeMs, log })
  }

  get left(): unknown[] {
    return this.lines.filter(({ event }) => event === 'dead letter left in its queue').map(({ cause }) => cause)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.broker.close()
  }
}

/** The letters of three records that failed. */
async function threeLetters(shop: Shop): Promise<DeadLetter[]> {
  const store = memoryDeadLetters()
  await shop.fail(store, ['a', 'b', 'c'])
  return [...(await store.list()).items]
}

describe('letters that are handed over', () => {
  test('are back with their group when they are said to be done', async () => {
    await using shop = new Shop()
    const letters = await threeLetters(shop)

    expect(await shop.redrive(letters.map(encodeDeadLetter))).toEqual([true, true, true])

    await shop.drain()
    expect(shop.handled).toEqual(['a', 'b', 'c'])
  })

  test('stay where they cannot go back, each with a line that says why', async () => {
    await using shop = new Shop()
    const [a, b, c] = (await threeLetters(shop)) as [DeadLetter, DeadLetter, DeadLetter]
    const queue = memoryDeadLetters()
    await claimCheck(queue, { objects: memoryDeadLetters(), overBytes: 0 }).put(c)
    const bodies = [
      encodeDeadLetter(a),
      'no letter',
      encodeDeadLetter({ ...letterAt(0), groupId: 'other' }),
      ...(await queue.list()).items.map(encodeDeadLetter),
      encodeDeadLetter({ ...b, redriveCount: 3 }),
    ]

    expect(await shop.redrive(bodies)).toEqual([true, false, false, false, false])

    expect(shop.left).toEqual([
      expect.stringContaining('not one that Kedge wrote'),
      'It is one of group other.',
      'It is a reference to a letter in another store.',
    ])
    expect(shop.lines).toContainEqual(expect.objectContaining({ event: 'redrive ended', quarantined: 1 }))
    await shop.drain()
    expect(shop.handled).toEqual(['a'])
  })

  test('of two records that were at one place go back one after the other', async () => {
    await using shop = new Shop()
    const [a] = (await threeLetters(shop)) as [DeadLetter]
    const record = { ...a.record, timestampMs: a.record.timestampMs + 1, value: bytesOf('another') }
    const another = encodeDeadLetter({ ...a, record, failedAtMs: a.failedAtMs + 1 })

    expect(await shop.redrive([encodeDeadLetter(a), another])).toEqual([true, false])
    expect(await shop.redrive([another])).toEqual([true])

    await shop.drain()
    expect(shop.handled).toEqual(['a', 'another'])
  })

  test('that come twice go back once', async () => {
    await using shop = new Shop()
    const bodies = (await threeLetters(shop)).map(encodeDeadLetter)

    expect(await shop.redrive([...bodies, ...bodies])).toEqual(Array.from({ length: 6 }, () => true))
    expect(await shop.redrive(bodies)).toEqual([true, true, true])

    await shop.drain()
    expect(shop.handled).toEqual(['a', 'b', 'c'])
  })

  test('wait for another redrive of the group, and stay where it does not end in time', async () => {
    await using shop = new Shop()
    const bodies = (await threeLetters(shop)).map(encodeDeadLetter)
    const held = vi.spyOn(shop.broker, 'claim')
    await shop.redrive(bodies.slice(0, 1))
    const instance = held.mock.calls[0]?.[0]
    if (instance === undefined) throw new Error('a redrive takes no lock')
    await shop.broker.claim(instance, { runId: 'another', claimTtlMs: DEFAULT_CLAIM_TTL_MS })

    await expect(shop.redrive(bodies, 100)).rejects.toMatchObject({ code: 'CLAIM_HELD' })

    const waiting = shop.redrive(bodies)
    await until(() => held.mock.calls.length > 4, { what: 'tries' })
    await shop.broker.release(instance, 'another')
    expect(await waiting).toEqual([true, true, true])
  })
})

describe('a queue of SQS', () => {
  let sqs: SqsServer
  beforeEach(async () => {
    sqs = await startSqs()
    vi.spyOn(console, 'log').mockImplementation(() => undefined)
    return async () => {
      vi.restoreAllMocks()
      vi.unstubAllEnvs()
      await sqs.close()
    }
  })

  /** A batch as a mapping makes it, and what the mapping does with the answer. */
  async function mapped(queueUrl: string, handle: (event: SQSEvent) => Promise<unknown>): Promise<number> {
    const { Messages = [] } = await sqs.client.send(
      new ReceiveMessageCommand({ QueueUrl: queueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 0 }),
    )
    const event = {
      Records: Messages.map(({ MessageId = '', Body = '' }) => ({
        messageId: MessageId,
        body: Body,
        eventSource: 'aws:sqs',
      })),
    }
    // Of an event it has what is read of it.
    const { batchItemFailures } = (await handle(event as SQSEvent)) as SQSBatchResponse
    const failed = new Set(batchItemFailures.map(({ itemIdentifier }) => itemIdentifier))
    for (const { MessageId = '', ReceiptHandle } of Messages) {
      if (!failed.has(MessageId)) await sqs.client.send(new DeleteMessageCommand({ QueueUrl: queueUrl, ReceiptHandle }))
    }
    return failed.size
  }

  test('gives the letters of the group back, and keeps the others', async () => {
    await using shop = new Shop()
    const queueUrl = await sqs.createQueue('letters')
    await using store = sqsDeadLetters({ queueUrl, region: 'us-east-1', credentials: testCredentials })
    await shop.fail(store, ['a', 'b'])
    await store.put({ ...letterAt(7), groupId: 'other' })
    await using gateway = await startGateway(shop.broker)
    vi.stubEnv('UPSTASH_KAFKA_REST_URL', gateway.url)
    const redrive = lambdaRedrive(shop.app)
    const context = { awsRequestId: 'id', getRemainingTimeInMillis: () => 30_000 } as Context

    expect(await mapped(queueUrl, (event) => redrive(event, context))).toBe(1)

    await shop.drain()
    expect(shop.handled).toEqual(['a', 'b'])
    const left = (await sqs.receiveAll(queueUrl)).map((body) => JSON.parse(body) as DeadLetter)
    expect(left.map(({ groupId }) => groupId)).toEqual(['other'])
  })
})

test('a Cloudflare Queue gives its letters back, and keeps what is none', async () => {
  await using shop = new Shop()
  const bodies = (await threeLetters(shop)).map(encodeDeadLetter)
  await using gateway = await startGateway(shop.broker)
  const miniflare = await startModule(
    `
    import { defineApp } from './src/app.ts'
    import { createRouter } from './src/router.ts'
    import { worker } from './src/runtimes/cloudflare.ts'
    const app = defineApp({ groupId: 'shop', redrive: true, router: createRouter().on({ topic: 'orders' }, () => {}) })
    const handlers = worker(app, { letterQueues: ['letters'] })
    const kept = []
    export default {
      ...handlers,
      async fetch(request, env) {
        for (const body of await request.json()) await env.QUEUE.send(body, { contentType: 'text' })
        return Response.json(kept)
      },
      async queue(batch, env) {
        const messages = batch.messages.map((message) => ({
          id: message.id, timestamp: message.timestamp, body: message.body, attempts: message.attempts,
          ack: () => message.ack(),
          retry: () => { kept.push(message.body); message.retry() },
        }))
        await handlers.queue({ queue: batch.queue, messages }, env)
      },
    }
  `,
    {
      bindings: { UPSTASH_KAFKA_REST_URL: gateway.url },
      queueProducers: { QUEUE: 'letters' },
      queueConsumers: { letters: { maxBatchTimeout: 0.2, maxBatchSize: 10, retryDelay: 0 } },
    },
  )
  try {
    const send = async (messages: readonly string[]): Promise<unknown> =>
      await (await miniflare.dispatchFetch('http://worker/', { method: 'POST', body: JSON.stringify(messages) })).json()
    await send([...bodies, 'no letter'])
    await until(async () => ((await send([])) as unknown[]).length > 0, { what: 'what is kept', timeoutMs: 30_000 })

    await shop.drain()

    expect(shop.handled.toSorted()).toEqual(['a', 'b', 'c'])
    expect(new Set((await send([])) as string[])).toEqual(new Set(['no letter']))
  } finally {
    await miniflare.dispose()
  }
})
