/**
 * What one `produce` asks for, as records on their way: checked against their topics, each given its partition as the Java
 * client would, and answered when every one of them is settled.
 */
import type { Broker, ProduceOptions, ProduceResult } from '../../broker.ts'
import { isWhole } from '../../broker-validation.ts'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import { headersBytes } from '../../headers.ts'
import { partitionForKey } from '../../partitioner.ts'
import type { Random } from '../../random.ts'
import type { ProducerRecord, RecordMetadata } from '../../record.ts'
import type { Cluster, TopicMetadata } from './cluster.ts'
import { unknownPartition } from './cluster.ts'
import type { Deadline } from './deadline.ts'
import type { Outgoing, Sender } from './sender.ts'
import type { TopicConfigs } from './topic-configs.ts'
import { batchBytesFor } from './topic-configs.ts'

/** Room for what a record has in a batch besides its bytes, and for each of its headers. */
const RECORD_OVERHEAD_BYTES = 32
const HEADER_OVERHEAD_BYTES = 10
const MAX_HEADERS_PER_RECORD = 10_000
/** Records that nobody has answered for yet may take so much, those of one call in any case. Kafka's buffer.memory is half. */
const MAX_UNANSWERED_BYTES = 64 * 1024 * 1024
const OVERLOADED_RETRY_AFTER_MS = 1_000

/** What producing needs. */
export interface ProduceParts {
  readonly cluster: Cluster
  readonly configs: TopicConfigs
  readonly sender: Sender
  readonly clock: Clock
  readonly random: Random
  /** A record that is not acknowledged by then is given up, milliseconds. */
  readonly deliveryTimeoutMs: number
}

/** What one call sends to one topic. */
interface TopicPart {
  readonly topic: string
  readonly metadata: TopicMetadata
  readonly maxRecordBytes: number
  readonly partitions: Map<number, CallRecord[]>
}

/** One call: its results, and when it has all of them. */
class ProduceCall {
  readonly results: ProduceResult[] = []
  /** Of its records as they are sent, about. */
  bytes = 0
  readonly #settled = Promise.withResolvers<void>()
  #left: number

  constructor(count: number) {
    this.#left = count
    this.results.length = count
  }

  get isSettled(): boolean {
    return this.#left === 0
  }

  /** Resolves when every record has its result. */
  get settled(): Promise<void> {
    return this.#settled.promise
  }

  settle(index: number, result: ProduceResult): void {
    this.results[index] = result
    this.#left -= 1
    if (this.#left === 0) this.#settled.resolve()
  }
}

/** A record of a call. */
class CallRecord implements Outgoing {
  readonly record: ProducerRecord
  readonly timestampMs: number
  readonly bytes: number
  readonly giveUpAt: number
  isAbandoned = false
  readonly #call: ProduceCall
  readonly #index: number

  constructor(call: ProduceCall, index: number, record: ProducerRecord, timestampMs: number, giveUpAt: number) {
    this.record = record
    this.timestampMs = timestampMs
    this.bytes = sizeOf(record) + RECORD_OVERHEAD_BYTES + HEADER_OVERHEAD_BYTES * (record.headers?.length ?? 0)
    this.giveUpAt = giveUpAt
    this.#call = call
    this.#index = index
  }

  settle(result: RecordMetadata | BrokerError): void {
    this.#call.settle(this.#index, result)
  }
}

/** What a topic is refused with, each of its records for itself. */
const refusals: ReadonlySet<string> = new Set(['UNKNOWN_TOPIC_OR_PARTITION', 'TOPIC_AUTHORIZATION_FAILED'])

/** Of so many topics it is remembered that they are refused. */
const MAX_REFUSED = 1_000

/** Produces records through the shared sender. */
export class Produces {
  readonly #parts: ProduceParts
  /** Where the next record without a key of each topic goes. */
  readonly #next = new Map<string, number>()
  /** Topics that may not be used, and why. */
  readonly #refused = new Map<string, BrokerError>()
  /** Bytes of the records of calls that are not answered yet. */
  #unansweredBytes = 0
  /** The newest call that had to ask about its topics: those after it wait, so that calls keep their order. */
  #asking: Promise<unknown> | undefined

  constructor(parts: ProduceParts) {
    this.#parts = parts
  }

  async produce(
    records: readonly ProducerRecord[],
    options: ProduceOptions,
    deadline: Deadline,
  ): ReturnType<Broker['produce']> {
    if (this.#asking !== undefined || !this.#isKnown(records)) await this.#ask(records, deadline)
    return await this.#send(records, options, deadline)
  }

  #isKnown(records: readonly ProducerRecord[]): boolean {
    const { cluster, configs } = this.#parts
    let last: string | undefined
    for (const { topic } of records) {
      if (topic === last) continue
      last = topic
      if (cluster.cachedTopic(topic) === undefined || configs.cached(topic) === undefined) return false
    }
    return true
  }

  /** Learns what the records' topics are; unknown ones stay unknown. */
  async #ask(records: readonly ProducerRecord[], deadline: Deadline): Promise<void> {
    const { cluster, configs } = this.#parts
    const before = this.#asking
    const asking = (async () => {
      await before
      const topics = new Set(records.map(({ topic }) => topic))
      const outcomes = [...topics].map(async (topic) => {
        this.#refused.delete(topic)
        try {
          await cluster.topic(topic, deadline)
        } catch (error) {
          if (error instanceof BrokerError && error.code === 'TOPIC_AUTHORIZATION_FAILED') this.#refuse(topic, error)
          throw error
        }
        await configs.of(topic, deadline)
      })
      for (const outcome of await Promise.allSettled(outcomes)) {
        if (outcome.status === 'fulfilled') continue
        const { reason } = outcome as { readonly reason: unknown }
        if (!(reason instanceof BrokerError) || !refusals.has(reason.code)) throw reason
      }
    })()
    const settled: Promise<void> = asking.then(
      () => this.#asked(settled),
      () => this.#asked(settled),
    )
    this.#asking = settled
    await asking
  }

  #refuse(topic: string, error: BrokerError): void {
    this.#refused.set(topic, error)
    const oldest = this.#refused.size > MAX_REFUSED ? this.#refused.keys().next().value : undefined
    if (oldest !== undefined) this.#refused.delete(oldest)
  }

  #asked(settled: Promise<void>): void {
    if (this.#asking === settled) this.#asking = undefined
  }

  async #send(
    records: readonly ProducerRecord[],
    options: ProduceOptions,
    deadline: Deadline,
  ): Promise<ProduceResult[]> {
    const { sender, clock, deliveryTimeoutMs } = this.#parts
    const call = new ProduceCall(records.length)
    const parts = new Map<string, TopicPart>()
    const now = Math.trunc(clock.now())
    const giveUpAt = clock.monotonic() + deliveryTimeoutMs
    let part: TopicPart | undefined
    for (const [index, record] of records.entries()) {
      try {
        if (part?.topic !== record.topic) part = this.#partOf(record.topic, index, parts)
        const partition = this.#partitionFor(record, index, part)
        const outgoing = new CallRecord(call, index, record, record.timestampMs ?? now, giveUpAt)
        call.bytes += outgoing.bytes
        const lane = part.partitions.get(partition)
        if (lane === undefined) part.partitions.set(partition, [outgoing])
        else lane.push(outgoing)
      } catch (error) {
        // Nothing of the call is on its way yet.
        if (!(error instanceof BrokerError) || options.atomic !== false) throw error
        call.settle(index, error)
      }
    }
    this.#requireRoom(call.bytes)
    for (const { topic, maxRecordBytes, partitions } of parts.values()) {
      for (const [partition, outgoing] of partitions) {
        sender.add(topic, partition, batchBytesFor(maxRecordBytes), outgoing)
      }
    }
    if (!call.isSettled) {
      this.#unansweredBytes += call.bytes
      try {
        await deadline.race(call.settled)
      } catch (error) {
        this.#abandon(parts.values())
        throw error
      } finally {
        this.#unansweredBytes -= call.bytes
      }
    }
    const { results } = call
    if (options.atomic !== false) for (const result of results) if (result instanceof BrokerError) throw result
    return results
  }

  #requireRoom(bytes: number): void {
    const waiting = this.#unansweredBytes
    if (waiting === 0 || waiting + bytes <= MAX_UNANSWERED_BYTES) return
    throw new BrokerError(
      'OVERLOADED',
      `Cannot produce ${bytes} bytes: ${waiting} bytes wait for Kafka's answer already, and ${MAX_UNANSWERED_BYTES} may. Try again in a second.`,
      { retriable: true, retryAfterMs: OVERLOADED_RETRY_AFTER_MS },
    )
  }

  #abandon(parts: Iterable<TopicPart>): void {
    for (const { topic, partitions } of parts) {
      for (const [partition, outgoing] of partitions) this.#parts.sender.abandon(topic, partition, outgoing)
    }
  }

  #partOf(topic: string, index: number, parts: Map<string, TopicPart>): TopicPart {
    const known = parts.get(topic)
    if (known !== undefined) return known
    const metadata = this.#parts.cluster.cachedTopic(topic)
    if (metadata === undefined) {
      const refused = this.#refused.get(topic)
      if (refused !== undefined) throw refused
      throw new BrokerError(
        'UNKNOWN_TOPIC_OR_PARTITION',
        `Cannot produce record ${index} of the call: unknown topic ${JSON.stringify(topic.slice(0, 260))}. Create it first.`,
      )
    }
    const { maxRecordBytes } = this.#parts.configs.cached(topic) ?? this.#parts.configs.fallback
    const part: TopicPart = { topic, metadata, maxRecordBytes, partitions: new Map() }
    parts.set(topic, part)
    return part
  }

  #partitionFor(record: ProducerRecord, index: number, { metadata, maxRecordBytes }: TopicPart): number {
    const { topic, timestampMs, headers = [] } = record
    const bytes = sizeOf(record)
    if (bytes > maxRecordBytes) {
      throw new BrokerError(
        'MESSAGE_TOO_LARGE',
        `Cannot produce record ${index} of the call to ${topic}: it has ${bytes} bytes and the topic takes ${maxRecordBytes} (max.message.bytes). Send less, or raise the topic's limit.`,
        { limit: 'maxRecordBytes' },
      )
    }
    if (timestampMs !== undefined && !isWhole(timestampMs, 0, Number.MAX_SAFE_INTEGER)) {
      throw new BrokerError(
        'INVALID_TIMESTAMP',
        `Cannot produce record ${index} of the call to ${topic}: invalid timestamp ${timestampMs}. It takes whole milliseconds since 1970.`,
      )
    }
    if (headers.length > MAX_HEADERS_PER_RECORD) {
      throw new BrokerError(
        'INVALID_RECORD',
        `Cannot produce record ${index} of the call to ${topic}: it has ${headers.length} headers and may have ${MAX_HEADERS_PER_RECORD}.`,
      )
    }
    return this.#partitionOf(record, metadata)
  }

  #partitionOf({ topic, partition, key }: ProducerRecord, { leaders }: TopicMetadata): number {
    if (partition !== undefined) {
      // The client library would take it modulo the partitions.
      if (isWhole(partition, 0, leaders.length - 1)) return partition
      throw unknownPartition(topic, partition, leaders.length)
    }
    if (key !== null) return partitionForKey(key, leaders.length)
    const next = this.#next.get(topic) ?? Math.floor(this.#parts.random() * leaders.length)
    this.#next.set(topic, next + 1)
    return next % leaders.length
  }
}

/** Bytes of a record as limits count them. */
function sizeOf({ key, value, headers = [] }: ProducerRecord): number {
  return (key?.length ?? 0) + (value?.length ?? 0) + headersBytes(headers)
}
