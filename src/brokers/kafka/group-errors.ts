/** What groups refuse, in the words of every broker of Kedge. */
import type { GroupInstance } from '../../broker.ts'
import { BrokerError } from '../../errors.ts'
import type { TopicPartition } from '../../record.ts'

/** Another run has the instance, for `leftMs` more if it does not call. */
export function claimHeld(group: GroupInstance, leftMs: number): BrokerError {
  const retryAfterMs = Math.max(1, Math.ceil(leftMs))
  return new BrokerError(
    'CLAIM_HELD',
    `Cannot poll as ${nameOf(group)}: another run holds its claim. Wait for that run to end, or for its claim to lapse in ${retryAfterMs} ms.`,
    { retryAfterMs },
  )
}

/** The caller, a run or one without, does not have the instance. */
export function claimLost(group: GroupInstance, runId: string | undefined): BrokerError {
  const who = runId === undefined ? 'a caller without a run' : `run ${runId}`
  return new BrokerError(
    'CLAIM_LOST',
    `Cannot go on as ${nameOf(group)} for ${who}: it does not hold the claim. Stop this run; the next one starts from the committed offsets.`,
  )
}

/** The instance is no member of its group. */
export function unknownMember(group: GroupInstance): BrokerError {
  return new BrokerError(
    'UNKNOWN_MEMBER_ID',
    `Unknown instance ${nameOf(group)}: it has not polled, or its session ended.`,
  )
}

/** Only a member may commit to a group that has members, and it has none of Kedge. */
export function otherMembers(group: GroupInstance): BrokerError {
  return new BrokerError(
    'UNKNOWN_MEMBER_ID',
    `Cannot commit as ${nameOf(group)}: it has not polled, and Kafka takes offsets of members only while other clients consume as the group. Poll first.`,
  )
}

/** Partitions were in other hands since the generation that a commit speaks for. */
export function illegalGeneration(
  group: GroupInstance,
  partitions: readonly TopicPartition[],
  generationId: number,
): BrokerError {
  return new BrokerError(
    'ILLEGAL_GENERATION',
    `Cannot commit ${namesOf(partitions)} for ${nameOf(group)} in generation ${generationId}: the instance has not held it since. Poll again and commit what it holds.`,
  )
}

/** The group is one of KIP-848. */
export function newerProtocol({ groupId }: GroupInstance): BrokerError {
  return new BrokerError(
    'INCONSISTENT_GROUP_PROTOCOL',
    `Cannot poll as group ${JSON.stringify(groupId)}: consumers of the newer protocol use it (group.protocol=consumer). Use another group id, or let them use the classic one.`,
  )
}

/** Nothing is committed, and the reset policy is none. */
export function noCommittedOffset(partitions: readonly TopicPartition[]): BrokerError {
  return new BrokerError(
    'NO_COMMITTED_OFFSET',
    `Cannot poll ${namesOf(partitions)}: the group has committed nothing there and its offset reset is none. Commit an offset first.`,
  )
}

/** A position is beyond the log, and the reset policy is none. */
export function pastTheEnd(partition: TopicPartition, offset: number, end: number): BrokerError {
  return new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot poll ${namesOf([partition])} at offset ${offset}: the log ends at ${end} and the offset reset is none. Commit an offset that exists.`,
  )
}

/** What an instance holds cannot be said while its group rebalances. */
export function rebalancing(group: GroupInstance): BrokerError {
  return new BrokerError(
    'REBALANCE_IN_PROGRESS',
    `Cannot commit as ${nameOf(group)}: the group is rebalancing. Try again.`,
    { retriable: true, retryAfterMs: 500 },
  )
}

/** Others take the instance over as often as this call does. */
export function contested(group: GroupInstance, cause: unknown): BrokerError {
  return new BrokerError('FENCED_INSTANCE_ID', `Cannot poll as ${nameOf(group)}: others poll as it at the same time.`, {
    cause,
    retriable: true,
  })
}

function nameOf({ groupId, groupInstanceId }: GroupInstance): string {
  return `${JSON.stringify(groupInstanceId)} of group ${JSON.stringify(groupId)}`
}

function namesOf(partitions: readonly TopicPartition[]): string {
  return partitions.map(({ topic, partition }) => `${topic}[${partition}]`).join(', ')
}
