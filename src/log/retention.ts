/** Which batches a topic's retention no longer keeps: whole batches, the oldest first. */
import type { Partition, Topic } from './partitions.ts'
import type { LogStore } from './store.ts'

/** What a partition need not keep any more. */
export interface Expired {
  readonly partition: Partition
  /** The new log start. */
  readonly logStartOffset: number
  /** Bytes that go. */
  readonly bytes: number
}

/** What may be deleted of each partition of a topic. Reads no further than to the first batch that stays. */
export function retentionOf(store: LogStore, { description, partitions }: Topic, nowMs: number): Expired[] {
  const { retentionMs, retentionBytes } = description
  const oldestMs = retentionMs === null ? Number.NEGATIVE_INFINITY : nowMs - retentionMs
  const expired: Expired[] = []
  for (const partition of partitions) {
    let over = retentionBytes === null ? 0 : partition.bytes - retentionBytes
    let logStartOffset = partition.logStartOffset
    let bytes = 0
    if (oldestMs === Number.NEGATIVE_INFINITY && over <= 0) continue
    for (const batch of store.batches(partition.id, logStartOffset)) {
      const tooOld = batch.maxTimestampMs < oldestMs
      // By size a batch goes only when what is left without it is still as large as the topic wants to keep.
      if (!tooOld && over < batch.bytes.length) break
      logStartOffset = batch.baseOffset + batch.count
      bytes += batch.bytes.length
      over -= batch.bytes.length
    }
    if (logStartOffset > partition.logStartOffset) expired.push({ partition, logStartOffset, bytes })
  }
  return expired
}
