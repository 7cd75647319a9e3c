/** An operator's verbs over REST: a gateway on a real socket, over each kind of broker. */
import { describe, expect, test } from 'vitest'
import { defineApp } from '../../src/app.ts'
import type { App } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { systemClock } from '../../src/clock.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { credentialFor } from '../../src/gateway/credentials.ts'
import type { LogEvent } from '../../src/logger.ts'
import { operatorRoutes } from '../../src/operator/routes.ts'
import { systemRandom } from '../../src/random.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { until } from '../support/until.ts'

failOnLeaks()

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly json: Record<string, unknown>
}

interface Shop extends AsyncDisposable {
  readonly broker: Broker
  readonly handled: string[]
  readonly lines: LogEvent[]
  /** Runs the app over the gateway until nothing is left to read. */
  drain(): Promise<RunReport>
  /** Sends a verb: `seek` and its body. */
  ask(verb: string, body?: unknown): Promise<Answer>
  status(): Promise<Answer>
  committed(): Promise<number | undefined>
}

let runs = 0

/** Five records behind a gateway that ann may operate on and whose group has handled them. */
async function openShop(broker: Broker, knows: (app: App) => App | undefined = (app) => app): Promise<Shop> {
  const handled: string[] = []
  const lines: LogEvent[] = []
  const router = createRouter().on({ topic: 'orders' }, ({ value }) => void handled.push(textOf(value)))
  const app = defineApp({ groupId: 'shop', operations: true, redrive: true, router })
  await broker.createTopic({ topic: 'orders' })
  await broker.produce(['a', 'b', 'c', 'd', 'e'].map((text) => ({ topic: 'orders', key: null, value: bytesOf(text) })))
  const gateway = await startGateway(broker, {
    operatorRoutes: operatorRoutes({
      openDeadLetters: () => Promise.reject(new Error('There is none.')),
      appOf: async () => knows(app),
      clock: systemClock,
      random: systemRandom,
      log: (event) => void lines.push(event),
    }),
    credentials: [
      await credentialFor('ann', 'secret', [{ verbs: ['operate'], groups: ['shop'] }]),
      await credentialFor('shop', 'secret', [
        { verbs: ['produce', 'consume', 'admin'], topics: ['*'], groups: ['shop'] },
      ]),
    ],
  })
  const remote = restBroker({ url: gateway.url, username: 'shop', password: 'secret' })
  const consumer = createConsumer(app, { broker: remote, deadLetters: memoryDeadLetters(), groupInstanceId: 'i' })
  const send = async (method: string, path: string, body?: unknown): Promise<Answer> => {
    const response = await fetch(`${gateway.url}/groups/shop/operations${path}`, {
      method,
      headers: { authorization: `Basic ${btoa('ann:secret')}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return {
      status: response.status,
      headers: response.headers,
      json: (await response.json()) as Record<string, unknown>,
    }
  }
  const drain = (): Promise<RunReport> => consumer.run({ runId: `run-${(runs += 1)}`, stopWhenEmpty: true })
  await drain()
  return {
    broker,
    handled,
    lines,
    drain,
    ask: (verb, body) => send('POST', `/${verb}`, body),
    status: () => send('GET', ''),
    committed: async () => (await broker.committed('shop', [{ topic: 'orders', partition: 0 }]))[0]?.offset,
    async [Symbol.asyncDispose]() {
      await remote.close()
      await gateway.close()
      await broker.close()
    },
  }
}

const brokers = [
  { name: 'memory', open: (): Broker => memoryBroker() },
  { name: 'log', open: (): Broker => logBroker({ memory: true }) },
]

describe.each(brokers)('an operator over REST ($name)', ({ open }) => {
  test('seeks, and the audit names the credential', async () => {
    await using shop = await openShop(open())

    const dryRun = await shop.ask('seek', { topic: 'orders', to: 3, dryRun: true })
    const before = await shop.committed()
    const seek = await shop.ask('seek', { topic: 'orders', partition: 0, to: 3, reason: 'a bad deploy' })
    await shop.drain()

    expect(dryRun).toMatchObject({ status: 200, json: { partitions: [{ before: 5, after: 3, logEndOffset: 5 }] } })
    expect(before).toBe(5)
    expect(seek).toMatchObject({ status: 200, json: { partitions: [{ topic: 'orders', partition: 0, after: 3 }] } })
    expect(shop.handled).toEqual(['a', 'b', 'c', 'd', 'e', 'd', 'e'])
    expect(shop.lines).toContainEqual(
      expect.objectContaining({ event: 'operation ended', verb: 'seek', actor: 'ann', reason: 'a bad deploy' }),
    )
  })

  test('skips a record', async () => {
    await using shop = await openShop(open())
    await shop.ask('seek', { topic: 'orders', to: { timeMs: 0 } })

    const skip = await shop.ask('skip', { topic: 'orders', partition: 0, offset: 0, reason: 'nobody can read it' })
    await shop.drain()

    expect(skip).toMatchObject({ status: 200, json: { before: 0, after: 1 } })
    expect(shop.handled.slice(5)).toEqual(['b', 'c', 'd', 'e'])
  })

  test('pauses and resumes, and sees it in the status', async () => {
    await using shop = await openShop(open())

    const pause = await shop.ask('pause', { topic: 'orders' })
    const status = await shop.status()
    const paused = await shop.drain()
    const resume = await shop.ask('resume', { topic: 'orders' })
    const group = await shop.ask('pause')

    expect(pause).toMatchObject({ status: 200, json: { group: false, topics: ['orders'] } })
    expect(status).toMatchObject({
      status: 200,
      json: { groupId: 'shop', isHeeded: true, paused: { topics: ['orders'] }, members: [{ groupInstanceId: 'i' }] },
    })
    expect(paused.ended).toBe('paused')
    expect(resume.json).toEqual({ group: false, topics: [], keys: [] })
    expect(group.json).toEqual({ group: true, topics: [], keys: [] })
  })

  test('pauses a key where its route lets it, and only with its topic', async () => {
    await using shop = await openShop(open(), () => undefined)
    await using ordered = await openShop(open())

    const pause = await shop.ask('pause', { topic: 'orders', key: 'x' })
    const byPartition = await ordered.ask('pause', { topic: 'orders', key: 'x' })
    const nowhere = await shop.ask('pause', { key: 'x' })

    expect(pause).toMatchObject({ status: 200, json: { topics: [], keys: [{ topic: 'orders', key: 'x' }] } })
    expect([byPartition, nowhere].map(({ status }) => status)).toEqual([400, 400])
    expect(JSON.stringify(byPartition.json)).toContain('ordered by partition')
  })

  test('is answered 409 with the time to wait while a run is on', async () => {
    await using shop = await openShop(open())
    await shop.broker.claim({ groupId: 'shop', groupInstanceId: 'i' }, { runId: 'somebody' })

    const answer = await shop.ask('seek', { topic: 'orders', to: 'earliest' })

    expect(answer.status).toBe(409)
    expect(answer.headers.get('kedge-error')).toBe('CLAIM_HELD')
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await shop.committed()).toBe(5)
  })

  test('is refused what is not there, by name', async () => {
    await using shop = await openShop(open())

    const beyond = await shop.ask('seek', { topic: 'orders', to: 6 })
    const unread = await shop.ask('seek', { topic: 'theirs', to: 'latest' })
    const misspelt = await shop.ask('seek', { topic: 'orders', too: 'latest' })
    const noReason = await shop.ask('skip', { topic: 'orders', partition: 0, offset: 0 })

    expect([beyond, unread, misspelt, noReason].map(({ status }) => status)).toEqual([400, 400, 400, 400])
    expect(beyond.headers.get('kedge-error')).toBe('OFFSET_OUT_OF_RANGE')
    expect(await shop.committed()).toBe(5)
  })

  test('backfills for a bounded time, and the next call goes on', async () => {
    await using shop = await openShop(open())

    const first = await shop.ask('backfill', { topic: 'orders', from: 'earliest', perSecond: 1, timeLimitMs: 1_500 })
    const second = await shop.ask('backfill/resume', { topic: 'orders', timeLimitMs: 10_000 })
    await shop.drain()

    expect(first).toMatchObject({ status: 200, json: { finished: false, ended: 'time-limit' } })
    // How many of the five went is a matter of how busy the machine is.
    expect(first.json['left']).toBeGreaterThan(0)
    expect(second).toMatchObject({
      status: 200,
      json: { finished: true, ended: 'done', replayed: first.json['left'], left: 0 },
    })
    expect(shop.handled.slice(5)).toEqual(['a', 'b', 'c', 'd', 'e'])
  })

  test('stops a backfill that another call is at', async () => {
    await using shop = await openShop(open())
    const back = { topic: 'orders.shop-redrive', partition: 0 }
    const backfill = shop.ask('backfill', { topic: 'orders', from: 0, perSecond: 1, timeLimitMs: 30_000 })
    await until(async () => ((await shop.broker.offsets([back], 'latest'))[0]?.offset ?? 0) > 0)

    const stop = await shop.ask('backfill/stop', { topic: 'orders' })
    const stopped = await backfill
    const again = await shop.ask('backfill/resume', { topic: 'orders' })

    expect(stop).toMatchObject({ status: 200, json: { topic: 'orders', perSecond: 1 } })
    expect(stopped).toMatchObject({ status: 200, json: { finished: true, ended: 'stopped' } })
    expect(again.status).toBe(400)
  })
})

test('a gateway without the app operates on groups whose runs ask, and refuses what it cannot know', async () => {
  await using shop = await openShop(memoryBroker(), () => undefined)

  const pause = await shop.ask('pause')
  const unread = await shop.ask('backfill', { topic: 'theirs', from: 0 })

  expect(pause).toMatchObject({ status: 200, json: { group: true } })
  expect(unread.status).toBe(400)
  expect((await shop.drain()).ended).toBe('paused')
})
