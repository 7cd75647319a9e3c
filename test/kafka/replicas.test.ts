/**
 * Several processes over one cluster, none of which knows of the others: what one began another goes on with, whichever call
 * arrives where.
 */
import { createPartitionsV3, findCoordinatorV6, joinGroupV9, leaveGroupV5 } from '@platformatic/kafka'
import { encodeConsumerProtocolSubscription, FindCoordinatorKeyTypes } from '@platformatic/kafka'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Broker, GroupInstance, PollRequest, PollResult, RunPosition } from '../../src/broker.ts'
import { kafkaBroker, kafkaBrokerDefaults } from '../../src/brokers/kafka.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { refusal } from '../conformance/broker/harness.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { series, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'
import { bootstrapServers, connected, type KafkaAdmin, kafkaAdmin } from './admin.ts'

let admin: KafkaAdmin

beforeAll(async () => {
  admin = await kafkaAdmin()
})
beforeEach(() => admin.wipe())
afterAll(() => admin[Symbol.asyncDispose]())

failOnLeaks()

const TOPIC = 'orders'
const GROUP = 'shop'

describe.each([
  { name: 'that remember nothing between calls', cache: false },
  { name: 'as they are', cache: true },
])('replicas $name', ({ cache }) => {
  test('serve the polls of many instances in turn: each partition is held once, every record comes once', async () => {
    await using replicas = new Replicas(3, cache)
    await replicas.topic(6)
    const instances = ['a', 'b', 'c', 'd']
    for (const instance of instances) await replicas.poll(instance)

    const seen: string[] = []
    for (let round = 0; round < 4; round++) {
      const records = [0, 1, 2, 3, 4, 5].flatMap((partition) => series(TOPIC, partition, 3, `${round}/${partition}-`))
      await replicas.next.produce(records)
      const held = new Map<string, PollResult>()
      for (const instance of [...instances, ...instances]) {
        const answer = await replicas.poll(instance)
        held.set(instance, answer)
        seen.push(...valuesOf(answer.records))
      }
      const partitions = [...held.values()].flatMap(({ assignment }) => assignment.map(({ partition }) => partition))
      expect(partitions.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5])
      expect(new Set([...held.values()].map(({ generationId }) => generationId)).size).toBe(1)
    }

    expect(seen.toSorted()).toEqual([...new Set(seen)].toSorted())
    expect(seen).toHaveLength(4 * 18)
  })

  test('go on where the last answer ended, wherever it came from, and commit what was polled elsewhere', async () => {
    await using replicas = new Replicas(3, cache)
    await replicas.topic(1)
    await replicas.next.produce(series(TOPIC, 0, 10))

    const values: string[][] = []
    for (let n = 0; n < 3; n++) values.push(valuesOf((await replicas.poll('a', { maxRecords: 2 })).records))
    await replicas.next.commit(instanceOf('a'), 'polled')
    const [committed] = await replicas.next.committed(GROUP, [{ topic: TOPIC, partition: 0 }])

    expect(values).toEqual([
      ['v0', 'v1'],
      ['v2', 'v3'],
      ['v4', 'v5'],
    ])
    expect(committed?.offset).toBe(6)
  })

  test('hold the claim of a run for all: another is refused everywhere, its own calls are served everywhere', async () => {
    await using replicas = new Replicas(2, cache)
    await replicas.topic(2)
    await replicas.next.produce(series(TOPIC, 0, 2))
    const run = { runId: 'one', positions: [] }

    const { generationId, records } = await replicas.poll('a', { run })
    for (let n = 0; n < 4; n++) {
      const held = await refusal(replicas.poll('a', { run: { runId: 'two', positions: [] } }), 'CLAIM_HELD')
      expect(held.retryAfterMs).toBeGreaterThan(50_000)
      await refusal(replicas.next.commit(instanceOf('a'), [offset(0, 1)], { runId: 'two' }), 'CLAIM_LOST')
      await replicas.poll('a', { run: { ...run, generationId } })
      await replicas.next.commit(instanceOf('a'), [offset(0, n % 3)], { runId: 'one', generationId })
    }
    await replicas.next.release(instanceOf('a'), 'one')
    const next = await replicas.poll('a', { run: { runId: 'two', positions: [] } })

    expect(valuesOf(records)).toEqual(['v0', 'v1'])
    expect(valuesOf(next.records)).toEqual(['v0', 'v1'])
  })

  test('give an instance to one of two runs that race for it', async () => {
    await using replicas = new Replicas(2, cache)
    await replicas.topic(1)
    await replicas.poll('a')

    for (let round = 0; round < 15; round++) {
      const runs = [0, 1].map((n) => ({ runId: `${round}-${n}`, positions: [] }))
      const outcomes = await Promise.allSettled(runs.map((run) => replicas.poll('a', { run })))
      const committed = await Promise.allSettled(
        runs.map(({ runId }) => replicas.next.commit(instanceOf('a'), [offset(0, round)], { runId })),
      )

      expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThanOrEqual(1)
      expect(committed.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
      for (const { runId } of runs) await replicas.next.release(instanceOf('a'), runId)
    }
  })

  test('keep claims and positions of absent instances when a new one joins', async () => {
    await using replicas = new Replicas(2, cache)
    await replicas.topic(4)
    await replicas.next.produce([0, 1, 2, 3].flatMap((partition) => series(TOPIC, partition, 1, `p${partition}-`)))
    const run = { runId: 'one', positions: [] }
    await replicas.poll('a', { run })
    const before = await replicas.poll('b')

    const joinedAt = performance.now()
    const joined = await replicas.poll('c')
    const tookMs = performance.now() - joinedAt

    expect(joined.assignment.length).toBeGreaterThan(0)
    expect(tookMs).toBeLessThan(1_000)
    await refusal(replicas.poll('a', { run: { runId: 'two', positions: [] } }), 'CLAIM_HELD')
    const again = valuesOf((await replicas.poll('b')).records)
    const stayed = new Set(before.records.map(({ partition }) => `p${partition}-0`))
    expect(again.filter((value) => stayed.has(value))).toEqual([])
  })

  test('take a commit of an older generation for what the instance held all the while, and refuse it for what moved', async () => {
    await using replicas = new Replicas(2, cache)
    await replicas.topic(4)
    const run = { runId: 'one', positions: [] }
    const { generationId, assignment } = await replicas.poll('a', { run })
    const moved = (await replicas.poll('b')).assignment.map(({ partition }) => partition)
    const kept = assignment.map(({ partition }) => partition).filter((partition) => !moved.includes(partition))

    for (const partition of kept) {
      await replicas.next.commit(instanceOf('a'), [offset(partition, 0)], { runId: 'one', generationId })
    }
    for (const partition of moved) {
      const late = replicas.next.commit(instanceOf('a'), [offset(partition, 0)], { runId: 'one', generationId })
      await refusal(late, 'ILLEGAL_GENERATION')
    }

    expect(kept).toHaveLength(2)
    expect(moved).toHaveLength(2)
  })

  test('end an older poll that waits when a newer one of its instance is served elsewhere', async () => {
    await using replicas = new Replicas(2, cache)
    await replicas.topic(1)
    const older = replicas.poll('a', { maxWaitMs: 10_000 })
    const { turn } = replicas
    await until(async () => (await replicas.next.groups()).length === 1, { what: 'the older poll to join' })
    replicas.turn = turn

    const startedAt = performance.now()
    const newer = replicas.poll('a', { maxWaitMs: 3_000 })
    await older
    const endedAfterMs = performance.now() - startedAt
    await replicas.next.produce(series(TOPIC, 0, 1))

    expect(endedAfterMs).toBeLessThan(2_000)
    expect(valuesOf((await newer).records)).toEqual(['v0'])
  })

  test('share partitions that were added, and a subscription that grew', async () => {
    await using replicas = new Replicas(2, cache)
    await replicas.topic(2)
    for (const instance of ['a', 'b']) await replicas.poll(instance)
    await addPartitions(TOPIC, 6)
    await replicas.next.createTopic({ topic: 'bills', partitions: 2 })

    await until(
      async () => {
        const held = [await replicas.poll('a'), await replicas.poll('b')].flatMap(({ assignment }) => assignment)
        return new Set(held.map(({ partition }) => partition)).size === 6
      },
      { what: 'the partitions that were added', timeoutMs: 15_000 },
    )
    const both = { topics: [TOPIC, 'bills'] }
    const grown = [await replicas.poll('a', both), await replicas.poll('b', both), await replicas.poll('a', both)]

    const held = grown.slice(1).flatMap(({ assignment }) => assignment.map(({ topic, partition }) => topic + partition))
    expect(held.toSorted()).toEqual(['bills0', 'bills1', ...[0, 1, 2, 3, 4, 5].map((n) => `${TOPIC}${n}`)].toSorted())
  })

  test('answer in time while a member of another kind holds the group up, and go on when it is gone', async () => {
    await using replicas = new Replicas(2, cache, kafkaBrokerDefaults.pollGraceMs)
    await replicas.topic(2)
    await using stuck = await stuckMember()
    const overdue: number[] = []
    const empty: PollResult[] = []

    for (const maxWaitMs of [0, 300, 0, 700]) {
      const startedAt = performance.now()
      empty.push(await replicas.poll('a', { maxWaitMs, run: { runId: 'one', positions: [] } }))
      overdue.push(performance.now() - startedAt - maxWaitMs)
    }
    await stuck.leave()
    await replicas.next.produce(series(TOPIC, 0, 1))
    const records: ConsumerRecord[] = []
    await until(
      async () => {
        records.push(...(await replicas.poll('a', { run: { runId: 'one', positions: [] } })).records)
        return records.length > 0
      },
      { what: 'the record after the stuck member', timeoutMs: 10_000 },
    )

    expect(empty.map(({ records, retryAfterMs }) => [records.length, (retryAfterMs ?? 0) > 0])).toEqual(
      empty.map(() => [0, true]),
    )
    expect(Math.max(...overdue)).toBeLessThan(500)
    expect(valuesOf(records)).toEqual(['v0'])
  })
})

/** Processes over the cluster, asked in turn as a load balancer does that knows nothing of instances. */
class Replicas implements AsyncDisposable {
  readonly #brokers: readonly Broker[]
  turn = 0

  /** A poll may take long to join: these machines are busy. @param pollGraceMs where that is what is tested */
  constructor(count: number, cache: boolean, pollGraceMs = 5_000) {
    const open = (): Broker => kafkaBroker({ bootstrapServers: bootstrapServers().split(','), cache, pollGraceMs })
    this.#brokers = Array.from({ length: count }, open)
  }

  get next(): Broker {
    const broker = this.#brokers[this.turn % this.#brokers.length]
    this.turn += 1
    if (broker === undefined) throw new Error('There are no replicas.')
    return broker
  }

  async topic(partitions: number): Promise<void> {
    await this.next.createTopic({ topic: TOPIC, partitions })
  }

  async poll(instance: string, parts: Partial<PollRequest> & { run?: RunPosition } = {}): Promise<PollResult> {
    return await this.next.poll({
      group: instanceOf(instance),
      topics: [TOPIC],
      autoOffsetReset: 'earliest',
      maxWaitMs: 0,
      maxRecords: 1_000,
      maxBytes: 10_000_000,
      ...parts,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#brokers.map((broker) => broker.close()))
  }
}

function instanceOf(groupInstanceId: string): GroupInstance {
  return { groupId: GROUP, groupInstanceId }
}

function offset(partition: number, value: number): { topic: string; partition: number; offset: number } {
  return { topic: TOPIC, partition, offset: value }
}

async function addPartitions(topic: string, count: number): Promise<void> {
  const connection = await connected(bootstrapServers().split(',')[0] ?? '')
  try {
    await createPartitionsV3.api.async(connection, [{ name: topic, count, assignments: null }], 10_000, false)
  } finally {
    await connection.close()
  }
}

/** A member of another client that has joined and never calls again: each rebalance waits for it, for a minute. */
async function stuckMember(): Promise<{ leave(): Promise<void> } & AsyncDisposable> {
  const connection = await connected(bootstrapServers().split(',')[0] ?? '')
  const metadata = encodeConsumerProtocolSubscription({ version: 1, topics: [TOPIC], ownedPartitions: [] })
  const join = async (memberId: string): Promise<string> => {
    await findCoordinatorV6.api.async(connection, FindCoordinatorKeyTypes.GROUP, [GROUP])
    const joined = await joinGroupV9.api.async(
      connection,
      GROUP,
      60_000,
      60_000,
      memberId,
      null,
      'consumer',
      [{ name: 'range', metadata }],
      null,
    )
    return joined.memberId
  }
  const refused = await join('').catch((failure: unknown) => failure)
  const memberId = await join((refused as { response: { memberId: string } }).response.memberId)
  const leave = async (): Promise<void> => {
    await leaveGroupV5.api.async(connection, GROUP, [{ memberId, groupInstanceId: null, reason: null }])
  }
  return { leave, [Symbol.asyncDispose]: () => Promise.resolve(connection.close()) }
}
