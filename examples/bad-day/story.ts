/**
 * A bad day, from the first failure to the last order: `node examples/bad-day/story.ts`. The gateway, the embedded log, the
 * dead-letter store and the payment service are real; the ticks of a schedule are made one after the other.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { logBroker } from '../../src/brokers/log.ts'
import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { createConsumer, createProducer, createRedrive, restBroker, type RunReport } from '../../src/index.ts'
import { serveGateway } from '../../src/runtimes/node-gateway.ts'
import { badDayApp, orders } from './app.ts'
import { startPayments } from './payments.ts'

const ORDERS = 200

const dir = await mkdtemp(join(tmpdir(), 'kedge-bad-day-'))
try {
  await tell()
} finally {
  await rm(dir, { recursive: true })
}

async function tell(): Promise<void> {
  await using payments = await startPayments()
  await using log = logBroker({ dir: join(dir, 'log') })
  await log.createTopic({ topic: orders.name, partitions: 1 })
  await using gateway = await serveGateway({ broker: log })
  await using broker = restBroker({ url: gateway.url })
  await using store = sqliteDeadLetters({ path: join(dir, 'letters.db') })
  const app = badDayApp(payments.url)
  const consumer = createConsumer(app, { broker, deadLetters: store, groupInstanceId: 'one' })
  const redrive = createRedrive({ broker, store, groupId: app.groupId, app })
  const tick = async (runId: string): Promise<void> =>
    say(runId, await consumer.run({ runId, stopWhenEmpty: true, budget: { maxRecords: 1_000 } }))

  const producer = createProducer(broker)
  for (let n = 0; n < ORDERS; n++) await producer.produce(orders, { id: `order-${n}`, total: n }, { key: `${n}` })
  print(`${ORDERS} orders are produced. The payment service will go down after 50 of them.`)
  payments.downAfter = 50
  await tick('tick-1')
  await tick('tick-2')
  await tick('tick-3')

  print('The payment service is mended.')
  payments.downAfter = Number.POSITIVE_INFINITY
  await tick('tick-4')

  const plan = await redrive.plan()
  print(`A redrive would hand back ${plan.redrivable} of ${plan.letters} letters:`)
  for (const { value, letters, example } of plan.byReason.buckets) print(`  ${letters} ${value ?? ''}: ${example}`)
  const { ended, redriven } = await redrive.run({ actor: 'ann', perSecond: 1_000 })
  print(`The redrive ended with ${ended} and handed back ${redriven}.`)
  await tick('tick-5')

  const times = [...payments.paid.values()]
  const once = times.filter((count) => count === 1).length
  print(
    `Orders paid: ${times.length} of ${ORDERS}, exactly once: ${once}. Letters left: ${(await redrive.plan()).letters}.`,
  )
}

function say(runId: string, { ended, handled, deadLettered, breakers }: RunReport): void {
  const letters = Object.values(deadLettered).reduce((sum, count) => sum + count, 0)
  const opened = breakers.map(({ route }) => `, the breaker of ${route} opened`).join('')
  print(`${runId}: ${handled} handled, ${letters} dead-lettered${opened}; ended: ${ended}.`)
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
