/** Groups: who is in them, how far they are, and who leaves. */
import * as z from 'zod'
import type { Broker, GroupDescription } from '../../broker.ts'
import { GatewayError } from '../../errors.ts'
import type { CommittedOffset, TopicPartition } from '../../record.ts'
import type { Principal } from '../principal.ts'
import { defineRoute, type Route } from '../route.ts'
import { ConsumersOut, GroupName, GroupOut, GroupWithLagOut, InstanceName, ResultOut } from '../schemas.ts'
import { success } from '../success.ts'

/** `/consumers` */
export const consumers: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/consumers',
  operationId: 'consumers',
  summary: 'The groups that have instances, and what each instance holds',
  answers: { 200: ConsumersOut },
  async handle(_input, { broker, principal }) {
    const groups = visibleTo(principal, await broker.groups())
    return { json: groups.filter(({ members }) => members.length > 0).map(groupAssignments) }
  },
})

/** `/groups` */
export const listGroups: Route = defineRoute({
  methods: ['GET'],
  path: '/groups',
  operationId: 'groups',
  summary: 'All groups that have members or committed offsets',
  answers: { 200: z.array(GroupOut) },
  async handle(_input, { broker, principal }) {
    return { json: visibleTo(principal, await broker.groups()) }
  },
})

/** `/groups/{group}` */
export const describeGroup: Route = defineRoute({
  methods: ['GET'],
  path: '/groups/{group}',
  operationId: 'describeGroup',
  summary: 'A group with its offsets and lag',
  params: z.object({ group: GroupName }),
  answers: { 200: GroupWithLagOut },
  errors: ['GROUP_ID_NOT_FOUND', 'INVALID_GROUP_ID', 'GROUP_AUTHORIZATION_FAILED'],
  async handle({ params }, { broker, principal }) {
    principal.requireSight('groups', params.group)
    const group = visibleTo(principal, await broker.groups()).find(({ groupId }) => groupId === params.group)
    if (group === undefined) {
      throw new GatewayError(
        'GROUP_ID_NOT_FOUND',
        `Cannot describe group ${JSON.stringify(params.group)}: there is none.`,
      )
    }
    const offsets = await lagOf(broker, group, principal)
    return { json: { ...group, offsets, lag: offsets.reduce((sum, { lag }) => sum + lag, 0) } }
  },
})

/** `/delete-consumer/{group}/{instance}` */
export const deleteConsumer: Route = defineRoute({
  methods: ['POST', 'DELETE'],
  path: '/delete-consumer/{group}/{instance}',
  operationId: 'deleteConsumer',
  summary: 'Remove an instance from its group',
  params: z.object({ group: GroupName, instance: InstanceName }),
  answers: { 200: ResultOut },
  errors: ['UNKNOWN_MEMBER_ID', 'INVALID_GROUP_ID', 'GROUP_AUTHORIZATION_FAILED'],
  async handle({ params }, { broker, principal }) {
    principal.requireGroup('consume', params.group)
    await broker.leave({ groupId: params.group, groupInstanceId: params.instance })
    return success
  },
})

/** The groups a caller may see, without the topics that it may not. */
function visibleTo(principal: Principal, groups: readonly GroupDescription[]): GroupDescription[] {
  return groups
    .filter(({ groupId }) => principal.maySee('groups', groupId))
    .map((group) => ({
      ...group,
      members: group.members.map((member) => ({
        ...member,
        assignment: member.assignment.filter(({ topic }) => principal.maySee('topics', topic)),
      })),
    }))
}

function groupAssignments(group: GroupDescription): object {
  return {
    name: group.groupId,
    instances: group.members.map((member) => ({
      name: member.groupInstanceId,
      topics: Array.from(
        Map.groupBy(member.assignment, ({ topic }) => topic),
        ([topic, held]) => ({ topic, partitions: held.map(({ partition }) => partition) }),
      ),
    })),
  }
}

interface PartitionLag extends TopicPartition {
  readonly committedOffset: number
  readonly metadata: string | null
  readonly logStartOffset: number
  readonly logEndOffset: number
  readonly lag: number
}

/**
 * Every partition the group has committed or holds. Lag counts from the committed offset, or from the log start where
 * nothing is committed or what was committed is gone.
 */
async function lagOf(broker: Broker, group: GroupDescription, principal: Principal): Promise<PartitionLag[]> {
  const known = new Map<string, CommittedOffset>()
  for (const { assignment } of group.members) {
    for (const held of assignment) known.set(`${held.topic}/${held.partition}`, { ...held, offset: -1, metadata: null })
  }
  for (const offset of await broker.committed(group.groupId)) known.set(`${offset.topic}/${offset.partition}`, offset)
  const committed = [...known.values()]
    .filter(({ topic }) => principal.maySee('topics', topic))
    .sort((a, b) => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0) || a.partition - b.partition)
  const starts = await broker.offsets(committed, 'earliest')
  const ends = await broker.offsets(committed, 'latest')
  return committed.map(({ topic, partition, offset, metadata }, index) => {
    const logStartOffset = starts[index]?.offset ?? 0
    const logEndOffset = ends[index]?.offset ?? 0
    const lag = Math.max(0, logEndOffset - Math.max(offset, logStartOffset))
    return { topic, partition, committedOffset: offset, metadata, logStartOffset, logEndOffset, lag }
  })
}
