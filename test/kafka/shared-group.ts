/** A group that Kedge shares with other clients, and what can be said of it afterwards. */
import type { Broker, GroupInstance } from '../../src/broker.ts'
import { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import type { SpawnedProgram } from '../support/processes.ts'
import { record } from '../support/records.ts'
import { until } from '../support/until.ts'

/** A record that somebody handled. */
interface Handled {
  readonly by: string
  readonly partition: number
  readonly offset: number
  readonly value: string
}

/** Refusals that a worker of a group which rebalances meets: the records come again, to whoever holds them then. */
const expected: ReadonlySet<string> = new Set(['ILLEGAL_GENERATION', 'REBALANCE_IN_PROGRESS', 'UNKNOWN_MEMBER_ID'])

/** Writes to a topic, lets instances work it off, and watches who holds what. */
export class SharedGroup {
  readonly groupId: string
  readonly topic: string
  /** Every time that a record was handled. */
  readonly handled: Handled[] = []
  /** Two holders of one partition in one generation, each told by name. */
  readonly conflicts: string[] = []
  readonly #brokers: readonly Broker[]
  readonly #holders = new Map<string, string>()
  #written = 0
  #failure: Error | undefined

  /** Calls of the instances go to the brokers in turn, as they would to replicas of a gateway. */
  constructor(brokers: readonly Broker[], groupId: string, topic: string) {
    this.#brokers = brokers
    this.groupId = groupId
    this.topic = topic
  }

  /** Produces so many records more, spread over all partitions. */
  async write(count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      await this.#brokers[0]?.produce([record(this.topic, `v${this.#written++}`)])
    }
  }

  /** Notes that a client holds partitions. */
  holds(by: string, generation: number, partitions: readonly number[]): void {
    for (const partition of partitions) {
      const key = `${generation}/${partition}`
      const holder = this.#holders.get(key) ?? by
      this.#holders.set(key, holder)
      if (holder !== by)
        this.conflicts.push(`generation ${generation}: ${holder} and ${by} hold partition ${partition}`)
    }
  }

  /**
   * Starts an instance that polls, handles and commits until it is told to stop, as one run where it has a run id. Stopping
   * does not leave the group.
   */
  startInstance(groupInstanceId: string, runId?: string): Worker {
    const group: GroupInstance = { groupId: this.groupId, groupInstanceId }
    const over = new AbortController()
    const work = async (): Promise<void> => {
      for (let round = 0; !over.signal.aborted; round++) await this.#poll(group, round, runId)
    }
    const worked = work()
    worked.catch((failure: unknown) => {
      this.#failure ??= new Error(`Instance ${groupInstanceId} failed.`, { cause: failure })
    })
    return {
      async stop() {
        over.abort()
        await worked
      },
    }
  }

  async #poll(group: GroupInstance, round: number, runId: string | undefined): Promise<void> {
    const broker = (offset: number): Broker => this.#brokers[(round + offset) % this.#brokers.length] as Broker
    const { records, generationId, assignment } = await broker(0).poll({
      group,
      topics: [this.topic],
      autoOffsetReset: 'earliest',
      maxWaitMs: 200,
      maxRecords: 20,
      maxBytes: 1_000_000,
      sessionTimeoutMs: 30_000,
      ...(runId === undefined ? {} : { run: { runId } }),
    })
    const by = group.groupInstanceId
    this.holds(
      by,
      generationId,
      assignment.map(({ partition }) => partition),
    )
    for (const { partition, offset, value } of records) {
      this.handled.push({ by, partition, offset, value: textOf(value) })
    }
    const next = new Map(
      records.map(({ topic, partition, offset }) => [partition, { topic, partition, offset: offset + 1 }]),
    )
    try {
      await broker(1).commit(group, [...next.values()], { generationId, ...(runId === undefined ? {} : { runId }) })
    } catch (failure) {
      if (!(failure instanceof BrokerError && expected.has(failure.code))) throw failure
    }
  }

  /** @throws what an instance failed with meanwhile */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Resolves when everything that was written has been handled, by an instance or by one of these. */
  async untilHandled(foreign: readonly ForeignMember[], what: string): Promise<void> {
    const all = (): boolean => {
      this.check()
      for (const member of foreign) member.note()
      return new Set(this.handled.map(({ value }) => value)).size === this.#written
    }
    await until(all, { what: `all records to be handled ${what}`, timeoutMs: 30_000 })
  }

  /** The offsets of each partition, in the order in which they were handled first. */
  firstHandled(): Map<number, number[]> {
    const seen = new Map<number, Set<number>>()
    for (const { partition, offset } of this.handled) {
      const offsets = seen.get(partition) ?? new Set()
      seen.set(partition, offsets.add(offset))
    }
    return new Map([...seen].map(([partition, offsets]) => [partition, [...offsets]]))
  }

  /** How often a record was handled that had been handled before. */
  get repeats(): number {
    return this.handled.length - new Set(this.handled.map(({ value }) => value)).size
  }

  /** Reads what a Java member prints. */
  javaMember(name: string, program: SpawnedProgram): ForeignMember {
    const leave = (): Promise<unknown> => program.end()
    return this.#foreign(program, leave, (line) => {
      const event = JSON.parse(line) as JavaEvent
      if (event.event === 'assigned') this.holds(name, event.generation, event.partitions)
      if (event.event === 'record') this.handled.push({ ...event, by: name })
    })
  }

  /** Reads what kcat prints with the format `%p %o %s\n`. It does not say what it holds. */
  kcatMember(name: string, program: SpawnedProgram): ForeignMember {
    const leave = (): Promise<unknown> => program.kill('SIGTERM')
    return this.#foreign(program, leave, (line) => {
      const [partition, offset, value = ''] = line.split(' ')
      this.handled.push({ by: name, partition: Number(partition), offset: Number(offset), value })
    })
  }

  #foreign(program: SpawnedProgram, leave: ForeignMember['leave'], noteLine: (line: string) => void): ForeignMember {
    let noted = 0
    return {
      program,
      leave,
      [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
      note() {
        const lines = program.printed()
        for (const line of lines.slice(noted)) noteLine(line)
        noted = lines.length
      },
    }
  }
}

/** An instance of ours at work. */
export interface Worker {
  /** Ends it after its last poll. @throws what its calls threw */
  stop(): Promise<void>
}

/** A member that is a client of another kind. */
export interface ForeignMember extends AsyncDisposable {
  readonly program: SpawnedProgram
  /** Notes what it has printed since the last time. */
  note(): void
  /** Lets it leave the group, and end. */
  leave(): Promise<unknown>
}

type JavaEvent =
  | { readonly event: 'assigned'; readonly generation: number; readonly partitions: readonly number[] }
  | { readonly event: 'record'; readonly partition: number; readonly offset: number; readonly value: string }
  | { readonly event: 'left' }
