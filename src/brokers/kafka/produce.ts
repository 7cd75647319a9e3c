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
import type { ProducerRecord } from '../../record.ts'
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

interface Target {
  readonly topic: string
  readonly partition: number
  readonly maxRecordBytes: number
}

/** Produces records through the shared sender. */
export class Produces {
  readonly #parts: ProduceParts
  /** Where the next record without a key of each topic goes. */
  readonly #next = new Map<string, number>()
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
        await cluster.topic(topic, deadline)
        await configs.of(topic, deadline)
      })
      for (const outcome of await Promise.allSettled(outcomes)) {
        if (outcome.status === 'fulfilled') continue
        const { reason } = outcome as { readonly reason: unknown }
        if (!(reason instanceof BrokerError) || reason.code !== 'UNKNOWN_TOPIC_OR_PARTITION') throw reason
      }
    })()
    const settled: Promise<void> = asking.then(
      () => this.#asked(settled),
      () => this.#asked(settled),
    )
    this.#asking = settled
    await asking
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
    const targets = records.map((record, index) => {
      try {
        return this.#targetOf(record, index)
      } catch (error) {
        if (!(error instanceof BrokerError) || options.atomic !== false) throw error
        return error
      }
    })
    const results: ProduceResult[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const lanes = new Map<string, { readonly target: Target; readonly records: Outgoing[] }>()
    const now = BigInt(Math.trunc(clock.now()))
    const giveUpAt = clock.monotonic() + deliveryTimeoutMs
    let left = records.length
    const settle = (index: number, result: ProduceResult): void => {
      results[index] = result
      left -= 1
      if (left === 0) resolve()
    }
    for (const [index, record] of records.entries()) {
      const target = targets[index]
      if (target === undefined || target instanceof BrokerError) {
        settle(index, target ?? new BrokerError('INVALID_RECORD', `Record ${index} of the call is not there.`))
        continue
      }
      const key = `${target.partition}/${target.topic}`
      let lane = lanes.get(key)
      if (lane === undefined) lanes.set(key, (lane = { target, records: [] }))
      lane.records.push(outgoing(record, target, now, giveUpAt, (result) => settle(index, result)))
    }
    for (const { target, records } of lanes.values()) {
      sender.add(target.topic, target.partition, batchBytesFor(target.maxRecordBytes), records)
    }
    if (left > 0) {
      try {
        await deadline.race(promise)
      } catch (error) {
        this.#abandon(lanes.values())
        throw error
      }
    }
    if (options.atomic !== false) for (const result of results) if (result instanceof BrokerError) throw result
    return results
  }

  #abandon(lanes: Iterable<{ readonly target: Target; readonly records: readonly Outgoing[] }>): void {
    for (const { target, records } of lanes) {
      this.#parts.sender.abandon(target.topic, target.partition, new Set(records))
    }
  }

  #targetOf(record: ProducerRecord, index: number): Target {
    const { topic, timestampMs, headers = [] } = record
    const known = this.#parts.cluster.cachedTopic(topic)
    if (known === undefined) {
      throw new BrokerError(
        'UNKNOWN_TOPIC_OR_PARTITION',
        `Cannot produce record ${index} of the call: unknown topic ${JSON.stringify(topic.slice(0, 260))}. Create it first.`,
      )
    }
    const { maxRecordBytes } = this.#parts.configs.cached(topic) ?? this.#parts.configs.fallback
    const bytes = (record.key?.length ?? 0) + (record.value?.length ?? 0) + headersBytes(headers)
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
    return { topic, partition: this.#partitionOf(record, known), maxRecordBytes }
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

function outgoing(
  record: ProducerRecord,
  { topic, partition }: Target,
  now: bigint,
  giveUpAt: number,
  settle: Outgoing['settle'],
): Outgoing {
  const { key, value, headers = [], timestampMs } = record
  const bytes =
    (key?.length ?? 0) +
    (value?.length ?? 0) +
    headersBytes(headers) +
    RECORD_OVERHEAD_BYTES +
    HEADER_OVERHEAD_BYTES * headers.length
  const message = {
    topic,
    partition,
    timestamp: timestampMs === undefined ? now : BigInt(timestampMs),
    // The library's types know no null, and write it.
    key: bufferOf(key) as Buffer,
    value: bufferOf(value) as Buffer,
    // A map by identity: each header has a key object of its own, so duplicates stay.
    headers: new Map(headers.map((header) => [Buffer.from(header.key), bufferOf(header.value) as Buffer])),
  }
  return { message, bytes, giveUpAt, settle }
}

function bufferOf(bytes: Uint8Array | null): Buffer | null {
  return bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
