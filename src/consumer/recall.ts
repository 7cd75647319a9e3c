/** Reads what earlier commits know beyond their offsets, of partitions from which a run has its first records. */
import type { Broker, GroupInstance, PollResult } from '../broker.ts'
import { partitionKey } from '../record.ts'
import type { CommittedOffset, TopicPartition } from '../record.ts'
import type { Calls } from './calls.ts'
import type { Careful } from './careful.ts'
import { decodeProgress } from './progress.ts'
import type { Progress } from './progress.ts'

/** What recalling needs of its run. */
export interface RecallScope {
  readonly broker: Broker
  readonly group: GroupInstance
  readonly calls: Calls
  readonly careful: Careful
  /** Aborted when the run reads no more. */
  readonly reading: AbortSignal
}

/** Progress by `partitionKey`. `places` are the partitions asked for. Rejects as the broker does. */
export async function recall(
  { broker, group, calls, careful, reading }: RecallScope,
  answer: PollResult,
  places: readonly TopicPartition[],
): Promise<ReadonlyMap<string, Progress>> {
  const recalled = new Map<string, Progress>()
  if (places.length === 0) return recalled
  const limits = { signal: reading }
  const committed = await calls.make((call) => broker.committed(group.groupId, places, call), limits)
  const known = committed.filter(({ offset, metadata }) => offset >= 0 && metadata !== null)
  const early = known.filter((entry) => isBehind(answer, entry))
  const ends = early.length === 0 ? [] : await calls.make((call) => broker.offsets(early, 'latest', call), limits)
  // A log that ends before its commit was made anew: what that knows is of other records.
  const other = new Set(early.filter(({ offset }, index) => (ends[index]?.offset ?? 0) < offset))
  for (const entry of known) {
    const progress = other.has(entry) ? undefined : decodeProgress(entry.offset, entry.metadata)
    if (progress !== undefined) recalled.set(partitionKey(entry), careful.recall(entry, progress))
  }
  careful.informed()
  return recalled
}

/** Whether an answer begins before a commit. */
function isBehind({ records }: PollResult, { topic, partition, offset }: CommittedOffset): boolean {
  const first = records.find((record) => record.partition === partition && record.topic === topic)
  return first !== undefined && first.offset < offset
}
