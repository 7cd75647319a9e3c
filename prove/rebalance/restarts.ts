/**
 * A group that has read some partitions, and others not, meets a restart of its gateway or a rebalance. Whoever holds a partition
 * then goes on at its committed offset: not at the end, to which a reset would send it, and not where nothing is committed.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AutoOffsetReset, Broker, PollResult } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { bytesOf, type ConsumerRecord, partitionKey, type TopicPartitionOffset } from '../../src/record.ts'
import { storedItems, valueOf } from '../embedded-log/stored.ts'
import { check } from '../history/check.ts'
import { historyOf, Journal, journalled, JournalReader, observe } from './journal.ts'
import { atOf } from '../history/noted-broker.ts'
import type { Scenario, Stage } from './scenario.ts'

const PARTITIONS = 8
const MOST_PER_PARTITION = 12
const SESSION_MS = 1_000
const MOST_POLLS = 40

/** What happens to the group, in turn. */
const strikes = ['SIGKILL', 'join', 'SIGTERM', 'leave', 'SIGKILL and join', 'expiry'] as const

/** Groups that go on after a restart or a rebalance. */
export const restarts: Scenario = {
  promise: 'After a restart or a rebalance every partition goes on at its committed offset.',
  strikes: { full: 120, quick: 6 },
  needs: ['SIGKILL', 'SIGTERM', 'rebalances', 'went on', 'went on, never polled before', 'went on at the former end'],
  async play(stage) {
    const violations: string[] = []
    const figures: Record<string, number> = {}
    const count = (what: string, by = 1): void => void (figures[what] = (figures[what] ?? 0) + by)
    for (let round = 0; round < stage.strikes && !stage.stop.aborted; round++) {
      const found = await new Round(stage, round, count).play()
      violations.push(...found.map((line) => `round ${round}: ${line}`))
    }
    return { violations, figures }
  },
}

type Strike = (typeof strikes)[number]
type Count = (what: string, by?: number) => void

/** One group, in a topic of its own, with one strike in the middle of its life. */
class Round {
  readonly #stage: Stage
  readonly #count: Count
  readonly #strike: Strike
  readonly #topic: string
  readonly #broker: Broker
  readonly #journal: Journal
  readonly #reader: JournalReader
  readonly #complaints: string[] = []
  readonly #seqs = Array.from({ length: PARTITIONS }, () => 0)
  readonly #committed = new Map<string, number>()
  readonly #polledBefore = new Set<string>()
  readonly #handled = new Set<string>()
  #ends = new Map<string, number>()
  #members: Member[]

  constructor(stage: Stage, round: number, count: Count) {
    this.#stage = stage
    this.#count = count
    this.#strike = strikes[round % strikes.length] ?? 'SIGKILL'
    this.#topic = `restarts.${round}`
    this.#broker = restBroker({ url: stage.gateway.url })
    const path = join(stage.folder, this.#topic)
    this.#reader = new JournalReader(path)
    this.#journal = new Journal(path, 'world')
    const [a, b] = round % 2 === 0 ? (['latest', 'none'] as const) : (['none', 'latest'] as const)
    this.#members = [this.#member('a', a, true), this.#member('b', b, false)]
  }

  async play(): Promise<readonly string[]> {
    await this.#broker.createTopic({ topic: this.#topic, partitions: PARTITIONS })
    const group = { groupId: this.#topic, groupInstanceId: 'nobody' }
    await this.#broker.commit(group, this.#everywhere(0))
    for (const { place } of this.#everywhere(0).map(atOf)) this.#committed.set(place, 0)
    await this.#produce(MOST_PER_PARTITION)
    for (const member of this.#members) {
      const result = await member.poll(3 + this.#below(20))
      this.#judge(member, result)
      await this.#handleSome(member, result)
    }
    for (const place of this.#places())
      if (this.#members.some(({ next }) => next.has(place))) this.#polledBefore.add(place)
    this.#ends = new Map(this.#places().map((place, partition) => [place, this.#seqs[partition] ?? 0]))
    await this.#strikeNow()
    await this.#produce(5)
    await this.#handleRest()
    return await this.#end()
  }

  async #strikeNow(): Promise<void> {
    const { gateway } = this.#stage
    const [a, b] = this.#members as [Member, Member]
    const signal = this.#strike.startsWith('SIGKILL') ? 'SIGKILL' : 'SIGTERM'
    if (this.#strike.startsWith('SIG')) {
      await gateway.kill(signal)
      await gateway.start()
      this.#count(signal)
      // Positions that nobody committed went with the process.
      b.next.clear()
    }
    if (this.#strike.endsWith('join')) this.#members.push(this.#member('c', 'none', true))
    if (this.#strike === 'leave') await this.#broker.leave(b.group)
    if (this.#strike === 'expiry') await sleep(SESSION_MS + 200)
    if (this.#strike === 'leave' || this.#strike === 'expiry') this.#members = [a]
    if (!/^SIG\w+$/.test(this.#strike)) this.#count('rebalances')
    // What a run has polled and not committed comes again in the next one.
    await a.newRun()
  }

  /** Handles and commits a part of an answer. Without a run a position stays where it is, so there all of it is handled. */
  async #handleSome(member: Member, result: PollResult): Promise<void> {
    const commits: TopicPartitionOffset[] = []
    for (const records of Map.groupBy(result.records, partitionKey).values()) {
      const behind = this.#below(records.length + 1)
      for (const record of member.isRun ? records.slice(0, behind) : records) this.#handle(record)
      const last = records[behind - 1]
      if (last !== undefined) commits.push({ topic: last.topic, partition: last.partition, offset: last.offset + 1 })
    }
    await this.#commit(member, commits)
  }

  async #handleRest(): Promise<void> {
    const total = this.#seqs.reduce((sum, seq) => sum + seq, 0)
    for (let polls = 0; polls < MOST_POLLS && this.#handled.size < total; polls++) {
      for (const member of this.#members) {
        const result = await member.poll(10 + this.#below(30))
        this.#judge(member, result)
        for (const record of result.records) this.#handle(record)
        const ends = [...Map.groupBy(result.records, partitionKey).values()].flatMap((records) => records.slice(-1))
        await this.#commit(
          member,
          ends.map(({ topic, partition, offset }) => ({ topic, partition, offset: offset + 1 })),
        )
      }
    }
  }

  /** Each partition of an answer begins where its reader stood, and for a new reader where the group has committed. */
  #judge(member: Member, result: PollResult): void {
    const held = new Set(result.assignment.map(partitionKey))
    for (const place of member.next.keys()) if (!held.has(place)) member.next.delete(place)
    for (const [place, records] of Map.groupBy(result.records, partitionKey)) {
      const committed = this.#committed.get(place)
      const expected = member.next.get(place) ?? committed
      const [first] = records
      if (first?.offset !== expected) {
        this.#complaints.push(
          `after ${this.#strike} ${member.name} went on in ${place} at ${first?.offset}, not at ${expected}`,
        )
      }
      if (this.#ends.size > 0 && !member.next.has(place)) {
        this.#count('went on')
        if (!this.#polledBefore.has(place)) this.#count('went on, never polled before')
        if (committed === this.#ends.get(place)) this.#count('went on at the former end')
      }
      member.next.set(place, (records.at(-1)?.offset ?? 0) + 1)
    }
  }

  #handle(record: ConsumerRecord): void {
    this.#journal.note({ type: 'handled', ...atOf(record) })
    this.#handled.add(`${partitionKey(record)}@${record.offset}`)
  }

  async #commit(member: Member, offsets: readonly TopicPartitionOffset[]): Promise<void> {
    if (offsets.length === 0) return
    await member.commit(offsets)
    for (const offset of offsets) this.#committed.set(partitionKey(offset), offset.offset)
  }

  async #produce(most: number): Promise<void> {
    const items = this.#places().flatMap((_place, partition) =>
      Array.from({ length: 1 + this.#below(most) }, () => {
        const seq = this.#seqs[partition] ?? 0
        this.#seqs[partition] = seq + 1
        const item = { lane: `l${partition}`, seq }
        return { partition, ...item, content: valueOf(item) }
      }),
    )
    for (const { partition: _, ...item } of items) this.#journal.note({ type: 'sent', ...item })
    const results = await this.#broker.produce(
      items.map(({ partition, content }) => ({ topic: this.#topic, partition, key: null, value: bytesOf(content) })),
    )
    for (const [index, { partition: _, ...item }] of items.entries()) {
      const result = results[index]
      if (result === undefined || result instanceof Error) throw result
      this.#journal.note({ type: 'acknowledged', ...item, ...atOf(result) })
    }
  }

  async #end(): Promise<readonly string[]> {
    await observe(this.#broker, this.#topic, this.#journal, true)
    const log = await storedItems(this.#broker, this.#topic, PARTITIONS)
    this.#reader.read()
    const { violations } = check(historyOf(this.#reader.entries), { log }, { mostOverMs: 0 })
    this.#reader[Symbol.dispose]()
    this.#journal[Symbol.dispose]()
    return [...this.#complaints, ...violations.map(({ kind, detail }) => `${kind}: ${detail}`)]
  }

  #member(name: string, autoOffsetReset: AutoOffsetReset, isRun: boolean): Member {
    const sessionTimeoutMs = name === 'b' && this.#strike === 'expiry' ? SESSION_MS : 60_000
    const broker = journalled(this.#broker, name, this.#journal)
    return new Member(broker, { name, topic: this.#topic, autoOffsetReset, sessionTimeoutMs, isRun })
  }

  #everywhere(offset: number): TopicPartitionOffset[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => ({ topic: this.#topic, partition, offset }))
  }

  #places(): string[] {
    return this.#everywhere(0).map(partitionKey)
  }

  #below(limit: number): number {
    return Math.floor(this.#stage.random() * limit)
  }
}

interface MemberOptions {
  readonly name: string
  readonly topic: string
  readonly autoOffsetReset: AutoOffsetReset
  readonly sessionTimeoutMs: number
  /** Whether it polls as a run, or without one as Upstash's clients did. */
  readonly isRun: boolean
}

/** One instance of the group, and where it stands in the partitions that it has read. */
class Member {
  readonly next = new Map<string, number>()
  readonly #broker: Broker
  readonly #options: MemberOptions
  #runs = 0
  #generationId = 0

  constructor(broker: Broker, options: MemberOptions) {
    this.#broker = broker
    this.#options = options
  }

  get name(): string {
    return this.#options.name
  }

  get isRun(): boolean {
    return this.#options.isRun
  }

  get group(): { readonly groupId: string; readonly groupInstanceId: string } {
    return { groupId: this.#options.topic, groupInstanceId: this.name }
  }

  get #runId(): string {
    return `${this.name}-${this.#runs}`
  }

  /** The run gives its claim back, with what it polled and did not commit, and another one begins. */
  async newRun(): Promise<void> {
    await this.#broker.release(this.group, this.#runId)
    this.#runs += 1
    this.next.clear()
  }

  async poll(maxRecords: number): Promise<PollResult> {
    const { topic, autoOffsetReset, sessionTimeoutMs, isRun } = this.#options
    const result = await this.#broker.poll({
      group: this.group,
      topics: [topic],
      ...(isRun ? { run: { runId: this.#runId } } : {}),
      autoOffsetReset,
      sessionTimeoutMs,
      maxWaitMs: 0,
      maxRecords,
      maxBytes: 1 << 20,
    })
    this.#generationId = result.generationId
    return result
  }

  async commit(offsets: readonly TopicPartitionOffset[]): Promise<void> {
    const options = { generationId: this.#generationId, ...(this.isRun ? { runId: this.#runId } : {}) }
    await this.#broker.commit(this.group, offsets, options)
  }
}
