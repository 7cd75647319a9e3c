import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Context } from 'aws-lambda'
import { afterAll, beforeEach, expect, test, vi } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { lambdaRedrive } from '../../src/runtimes/lambda-redrive.ts'
import type { RedriveHandler } from '../../src/runtimes/lambda-redrive.ts'
import { startGateway } from '../support/gateway.ts'

const dir = mkdtempSync(join(tmpdir(), 'kedge-lambda-redrive-'))
afterAll(() => rmSync(dir, { recursive: true }))

const context = { awsRequestId: 'one-id', getRemainingTimeInMillis: () => 60_000 } as Context
const tick = { source: 'aws.events', 'detail-type': 'Scheduled Event', detail: {} }

let redrive: RedriveHandler
let left: () => Promise<number>
let files = 0

/** A group with three dead letters in a file, behind a gateway. */
beforeEach(async () => {
  const path = join(dir, `letters-${(files += 1)}.db`)
  const broker = memoryBroker()
  const deadLetters = sqliteDeadLetters({ path })
  await broker.createTopic({ topic: 'orders' })
  await broker.produce(['a', 'b', 'c'].map((key) => ({ topic: 'orders', key: bytesOf(key), value: null })))
  const router = createRouter().on({ topic: 'orders' }, () => Promise.reject(new Error('no')))
  const app = defineApp({ groupId: 'shop', router, redrive: true, retry: { maxAttempts: 1 } })
  await createConsumer(app, { broker, deadLetters, groupInstanceId: 'i' }).run({ runId: 'run', stopWhenEmpty: true })
  const gateway = await startGateway(broker)
  vi.stubEnv('UPSTASH_KAFKA_REST_URL', gateway.url)
  vi.stubEnv('KEDGE_DEAD_LETTERS', `sqlite:${path}`)
  vi.spyOn(console, 'log').mockImplementation(() => undefined)
  vi.spyOn(console, 'error').mockImplementation(() => undefined)
  redrive = lambdaRedrive(app)
  left = async () => (await deadLetters.list()).items.length
  return async () => {
    vi.restoreAllMocks()
    vi.unstubAllEnvs()
    await gateway.close()
    await deadLetters.close()
    await broker.close()
  }
})

test('a tick of a schedule hands everything back', async () => {
  expect(await redrive(tick, context)).toMatchObject({ ended: 'done', redriven: 3 })
  expect(await left()).toBe(0)
})

test('an invocation says which letters, and may only ask', async () => {
  const filter = { key: 'b' }

  expect(await redrive({ filter, dryRun: true }, context)).toMatchObject({ letters: 1, redrivable: 1 })
  expect(await left()).toBe(3)
  expect(await redrive({ filter, maxLetters: 5, actor: 'ann' }, context)).toMatchObject({ redriven: 1 })
  expect(await left()).toBe(2)
})

test('time that is nearly over ends it, and the next tick goes on', async () => {
  const short = { ...context, getRemainingTimeInMillis: () => 5_150 }

  expect(await redrive({ perSecond: 4 }, short)).toMatchObject({ ended: 'aborted', redriven: 1 })
  expect(await redrive(tick, context)).toMatchObject({ ended: 'done', redriven: 2 })
})

test.each([
  ['of an HTTP API', { requestContext: {}, body: '{}' }, 'IAM'],
  ['with a field that it does not know', { filters: {} }, 'filters'],
  ['with a filter that it does not know', { filter: { reason: 'bored' } }, 'reason'],
])('an event %s is refused', async (_name, event, text) => {
  await expect(redrive(event, context)).rejects.toThrow(text)
  expect(await left()).toBe(3)
})
