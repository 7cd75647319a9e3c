/**
 * What a driver's test hands to the conformance suite, and what the suite's cases work with.
 *
 * A harness opens a fresh broker for every case. Limits and abilities come from `broker.features`: where a feature is
 * absent a case asserts the refusal with UNSUPPORTED, it is not left out.
 */
import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import type {
  Broker,
  BrokerFeatures,
  Call,
  FetchLimits,
  GroupInstance,
  NewTopic,
  PollRequest,
  PollResult,
  RunPosition,
} from '../../../src/broker.ts'
import type { ErrorCode } from '../../../src/errors.ts'
import { BrokerError } from '../../../src/errors.ts'
import type { ConsumerRecord, ProducerRecord, RecordMetadata, TopicPartition } from '../../../src/record.ts'
import type { FakeClock } from '../../support/clock.ts'

/** A broker that was opened for one case, with what belongs to it. */
export interface OpenedBroker {
  readonly broker: Broker
  /** The clock the broker lives by; absent where it lives by the machine's. */
  readonly clock?: FakeClock
  /** Closes the broker and opens it over the same storage. Absent where no storage outlives the broker. */
  reopen?(): Promise<Broker>
  /** Makes a topic, where the broker cannot. */
  createTopic?(topic: NewTopic): Promise<void>
  /** Closes the broker, where the case has not, and everything behind it. */
  close(): Promise<void>
}

/** A case the driver deliberately does not keep. */
export interface Deviation {
  /** `group › title`, as the suite prints it. */
  readonly test: string
  readonly reason: string
}

export interface BrokerHarness {
  open(): Promise<OpenedBroker>
  readonly deviations?: readonly Deviation[]
}

/** Adds a case to a group. A group is a file that adds cases. */
export type AddCase = (title: string, run: (t: BrokerCase) => Promise<void>) => void
export type CaseGroup = (it: AddCase) => void

/** Limits that let everything through; cases override what they are about. */
const PLENTY: FetchLimits = { maxWaitMs: 5_000, maxRecords: 10_000, maxBytes: 64 * 1024 * 1024 }

/** One case's broker, and the few calls that nearly every case makes. */
export class BrokerCase {
  readonly #opened: OpenedBroker
  #broker: Broker

  constructor(opened: OpenedBroker) {
    this.#opened = opened
    this.#broker = opened.broker
  }

  /** The broker as it is open now: `reopen` replaces it. */
  get broker(): Broker {
    return this.#broker
  }

  get features(): BrokerFeatures {
    return this.#broker.features
  }

  get clock(): FakeClock | undefined {
    return this.#opened.clock
  }

  /** The next step begins with a broker that knows only what is stored, where there is storage. */
  async reopen(): Promise<void> {
    if (this.#opened.reopen !== undefined) this.#broker = await this.#opened.reopen()
  }

  /** Lets time pass: at once with a fake clock, really without. */
  async pass(ms: number): Promise<void> {
    if (this.clock === undefined) await realTime(ms)
    else await this.clock.advance(ms)
  }

  /** Resolves when a call waits for exactly `waitMs`; without a fake clock, when it had time to get there. */
  async untilWaiting(waitMs: number): Promise<void> {
    if (this.clock === undefined) await realTime(200)
    else await this.clock.untilWaiting(waitMs)
  }

  /** A new topic under a name of its own. */
  async topic(partitions = 1, config: Omit<NewTopic, 'topic' | 'partitions'> = {}): Promise<string> {
    const created = { ...config, topic: unusedName('topic'), partitions }
    if (this.#opened.createTopic === undefined) await this.#broker.createTopic(created)
    else await this.#opened.createTopic(created)
    return created.topic
  }

  /** A new topic that deletes nothing, for records with timestamps of long ago. */
  async topicForEver(partitions = 1): Promise<string> {
    return await this.topic(partitions, this.features.retention ? { retentionMs: null } : {})
  }

  /** Produces records that must all be stored, and gives their metadata. */
  async produce(...records: readonly ProducerRecord[]): Promise<RecordMetadata[]> {
    return stored(await this.#broker.produce(records))
  }

  /** Every record of a partition from an offset, or nothing where the log ends there. */
  async read(topic: string, partition = 0, offset = 0): Promise<ConsumerRecord[]> {
    const [end] = await this.#broker.offsets([{ topic, partition }], 'latest')
    const records: ConsumerRecord[] = []
    for (let next = offset; next < (end?.offset ?? 0); next = offset + records.length) {
      records.push(...(await this.#broker.fetch([{ topic, partition, offset: next }], PLENTY)))
    }
    return records
  }

  /** The log end offset of each partition of a topic. */
  async ends(topic: string, partitions = 1): Promise<number[]> {
    const ends = await this.#broker.offsets(partitionsOf(topic, partitions), 'latest')
    return ends.map(({ offset }) => offset)
  }

  /** The log start offset of a topic's first partition. */
  async start(topic: string): Promise<number> {
    const [start] = await this.#broker.offsets([{ topic, partition: 0 }], 'earliest')
    return start?.offset ?? -1
  }

  /** Fetches with limits that let everything through but what is given. */
  fetch(
    from: Parameters<Broker['fetch']>[0],
    limits: Partial<FetchLimits> = {},
    call?: Call,
  ): Promise<ConsumerRecord[]> {
    return this.#broker.fetch(from, { ...PLENTY, ...limits }, call)
  }

  /** Polls for records that are there: from the log start where nothing is committed. */
  poll(request: PollParts, call?: Call): Promise<PollResult> {
    return this.#broker.poll({ ...PLENTY, autoOffsetReset: 'earliest', ...request }, call)
  }

  /** Polls without waiting: to join, or where nothing is expected. */
  pollNow(request: PollParts, call?: Call): Promise<PollResult> {
    return this.poll({ maxWaitMs: 0, ...request }, call)
  }

  /** The group's committed offset of a partition, -1 where there is none. */
  async committed(groupId: string, topic: string, partition = 0): Promise<number> {
    const [committed] = await this.#broker.committed(groupId, [{ topic, partition }])
    return committed?.offset ?? Number.NaN
  }

  /** Closes what the harness opened, and expects that nothing is left of it. */
  async end(): Promise<void> {
    await this.#broker.close()
    await this.#opened.close()
    if (this.clock !== undefined) expect(this.clock.pending, 'timers left after close').toBe(0)
  }
}

/** What a case says of a poll; the rest has defaults that let everything through. */
export type PollParts = Partial<PollRequest> & Pick<PollRequest, 'group' | 'topics'>

/** A name nothing else has. */
export function unusedName(kind: string): string {
  return `${kind}-${randomUUID()}`
}

/** An instance of a group that nothing else uses. */
export function instanceOf(groupId: string, groupInstanceId = 'i'): GroupInstance {
  return { groupId, groupInstanceId }
}

/** A new group's instance. */
export function newGroup(): GroupInstance {
  return instanceOf(unusedName('group'))
}

/** What a run says of itself, under a run id of its own. */
export function newRun(parts: Partial<RunPosition> = {}): RunPosition {
  return { runId: unusedName('run'), ...parts }
}

/** The first partitions of a topic. */
export function partitionsOf(topic: string, count: number): TopicPartition[] {
  return Array.from({ length: count }, (_, partition) => ({ topic, partition }))
}

/** The metadata of a produce that must have stored everything. */
export function stored(results: Awaited<ReturnType<Broker['produce']>>): RecordMetadata[] {
  return results.map((result) => {
    if (result instanceof BrokerError) throw result
    return result
  })
}

/** Expects a call to reject with a `BrokerError` of one of the codes, and gives the error. */
export async function refusal(call: Promise<unknown>, ...codes: readonly ErrorCode[]): Promise<BrokerError> {
  const outcome: unknown = await call.then(
    (value) => ({ resolved: value }),
    (error: unknown) => error,
  )
  if (!(outcome instanceof BrokerError)) {
    expect.fail(`expected a BrokerError with ${codes.join(' or ')}, got ${describeOutcome(outcome)}`)
  }
  expect(codes, outcome.message).toContain(outcome.code)
  return outcome
}

function describeOutcome(outcome: unknown): string {
  return outcome instanceof Error ? `${outcome.name}: ${outcome.message}` : JSON.stringify(outcome)
}

/** Gives the value of a call that settled, and `undefined` for one that is still waiting. */
export async function peek<T>(call: Promise<T>): Promise<T | undefined> {
  const pause = new Promise<undefined>((resolve) => {
    setTimeout(() => resolve(undefined), 20)
  })
  return await Promise.race([call, pause])
}

function realTime(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}

/** Makes the function with which a group adds its cases to the runner. */
export function caseAdder(harness: BrokerHarness, group: string, met: Set<string>): AddCase {
  return (title, run) => {
    const deviation = harness.deviations?.find(({ test }) => test === `${group} › ${title}`)
    const body = async (): Promise<void> => {
      const t = new BrokerCase(await harness.open())
      try {
        await run(t)
      } finally {
        await t.end()
      }
    }
    if (deviation === undefined) {
      test(title, body)
    } else {
      met.add(deviation.test)
      // A deviation that has become untrue fails, so that the list stays true.
      test.fails(`${title} (deviates: ${deviation.reason})`, body)
    }
  }
}
