/**
 * Calls that overtake each other: every request, and every answer, arrives when fast-check's scheduler says so. What clients did
 * and were told is judged by the checker of histories.
 */
import * as fc from 'fast-check'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { TopicPartitionOffset } from '../../src/record.ts'
import { partitionKey } from '../../src/record.ts'
import { FakeClock } from '../../test/support/clock.ts'
import { withCalls } from '../../test/support/consumer.ts'
import { check } from '../history/check.ts'
import type { Item } from '../history/history.ts'
import { recordOf, TOPIC } from '../run-sim/records.ts'
import { atOf } from '../history/noted-broker.ts'
import { contentOf, itemOf, Witness } from '../run-sim/witness.ts'

const PARTITIONS = 2
const GROUP = 'g'
const limits = { maxWaitMs: 0, maxRecords: 100_000, maxBytes: 1 << 30 }

type Act = 'produce' | 'poll' | 'commit' | 'new run' | 'leave' | 'pass' | 'observe'

/** Sequences of acts, and their interleavings. Adds to the counts what was done. */
export function interleaved(counts: Record<string, number>): fc.IAsyncProperty<unknown> {
  const act = fc.constantFrom<Act>(
    'produce',
    'produce',
    'poll',
    'poll',
    'poll',
    'commit',
    'commit',
    'new run',
    'leave',
    'pass',
    'observe',
  )
  const command = fc.tuple(act, fc.nat({ max: 2 }), fc.nat({ max: 3_000 })).map((args) => new Interleaved(...args))
  const commands = fc.commands([command], { maxCommands: 60, size: '+1' })
  return fc.asyncProperty(fc.scheduler(), commands, async (scheduler, steps) => {
    const world = new Overtaking(scheduler, counts)
    await world.broker.createTopic({ topic: TOPIC, partitions: PARTITIONS, retentionMs: null })
    await fc.scheduledModelRun(scheduler, () => ({ model: {}, real: world }), steps)
    await scheduler.waitIdle()
    await world.judge()
  })
}

class Interleaved implements fc.AsyncCommand<object, Overtaking> {
  readonly #act: Act
  readonly #who: number
  readonly #ms: number
  constructor(act: Act, who: number, ms: number) {
    this.#act = act
    this.#who = who
    this.#ms = ms
  }

  check(): boolean {
    return true
  }

  /** Begins, and does not wait. */
  run(_model: object, world: Overtaking): Promise<void> {
    world.begin(this.#act, this.#who, this.#ms)
    return Promise.resolve()
  }

  toString(): string {
    return this.#act === 'pass' ? `${this.#ms} ms pass` : `${this.#act} ${this.#who}`
  }
}

interface Lane {
  next: number
  committed: number
  readonly generationId: number
}

/** A run as a client makes it: it names what it wants and commits what it has handled. */
class Client {
  readonly instance: string
  readonly broker: Broker
  readonly runId: string
  readonly lanes = new Map<string, Lane & { readonly partition: number }>()
  generationId: number | undefined
  isPolling = false
  isCommitting = false

  constructor(instance: string, runId: string, broker: Broker) {
    this.instance = instance
    this.runId = runId
    this.broker = broker
  }
}

class Overtaking {
  readonly broker: Broker
  readonly #time = new FakeClock()
  readonly #scheduler: fc.Scheduler
  readonly #witness = new Witness()
  readonly #counts: Record<string, number>
  readonly #clients = new Map<number, Client>()
  readonly #seqs = [0, 0]
  #runs = 0

  constructor(scheduler: fc.Scheduler, counts: Record<string, number>) {
    this.#scheduler = scheduler
    this.#counts = counts
    this.broker = memoryBroker({ clock: this.#time })
  }

  begin(act: Act, who: number, ms: number): void {
    this.#counts[`interleaved ${act}`] = (this.#counts[`interleaved ${act}`] ?? 0) + 1
    const client = this.#clients.get(who) ?? this.#newRun(who)
    const begun = this.#acts[act](client, who, ms)
    // A call that is refused is noted as such.
    begun.catch(() => undefined)
  }

  /** @throws what the history has that may not be */
  async judge(): Promise<void> {
    await this.#observe(true)
    const log = new Map<string, Item[]>()
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const records = await this.broker.fetch([{ topic: TOPIC, partition, offset: 0 }], limits)
      log.set(`${TOPIC}/${partition}`, records.map(itemOf))
    }
    await this.broker.close()
    const { violations } = check(this.#witness.history, { log }, { mostOverMs: 0, isConsumed: false })
    if (violations.length === 0) return
    throw new Error(violations.map(({ kind, detail }) => `${kind}: ${detail}`).join('\n'))
  }

  readonly #acts: Readonly<Record<Act, (client: Client, who: number, ms: number) => Promise<unknown>>> = {
    produce: (_client, who) => this.#produce(who % PARTITIONS),
    poll: (client) => this.#poll(client),
    commit: (client) => this.#commit(client),
    'new run': (_client, who) => Promise.resolve(this.#newRun(who)),
    leave: ({ instance }) =>
      this.#sent('leave', () => this.broker.leave({ groupId: GROUP, groupInstanceId: instance })),
    pass: (_client, _who, ms) => this.#time.advance(ms),
    observe: () => this.#observe(false),
  }

  #newRun(who: number): Client {
    this.#runs += 1
    // Two of three are of one instance: they are in each other's way.
    const instance = who === 2 ? 'b' : 'a'
    const runId = `run-${this.#runs}`
    const client = new Client(instance, runId, this.#witness.noted(this.#overtaking(), instance))
    this.#clients.set(who, client)
    return client
  }

  async #produce(partition: number): Promise<void> {
    const lane = `p${partition}`
    const seq = this.#seqs[partition] ?? 0
    this.#seqs[partition] = seq + 1
    const record = recordOf(partition, lane, seq, 'good')
    const item = { lane, seq, content: contentOf({ ...record, headers: record.headers ?? [] }) }
    this.#witness.note({ type: 'sent', ...item })
    // Sent in order, as a producer does that has one connection; the answers may overtake each other.
    const [result] = await this.broker.produce([record])
    if (result === undefined || result instanceof Error) throw result
    await this.#scheduler.schedule(Promise.resolve(), 'acknowledgement')
    this.#witness.note({ type: 'acknowledged', ...item, ...atOf(result) })
  }

  async #poll(client: Client): Promise<void> {
    if (client.isPolling) return
    client.isPolling = true
    const named = new Map([...client.lanes].filter(([, { next, committed }]) => next > committed))
    const positions: TopicPartitionOffset[] = [...named.values()].map(({ partition, next }) => ({
      topic: TOPIC,
      partition,
      offset: next,
    }))
    const { instance, runId, generationId } = client
    try {
      const { records, ...answer } = await client.broker.poll({
        group: { groupId: GROUP, groupInstanceId: instance },
        topics: [TOPIC],
        autoOffsetReset: 'earliest',
        sessionTimeoutMs: 2_000,
        ...limits,
        maxRecords: 3,
        run: { runId, claimTtlMs: 1_500, positions, ...(generationId === undefined ? {} : { generationId }) },
      })
      const held = new Set(answer.assignment.map(partitionKey))
      // In a generation that it missed a partition may have been another's, and have come back.
      const hasMissed = answer.generationId > (generationId ?? 0) + 1
      client.generationId = answer.generationId
      for (const key of client.lanes.keys()) if (hasMissed || !held.has(key)) client.lanes.delete(key)
      for (const record of records) {
        const key = partitionKey(record)
        const before = client.lanes.get(key)
        const { generationId } = before !== undefined && record.offset === before.next ? before : answer
        const committed = before !== undefined && record.offset === before.next ? before.committed : record.offset
        this.#witness.handled(record)
        client.lanes.set(key, { partition: record.partition, next: record.offset + 1, committed, generationId })
      }
    } finally {
      client.isPolling = false
    }
  }

  async #commit(client: Client): Promise<void> {
    const [oldest] = [...client.lanes.values()].filter(({ next, committed }) => next > committed)
    if (client.isCommitting || oldest === undefined) return
    client.isCommitting = true
    const { instance, runId } = client
    const { partition, next, generationId } = oldest
    try {
      const group = { groupId: GROUP, groupInstanceId: instance }
      await client.broker.commit(group, [{ topic: TOPIC, partition, offset: next }], { runId, generationId })
      oldest.committed = next
    } finally {
      client.isCommitting = false
    }
  }

  async #observe(isLast: boolean): Promise<void> {
    const call = this.#witness.ask()
    const committed = await this.broker.committed(GROUP)
    this.#witness.note({ type: 'observed', call, offsets: committed.map(atOf), isLast })
  }

  /** The broker behind a network in which everything may overtake everything. */
  #overtaking(): Broker {
    const { broker } = this
    return withCalls(broker, {
      poll: (request) => this.#sent('poll', () => broker.poll(request)),
      commit: (group, offsets, options) => this.#sent('commit', () => broker.commit(group, offsets, options)),
    })
  }

  async #sent<R>(what: string, serve: () => Promise<R>): Promise<R> {
    await this.#scheduler.schedule(Promise.resolve(), `${what} arrives`)
    try {
      return await serve()
    } finally {
      await this.#scheduler.schedule(Promise.resolve(), `answer of a ${what} arrives`)
    }
  }
}
