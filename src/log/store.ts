/**
 * What the engine needs of a place to keep its state: small, synchronous, and the same for plain arrays and for SQL.
 * The engine keeps log ends, committed offsets and groups in memory too, so a store is read for records and at opening only.
 */
import type { TopicDescription } from '../broker.ts'
import type { CommittedOffset } from '../record.ts'
import type { StoredBatch } from './batch.ts'

/** Number of a partition within the store; never used again after its topic was deleted. */
export type PartitionId = number

/** A partition as the store knows it. */
export interface StoredPartition {
  readonly id: PartitionId
  readonly topic: string
  readonly partition: number
  readonly logStartOffset: number
  readonly logEndOffset: number
  /** Bytes of all its batches. */
  readonly bytes: number
}

/** What is kept for an idempotency key. */
export interface StoredIdempotencyKey {
  /** Stands for the records and settings of the produce. */
  readonly fingerprint: string
  /** The results of the produce, as JSON. */
  readonly results: string
  readonly expiresAtMs: number
}

/** A place for the state of a log. Calls are synchronous and throw what went wrong. */
export interface LogStore {
  /** Runs `work` and makes what it wrote durable, or throws and leaves nothing of it. Not nested. */
  transaction(work: () => void): void

  topics(): TopicDescription[]
  partitions(): StoredPartition[]
  /** Creates a topic with its partitions and returns their ids, in order. */
  createTopic(topic: TopicDescription): PartitionId[]
  /** Deletes a topic with its records and committed offsets. */
  deleteTopic(topic: string): void

  /** Appends a batch. Its bytes are only lent for the call. */
  append(partition: PartitionId, batch: StoredBatch): void
  /** Batches that hold offsets at or after `fromOffset`, in order, read as the reader asks for them. */
  batches(partition: PartitionId, fromOffset: number): Iterable<StoredBatch>
  /** The first batch with a record at or after a time, or undefined. */
  batchAtTime(partition: PartitionId, timestampMs: number): StoredBatch | undefined
  /** Deletes all batches that end at or before `logStartOffset`; remembers both ends for when none is left. */
  truncate(partition: PartitionId, logStartOffset: number, logEndOffset: number): void

  committed(): { readonly groupId: string; readonly offset: CommittedOffset }[]
  putCommitted(groupId: string, offset: CommittedOffset): void

  groups(): { readonly groupId: string; readonly state: string }[]
  putGroup(groupId: string, state: string): void

  idempotencyKey(key: string): StoredIdempotencyKey | undefined
  putIdempotencyKey(key: string, stored: StoredIdempotencyKey): void
  pruneIdempotencyKeys(nowMs: number): void

  close(): void
}
