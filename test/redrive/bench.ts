/** An app whose handler fails on demand, with dead letters to redrive, over each kind of broker and store. */
import { logBroker } from '../../src/brokers/log.ts'
import type { Broker } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { sqliteDeadLetters } from '../../src/dead-letters/sqlite.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRedrive } from '../../src/redrive.ts'
import type { Redrive, RedriveOptions } from '../../src/redrive.ts'
import { createRouter } from '../../src/router.ts'
import type { FakeClock } from '../support/clock.ts'
import { openBench, TOPIC } from '../support/consumer.ts'
import type { Bench, BenchOptions } from '../support/consumer.ts'

/** Every kind of broker with every kind of store. */
export const systems: readonly (BenchOptions & { readonly name: string })[] = [
  { name: 'memory, memory' },
  { name: 'memory, sqlite', openLetters: openSqlite },
  { name: 'log, memory', openBroker: openLog },
  { name: 'log, sqlite', openBroker: openLog, openLetters: openSqlite },
  { name: 'log, topic', openBroker: openLog, openLetters: (broker) => topicDeadLetters({ broker }) },
]

function openLog(clock: FakeClock): Broker {
  return logBroker({ memory: true, clock })
}

function openSqlite(): DeadLetterStore {
  return sqliteDeadLetters({ path: ':memory:' })
}

/** A call of the handler. */
export interface Handled {
  readonly record: ConsumerRecord
  readonly attempt: number
}

export interface RedriveBench extends Bench {
  /** Whether the handler fails. */
  isDown: boolean
  /** What it was called with while it did not fail. */
  readonly handled: Handled[]
  redrive(options?: Partial<RedriveOptions>): Redrive
  /** The ids of the letters in the store, in its order. */
  ids(): Promise<string[]>
  /** How many records a topic has. */
  count(topic: string): Promise<number>
}

/** Opens a bench whose group reads what comes back; `isDown` until a test mends it. */
export async function openRedriveBench(options: BenchOptions = {}): Promise<RedriveBench> {
  const handled: Handled[] = []
  const router = createRouter().on(
    { topic: TOPIC },
    (record, { attempt }) => {
      if (bench.isDown) throw new Error('the warehouse is down')
      handled.push({ record, attempt })
    },
    { retry: { maxAttempts: 1 }, breaker: null },
  )
  const base = await openBench({ partitions: 2, ...options, app: { router, redrive: true, ...options.app } })
  const { broker, letters, app, clock } = base
  const bench: RedriveBench = Object.assign(base, {
    isDown: true,
    handled,
    redrive: (more: Partial<RedriveOptions> = {}) =>
      createRedrive({ broker, store: letters, groupId: app.groupId, app, clock, random: () => 0.5, ...more }),
    ids: async () => (await letters.list({ limit: 1_000 })).items.map(({ id }) => id),
    async count(topic: string) {
      const partitions = (await broker.topics()).find((one) => one.topic === topic)?.partitions ?? 0
      const all = Array.from({ length: partitions }, (_, partition) => ({ topic, partition }))
      const ends = partitions === 0 ? [] : await broker.offsets(all, 'latest')
      return ends.reduce((sum, { offset }) => sum + offset, 0)
    },
  })
  return bench
}

export const REDRIVE_TOPIC: string = `${TOPIC}.g-redrive`
