/** Where a group stands, and what is in force. Writes nothing and keeps nobody out. */
import type { Broker } from '../broker.ts'
import { requireGroup } from '../existing-group.ts'
import { partitionKey } from '../record.ts'
import type { TopicPartition } from '../record.ts'
import type { OperationsStatus, PartitionStatus } from '../operations.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import type { OperationsSettings } from './frame.ts'
import { OperationsTopic } from './topic.ts'

/** Reads the status of a group. */
export async function statusOf(settings: OperationsSettings, calls: RedriveCalls): Promise<OperationsStatus> {
  const { broker, groupId, app } = settings
  if (app === undefined) await requireGroup({ broker, groupId, task: `say where group ${groupId} stands`, calls })
  const topic = await OperationsTopic.open({ broker, groupId, app, calls })
  const groups = await calls.make((call) => broker.groups(call))
  const members = groups.find((group) => group.groupId === groupId)?.members ?? []
  const { paused, backfills } = topic.state
  const partitions = await partitionsOfGroup(settings, calls)
  return { groupId, isHeeded: topic.isHeeded, paused, backfills, members, partitions }
}

async function partitionsOfGroup(
  { broker, groupId, app }: OperationsSettings,
  calls: RedriveCalls,
): Promise<readonly PartitionStatus[]> {
  const committed = await calls.make((call) => broker.committed(groupId, undefined, call))
  const known = new Map(committed.map((one) => [partitionKey(one), one]))
  const all: TopicPartition[] = committed.map(({ topic, partition }) => ({ topic, partition }))
  for (const { topic, partitions } of await calls.make((call) => broker.topics(call))) {
    if (app === undefined || !app.subscription.includes(topic)) continue
    for (let partition = 0; partition < partitions; partition++) {
      if (!known.has(partitionKey({ topic, partition }))) all.push({ topic, partition })
    }
  }
  all.sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1))
  const [starts, ends] = await bounds(broker, all, calls)
  return all.map((at, index) => {
    const committedOffset = known.get(partitionKey(at))?.offset ?? -1
    const logStartOffset = starts[index]?.offset ?? 0
    const logEndOffset = ends[index]?.offset ?? 0
    const lag = committedOffset < 0 ? null : Math.max(0, logEndOffset - Math.max(committedOffset, logStartOffset))
    return { ...at, committedOffset, logStartOffset, logEndOffset, lag }
  })
}

async function bounds(broker: Broker, all: readonly TopicPartition[], calls: RedriveCalls) {
  if (all.length === 0) return [[], []] as const
  return [
    await calls.make((call) => broker.offsets(all, 'earliest', call)),
    await calls.make((call) => broker.offsets(all, 'latest', call)),
  ] as const
}
