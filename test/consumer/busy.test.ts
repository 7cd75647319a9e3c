/** Handlers that keep the event loop to themselves: no fake clock can show what they keep from happening. */
import { expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { Router } from '../../src/router.ts'

function compute(busyMs: number): void {
  const startedAt = performance.now()
  while (performance.now() - startedAt < busyMs);
}

/** One run over so many records, each of which takes the processor for so long. */
async function runBusy(
  route: (busy: () => void) => Router,
  { records, busyMs, runMs }: { readonly records: number; readonly busyMs: number; readonly runMs: number },
): Promise<RunReport> {
  await using broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  await broker.produce(Array.from({ length: records }, () => ({ topic: 'orders', key: null, value: bytesOf('x') })))
  const app = defineApp({ groupId: 'shop', router: route(() => compute(busyMs)) })
  const deadLetters = memoryDeadLetters()
  const consumer = createConsumer(app, { broker, deadLetters, groupInstanceId: 'i', claimTtlMs: 2_000 })
  return await consumer.run({ runId: 'run', budget: { runMs }, stopWhenEmpty: true })
}

const routes: Readonly<Record<string, (busy: () => void) => Router>> = {
  'return at once': (busy) => createRouter().on({ topic: 'orders' }, busy),
  'are async': (busy) =>
    createRouter().on({ topic: 'orders' }, async () => {
      busy()
    }),
  'take batches': (busy) => createRouter().onBatch({ topic: 'orders' }, busy, { maxBatchRecords: 1 }),
}

test.each(Object.entries(routes))('many short ones that %s let the run keep its claim', async (_how, route) => {
  const report = await runBusy(route, { records: 75, busyMs: 30, runMs: 20_000 })

  expect(report).toMatchObject({ ended: 'drained', handled: 75, committed: [{ offset: 75 }] })
})

test.each(Object.entries(routes))('a long one that %s is committed, though the run is over', async (_how, route) => {
  const report = await runBusy(route, { records: 1, busyMs: 400, runMs: 300 })

  expect(report).toMatchObject({ handled: 1, committed: [{ offset: 1 }], uncommitted: [] })
})
