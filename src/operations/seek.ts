/** Sets the committed offsets of a group: to an offset, a time, or an end of the log. */
import type { OffsetSpec } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { Offset, TopicPartition } from '../record.ts'
import type { MovedPartition, SeekOptions, SeekTarget } from '../operations.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import type { OperationsSettings, VerbDone, VerbWork } from './frame.ts'
import { GroupHold } from './hold.ts'
import { partitionsOf } from './partitions.ts'

/** Looks up what a seek would do. Writes nothing. */
export async function planSeek(
  { broker, groupId, ...settings }: OperationsSettings,
  { topic, partition, to }: SeekOptions,
  calls: RedriveCalls,
): Promise<readonly MovedPartition[]> {
  const all = await partitionsOf({ broker, groupId, ...settings }, { topic, partition }, calls)
  const [starts, ends, committed, times] = await Promise.all([
    calls.make((call) => broker.offsets(all, 'earliest', call)),
    calls.make((call) => broker.offsets(all, 'latest', call)),
    calls.make((call) => broker.committed(groupId, all, call)),
    typeof to === 'object' ? calls.make((call) => broker.offsets(all, specOf(to), call)) : [],
  ])
  return all.map((at, index): MovedPartition => {
    const logStartOffset = starts[index]?.offset ?? 0
    const logEndOffset = ends[index]?.offset ?? 0
    const after = offsetOf(to, { start: logStartOffset, end: logEndOffset, time: times[index]?.offset })
    if (after < logStartOffset || after > logEndOffset)
      throw outOfRange(groupId, at, after, logStartOffset, logEndOffset)
    return { ...at, before: committed[index]?.offset ?? -1, after, logStartOffset, logEndOffset }
  })
}

/** Seeks, while the members of the group are held. */
export async function seek(
  settings: OperationsSettings,
  options: SeekOptions,
  { calls, operationId }: VerbWork,
): Promise<VerbDone<readonly MovedPartition[]>> {
  const { groupId } = settings
  const { topic, waitMs = 0 } = options
  // A target that is not there is refused before anybody is kept out.
  await planSeek(settings, options, calls)
  const task = `seek ${topic} of group ${groupId}`
  return await GroupHold.during({ ...settings, task, operationId, calls, waitMs }, async (hold) => {
    const moved = await planSeek(settings, options, calls)
    // What was remembered beyond the old offsets says nothing about the new ones.
    await hold.commit(moved.map(({ topic: name, partition, after }) => ({ topic: name, partition, offset: after })))
    const before = moved.map(({ topic: name, partition, before: offset }) => ({ topic: name, partition, offset }))
    const after = moved.map(({ topic: name, partition, after: offset }) => ({ topic: name, partition, offset }))
    return { result: moved, before, after }
  })
}

function specOf(to: SeekTarget): OffsetSpec {
  return typeof to === 'object' ? to.timeMs : 'latest'
}

function offsetOf(
  to: SeekTarget,
  { start, end, time }: { readonly start: Offset; readonly end: Offset; readonly time: Offset | undefined },
): Offset {
  if (to === 'earliest') return start
  if (to === 'latest') return end
  return typeof to === 'number' ? to : (time ?? end)
}

function outOfRange(
  groupId: string,
  { topic, partition }: TopicPartition,
  offset: Offset,
  start: Offset,
  end: Offset,
): BrokerError {
  return new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot seek ${topic}[${partition}] of group ${groupId} to offset ${offset}: the log has ${start} to ${end}. Choose one of these, or earliest or latest.`,
  )
}
