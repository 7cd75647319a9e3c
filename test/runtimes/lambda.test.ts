import type { Context } from 'aws-lambda'
import { expect, test, vi } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { lambdaConsume } from '../../src/runtimes/lambda.ts'
import { startGateway } from '../support/gateway.ts'
import { until } from '../support/until.ts'

test('one tick delivered twice at once makes one run, for the second finds the claim held', async () => {
  await using broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  await broker.produce([{ topic: 'orders', key: null, value: bytesOf('a') }])
  const gateway = await startGateway(broker)
  vi.stubEnv('UPSTASH_KAFKA_REST_URL', gateway.url)
  vi.stubEnv('KEDGE_RUN_MS', '3000')
  const offsets: number[] = []
  const router = createRouter().on({ topic: 'orders' }, ({ offset }) => void offsets.push(offset))
  const consume = lambdaConsume(defineApp({ groupId: 'shop', router }))
  const context = { awsRequestId: 'one-id', getRemainingTimeInMillis: () => 5000 } as Context

  const first = consume({}, context)
  await until(() => offsets.length > 0)
  const second = await consume({}, context)
  const report = await first
  await gateway.close()

  expect(second).toMatchObject({ ended: 'claim-held', polled: 0 })
  expect(report).toMatchObject({ ended: 'deadline', handled: 1, runId: expect.stringContaining('one-id') as string })
  expect(offsets).toEqual([0])
})
