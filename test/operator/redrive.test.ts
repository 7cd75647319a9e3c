import { describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import type { App } from '../../src/app.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { ConfigError, DeadLetterStoreError } from '../../src/errors.ts'
import { appOver } from '../../src/gateway/app.ts'
import { credentialFor } from '../../src/gateway/credentials.ts'
import { Gateway } from '../../src/gateway/gateway.ts'
import type { Scope } from '../../src/gateway/principal.ts'
import type { LogEvent } from '../../src/logger.ts'
import { operatorRoutes } from '../../src/operator/routes.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'
import { letter } from '../conformance/dead-letter-store/letters.ts'
import { openRedriveBench, REDRIVE_TOPIC } from '../redrive/bench.ts'
import type { RedriveBench } from '../redrive/bench.ts'
import { finish, TOPIC } from '../support/consumer.ts'

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly json: Record<string, unknown>
}

interface Asked {
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

interface OperatorBench extends RedriveBench {
  readonly gateway: Gateway
  readonly lines: LogEvent[]
  /** Sends `POST /groups/g/redrive/run` and the like. */
  send(line: string, asked?: Asked): Promise<Answer>
  /** The same, letting time pass until it is answered. */
  ask(line: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Answer>
}

interface BenchParts {
  readonly app?: App
  readonly letters?: (letters: DeadLetterStore) => DeadLetterStore
  readonly openFails?: Error
  readonly scopes?: readonly Scope[]
}

const run = 'POST /groups/g/redrive/run'
const ann = { authorization: `Basic ${btoa('ann:secret')}` }

/** A gateway over a bench's broker, whose dead letters are the bench's. Without an app for the group unless one is given. */
async function openOperatorBench(parts: BenchParts = {}): Promise<OperatorBench> {
  const bench = await openRedriveBench()
  const lines: LogEvent[] = []
  const letters = parts.letters?.(bench.letters) ?? bench.letters
  const routes = operatorRoutes({
    openDeadLetters: () => (parts.openFails === undefined ? Promise.resolve(letters) : Promise.reject(parts.openFails)),
    appOf: async (groupId) => (parts.app?.groupId === groupId ? parts.app : undefined),
    clock: bench.clock,
    random: () => 0.5,
    log: (event) => void lines.push(event),
  })
  const { scopes } = parts
  const credentials = scopes === undefined ? {} : { credentials: [await credentialFor('ann', 'secret', scopes)] }
  const gateway = new Gateway(bench.broker, { operatorRoutes: routes, ...credentials })
  const app = appOver(gateway)
  const send = async (line: string, { body, headers = {}, signal }: Asked = {}): Promise<Answer> => {
    const space = line.indexOf(' ')
    const response = await app.request(line.slice(space + 1), {
      method: line.slice(0, space),
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    })
    const json = (await response.json()) as Record<string, unknown>
    return { status: response.status, headers: response.headers, json }
  }
  return Object.assign(bench, {
    gateway,
    lines,
    send,
    ask: (line: string, body?: unknown, headers?: Readonly<Record<string, string>>) =>
      finish(bench.clock, send(line, { body, ...(headers === undefined ? {} : { headers }) })),
  })
}

/** One whose group has as many letters, and whose handler is mended. */
async function withLetters(count: number, parts: BenchParts = {}): Promise<OperatorBench> {
  const bench = await openOperatorBench(parts)
  await bench.produce(Array.from({ length: count }, (_, index) => `v${index}`))
  await bench.drain()
  // The group reads what comes back only where there is such a topic.
  bench.isDown = false
  return bench
}

function handledValues(bench: RedriveBench): string[] {
  return bench.handled.map(({ record }) => textOf(record.value))
}

describe('a run', () => {
  test('hands back what matches, and says that nothing is left', async () => {
    const bench = await withLetters(3)

    const answer = await bench.ask(run, { filter: { topic: TOPIC } })
    await bench.drain()

    expect(answer).toMatchObject({ status: 200, json: { groupId: 'g', finished: true, ended: 'done', redriven: 3 } })
    expect(handledValues(bench)).toEqual(['v0', 'v1', 'v2'])
    expect(await bench.ids()).toEqual([])
  })

  test('goes on where the last call ended', async () => {
    const bench = await withLetters(5)

    const answers = []
    for (let calls = 0; calls < 3; calls += 1) answers.push((await bench.ask(run, { all: true, maxLetters: 2 })).json)
    await bench.drain()

    expect(answers.map(({ redriven, finished, ended }) => [redriven, finished, ended])).toEqual([
      [2, false, 'max-letters'],
      [2, false, 'max-letters'],
      [1, true, 'done'],
    ])
    expect(handledValues(bench)).toEqual(['v0', 'v1', 'v2', 'v3', 'v4'])
  })

  test('ends when its time is over, and is answered', async () => {
    const bench = await withLetters(9)
    const startedAt = bench.clock.monotonic()

    const { json } = await bench.ask(run, { all: true, perSecond: 1, timeLimitMs: 3_500 })

    expect(json).toMatchObject({ finished: false, ended: 'time-limit', redriven: 4 })
    expect(bench.clock.monotonic() - startedAt).toBeLessThanOrEqual(5_000)
  })

  test('hands one letter back at least, however long it takes to find it', async () => {
    const slow = (letters: DeadLetterStore): DeadLetterStore => ({
      ...letters,
      async list(query) {
        await new Promise<void>((resolve) => bench.clock.after(4_000, resolve))
        return await letters.list(query)
      },
    })
    const bench: OperatorBench = await withLetters(3, { letters: slow })

    const { json } = await bench.ask(run, { all: true, timeLimitMs: 1_000 })

    expect(json).toMatchObject({ finished: false, ended: 'time-limit', redriven: 1 })
  })

  test('keeps its rate over calls that follow each other', async () => {
    const bench = await withLetters(12)
    const startedAt = bench.clock.monotonic()

    for (let calls = 0; calls < 10; calls += 1) {
      await bench.ask(run, { all: true, maxLetters: 1, perSecond: 10 })
    }

    expect(await bench.count(REDRIVE_TOPIC)).toBe(10)
    expect(bench.clock.monotonic() - startedAt).toBeGreaterThanOrEqual(900)
  })

  test('keeps a second one out, which is told when to come', async () => {
    const bench = await withLetters(5)
    const first = bench.send(run, { body: { all: true, perSecond: 1 } })
    await bench.clock.advance(2_000)

    const second = await bench.send(run, { body: { all: true } })
    const ended = await finish(bench.clock, first)
    const third = await bench.ask(run, { all: true })

    expect(second).toMatchObject({ status: 409, json: { error: expect.stringContaining('another redrive') as string } })
    expect(second.headers.get('kedge-error')).toBe('CLAIM_HELD')
    expect(Number(second.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(Number(second.headers.get('kedge-retry-after-ms'))).toBeGreaterThan(0)
    expect(ended.json).toMatchObject({ redriven: 5, finished: true })
    expect(third.json).toMatchObject({ redriven: 0, finished: true })
  })

  test('ends with the letter in hand when the gateway closes, and when its caller goes away', async () => {
    const bench = await withLetters(9)
    const client = new AbortController()

    const left = bench.send(run, { body: { all: true, perSecond: 1 }, signal: client.signal })
    await bench.clock.advance(1_500)
    client.abort()
    await finish(bench.clock, left)
    const afterFirst = (await bench.ids()).length
    const closing = bench.send(run, { body: { all: true, perSecond: 1 } })
    await bench.clock.advance(1_500)
    bench.gateway.waiting.drain()
    const { json } = await finish(bench.clock, closing)

    expect(afterFirst).toBe(7)
    expect(json).toMatchObject({ finished: false, ended: 'stopped', redriven: 2 })
    expect(await bench.ids()).toHaveLength(5)
  })

  test('names its caller in the audit', async () => {
    const scopes: Scope[] = [{ verbs: ['operate'], groups: ['g'] }]
    const bench = await withLetters(1, { scopes })

    await bench.ask(run, { all: true }, ann)

    expect(bench.lines.filter(({ event }) => event.startsWith('redrive '))).toMatchObject([
      { event: 'redrive started', actor: 'ann', group: 'g' },
      { event: 'redrive ended', actor: 'ann', group: 'g', result: 'done', redriven: 1 },
    ])
  })

  test('that fails is answered with the failure and what was done, and goes on later', async () => {
    let left = 2
    const failing = (letters: DeadLetterStore): DeadLetterStore => ({
      ...letters,
      async delete(id) {
        left -= 1
        if (left < 0) throw new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', 'The store is down.')
        return await letters.delete(id)
      },
    })
    const bench = await withLetters(4, { letters: failing })

    const failed = await bench.ask(run, { all: true })
    left = 100
    const again = await bench.ask(run, { all: true })
    await bench.drain()

    expect(failed).toMatchObject({
      status: 503,
      json: { error: expect.stringMatching(/: 2 went back, then: The store is down/) as string },
    })
    expect(failed.headers.get('kedge-error')).toBe('DEAD_LETTER_STORE_UNAVAILABLE')
    expect(failed.headers.get('kedge-retriable')).toBe('true')
    expect(again.json).toMatchObject({ finished: true, redriven: 2 })
    expect(handledValues(bench)).toEqual(['v0', 'v1', 'v2', 'v3'])
  })

  test.each([
    ['no condition', {}, 'INVALID_REQUEST', /which means all letters/],
    ['an empty filter', { filter: {} }, 'INVALID_REQUEST', /which means all letters/],
    ['a condition and all', { filter: { topic: TOPIC }, all: true }, 'INVALID_REQUEST', /Give one of them/],
    ['an unknown condition', { filter: { topics: TOPIC } }, 'INVALID_REQUEST', /filter in the body.*"topics"/],
    ['an unknown field', { all: true, dryRun: true }, 'INVALID_REQUEST', /"dryRun"/],
    ['an unknown reason', { filter: { reason: 'bad' } }, 'INVALID_REQUEST', /filter\.reason/],
    ['no topic name', { filter: { topic: '..' } }, 'INVALID_TOPIC_EXCEPTION', /filter\.topic/],
    ['times that no letter can have', { filter: { fromMs: 5, untilMs: 5 } }, 'INVALID_REQUEST', /none can have failed/],
    ['a rate of none', { all: true, perSecond: 0 }, 'INVALID_REQUEST', /perSecond/],
    ['too long a time', { all: true, timeLimitMs: 60_000 }, 'INVALID_REQUEST', /timeLimitMs/],
  ])('is refused with %s, and hands nothing back', async (_what, body, code, message) => {
    const bench = await withLetters(1)

    const answer = await bench.ask(run, body)

    expect([answer.status, answer.headers.get('kedge-error')]).toEqual([400, code])
    expect(answer.json['error']).toMatch(message)
    expect(await bench.ids()).toHaveLength(1)
  })

  test.each([
    ['run', { all: true }],
    ['plan', {}],
    ['edit', { id: 'nope/t/0/0', value: null }],
  ])('%s of a group that is not there is 404', async (verb, body) => {
    const bench = await openOperatorBench({ app: appOf('nope') })

    const answer = await bench.ask(`POST /groups/nope/redrive/${verb}`, body)

    expect(answer.status).toBe(404)
    expect(answer.headers.get('kedge-error')).toBe(verb === 'edit' ? 'DEAD_LETTER_NOT_FOUND' : 'GROUP_ID_NOT_FOUND')
  })

  test('of a group that no topic can be called after is refused by name', async () => {
    const bench = await openOperatorBench()

    for (const line of ['POST /groups/a%20b/redrive/run', 'POST /groups/a%20b/redrive/plan']) {
      const answer = await bench.ask(line, line.endsWith('run') ? { all: true } : {})

      expect([answer.status, answer.headers.get('kedge-error')]).toEqual([400, 'INVALID_GROUP_ID'])
    }
  })
})

describe('a plan', () => {
  test('counts what matches and writes nothing', async () => {
    const bench = await withLetters(3)

    const { json } = await bench.ask('POST /groups/g/redrive/plan', { filter: { reason: 'exhausted' } })
    const whole = await bench.ask('POST /groups/g/redrive/plan')

    expect(json).toMatchObject({
      letters: 3,
      redrivable: 3,
      byReason: { buckets: [{ value: 'exhausted', letters: 3 }] },
    })
    expect(whole.json).toEqual(json)
    expect(await bench.ids()).toHaveLength(3)
    expect(await bench.count(REDRIVE_TOPIC)).toBe(0)
  })
})

test('a plan reads no further when its caller has gone', async () => {
  const client = new AbortController()
  let pages = 0
  const slow = (letters: DeadLetterStore): DeadLetterStore => ({
    ...letters,
    async list(query) {
      pages += 1
      if (pages === 2) client.abort()
      return await letters.list({ ...query, limit: 1 })
    },
  })
  const bench = await withLetters(5, { letters: slow })

  await finish(bench.clock, bench.send('POST /groups/g/redrive/plan', { signal: client.signal }))

  expect(pages).toBe(2)
})

describe('letters', () => {
  test('are listed by page, without their content', async () => {
    const bench = await withLetters(3)

    const first = await bench.ask('GET /groups/g/dead-letters?limit=2&reason=exhausted')
    const cursor = encodeURIComponent(String(first.json['cursor']))
    const second = await bench.ask(`GET /groups/g/dead-letters?limit=2&cursor=${cursor}`)

    expect(first.json['letters']).toMatchObject([
      { id: 'g/t/0/0', topic: TOPIC, offset: 0, valueBytes: 2, keyBytes: null },
      { id: 'g/t/0/1' },
    ])
    expect(JSON.stringify(first.json)).not.toContain('v0')
    expect(second.json).toMatchObject({ letters: [{ id: 'g/t/0/2' }] })
    expect(second.json['cursor']).toBeUndefined()
  })

  test('are found by key and header', async () => {
    const bench = await openOperatorBench()
    const headers = [{ key: 'h', value: bytesOf('a=b') }]
    await bench.letters.put(letter({ groupId: 'g', record: { topic: TOPIC, key: bytesOf('k'), headers } }))
    await bench.letters.put(letter({ groupId: 'g', record: { topic: TOPIC, offset: 1 } }))

    for (const query of ['key=k', 'header=h=a%3Db']) {
      const { json } = await bench.ask(`GET /groups/g/dead-letters?${query}`)

      expect(json['letters']).toMatchObject([{ id: 'g/t/0/0', headerNames: ['h'] }])
    }
  })

  test.each([
    ['an unknown condition', '?topics=t', 400],
    ['a cursor of nobody', '?cursor=x', 400],
    ['times that no letter can have', '?fromMs=9&untilMs=3', 400],
  ])('are not listed by %s', async (_what, query, status) => {
    const bench = await withLetters(1)

    expect((await bench.ask(`GET /groups/g/dead-letters${query}`)).status).toBe(status)
  })

  test('of a group that is not there are 404', async () => {
    const bench = await openOperatorBench()

    const answer = await bench.ask('GET /groups/nope/dead-letters')

    expect(answer.headers.get('kedge-error')).toBe('GROUP_ID_NOT_FOUND')
  })

  test('are shown one by one, by their id as it is or encoded whole', async () => {
    const bench = await withLetters(1)

    const plain = await bench.ask('GET /groups/g/dead-letters/g/t/0/0')
    const encoded = await bench.ask(`GET /groups/g/dead-letters/${encodeURIComponent('g/t/0/0')}`)

    expect(plain.json).toMatchObject({ id: 'g/t/0/0', cause: { message: 'the warehouse is down' } })
    expect(plain.json['content']).toBeUndefined()
    expect(encoded.json).toEqual(plain.json)
  })

  test('show their content where that is asked for, byte for byte', async () => {
    const bench = await openOperatorBench()
    const value = Uint8Array.of(0xff, 0x00)
    await bench.letters.put(letter({ groupId: 'g', record: { topic: TOPIC, key: null, value } }))
    const line = 'GET /groups/g/dead-letters/g/t/0/0?content=true'

    const asText = await bench.ask(line)
    const asBase64 = await bench.ask(line, undefined, { 'kedge-encoding': 'base64' })

    expect([asText.status, asText.headers.get('kedge-error')]).toEqual([400, 'INVALID_RECORD'])
    expect(asBase64.json['content']).toEqual({ key: null, value: '/wA=', headers: [] })
  })

  test('show no content to who may not consume their topic', async () => {
    const operate: Scope = { verbs: ['operate'], groups: ['g'] }
    const line = 'GET /groups/g/dead-letters/g/t/0/0?content=true'
    const answers = []
    for (const scopes of [[operate], [operate, { verbs: ['consume'], topics: [TOPIC] } satisfies Scope]]) {
      const bench = await withLetters(1, { scopes })
      answers.push(await bench.ask(line, undefined, ann))
    }

    expect(answers.map(({ status }) => status)).toEqual([403, 200])
    expect(answers[1]?.json['content']).toMatchObject({ value: 'v0' })
  })

  test('of another group are as absent as those that nobody has', async () => {
    const bench = await withLetters(1)
    await bench.letters.put(letter({ groupId: 'other', record: { topic: TOPIC } }))

    const other = await bench.ask('GET /groups/g/dead-letters/other/t/0/0')
    const none = await bench.ask('GET /groups/g/dead-letters/other/t/0/7')

    expect([other.status, other.headers.get('kedge-error')]).toEqual([404, 'DEAD_LETTER_NOT_FOUND'])
    expect(other.json['error']).toBe(String(none.json['error']).replace('/7', '/0'))
  })
})

describe('an edit', () => {
  const line = 'POST /groups/g/redrive/edit'

  test('hands one letter back with another value, which its topic accepts', async () => {
    const bench = await withLetters(2, { app: appOf('g') })

    const answer = await bench.ask(line, { id: 'g/t/0/1', value: '{"n":1}' })
    await bench.drain()

    expect(answer).toMatchObject({ status: 200, json: { id: 'g/t/0/1', redriven: 1 } })
    expect(handledValues(bench)).toEqual(['{"n":1}'])
    expect(await bench.ids()).toEqual(['g/t/0/0'])
  })

  test('takes base64 where that is said', async () => {
    const bench = await withLetters(1, { app: appOf('g') })
    const value = Buffer.from('{"n":2}').toString('base64')

    const answer = await bench.ask(line, { id: 'g/t/0/0', value }, { 'kedge-encoding': 'base64' })
    await bench.drain()

    expect(answer.status).toBe(200)
    expect(handledValues(bench)).toEqual(['{"n":2}'])
  })

  test.each([
    ['a value that its topic refuses', { id: 'g/t/0/0', value: '{"n":"x"}' }, 400, 'INVALID_RECORD'],
    ['a letter that is not there', { id: 'g/t/0/9', value: null }, 404, 'DEAD_LETTER_NOT_FOUND'],
    ['a letter of another group', { id: 'other/t/0/0', value: null }, 404, 'DEAD_LETTER_NOT_FOUND'],
    ['no value', { id: 'g/t/0/0' }, 400, 'INVALID_REQUEST'],
  ])('is refused for %s', async (_what, body, status, code) => {
    const bench = await withLetters(1, { app: appOf('g') })
    await bench.letters.put(letter({ groupId: 'other', record: { topic: TOPIC } }))

    const answer = await bench.ask(line, body)

    expect([answer.status, answer.headers.get('kedge-error')]).toEqual([status, code])
    expect(await bench.ids()).toHaveLength(2)
  })

  test('is refused where the gateway has not the app of the group', async () => {
    const bench = await withLetters(1)

    const answer = await bench.ask(line, { id: 'g/t/0/0', value: '{"n":1}' })

    expect([answer.status, answer.headers.get('kedge-error')]).toEqual([501, 'UNSUPPORTED'])
  })
})

test('a setting that this gateway cannot follow is named, and is no fault of the caller', async () => {
  const bench = await openOperatorBench({ openFails: new ConfigError('There is no driver for d1.') })

  for (const [line, body] of [
    ['GET /groups/g/dead-letters', undefined],
    [run, { all: true }],
  ] as const) {
    const answer = await bench.ask(line, body)

    expect([answer.status, answer.headers.get('kedge-error')]).toEqual([501, 'UNSUPPORTED'])
    expect(answer.json['error']).toBe('There is no driver for d1.')
  }
})

/** An app of a group that reads numbers. */
function appOf(groupId: string): App {
  const numbers = defineTopic(TOPIC, {
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: (value) =>
        typeof (value as { n?: unknown }).n === 'number' ? { value } : { issues: [{ message: 'no number' }] },
    },
  })
  const router = createRouter().on(numbers, () => undefined)
  return defineApp({ groupId, topics: [numbers], router, redrive: true })
}
