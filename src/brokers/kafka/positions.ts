/** Where a poll reads from: positions that were named or kept, committed offsets, and what the reset policy says of the rest. */
import type { GroupInstance, PollRequest } from '../../broker.ts'
import type { Log } from '../../logger.ts'
import { partitionKey } from '../../record.ts'
import type { CommittedOffset, TopicPartition, TopicPartitionOffset } from '../../record.ts'
import type { Deadline } from './deadline.ts'
import type { Fetcher } from './fetch.ts'
import { noCommittedOffset, pastTheEnd } from './group-errors.ts'
import { bare, isHeldSince } from './member-state.ts'
import type { Joined, Memberships } from './membership.ts'
import type { MemberState } from './subscription.ts'

/** Offsets by partition. */
export type PositionMap = Map<string, TopicPartitionOffset>

/** What positions are found with. */
export interface PositionsParts {
  readonly memberships: Memberships
  readonly fetcher: Fetcher
  readonly log: Log | undefined
}

/** Finds where polls read from. */
export class Positions {
  readonly #parts: PositionsParts

  constructor(parts: PositionsParts) {
    this.#parts = parts
  }

  /**
   * One position for each partition that the member holds. `before` is where the poll stood, for partitions without any other.
   * @throws {BrokerError} NO_COMMITTED_OFFSET
   */
  async of(
    request: PollRequest,
    joined: Joined,
    state: MemberState,
    before: PositionMap | undefined,
    deadline: Deadline,
  ): Promise<PositionMap> {
    const { held } = joined.assignment
    const positions: PositionMap = new Map()
    for (const { topic, partition, offset, goodSince } of namedBy(request, state)) {
      // A generation that has not been yet is of a group that died and began anew.
      const isGood = goodSince <= joined.generationId && isHeldSince(held, { topic, partition }, goodSince)
      if (isGood) positions.set(partitionKey({ topic, partition }), { topic, partition, offset })
    }
    const open = [...held.values()].filter((one) => !positions.has(partitionKey(one))).map(bare)
    if (open.length === 0) return positions
    const fresh: TopicPartition[] = []
    const committed =
      readWith(joined, open) ?? (await this.#parts.memberships.committed(request.group.groupId, open, deadline))
    for (const { topic, partition, offset } of committed) {
      if (offset >= 0) positions.set(partitionKey({ topic, partition }), { topic, partition, offset })
      else fresh.push({ topic, partition })
    }
    if (fresh.length === 0) return positions
    for (const start of await this.#startsOf(request, joined, state, fresh, before, deadline)) {
      positions.set(partitionKey(start), start)
    }
    return positions
  }

  /**
   * Puts positions right that the log does not reach (any more). What retention deleted can't be had, so what is left is read
   * from the log start; an offset past the end is where the reset policy says.
   * @throws {BrokerError} OFFSET_OUT_OF_RANGE
   */
  async settle(
    { groupId }: GroupInstance,
    { autoOffsetReset }: MemberState,
    positions: PositionMap,
    outOfRange: readonly TopicPartition[],
    deadline: Deadline,
  ): Promise<void> {
    const { fetcher, log } = this.#parts
    const starts = await fetcher.offsets(outOfRange, 'earliest', deadline)
    const ends = await fetcher.offsets(outOfRange, 'latest', deadline)
    for (const [index, { topic, partition }] of outOfRange.entries()) {
      const key = partitionKey({ topic, partition })
      const from = positions.get(key)?.offset ?? 0
      const start = starts[index]?.offset ?? 0
      const end = ends[index]?.offset ?? 0
      const isDeleted = from < start
      if (!isDeleted && autoOffsetReset === 'none') throw pastTheEnd({ topic, partition }, from, end)
      const offset = isDeleted || autoOffsetReset === 'earliest' ? start : end
      positions.set(key, { topic, partition, offset })
      const reason = isDeleted ? 'deleted by retention' : 'past the log end'
      log?.({ level: 'warn', event: 'offset reset', topic, partition, groupId, from, to: offset, reason })
    }
  }

  /** Where partitions begin of which nothing is committed. */
  async #startsOf(
    { group, run }: PollRequest,
    joined: Joined,
    { autoOffsetReset }: MemberState,
    fresh: readonly TopicPartition[],
    before: PositionMap | undefined,
    deadline: Deadline,
  ): Promise<TopicPartitionOffset[]> {
    const { fetcher, memberships } = this.#parts
    if (autoOffsetReset === 'none') throw noCommittedOffset(fresh)
    const found = await fetcher.offsets(fresh, autoOffsetReset, deadline)
    if (autoOffsetReset === 'earliest') return found
    // The end that was found once stays the beginning, also where the poll had to join again.
    const starts = found.map((entry) => before?.get(partitionKey(entry)) ?? entry)
    // Without a run it is noted with the member when the poll ends. With one, the next run would look for the end again.
    if (run !== undefined) {
      const { groupId, groupInstanceId } = group
      await memberships.commit(groupId, { ...joined, groupInstanceId }, starts, deadline)
    }
    return starts
  }
}

/** Committed offsets as they were read with the join, where that was all that is needed. */
function readWith({ committed = [] }: Joined, open: readonly TopicPartition[]): CommittedOffset[] | undefined {
  const wanted = new Set(open.map(partitionKey))
  const found = committed.filter((entry) => wanted.has(partitionKey(entry)))
  return found.length === wanted.size ? found : undefined
}

/** Positions with the generation since which the member must have held their partitions. */
function namedBy(
  { run }: PollRequest,
  state: MemberState,
): readonly (TopicPartitionOffset & { readonly goodSince: number })[] {
  if (run?.positions === undefined) {
    return state.positions.map((position) => ({ ...position, goodSince: state.positionsGeneration }))
  }
  return run.positions.map((position) => ({ ...position, goodSince: run.generationId ?? -1 }))
}
