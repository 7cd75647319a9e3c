/**
 * Answers and requests that are lost between the driver and a gateway, which is what networks do to functions. Whatever
 * the gateway did, asking again must lose nothing.
 */
import { describe, expect, test } from 'vitest'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { Broker, PollResult, RunPosition } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { BrokerError } from '../../src/errors.ts'
import type { TopicPartitionOffset } from '../../src/record.ts'
import { refusal } from '../conformance/broker/harness.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { record, series, valuesOf } from '../support/records.ts'

failOnLeaks()

/** What becomes of one request: answered, its answer lost on the way back, or never there. */
type Fate = 'answered' | 'answer lost' | 'request lost'

/** A broker over a real gateway whose network does as `fateOf` says. */
async function overBadNetwork(fateOf: () => Fate): Promise<{ broker: Broker; behind: Broker } & AsyncDisposable> {
  const behind = memoryBroker()
  const server = await startGateway(behind)
  const fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const fate = fateOf()
    if (fate === 'request lost') throw new TypeError('connection refused')
    const response = await globalThis.fetch(url, init)
    if (fate === 'answered') return response
    await response.text()
    throw new TypeError('connection reset')
  }
  return {
    broker: restBroker({ url: server.url, fetch }),
    behind,
    async [Symbol.asyncDispose]() {
      await server.close()
      await behind.close()
    },
  }
}

describe('rest › one lost answer', () => {
  const group = { groupId: 'g', groupInstanceId: 'i' }
  const limits = { maxWaitMs: 0, maxRecords: 2, maxBytes: 1_000 }

  /** Loses the answer of the next request once `lose` was called. */
  async function losing(): Promise<Awaited<ReturnType<typeof overBadNetwork>> & { lose(): void }> {
    let isNextLost = false
    const network = await overBadNetwork(() => {
      const fate = isNextLost ? 'answer lost' : 'answered'
      isNextLost = false
      return fate
    })
    await network.behind.createTopic({ topic: 't' })
    return { ...network, lose: () => (isNextLost = true) }
  }

  test('of a produce is NETWORK; the record is there once, and stays once when it is named and sent again', async () => {
    await using network = await losing()
    const { broker } = network
    const records = [record('t', 'a')]

    network.lose()
    await refusal(broker.produce(records, { idempotencyKey: 'once' }), 'NETWORK')
    const again = await broker.produce(records, { idempotencyKey: 'once' })

    expect(again).toMatchObject([{ topic: 't', partition: 0, offset: 0 }])
    expect(await broker.offsets([{ topic: 't', partition: 0 }], 'latest')).toMatchObject([{ offset: 1 }])
  })

  test('of a poll of a run is asked for again, also of its first', async () => {
    await using network = await losing()
    const { broker } = network
    await broker.produce(series('t', 0, 4))
    const poll = (run: RunPosition): Promise<PollResult> =>
      broker.poll({ group, topics: ['t'], autoOffsetReset: 'earliest', run, ...limits })

    network.lose()
    await refusal(poll({ runId: 'r', positions: [] }), 'NETWORK')
    const first = await poll({ runId: 'r', positions: [] })
    const next = { runId: 'r', generationId: first.generationId, positions: [{ topic: 't', partition: 0, offset: 2 }] }
    network.lose()
    await refusal(poll(next), 'NETWORK')
    const second = await poll(next)

    expect([valuesOf(first.records), valuesOf(second.records)]).toEqual([
      ['v0', 'v1'],
      ['v2', 'v3'],
    ])
  })

  test('of a commit, a claim and a release does no harm', async () => {
    await using network = await losing()
    const { broker } = network
    const steps = [
      () => broker.claim(group, { runId: 'r' }),
      () => broker.commit(group, [{ topic: 't', partition: 0, offset: 1 }], { runId: 'r' }),
      () => broker.release(group, 'r'),
    ]

    for (const step of steps) {
      network.lose()
      await refusal(step(), 'NETWORK')
      await step()
    }

    expect(await broker.committed('g')).toMatchObject([{ offset: 1 }])
    await broker.claim(group, { runId: 'next' })
  })
})

describe('rest › a network that loses a third of everything', () => {
  test.each([1, 2, 3, 4, 5])('loses no record and stores none twice (seed %i)', async (seed) => {
    const random = seeded(seed)
    let isBad = false
    const fates: Fate[] = ['answered', 'answered', 'answered', 'answered', 'answer lost', 'request lost']
    await using network = await overBadNetwork(() =>
      isBad ? (fates[Math.floor(random() * fates.length)] ?? 'answered') : 'answered',
    )
    const { broker } = network
    await broker.createTopic({ topic: 't', partitions: 3 })
    const batches = Array.from({ length: 40 }, (_, n) =>
      [0, 1, 2].map((partition) => record('t', `${partition}:${n}`, { partition })),
    )

    isBad = true
    for (const [n, batch] of batches.entries()) {
      await insisting(() => broker.produce(batch, { idempotencyKey: `batch-${n}` }))
    }
    const handled = await consumeAll(broker, 120)
    isBad = false

    for (const partition of [0, 1, 2]) {
      const own = handled.filter((value) => value.startsWith(`${partition}:`))
      expect(own).toEqual(batches.map((_, n) => `${partition}:${n}`))
    }
    expect((await broker.committed('g')).map(({ offset }) => offset)).toEqual([40, 40, 40])
  })
})

/** Does as the consumer's run does: names its positions, commits what it has handled, and asks again for what is lost. */
async function consumeAll(broker: Broker, count: number): Promise<string[]> {
  const group = { groupId: 'g', groupInstanceId: 'i' }
  const handled: string[] = []
  let positions: TopicPartitionOffset[] = []
  let known: { generationId?: number } = {}
  while (handled.length < count) {
    const run = { runId: 'r', positions, ...known }
    const { records, generationId } = await insisting(() =>
      broker.poll({
        group,
        topics: ['t'],
        autoOffsetReset: 'earliest',
        run,
        maxWaitMs: 0,
        maxRecords: 7,
        maxBytes: 10_000,
      }),
    )
    known = { generationId }
    const next = new Map(positions.map((position) => [position.partition, position]))
    for (const read of records) {
      handled.push(...valuesOf([read]))
      next.set(read.partition, { topic: 't', partition: read.partition, offset: read.offset + 1 })
    }
    positions = [...next.values()]
    await insisting(() => broker.commit(group, positions, { runId: 'r', generationId }))
  }
  return handled
}

/** Makes a call again for as long as the network loses it. */
async function insisting<T>(use: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await use()
    } catch (error) {
      if (!(error instanceof BrokerError && error.code === 'NETWORK')) throw error
    }
  }
}

/** Mulberry32: numbers from 0 to 1 that a seed repeats. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
