/**
 * Passes one record of a group over, as if it had been handled. At the committed offset that is a commit behind it; behind
 * records that are still open it goes into what commits remember.
 */
import type { OffsetCommit } from '../broker.ts'
import { keepsProgress } from '../consumer/plan.ts'
import { decodeProgress, encodeProgress } from '../consumer/progress.ts'
import type { OpenRecord, Progress } from '../consumer/progress.ts'
import { BrokerError } from '../errors.ts'
import type { CommittedOffset, Offset } from '../record.ts'
import type { MovedPartition, SkipOptions } from '../operations.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import type { OperationsSettings, VerbDone, VerbWork } from './frame.ts'
import { GroupHold } from './hold.ts'
import { partitionsOf } from './partitions.ts'

/** More open records before one than this are never remembered. */
const MAX_OPEN = 1_000

/** What a skip comes to. */
interface SkipPlan {
  readonly moved: MovedPartition
  readonly commit: OffsetCommit
}

/** Looks up what a skip would do. Writes nothing. */
export async function planSkip(
  settings: OperationsSettings,
  options: SkipOptions,
  calls: RedriveCalls,
): Promise<SkipPlan> {
  const { broker, groupId, app } = settings
  const { topic, partition, offset } = options
  const at = await partitionsOf(settings, { topic, partition }, calls)
  const [[start], [end], [found]] = await Promise.all([
    calls.make((call) => broker.offsets(at, 'earliest', call)),
    calls.make((call) => broker.offsets(at, 'latest', call)),
    calls.make((call) => broker.committed(groupId, at, call)),
  ])
  const [logStartOffset, logEndOffset] = [start?.offset ?? 0, end?.offset ?? 0]
  const before = found?.offset ?? -1
  if (offset < logStartOffset || offset >= logEndOffset) {
    throw refused(
      'OFFSET_OUT_OF_RANGE',
      settings,
      options,
      `the log has records from ${logStartOffset} up to ${logEndOffset}, that one left out`,
    )
  }
  if (before < 0 && app?.autoOffsetReset !== 'earliest') {
    throw refused(
      'INVALID_REQUEST',
      settings,
      options,
      'the group has committed nothing there. Seek it to where it is to begin',
    )
  }
  const from = before < 0 ? logStartOffset : before
  const known = { topic, partition, offset: from, metadata: found?.metadata ?? null }
  const isRemembering = app === undefined ? decodeProgress(from, known.metadata) !== undefined : keepsProgress(app)
  const commit = skipped(settings, options, known, isRemembering)
  return { moved: { topic, partition, before, after: commit.offset, logStartOffset, logEndOffset }, commit }
}

/** Skips, while the members of the group are held. */
export async function skip(
  settings: OperationsSettings,
  options: SkipOptions,
  { calls, operationId }: VerbWork,
): Promise<VerbDone<MovedPartition>> {
  const { groupId } = settings
  const { topic, partition, offset, waitMs = 0 } = options
  await planSkip(settings, options, calls)
  const task = `skip ${topic}[${partition}] offset ${offset} of group ${groupId}`
  return await GroupHold.during({ ...settings, task, operationId, calls, waitMs }, async (hold) => {
    const { moved, commit } = await planSkip(settings, options, calls)
    await hold.commit([commit])
    const place = { topic, partition }
    return { result: moved, before: [{ ...place, offset: moved.before }], after: [{ ...place, offset: moved.after }] }
  })
}

/** The commit after which the record counts as settled, and no other does. */
function skipped(
  settings: OperationsSettings,
  options: SkipOptions,
  known: CommittedOffset,
  isRemembering: boolean,
): OffsetCommit {
  const { topic, partition, offset } = options
  const progress = decodeProgress(known.offset, known.metadata) ?? { settledTo: known.offset, open: [] }
  const isOpen = offset >= progress.settledTo || progress.open.some((one) => one.offset === offset)
  if (offset < known.offset || !isOpen) {
    throw refused('INVALID_REQUEST', settings, options, `the group is done with it: it stands at ${known.offset}`)
  }
  const { settledTo, open } = without(progress, offset)
  const next = open[0]?.offset ?? settledTo
  // A record that is skipped because it ends its process is suspected of nothing any more; the others still are.
  const suspects = (progress.suspects ?? []).filter((one) => one.offset !== offset)
  const { metadata, reach } = encodeProgress(next, { settledTo, open, suspects })
  if (next <= offset && (!isRemembering || reach <= offset || open.length > MAX_OPEN)) {
    const why = isRemembering
      ? 'and more of them are open than a commit remembers'
      : 'and its app handles them in their order'
    throw refused(
      'INVALID_REQUEST',
      settings,
      options,
      `records before it are not handled, from ${known.offset} on, ${why}. Skip or mend the first of them`,
    )
  }
  return { topic, partition, offset: next, ...(metadata === null ? {} : { metadata }) }
}

/** Progress in which one record more is settled. */
function without({ settledTo, open }: Progress, offset: Offset): Progress {
  const count = Math.min(Math.max(0, offset - settledTo), MAX_OPEN + 1)
  const untried = Array.from({ length: count }, (_, index): OpenRecord => ({
    offset: settledTo + index,
    attempts: 0,
    dueAtMs: 0,
  }))
  return {
    settledTo: Math.max(settledTo, offset + 1),
    open: [...open.filter((one) => one.offset !== offset), ...untried],
  }
}

function refused(
  code: 'OFFSET_OUT_OF_RANGE' | 'INVALID_REQUEST',
  { groupId }: OperationsSettings,
  { topic, partition, offset }: SkipOptions,
  why: string,
): BrokerError {
  return new BrokerError(code, `Cannot skip ${topic}[${partition}] offset ${offset} of group ${groupId}: ${why}.`)
}
