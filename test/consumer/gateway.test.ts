/** Runs over HTTP: a gateway that goes away in the middle costs time, and no record. */
import { describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { gatewayApp } from '../../src/gateway/app.ts'
import { reject } from '../../src/handler-errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { Handler } from '../../src/router.ts'
import { serveGateway } from '../../src/runtimes/node-gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { until } from '../support/until.ts'

failOnLeaks()

async function brokerWith(count: number): Promise<Broker> {
  const broker = memoryBroker()
  await broker.createTopic({ topic: 't', partitions: 2 })
  const records = Array.from({ length: count }, (_, n) => ({
    topic: 't',
    partition: n % 2,
    key: null,
    value: bytesOf(`v${n}`),
  }))
  await broker.produce(records)
  return broker
}

function consumerOf(url: string, handler: Handler): ReturnType<typeof createConsumer> {
  return createConsumer(defineApp({ groupId: 'g', router: createRouter().on({ topic: 't' }, handler) }), {
    broker: restBroker({ url }),
    deadLetters: memoryDeadLetters(),
    groupInstanceId: 'i',
    maxPollRecords: 10,
  })
}

test('a run over HTTP handles, commits and gives its claim back', async () => {
  await using broker = await brokerWith(100)
  const gateway = await serveGateway({ broker, host: '127.0.0.1', port: 0 })
  const seen: string[] = []

  const consumer = consumerOf(gateway.url, (record) => void seen.push(textOf(record.value)))
  const report = await consumer.run({ runId: 'a', stopWhenEmpty: true })
  const again = await consumer.run({ runId: 'b', stopWhenEmpty: true })
  await gateway.close()

  expect(report).toMatchObject({ ended: 'drained', handled: 100, unfinished: 0, uncommitted: [] })
  expect(again).toMatchObject({ ended: 'drained', polled: 0 })
  expect(new Set(seen).size).toBe(100)
})

test('a run whose gateway goes away and comes back goes on, and loses nothing', async () => {
  await using broker = await brokerWith(100)
  const first = await serveGateway({ broker, host: '127.0.0.1', port: 0 })
  const port = Number(new URL(first.url).port)
  const seen: string[] = []
  let isAway = false
  const consumer = consumerOf(first.url, async (record) => {
    if (seen.length === 30) {
      isAway = true
      await until(() => !isAway)
    }
    seen.push(textOf(record.value))
  })

  const running = consumer.run({ runId: 'a', stopWhenEmpty: true, budget: { runMs: 30_000 } })
  await until(() => isAway)
  await first.close()
  const second = await serveGateway({ broker, host: '127.0.0.1', port })
  isAway = false
  const report = await running
  await second.close()

  expect(report).toMatchObject({ ended: 'drained', uncommitted: [], committed: [{ offset: 50 }, { offset: 50 }] })
  expect(new Set(seen).size).toBe(100)
})

test('a run whose gateway stays away says so, and the next run has what it could not commit', async () => {
  await using broker = await brokerWith(20)
  const first = await serveGateway({ broker, host: '127.0.0.1', port: 0 })
  const seen: string[] = []
  const gone: Promise<void>[] = []
  const consumer = consumerOf(first.url, (record) => {
    if (seen.length === 5) gone.push(first.close())
    seen.push(textOf(record.value))
    return gone[0]
  })

  const lost = await consumer.run({ runId: 'a', budget: { runMs: 1_500 } })
  await broker.release({ groupId: 'g', groupInstanceId: 'i' }, 'a')
  const second = await serveGateway({ broker, host: '127.0.0.1', port: 0 })
  const found = await consumerOf(second.url, (record) => void seen.push(textOf(record.value))).run({
    runId: 'b',
    stopWhenEmpty: true,
  })
  await second.close()

  expect(lost).toMatchObject({ ended: 'deadline', cause: { code: 'NETWORK' } })
  expect(lost.uncommitted.length).toBeGreaterThan(0)
  expect(found).toMatchObject({ ended: 'drained', uncommitted: [] })
  expect(new Set(seen).size).toBe(20)
})

describe('a run with a budget of calls', () => {
  /** Runs until a record that is refused is a dead letter in a topic that was not there. Gives the requests of each run. */
  async function requestsOfRuns(maxCalls: number, mostRuns: number): Promise<{ made: number; said: number }[]> {
    await using behind = await brokerWith(4)
    const gateway = gatewayApp(behind)
    let requests = 0
    const fetch = async (url: string, init: RequestInit): Promise<Response> => {
      requests += 1
      return await gateway.request(url, init)
    }
    const broker = restBroker({ url: 'http://gateway.test', fetch })
    const router = createRouter().on({ topic: 't' }, ({ partition }) => (partition === 1 ? reject('no') : undefined))
    const runs: { made: number; said: number }[] = []
    for (let run = 0; run < mostRuns; run++) {
      requests = 0
      const consumer = createConsumer(defineApp({ groupId: 'g', router }), {
        broker,
        deadLetters: topicDeadLetters({ broker }),
        groupInstanceId: 'i',
      })
      const { calls } = await consumer.run({ runId: `run-${run}`, stopWhenEmpty: true, budget: { maxCalls } })
      runs.push({ made: requests, said: calls })
    }
    expect((await topicDeadLetters({ broker: behind }).list()).items).toHaveLength(maxCalls > 10 ? 2 : 0)
    return runs
  }

  test('counts every request of a letter whose topic is made first', async () => {
    for (const { made, said } of await requestsOfRuns(30, 2)) expect(made).toBe(said)
  })

  test('makes none beyond it', async () => {
    for (const { made } of await requestsOfRuns(7, 2)) expect(made).toBeLessThanOrEqual(7)
  })
})
