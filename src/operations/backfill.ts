/** Orders of backfills: begun, gone on with, ended, stopped. What is replayed is in `replay.ts`. */
import type { OffsetSpec } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { BackfillOptions, BackfillPlan, SeekTarget } from '../operations.ts'
import type { TopicPartition, TopicPartitionOffset } from '../record.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import { RedriveTopics } from '../redrive/topics.ts'
import type { OperationsSettings, VerbDone, VerbWork } from './frame.ts'
import { partitionsOf } from './partitions.ts'
import type { BackfillOrder } from './state.ts'

/** Looks up what a backfill would replay. Writes nothing. */
export async function planBackfill(
  settings: OperationsSettings,
  { topic, partition, from, until = 'latest' }: BackfillOptions,
  calls: RedriveCalls,
): Promise<BackfillPlan> {
  const { broker, groupId, app } = settings
  if (isBackwards(from, until)) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot backfill ${topic} of group ${groupId}: its range ends before it begins. Give the earlier place as from, and the later one as until.`,
    )
  }
  const topics = new RedriveTopics({ broker, groupId, app, maxRedrives: 1, calls })
  if (!(await topics.isRead(topic))) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot backfill ${topic} of group ${groupId}: the group does not read what comes back to it. Set redrive: true in defineApp, deploy it, and let it run once.`,
    )
  }
  const all = await partitionsOf(settings, { topic, partition }, calls)
  const [starts, ends] = [
    await calls.make((call) => broker.offsets(all, 'earliest', call)),
    await calls.make((call) => broker.offsets(all, 'latest', call)),
  ]
  const lookUp = async (target: SeekTarget): Promise<readonly TopicPartitionOffset[]> => {
    if (typeof target === 'number') return all.map((at) => ({ ...at, offset: target }))
    const spec: OffsetSpec = typeof target === 'object' ? target.timeMs : target
    return await calls.make((call) => broker.offsets(all, spec, call))
  }
  const [firsts, lasts] = [await lookUp(from), await lookUp(until)]
  const ranges = all.map((at, index) => {
    const [start, end] = [starts[index]?.offset ?? 0, ends[index]?.offset ?? 0]
    const [first, last] = [firsts[index]?.offset ?? 0, lasts[index]?.offset ?? 0]
    if (first < start || first > end || last > end) throw outOfRange(groupId, at, start, end)
    return { partition: at.partition, from: first, until: Math.max(first, last) }
  })
  return { topic, ranges, records: ranges.reduce((sum, range) => sum + range.until - range.from, 0) }
}

/** Whether a range was given the wrong way round, whatever is in the log. */
function isBackwards(from: SeekTarget, until: SeekTarget): boolean {
  if (typeof from === 'number' && typeof until === 'number') return until < from
  if (typeof from === 'object' && typeof until === 'object') return until.timeMs < from.timeMs
  return from === 'latest' && until === 'earliest'
}

/** Puts a backfill in force. */
export async function beginBackfill(
  settings: OperationsSettings,
  options: BackfillOptions & { readonly perSecond: number },
  { calls, state, isHeeded, operationId }: VerbWork,
): Promise<VerbDone<BackfillOrder>> {
  const { groupId } = settings
  const { topic, perSecond } = options
  if (!isHeeded) throw notHeeded(groupId, topic)
  if (state.backfills.some((one) => one.topic === topic)) {
    throw new BrokerError(
      'INVALID_REQUEST',
      `Cannot backfill ${topic} of group ${groupId}: one was begun before and has not ended. Resume it, or stop it.`,
    )
  }
  const { ranges } = await planBackfill(settings, options, calls)
  const order = { id: operationId, topic, ranges, perSecond }
  return { result: order, state: { ...state, backfills: [...state.backfills, order] } }
}

/** The backfill of a topic that is in force. */
export function orderOf(
  { groupId }: OperationsSettings,
  topic: string,
  { state }: Pick<VerbWork, 'state'>,
): BackfillOrder {
  const order = state.backfills.find((one) => one.topic === topic)
  if (order !== undefined) return order
  throw new BrokerError(
    'INVALID_REQUEST',
    `Cannot find a backfill of ${topic} of group ${groupId}: none is in force. Begin one.`,
  )
}

/** Takes a backfill back. */
export function withoutOrder(order: BackfillOrder, { state }: Pick<VerbWork, 'state'>): VerbDone<BackfillOrder> {
  return { result: order, state: { ...state, backfills: state.backfills.filter(({ id }) => id !== order.id) } }
}

function notHeeded(groupId: string, topic: string): BrokerError {
  return new BrokerError(
    'INVALID_REQUEST',
    `Cannot backfill ${topic} of group ${groupId}: there is nowhere to remember it, so that it could be stopped and resumed. Set operations: true in defineApp, deploy it, and let it run once.`,
  )
}

function outOfRange(groupId: string, { topic, partition }: TopicPartition, start: number, end: number): BrokerError {
  return new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot backfill ${topic}[${partition}] of group ${groupId}: the log has ${start} to ${end}. Choose offsets of these, or earliest, latest or a time.`,
  )
}
