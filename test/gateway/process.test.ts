/** `npm run gateway` as people and their supervisors see it: a real process, its environment, signals, output and exit status. */
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { deadLetterDrivers } from '../../src/runtimes/dead-letter-drivers.ts'
import { openDeadLetters } from '../../src/runtimes/open-dead-letters.ts'
import { letter } from '../conformance/dead-letter-store/letters.ts'
import { call } from '../support/http.ts'

let folder: string
let children: ChildProcess[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kedge-gateway-'))
  children = []
})
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true })
})

interface Running {
  readonly child: ChildProcess
  /** Resolves with the base URL as soon as the process has printed it. */
  readonly url: Promise<string>
  readonly ended: Promise<{ status: number | null; output: string; errors: string }>
}

function run(env: Record<string, string>, args: readonly string[] = []): Running {
  const child = spawn(process.execPath, ['functions/gateway.ts', ...args], {
    env: { PATH: process.env['PATH'], KEDGE_GATEWAY_PORT: '0', KEDGE_DATA: join(folder, 'data'), ...env },
  })
  children.push(child)
  let output = ''
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  const url = new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      const found = /http:\/\/[\d.:]+/.exec(output)?.[0]
      if (found !== undefined) resolve(found)
    })
    child.on('close', () => reject(new Error(`The gateway ended: ${errors}`)))
  })
  const ended = new Promise<{ status: number | null; output: string; errors: string }>((resolve) => {
    child.on('close', (status) => resolve({ status, output, errors }))
  })
  url.catch(() => undefined)
  return { child, url, ended }
}

describe('the process', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)('answers what is in flight on %s, then ends with 0', async (signal) => {
    const gateway = run({ KEDGE_TOPICS: 'blue' })
    const url = await gateway.url
    const waiting = call(url, 'POST /consume/g/i', { body: { topic: 'blue', timeout: 60_000 } })
    await untilMember(url)

    gateway.child.kill(signal)

    expect(await waiting).toMatchObject({ status: 200, json: [] })
    expect(await gateway.ended).toMatchObject({ status: 0, errors: '' })
  })

  test('makes the topics it is told to, and keeps records, commits and topics over a restart', async () => {
    const first = run({ KEDGE_TOPICS: 'blue:3,red' })
    const url = await first.url
    await call(url, 'POST /produce/red', { body: { value: 'kept' } })
    await call(url, 'POST /commit/g/i', { body: { topic: 'red', partition: 0, offset: 1 } })
    first.child.kill('SIGTERM')
    await first.ended

    const again = await run({ KEDGE_TOPICS: 'blue:3,red,green:2' }).url

    expect((await call(again, 'GET /topics')).json).toEqual({ blue: 3, green: 2, red: 1 })
    expect((await call(again, 'POST /fetch', { body: { topic: 'red' } })).json).toMatchObject([{ value: 'kept' }])
    expect((await call(again, 'POST /committed/g/i')).json).toMatchObject([{ offset: 1 }])
  })

  test('keeps what it acknowledged when it is killed', async () => {
    const first = run({ KEDGE_TOPICS: 'blue' })
    const url = await first.url
    const sent = Array.from({ length: 200 }, (_, index) => `record ${index}`)
    const acknowledged: string[] = []
    const killed = sent.map(async (value, index) => {
      const answer = await call(url, 'POST /produce/blue', { body: { value } }).catch(() => undefined)
      if (answer?.status === 200) acknowledged.push(value)
      if (index === 100) first.child.kill('SIGKILL')
    })
    await Promise.all(killed)
    await first.ended

    const again = await run({}).url
    const stored = (await call(again, 'POST /fetch', { body: { topic: 'blue' } })).json as { value: string }[]

    expect(acknowledged.length).toBeGreaterThan(0)
    expect(stored.map(({ value }) => value)).toEqual(expect.arrayContaining(acknowledged))
  })

  test('is killed in the middle of a run and started again: the run goes on, and nothing is lost', async () => {
    const first = run({ KEDGE_TOPICS: 'blue:2' })
    const url = await first.url
    const records = Array.from({ length: 100 }, (_, n) => ({ partition: n % 2, value: `record ${n}` }))
    await call(url, 'POST /produce/blue', { body: records })
    const seen = new Set<string>()
    let restarted: Promise<string> | undefined
    const restart = async (): Promise<string> => {
      first.child.kill('SIGKILL')
      await first.ended
      return await run({ KEDGE_GATEWAY_PORT: new URL(url).port }).url
    }
    const router = createRouter().on({ topic: 'blue' }, async ({ value }) => {
      if (seen.size === 30) await (restarted ??= restart())
      seen.add(textOf(value))
    })
    await using broker = restBroker({ url })
    const consumer = createConsumer(defineApp({ groupId: 'g', router }), {
      broker,
      deadLetters: memoryDeadLetters(),
      groupInstanceId: 'i',
      maxPollRecords: 10,
    })

    const report = await consumer.run({ runId: 'a', stopWhenEmpty: true, budget: { runMs: 60_000 } })

    expect(report).toMatchObject({ ended: 'drained', unfinished: 0, uncommitted: [] })
    expect(seen.size).toBe(100)
    expect((await call(url, 'POST /committed/g/i')).json).toMatchObject([{ offset: 50 }, { offset: 50 }])
  }, 60_000)

  test('serves from memory when it is told to', async () => {
    const url = await run({ KEDGE_BROKER: 'memory', KEDGE_TOPICS: 'blue' }).url

    expect((await call(url, 'GET /topics')).json).toEqual({ blue: 1 })
    expect(existsSync(join(folder, 'data'))).toBe(false)
  })

  test('asks for its credentials: the one of the environment and those of the file', async () => {
    const printed = await run({}, ['--new-credential', 'ann', '--verbs', 'produce', '--topics', 'blue']).ended
    const password = /now: (\S+)/.exec(printed.output)?.[1] ?? ''
    const entry = printed.output.split('\n').find((line) => line.startsWith('{'))
    const file = join(folder, 'credentials.json')
    writeFileSync(file, `{"credentials":[${entry}]}`)
    const url = await run({
      KEDGE_TOPICS: 'blue,red',
      KEDGE_USERNAME: 'root',
      KEDGE_PASSWORD: 'pa:ss wörd',
      KEDGE_CREDENTIALS: file,
    }).url
    const as = (pair: string): Record<string, string> => ({
      authorization: `Basic ${Buffer.from(pair).toString('base64')}`,
    })

    expect((await call(url, 'GET /topics')).status).toBe(401)
    expect((await call(url, 'GET /topics', { headers: as('root:pa:ss wörd') })).json).toEqual({ blue: 1, red: 1 })
    expect((await call(url, 'GET /topics', { headers: as(`ann:${password}`) })).json).toEqual({ blue: 1 })
    expect(
      (await call(url, 'POST /produce/red', { headers: as(`ann:${password}`), body: { value: 'x' } })).status,
    ).toBe(403)
    expect(readFileSync(file, 'utf8')).not.toContain(password)
    expect(readFileSync(file, 'utf8')).toContain(createHash('sha256').update(password).digest('hex'))
    expect(Buffer.from(password, 'base64url')).toHaveLength(32)
  })

  test.each([
    ['in the broker, where nothing is said', undefined],
    ['in the file that is named', 'sqlite:letters.db'],
  ])('hands dead letters back to the group of the app: %s', async (_where, name) => {
    const address = name?.replace('letters.db', join(folder, 'letters.db'))
    const url = await run({
      KEDGE_TOPICS: 'orders',
      KEDGE_USERNAME: 'root',
      KEDGE_PASSWORD: 'secret',
      ...(address === undefined ? {} : { KEDGE_DEAD_LETTERS: address }),
    }).url
    await using broker = restBroker({ url, username: 'root', password: 'secret' })
    await using letters = await openDeadLetters(address ?? 'topic:', {
      topic: () => topicDeadLetters({ broker }),
      ...deadLetterDrivers,
    })
    await broker.commit({ groupId: 'shop', groupInstanceId: 'i' }, [{ topic: 'orders', partition: 0, offset: 1 }])
    await letters.put(letter())
    const headers = { authorization: `Basic ${btoa('root:secret')}` }

    const listed = await call(url, 'GET /groups/shop/dead-letters', { headers })
    const edited = await call(url, 'POST /groups/shop/redrive/edit', {
      headers,
      body: { id: 'shop/orders/0/0', value: '{"id":5}' },
    })
    const answer = await call(url, 'POST /groups/shop/redrive/run', { headers, body: { all: true } })
    const [back] = await broker.fetch([{ topic: 'orders.shop-redrive', partition: 0, offset: 0 }], {
      maxWaitMs: 0,
      maxRecords: 10,
      maxBytes: 1_000_000,
    })

    expect(listed.json).toMatchObject({ letters: [{ id: 'shop/orders/0/0' }] })
    expect([edited.status, edited.headers['kedge-error']]).toEqual([400, 'INVALID_RECORD'])
    expect(answer.json).toMatchObject({ finished: true, redriven: 1 })
    expect(textOf(back?.value ?? null)).toBe('value')
    expect((await letters.list()).items).toEqual([])
  })

  test('starts with a dead-letter store that only functions have, and says so to operators', async () => {
    const url = await run({ KEDGE_DEAD_LETTERS: 'd1:LETTERS' }).url

    const answer = await call(url, 'GET /groups/shop/dead-letters')

    expect([answer.status, answer.headers['kedge-error']]).toEqual([501, 'UNSUPPORTED'])
    expect(answer.text).toContain('KEDGE_DEAD_LETTERS has the scheme d1')
  })

  test('a new credential operates only where that is said', async () => {
    const plain = await run({}, ['--new-credential', 'ann', '--groups', '*']).ended
    const operator = await run({}, ['--new-credential', 'ann', '--verbs', 'operate', '--groups', 'shop']).ended

    expect(plain.output).toContain('"verbs":["produce","consume","admin"]')
    expect(operator.output).toContain('"scopes":[{"verbs":["operate"],"topics":[],"groups":["shop"]}]')
  })

  test.each<[string, Record<string, string>, readonly string[], RegExp]>([
    ['a host beyond loopback without credentials', { KEDGE_GATEWAY_HOST: '0.0.0.0' }, [], /0\.0\.0\.0.*credentials/],
    ['a name it does not know', { KEDGE_GATEWAY_PROT: '1' }, [], /KEDGE_GATEWAY_PROT.*KEDGE_GATEWAY_PORT/],
    ['a port that is none', { KEDGE_GATEWAY_PORT: '99999' }, [], /KEDGE_GATEWAY_PORT/],
    ['a Kafka cluster that is not there', { KEDGE_BROKER: 'kafka://127.0.0.1:1' }, [], /127\.0\.0\.1:1/],
    [
      'a file of authorities that is not there',
      { KEDGE_BROKER: 'kafka://127.0.0.1:1', KEDGE_KAFKA_TLS: 'true', KEDGE_KAFKA_CA: '/nope.pem' },
      [],
      /KEDGE_KAFKA_CA=\/nope\.pem/,
    ],
    [
      'a certificate that is none',
      {
        KEDGE_BROKER: 'kafka://127.0.0.1:1',
        KEDGE_KAFKA_TLS: 'true',
        KEDGE_KAFKA_CERT: 'package.json',
        KEDGE_KAFKA_KEY: 'package.json',
      },
      [],
      /not a PEM file/,
    ],
    ['an unknown broker', { KEDGE_BROKER: 'redis' }, [], /log, memory or kafka/],
    ['topics it cannot read', { KEDGE_TOPICS: 'a:b' }, [], /KEDGE_TOPICS/],
    ['a topic name that is none', { KEDGE_TOPICS: 'a b' }, [], /a b/],
    ['a user without a password', { KEDGE_USERNAME: 'x' }, [], /KEDGE_PASSWORD/],
    ['a credentials file that is not there', { KEDGE_CREDENTIALS: '/nope.json' }, [], /\/nope\.json/],
    ['an option it does not know', {}, ['--port', '1'], /--port/],
    ['a verb that is none', {}, ['--new-credential', 'x', '--verbs', 'write'], /verbs/],
  ])('refuses %s with a reason and status 1', async (_what, env, args, reason) => {
    const { status, errors } = await run(env, args).ended

    expect(status).toBe(1)
    expect(errors).toMatch(reason)
    expect(errors).not.toContain('    at ')
    expect(existsSync(join(folder, 'data', 'kedge.db')) && env['KEDGE_TOPICS'] === undefined).toBe(false)
  })

  test('refuses a data folder that another gateway has', async () => {
    await run({}).url
    const { status, errors } = await run({}).ended

    expect(status).toBe(1)
    expect(errors).toContain(join(folder, 'data'))
  })

  test('refuses a port that another process has', async () => {
    const url = await run({}).url
    const { status, errors } = await run({ KEDGE_GATEWAY_PORT: new URL(url).port, KEDGE_BROKER: 'memory' }).ended

    expect([status, errors]).toEqual([1, expect.stringMatching(/KEDGE_GATEWAY_PORT/)])
  })

  test('--help names every setting and ends with 0', async () => {
    const { status, output } = await run({}, ['--help']).ended

    expect(status).toBe(0)
    for (const name of ['KEDGE_GATEWAY_HOST', 'KEDGE_DATA', 'KEDGE_TOPICS', 'KEDGE_CREDENTIALS', '--new-credential']) {
      expect(output).toContain(name)
    }
  })
})

async function untilMember(url: string): Promise<void> {
  for (;;) {
    const { json } = await call(url, 'GET /consumers')
    if (Array.isArray(json) && json.length > 0) return
  }
}
