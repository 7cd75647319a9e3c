/** A fetch whose answer can be believed when it is empty. */
import type { Broker, Call, FetchLimits } from './broker.ts'
import type { ConsumerRecord, TopicPartitionOffset } from './record.ts'

/**
 * Fetches from a place that is before the end of its log, as far as the caller knows. An answer without records may come of a
 * leader that is moving. Where the log ends is known to the leader alone, so that nothing is there if the answer is the same
 * after that was asked. Rejects as the broker does.
 */
export async function fetchFrom(
  broker: Broker,
  place: TopicPartitionOffset,
  limits: FetchLimits,
  call: Call | undefined,
): Promise<readonly ConsumerRecord[]> {
  const records = await broker.fetch([place], limits, call)
  if (records.length > 0) return records
  const [end] = await broker.offsets([place], 'latest', call)
  return end !== undefined && end.offset > place.offset ? await broker.fetch([place], limits, call) : []
}
