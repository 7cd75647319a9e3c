/**
 * While a group rebalances, Kafka shows the ids of its members and nothing that they told it, claims of runs included. A member of
 * another client that hangs keeps a group so for minutes. Each broker object here stands for a process: none knows what another
 * has seen.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { joinStuckMember } from '../../prove/kafka-faults/stuck-member.ts'
import type { Broker, CommitOptions, PollRequest, PollResult, RunPosition } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { BrokerError } from '../../src/errors.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { instanceOf, refusal } from '../conformance/broker/harness.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { series, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'

const TOPIC = 'orders'
const GROUP = 'shop'
const A = instanceOf(GROUP, 'a')
/** Above the 250 ms that the protocol promises: what two busy cores may add. */
const MOST_OVER_MS = 500
/** The shortest that a claim may live. */
const SHORT_CLAIM = { claimTtlMs: 1_000 }

let admin: KafkaAdmin

beforeAll(async () => {
  admin = await kafkaAdmin()
})
beforeEach(() => admin.wipe())
afterAll(() => admin[Symbol.asyncDispose]())

failOnLeaks()

describe('while a group hides its members', () => {
  it('a run whose instance another has taken commits nothing, whoever it asks', async () => {
    await using group = new HeldUpGroup()
    await group.begin(() => group.poll(group.holder, 'old', SHORT_CLAIM))
    const { generationId, assignment } = await group.served(group.holder, 'old', SHORT_CLAIM)
    await group.served(group.other, 'new')
    await group.hide()

    const offsets = assignment.map((partition) => ({ ...partition, offset: 1 }))
    const asked = [group.holder, group.other, group.stranger].flatMap((broker) =>
      [{ generationId }, {}].map((options: CommitOptions) =>
        refusal(broker.commit(A, offsets, { ...options, runId: 'old' }), 'CLAIM_LOST', 'REBALANCE_IN_PROGRESS'),
      ),
    )
    await Promise.all(asked)

    expect(offsets).toHaveLength(1)
    expect(await group.isHidden()).toBe(true)
    expect(await group.other.committed(GROUP)).toEqual([])
  })

  it('a run that begins does not get an instance that another holds, then or afterwards', async () => {
    await using group = new HeldUpGroup()
    await group.begin(() => group.poll(group.holder, 'one'))
    const inHand = valuesOf((await group.served(group.holder, 'one')).records)
    await group.hide()
    const got: ConsumerRecord[] = []
    const begin = async (broker: Broker): Promise<BrokerError | undefined> => {
      try {
        const { records, retryAfterMs } = await group.poll(broker, 'two', { maxWaitMs: 300 })
        got.push(...records)
        expect(retryAfterMs).toBeGreaterThan(0)
        return undefined
      } catch (error) {
        if (error instanceof BrokerError && error.code === 'CLAIM_HELD') return error
        throw error
      }
    }

    for (let polls = 0; polls < 4; polls++) await Promise.all([begin(group.other), begin(group.stranger)])
    expect(await group.isHidden()).toBe(true)
    await group.endStuck()
    for (const broker of [group.other, group.stranger]) {
      await until(async () => (await begin(broker)) !== undefined, { what: 'a refusal' })
    }

    expect(inHand).toHaveLength(3)
    expect(got).toEqual([])
  })

  it('a process that dies when it has joined for an instance leaves it to nobody else', async () => {
    await using group = new HeldUpGroup()
    await group.begin(() => group.poll(group.holder, 'one'))
    await group.hide()
    // By now the other has joined as the instance, and waits with it for the member that hangs.
    await sleep(1_000)

    await group.other.close()
    await group.endStuck()
    // The run is at work and asks nobody; longer than Kafka lets a member take to fetch its assignment.
    const codes: unknown[] = []
    const end = performance.now() + 10_000
    while (performance.now() < end) {
      codes.push(
        await group.poll(group.stranger, 'two', { maxWaitMs: 200 }).then(
          ({ records }) => valuesOf(records),
          (error: unknown) => (error instanceof BrokerError ? error.code : error),
        ),
      )
      await sleep(200)
    }

    expect(codes.at(-1)).toBe('CLAIM_HELD')
    expect(codes.filter((code) => code !== 'CLAIM_HELD' && JSON.stringify(code) !== '[]')).toEqual([])
  })

  it('polls answer in time, whoever is asked, by whom and for which instance', async () => {
    await using group = new HeldUpGroup()
    await group.begin(() => group.poll(group.holder, 'one'))
    await group.hide()
    const brokers = [group.holder, group.other, group.stranger]

    const overs: number[] = []
    for (const maxWaitMs of [0, 300, 700]) {
      const polls = brokers.flatMap((broker) =>
        ['one', 'two', undefined].map((runId) => overMs(() => group.poll(broker, runId, { maxWaitMs }), maxWaitMs)),
      )
      const newcomers = brokers.map((broker, n) =>
        overMs(() => group.poll(broker, undefined, { maxWaitMs, group: instanceOf(GROUP, `new ${n}`) }), maxWaitMs),
      )
      overs.push(...(await Promise.all([...polls, ...newcomers])))
    }

    expect(await group.isHidden()).toBe(true)
    expect(overs).toHaveLength(36)
    expect(Math.max(...overs)).toBeLessThan(MOST_OVER_MS)
  })
})

describe('when a group shows its members again', () => {
  it('the run that held an instance goes on and commits, and another is refused', async () => {
    await using group = new HeldUpGroup()
    await group.begin(() => group.poll(group.holder, 'one'))
    await group.hide()
    await Promise.all([group.poll(group.holder, 'one'), group.poll(group.stranger, 'two')])

    await group.endStuck()
    const { generationId, assignment, records } = await group.served(group.holder, 'one')
    const offsets = assignment.map((partition) => ({ ...partition, offset: 3, metadata: null }))
    await group.holder.commit(A, offsets, { runId: 'one', generationId })

    expect(records).toHaveLength(3 * assignment.length)
    expect(await group.stranger.committed(GROUP)).toEqual(offsets)
    for (const broker of [group.other, group.stranger]) await refusal(group.poll(broker, 'two'), 'CLAIM_HELD')
  })
})

/** A group with an instance `a`, in which a member of another client hangs, so that any rebalance lasts until that leaves. */
class HeldUpGroup implements AsyncDisposable {
  /** Serves the instance. */
  readonly holder: Broker = open()
  /** Has seen the group before it hid anything. */
  readonly other: Broker = open()
  /** Is asked for the first time when everything is hidden. */
  readonly stranger: Broker = open()
  #stuck: AsyncDisposable | undefined

  /** Joins by `poll`, and lets the other client's member in. Each of the two partitions of the topic has three records. */
  async begin(poll: () => Promise<PollResult>): Promise<void> {
    await this.holder.createTopic({ topic: TOPIC, partitions: 2 })
    await this.holder.produce([...series(TOPIC, 0, 3), ...series(TOPIC, 1, 3)])
    await poll()
    const joining = joinStuckMember(bootstrapServers().split(',')[0] ?? '', GROUP, TOPIC)
    const joined = joining.then((stuck) => (this.#stuck = stuck))
    await until(
      async () => {
        await poll()
        return this.#stuck !== undefined
      },
      { what: 'the member that hangs', timeoutMs: 20_000 },
    )
    await joined
  }

  /** Begins a rebalance, by an instance that joins. */
  async hide(): Promise<void> {
    await this.other.poll(requestOf({ group: instanceOf(GROUP, 'b') }))
    await until(() => this.isHidden(), { what: 'a rebalance' })
  }

  async isHidden(): Promise<boolean> {
    return (await admin.members(GROUP)).length === 0
  }

  /** Polls as `a`, for a run or for none. */
  async poll(broker: Broker, runId?: string, parts: Partial<PollRequest & RunPosition> = {}): Promise<PollResult> {
    const { claimTtlMs, ...rest } = parts
    const run = { positions: [], ...(claimTtlMs === undefined ? {} : { claimTtlMs }) }
    return await broker.poll(requestOf({ ...rest, ...(runId === undefined ? {} : { run: { ...run, runId } }) }))
  }

  /** Polls as `a` until it is served as a member, which a claim or a rebalance may put off. */
  async served(broker: Broker, runId: string, parts: Partial<RunPosition> = {}): Promise<PollResult> {
    const served: PollResult[] = []
    await until(
      async () => {
        const answer = await this.poll(broker, runId, parts).catch(() => undefined)
        if (answer !== undefined && answer.retryAfterMs === undefined) served.push(answer)
        return served.length > 0
      },
      { what: `run ${runId} to be served` },
    )
    return served[0] as PollResult
  }

  /** Lets the member that hangs leave. */
  async endStuck(): Promise<void> {
    await this.#stuck?.[Symbol.asyncDispose]()
    this.#stuck = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endStuck()
    await Promise.all([this.holder, this.other, this.stranger].map((broker) => broker.close()))
  }
}

function open(): Broker {
  return kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
}

function requestOf(parts: Partial<PollRequest>): PollRequest {
  return {
    group: A,
    topics: [TOPIC],
    autoOffsetReset: 'earliest',
    maxWaitMs: 0,
    maxRecords: 1_000,
    maxBytes: 1_000_000,
    ...parts,
  }
}

/** How much longer than `limitMs` a poll took, however it ended. */
async function overMs(poll: () => Promise<unknown>, limitMs: number): Promise<number> {
  const startedAt = performance.now()
  await poll().catch(() => {})
  return performance.now() - startedAt - limitMs
}
