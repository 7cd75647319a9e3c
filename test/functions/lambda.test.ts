/**
 * functions/produce.ts and functions/consume.ts as they are shipped: bundled, in processes of their own that poll Lambda's
 * Runtime API, with a gateway and an SQS server behind them over HTTP. `npm run test:lambda` runs this file with AWS's own
 * runtime client instead of ours.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { buildLambda } from '../../scripts/build-lambda.ts'
import { httpApiEvent } from '../../scripts/lambda/http-api-event.ts'
import { type LocalLambda, openLocalLambda } from '../../scripts/lambda/local-lambda.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { decodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import { startGateway } from '../support/gateway.ts'
import { type SqsServer, startSqs } from '../support/sqs.ts'

// A busy machine may need long for a cold start.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const client = process.env['KEDGE_TEST_LAMBDA_CLIENT']
const taskRoot = mkdtempSync(join(tmpdir(), 'kedge-lambda-test-'))
const orders = { topic: 'orders', partition: 0 }
const tick = { source: 'aws.events', 'detail-type': 'Scheduled Event', detail: {} }

let broker: Broker
let gateway: GatewayServer
let sqs: SqsServer
let queueUrl: string
let lines: string[] = []

beforeAll(async () => {
  await buildLambda({ outdir: taskRoot })
  sqs = await startSqs()
  queueUrl = await sqs.createQueue('dead-letters')
})
beforeEach(async () => {
  lines = []
  broker = memoryBroker()
  await broker.createTopic({ topic: 'orders' })
  gateway = await startGateway(broker)
  return async () => {
    await gateway.close()
    await broker.close()
  }
})
afterAll(async () => {
  await sqs.close()
  rmSync(taskRoot, { recursive: true })
})

function open(handler: string, env: Record<string, string> = {}, timeoutMs = 3000): Promise<LocalLambda> {
  return openLocalLambda({
    taskRoot,
    handler,
    timeoutMs,
    ...(client === undefined ? {} : { client }),
    onLine: (line) => lines.push(line),
    env: {
      UPSTASH_KAFKA_REST_URL: gateway.url,
      KEDGE_DEAD_LETTERS: `sqs+${queueUrl}`,
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      ...env,
    },
  })
}

async function answerOf<Answer>(lambda: LocalLambda, event: unknown): Promise<Answer> {
  const result = await lambda.invoke(event)
  if (result.kind !== 'response') throw new Error(`${JSON.stringify(result)}\n${lines.join('\n')}`)
  return JSON.parse(result.body) as Answer
}

async function write(...values: string[]): Promise<void> {
  await broker.produce(values.map((value) => ({ topic: 'orders', key: null, value: bytesOf(value) })))
}

async function committed(): Promise<number | undefined> {
  return (await broker.committed('shop', [orders]))[0]?.offset
}

interface HttpResult {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

describe('produce', () => {
  const credentials = { KEDGE_PRODUCE_USERNAME: 'shop', KEDGE_PRODUCE_PASSWORD: 'p' }
  const headers = { authorization: `Basic ${btoa('shop:p')}`, 'content-type': 'application/json' }

  test('takes HTTP API events: text, base64, a body with GET, a path', async () => {
    await using produce = await open('produce/index.handler', credentials)
    const body = '{"value":{"id":"ä","total":1}}'
    const encoded = {
      ...httpApiEvent('POST', '/produce/orders', headers, Buffer.from(body).toString('base64')),
      isBase64Encoded: true,
    }

    const answers = [
      await answerOf<HttpResult>(produce, httpApiEvent('POST', '/produce/orders', headers, body)),
      await answerOf<HttpResult>(produce, encoded),
      await answerOf<HttpResult>(produce, httpApiEvent('GET', '/produce/orders', headers, body)),
      await answerOf<HttpResult>(
        produce,
        httpApiEvent('POST', '/webhook?topic=orders&user=shop&pass=p', {}, '{"id":"w","total":1}'),
      ),
    ]

    expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200, 200, 200])
    const records = await broker.fetch([{ ...orders, offset: 0 }], { maxWaitMs: 0, maxRecords: 9, maxBytes: 9999 })
    expect(records.map(({ value }) => (JSON.parse(textOf(value)) as { id: string }).id)).toEqual(['ä', 'ä', 'ä', 'w'])
  })

  test('answers problems: bad input, no credentials, no gateway', async () => {
    await using produce = await open('produce/index.handler', credentials)
    const good = '{"value":{"id":"a","total":1}}'

    const bad = await answerOf<HttpResult>(produce, httpApiEvent('POST', '/produce/orders', headers, '{"value":{}}'))
    const unknown = await answerOf<HttpResult>(produce, httpApiEvent('POST', '/produce/orders', {}, good))
    await gateway.close()
    const down = await answerOf<HttpResult>(produce, httpApiEvent('POST', '/produce/orders', headers, good))

    expect([bad.statusCode, unknown.statusCode, down.statusCode]).toEqual([400, 401, 503])
    expect((JSON.parse(bad.body) as { errors: unknown[] }).errors).toHaveLength(2)
    expect(bad.headers['content-type']).toBe('application/problem+json')
    expect(down.headers['retry-after']).toBe('1')
  })
})

describe('consume', () => {
  test('handles, sends dead letters to SQS, commits, reports, and ends before the deadline', async () => {
    await write('{"id":"a","total":1}', 'no order', '{"id":"b","total":2}')
    await using consume = await open('consume/index.handler')

    const report = await answerOf<RunReport>(consume, tick)

    expect(report).toMatchObject({
      ended: 'deadline',
      polled: 3,
      handled: 2,
      deadLettered: { invalid: 1 },
      unfinished: 0,
    })
    expect(report.durationMs).toBeLessThan(3000)
    expect(lines.filter((line) => line.includes('handled orders partition 0 offset '))).toHaveLength(2)
    expect(await committed()).toBe(3)
    const [letter] = (await sqs.receiveAll(queueUrl)).map((body) => decodeDeadLetter(body))
    expect(letter).toMatchObject({ reason: 'invalid', groupId: 'shop', record: { topic: 'orders', offset: 1 } })
    expect(textOf(letter?.record.value ?? null)).toBe('no order')
  })

  test('whose queue goes away stops before the record and fails; when it is back the next run goes on', async () => {
    const first = await startSqs()
    const letters = await first.createQueue('letters')
    await using consume = await open('consume/index.handler', { KEDGE_DEAD_LETTERS: `sqs+${letters}` })
    await write('no order')
    await answerOf<RunReport>(consume, tick)
    const before = await first.receiveAll(letters)
    await first.close()
    await write('{"id":"a","total":1}', 'no order either', '{"id":"b","total":2}')

    const failed = await consume.invoke(tick)
    const committedThen = await committed()
    await using second = await startSqs(Number(new URL(letters).port))
    await second.createQueue('letters')
    const report = await answerOf<RunReport>(consume, tick)

    expect(failed).toMatchObject({ kind: 'error', errorType: 'RunFailedError' })
    expect(lines.join('\n')).toContain('could not go on at orders[0] offset 2')
    expect(committedThen).toBe(2)
    expect(report).toMatchObject({ handled: 1, deadLettered: { invalid: 1 }, stopped: [] })
    expect(await committed()).toBe(4)
    const all = [...before, ...(await second.receiveAll(letters))].map((body) => decodeDeadLetter(body))
    expect(all.map(({ record }) => [record.offset, textOf(record.value)])).toEqual([
      [0, 'no order'],
      [2, 'no order either'],
    ])
  })

  test('without its gateway the invocation fails in time; with it back the next one goes on', async () => {
    await using consume = await open('consume/index.handler')
    const port = Number(new URL(gateway.url).port)
    await gateway.close()

    const failed = await consume.invoke(tick)
    gateway = await startGateway(broker, { port })
    await write('{"id":"a","total":1}')
    const report = await answerOf<RunReport>(consume, tick)

    expect(failed).toMatchObject({ kind: 'error', errorType: 'RunFailedError' })
    expect(report.handled).toBe(1)
  })

  test('wrong settings fail the cold start, all of them named', async () => {
    await using consume = await open('consume/index.handler', { KEDGE_RUN_MS: 'long', KEDGE_OOPS: '1' })

    const result = await consume.invoke(tick)

    expect(result.kind).toBe('error')
    expect(JSON.stringify(result)).toContain('KEDGE_RUN_MS')
    expect(JSON.stringify(result)).toContain('KEDGE_OOPS')
  })

  test('a dead-letter store that Lambda does not know is refused by its scheme', async () => {
    await using consume = await open('consume/index.handler', { KEDGE_DEAD_LETTERS: 'redis://127.0.0.1' })

    const result = await consume.invoke(tick)

    expect(JSON.stringify(result)).toContain('has the scheme redis')
  })
})
