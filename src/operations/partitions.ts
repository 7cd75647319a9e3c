/** Which partitions a verb is about, and whether the group has anything to do with them. */
import { BrokerError } from '../errors.ts'
import { requireGroup } from '../existing-group.ts'
import type { TopicPartition } from '../record.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import type { OperationsSettings } from './frame.ts'

/**
 * The partition that was named, or all of the topic.
 * @throws {BrokerError} UNKNOWN_TOPIC_OR_PARTITION · INVALID_REQUEST for a topic that the app does not read ·
 * GROUP_ID_NOT_FOUND for a group without an app, members and committed offsets
 */
export async function partitionsOf(
  { broker, groupId, app }: OperationsSettings,
  { topic, partition }: { readonly topic: string; readonly partition?: number | undefined },
  calls: RedriveCalls,
): Promise<readonly TopicPartition[]> {
  if (app !== undefined && !app.subscription.includes(topic)) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot operate on ${topic} of group ${groupId}: its app does not read it. It reads ${app.subscription.join(', ')}.`,
    )
  }
  const found = (await calls.make((call) => broker.topics(call))).find((one) => one.topic === topic)
  if (found === undefined || (partition !== undefined && partition >= found.partitions)) {
    const what = partition === undefined || found === undefined ? topic : `${topic}[${partition}]`
    const have =
      found === undefined ? 'the broker has no such topic' : `the topic has partitions 0 to ${found.partitions - 1}`
    throw new BrokerError(
      'UNKNOWN_TOPIC_OR_PARTITION',
      `Cannot operate on ${what} of group ${groupId}: ${have}. Check the name.`,
    )
  }
  if (app === undefined) await requireGroup({ broker, groupId, task: `operate on group ${groupId}`, calls })
  if (partition !== undefined) return [{ topic, partition }]
  return Array.from({ length: found.partitions }, (_, index) => ({ topic, partition: index }))
}
