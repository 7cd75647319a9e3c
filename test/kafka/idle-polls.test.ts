/** Many polls that wait for records at once: they share few connections, and hold up nothing else. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Broker, PollRequest, PollResult } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { instanceOf } from '../conformance/broker/harness.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { record, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'

const IDLE = 'idle'
const BUSY = 'busy'
const POLLERS = 400
/** So many wait at once for a broker's records. */
const CONNECTIONS = 64
/** Groups that join at once. */
const JOINERS = 16
const WAIT_MS = 3_000
/** Above the 250 ms that the protocol promises: what two busy cores may add. */
const MOST_OVER_MS = 500
const QUICK_MS = 1_000

let admin: KafkaAdmin

beforeAll(async () => {
  admin = await kafkaAdmin()
})
beforeEach(() => admin.wipe())
afterAll(() => admin[Symbol.asyncDispose]())

failOnLeaks()

describe(`${POLLERS} polls that wait`, () => {
  it('each end in time, and let produces, fetches and polls with records be served at once', async () => {
    await using broker = kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
    await broker.createTopic({ topic: IDLE, partitions: 1 })
    await broker.createTopic({ topic: BUSY, partitions: 1 })
    const idle = Array.from({ length: POLLERS }, (_, n) => `group-${n}`)
    await Promise.all(
      Array.from({ length: JOINERS }, async (_, first) => {
        for (let n = first; n < POLLERS; n += JOINERS) await joined(broker, idle[n] ?? '', IDLE)
      }),
    )
    await joined(broker, 'busy', BUSY)
    await broker.produce([record(BUSY, 'first')])
    await poll(broker, 'busy', BUSY, WAIT_MS)

    const waiting = idle.map((groupId) => timed(() => poll(broker, groupId, IDLE, WAIT_MS)))
    const isOver = Promise.all(waiting)
    // They all began before it: when it is served, they wait.
    await poll(broker, 'busy', BUSY, 0)
    const tookMs: number[] = []
    const values: string[] = []
    for (let round = 0; round < 5; round++) {
      const produced = await timed(() => broker.produce([record(BUSY, `v${round}`)]))
      const [polled, fetched] = await Promise.all([
        timed(() => poll(broker, 'busy', BUSY, WAIT_MS)),
        timed(() => broker.fetch([{ topic: BUSY, partition: 0, offset: round + 1 }], limits(WAIT_MS))),
      ])
      values.push(...valuesOf(polled.result.records), ...valuesOf(fetched.result))
      tookMs.push(produced.tookMs, polled.tookMs, fetched.tookMs)
    }
    const answers = await isOver

    expect(values).toEqual([0, 1, 2, 3, 4].flatMap((round) => [`v${round}`, `v${round}`]))
    expect(Math.max(...tookMs)).toBeLessThan(QUICK_MS)
    expect(answers.flatMap(({ result }) => result.records)).toEqual([])
    const waitedMs = answers.map(({ tookMs }) => tookMs)
    expect(Math.min(...waitedMs)).toBeGreaterThanOrEqual(WAIT_MS - 1)
    expect(Math.max(...waitedMs)).toBeLessThan(WAIT_MS + MOST_OVER_MS)
  })
})

describe('a fetch that waits', () => {
  it('for one of the connections, and then on it, waits no longer than it says', async () => {
    await using broker = kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
    await broker.createTopic({ topic: IDLE, partitions: 1 })
    const fetchFor = (maxWaitMs: number): Promise<{ result: unknown[]; tookMs: number }> =>
      timed(() => broker.fetch([{ topic: IDLE, partition: 0, offset: 0 }], limits(maxWaitMs)))
    await fetchFor(0)

    const first = Array.from({ length: CONNECTIONS }, () => fetchFor(420))
    const later = Array.from({ length: 9 }, () => fetchFor(500))
    const answers = await Promise.all(later)
    await Promise.all(first)

    const tookMs = answers.map((answer) => answer.tookMs).toSorted((a, b) => a - b)
    expect(answers.flatMap(({ result }) => result)).toEqual([])
    // Whoever waited anew for as long would take about 900.
    expect(tookMs[4]).toBeLessThan(800)
  })
})

/** Polls until the group's instance has joined. */
async function joined(broker: Broker, groupId: string, topic: string): Promise<void> {
  const hasJoined = (): Promise<boolean> =>
    poll(broker, groupId, topic, 0).then(
      ({ retryAfterMs }) => retryAfterMs === undefined,
      () => false,
    )
  await until(hasJoined, { what: 'a join', timeoutMs: 10_000 })
}

async function poll(broker: Broker, groupId: string, topic: string, maxWaitMs: number): Promise<PollResult> {
  const request: PollRequest = { group: instanceOf(groupId), topics: [topic], ...limits(maxWaitMs) }
  return await broker.poll({ ...request, autoOffsetReset: 'earliest' })
}

function limits(maxWaitMs: number): { maxWaitMs: number; maxRecords: number; maxBytes: number } {
  return { maxWaitMs, maxRecords: 1_000, maxBytes: 1_000_000 }
}

async function timed<T>(call: () => Promise<T>): Promise<{ readonly result: T; readonly tookMs: number }> {
  const startedAt = performance.now()
  const result = await call()
  return { result, tookMs: performance.now() - startedAt }
}
