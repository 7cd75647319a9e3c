/** Many polls that wait for records at once: they share few connections, and hold up nothing else. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'

const IDLE = 'idle'
/** So many wait at once for a broker's records. */
const CONNECTIONS = 64

let admin: KafkaAdmin

beforeAll(async () => {
  admin = await kafkaAdmin()
})
beforeEach(() => admin.wipe())
afterAll(() => admin[Symbol.asyncDispose]())

failOnLeaks()

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

function limits(maxWaitMs: number): { maxWaitMs: number; maxRecords: number; maxBytes: number } {
  return { maxWaitMs, maxRecords: 1_000, maxBytes: 1_000_000 }
}

async function timed<T>(call: () => Promise<T>): Promise<{ readonly result: T; readonly tookMs: number }> {
  const startedAt = performance.now()
  const result = await call()
  return { result, tookMs: performance.now() - startedAt }
}
