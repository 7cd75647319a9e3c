/** functions/worker.ts in real workerd with a chain of stores that are bindings, as KEDGE_DEAD_LETTERS names them. */
import { expect, test, vi } from 'vitest'

import { memoryBroker } from '../../src/brokers/memory.ts'
import { decodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { bytesOf } from '../../src/record.ts'
import { startGateway } from '../support/gateway.ts'
import { startLettersWorker } from '../support/letters-worker.ts'
import { until } from '../support/until.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 90_000 })

test('each letter goes to the first store that is large enough for it, and every offset is committed', async () => {
  await using broker = memoryBroker()
  await broker.createTopic({ topic: 'orders', maxRecordBytes: 4_000_000 })
  await using gateway = await startGateway(broker)
  await using worker = await startLettersWorker({
    UPSTASH_KAFKA_REST_URL: gateway.url,
    KEDGE_RUN_MS: '3000',
    KEDGE_DEAD_LETTERS: 'queue:QUEUE, d1:DB r2:BUCKET/failed',
  })
  for (const bytes of [10, 300_000, 1_900_000]) {
    await broker.produce([{ topic: 'orders', key: null, value: bytesOf('x'.repeat(bytes)) }])
  }

  expect(await worker.tick()).toBe(true)

  await until(async () => ((await worker.ask('/received')) as string[]).length === 1, { what: 'the queue' })
  const [inQueue = ''] = (await worker.ask('/received')) as string[]
  expect(decodeDeadLetter(inQueue)).toMatchObject({ id: 'shop/orders/0/0', reason: 'invalid' })
  expect(await worker.ask('/sql', 'SELECT id, reason FROM kedge_dead_letters')).toEqual([
    { id: 'shop/orders/0/1', reason: 'invalid' },
  ])
  expect(await worker.ask('/objects', 'failed/')).toEqual(['failed/shop/orders/0/0000000000000002.json'])
  expect(await broker.committed('shop', [{ topic: 'orders', partition: 0 }])).toMatchObject([{ offset: 3 }])
})

test('a binding that the Worker does not have fails the tick and says what to do', async () => {
  await using broker = memoryBroker()
  await using gateway = await startGateway(broker)
  await using worker = await startLettersWorker({
    UPSTASH_KAFKA_REST_URL: gateway.url,
    KEDGE_DEAD_LETTERS: 'topic: d1:MISSING',
  })

  expect(await worker.tick()).toBe(false)

  await until(() => worker.lines.some((line) => line.includes('d1:MISSING')), { what: 'the failure to be printed' })
  expect(worker.lines.find((line) => line.includes('d1:MISSING'))).toContain('Add it to wrangler.toml')
})
