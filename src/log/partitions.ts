/** Topics and partitions as the engine remembers them, and reading from them. */
import type { FetchLimits, TopicDescription } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { ConsumerRecord, TopicPartition } from '../record.ts'
import { visitBatch } from './batch.ts'
import type { LogStore, PartitionId } from './store.ts'

/** A partition: where it begins and ends. */
export interface Partition {
  readonly id: PartitionId
  readonly topic: string
  readonly partition: number
  logStartOffset: number
  /** The next offset to be written. Only durable records count. */
  logEndOffset: number
  bytes: number
}

/** A topic with its partitions. */
export interface Topic {
  readonly description: TopicDescription
  readonly partitions: readonly Partition[]
  /** Where the next record without a key goes. */
  nextPartition: number
}

/** All topics of a log. */
export class Topics {
  readonly #topics = new Map<string, Topic>()

  constructor(store: LogStore) {
    const partitions = Map.groupBy(store.partitions(), (partition) => partition.topic)
    for (const description of store.topics()) {
      const rows = (partitions.get(description.topic) ?? []).toSorted((a, b) => a.partition - b.partition)
      this.add(
        description,
        rows.map((row) => ({ ...row })),
      )
    }
  }

  add(description: TopicDescription, partitions: readonly Partition[]): void {
    this.#topics.set(description.topic, { description, partitions, nextPartition: 0 })
  }

  delete(topic: string): void {
    this.#topics.delete(topic)
  }

  has(topic: string): boolean {
    return this.#topics.has(topic)
  }

  /** @throws {BrokerError} UNKNOWN_TOPIC_OR_PARTITION */
  get(topic: string): Topic {
    const found = this.#topics.get(topic)
    if (found !== undefined) return found
    throw unknownTopic(`Unknown topic ${JSON.stringify(topic)}: create it first.`)
  }

  /** @throws {BrokerError} UNKNOWN_TOPIC_OR_PARTITION */
  partition({ topic, partition }: TopicPartition): Partition {
    const { partitions } = this.get(topic)
    const found = partitions[partition]
    if (found !== undefined) return found
    const last = partitions.length - 1
    throw unknownTopic(`Unknown partition ${partition} of topic ${topic}: it has partitions 0 to ${last}.`)
  }

  all(): Topic[] {
    return [...this.#topics.values()].toSorted((a, b) => (a.description.topic < b.description.topic ? -1 : 1))
  }
}

/** Here a topic that is missing stays missing until somebody creates it, so trying again by itself is no use. */
function unknownTopic(message: string): BrokerError {
  return new BrokerError('UNKNOWN_TOPIC_OR_PARTITION', message, { retriable: false })
}

/** Collects records of several partitions into one answer, within the limits of the whole answer. */
export class Answer {
  readonly records: ConsumerRecord[] = []
  readonly #limits: FetchLimits
  #bytes = 0

  constructor(limits: FetchLimits) {
    this.#limits = limits
  }

  /** Reads a partition from an offset; returns the offset after the last record taken, or `fromOffset`. */
  read(store: LogStore, partition: Partition, fromOffset: number): number {
    let next = fromOffset
    if (fromOffset >= partition.logEndOffset || this.records.length >= this.#limits.maxRecords) return next
    const visit = (record: ConsumerRecord, bytes: number): boolean => {
      const first = this.records.length === 0
      if (!first && (this.records.length >= this.#limits.maxRecords || this.#bytes + bytes > this.#limits.maxBytes)) {
        return false
      }
      this.records.push(record)
      this.#bytes += bytes
      next = record.offset + 1
      return true
    }
    for (const batch of store.batches(partition.id, fromOffset)) {
      if (!visitBatch(partition.topic, partition.partition, batch, fromOffset, visit)) break
      if (this.records.length >= this.#limits.maxRecords) break
    }
    return next
  }
}
