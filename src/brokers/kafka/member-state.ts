/** The state that is kept with a member, and how it changes. */
import { DEFAULT_SESSION_TIMEOUT_MS } from '../../broker.ts'
import type { PollRequest } from '../../broker.ts'
import { partitionKey } from '../../record.ts'
import type { ConsumerRecord, TopicPartition, TopicPartitionOffset } from '../../record.ts'
import type { Joined, MemberView } from './membership.ts'
import { UNKNOWN_CLAIM_MS } from './membership.ts'
import type { Held, MemberState, StoredPosition, Subscription } from './subscription.ts'

/** Kafka's default auto.commit.interval.ms. */
const DEFAULT_AUTO_COMMIT_MS = 5_000

/** What a new member is; its settings are those of its first poll. */
export function newState(request: PollRequest | undefined, nowMs: number): MemberState {
  const { sessionTimeoutMs, autoOffsetReset, enableAutoCommit, autoCommitIntervalMs } = request ?? {}
  const everyMs = autoCommitIntervalMs ?? DEFAULT_AUTO_COMMIT_MS
  return {
    sessionTimeoutMs: sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS,
    autoOffsetReset: autoOffsetReset ?? 'latest',
    autoCommit: enableAutoCommit === true ? { everyMs, at: nowMs } : null,
    claim: null,
    positions: [],
    positionsGeneration: -1,
    poll: '',
  }
}

/** What is kept with a member. Where nothing is shown, and nothing was seen, somebody may hold its claim. */
export function stateOf(member: MemberView | undefined, nowMs: number): MemberState | undefined {
  if (member === undefined) return undefined
  const empty = newState(undefined, nowMs)
  if (member.subscription !== undefined) return member.subscription.state ?? empty
  return { ...empty, claim: { runId: null, ttlMs: UNKNOWN_CLAIM_MS, until: nowMs + UNKNOWN_CLAIM_MS } }
}

/** A subscription as it is compared: each topic once, in order. */
export function topicsOf(topics: readonly string[]): string[] {
  return [...new Set(topics)].toSorted()
}

/** What the instance holds as far as anybody knows, which it says when it joins. */
export function ownedBy(
  member: MemberView | undefined,
  joined?: Joined,
): Pick<Subscription, 'owned' | 'ownedGeneration'> {
  const shown = member?.assignment
  if (shown !== undefined) return { owned: [...shown.held.values()], ownedGeneration: shown.generationId ?? -1 }
  if (joined !== undefined) {
    return { owned: [...joined.assignment.held.values()], ownedGeneration: joined.generationId }
  }
  const { owned = [], ownedGeneration = -1 } = member?.subscription ?? {}
  return { owned, ownedGeneration }
}

/** Where the member stands after an answer with these records that began at these positions. */
export function positionsAfter(
  joined: Joined,
  state: MemberState,
  began: ReadonlyMap<string, TopicPartitionOffset>,
  records: readonly ConsumerRecord[],
): StoredPosition[] {
  const stored = new Map<string, StoredPosition>()
  for (const position of state.positions) {
    if (!isHeldSince(joined.assignment.held, position, state.positionsGeneration)) continue
    stored.set(partitionKey(position), position)
  }
  // A beginning that the reset policy found is noted, so that the next poll does not find a later one.
  if (state.autoOffsetReset === 'latest' && state.claim === null) {
    for (const [key, position] of began) if (!stored.has(key)) stored.set(key, { ...position, isDelivered: false })
  }
  for (const { topic, partition, offset } of records) {
    stored.set(partitionKey({ topic, partition }), { topic, partition, offset: offset + 1, isDelivered: true })
  }
  return [...stored.values()]
}

/** What was handed out and is not committed by the instance itself, of partitions that it has held ever since. */
export function deliveredOf(
  { positions, positionsGeneration }: MemberState,
  held: ReadonlyMap<string, Held>,
): TopicPartitionOffset[] {
  return positions
    .filter((position) => position.isDelivered && isHeldSince(held, position, positionsGeneration))
    .map(({ topic, partition, offset }) => ({ topic, partition, offset }))
}

/** Whether a partition is held without a break since a generation. */
export function isHeldSince(held: ReadonlyMap<string, Held>, partition: TopicPartition, generationId: number): boolean {
  const place = held.get(partitionKey(partition))
  return place !== undefined && place.since <= generationId
}

/** The state when what was handed out is committed. */
export function paid(state: MemberState): MemberState {
  return { ...state, positions: state.positions.map((position) => ({ ...position, isDelivered: false })) }
}

/** A partition and nothing else. */
export function bare({ topic, partition }: TopicPartition): TopicPartition {
  return { topic, partition }
}
