/**
 * Who holds which partition, decided by the member that leads the group. Two assignors, under the names by which the Java client
 * has them: `sticky`, which groups of Kedge agree on, and `range`, which groups that are shared with other clients agree on.
 */
import { partitionKey } from '../../record.ts'
import { assignSticky } from '../../sticky-assignor.ts'
import type { Held, Subscription } from './subscription.ts'

/** The assignors that our members offer, best first. */
export const assignors = ['sticky', 'range'] as const

/** A member as its leader sees it. */
export interface GroupMember {
  readonly memberId: string
  readonly groupInstanceId: string | null
  readonly subscription: Subscription
}

/** What each member holds in a generation, by member id. */
export type Assigned = ReadonlyMap<string, readonly Held[]>

/** Decides by the assignor that the group agreed on. */
export function assign(
  assignor: string,
  members: readonly GroupMember[],
  partitionsOf: (topic: string) => number,
  generationId: number,
): Assigned {
  const assigned = assignor === 'range' ? assignRange(members, partitionsOf) : stickily(members, partitionsOf)
  return new Map(
    members.map((member) => {
      const before = heldUntil(member.subscription, generationId)
      const held = (assigned.get(member.memberId) ?? []).map(({ topic, partition }) => {
        const since = before.get(partitionKey({ topic, partition })) ?? generationId
        return { topic, partition, since }
      })
      return [member.memberId, held] as const
    }),
  )
}

/** Since when a member has held what it held in the generation before this one. Of others nobody knows what came between. */
function heldUntil({ owned, ownedGeneration }: Subscription, generationId: number): Map<string, number> {
  if (ownedGeneration !== generationId - 1) return new Map()
  return new Map(owned.filter(({ since }) => since >= 0).map((held) => [partitionKey(held), held.since]))
}

type Partitions = ReadonlyMap<string, readonly { readonly topic: string; readonly partition: number }[]>

/** As few partitions move as balance allows. Of two members that say they hold one, the later generation is right. */
function stickily(members: readonly GroupMember[], partitionsOf: (topic: string) => number): Partitions {
  const owners = new Map<string, { readonly memberId: string; readonly generation: number }>()
  for (const { memberId, subscription } of members) {
    for (const held of subscription.owned) {
      const known = owners.get(partitionKey(held))
      if (known !== undefined && known.generation >= subscription.ownedGeneration) continue
      owners.set(partitionKey(held), { memberId, generation: subscription.ownedGeneration })
    }
  }
  const topics = new Set(members.flatMap(({ subscription }) => subscription.topics))
  const partitions = [...topics].flatMap((topic) =>
    Array.from({ length: partitionsOf(topic) }, (_, partition) => {
      const owner = owners.get(partitionKey({ topic, partition }))?.memberId
      return { topic, partition, owner }
    }),
  )
  // By instance, so that equal groups are given equal assignments whatever ids the broker made up.
  const nameOf = new Map(members.map(({ memberId, groupInstanceId }) => [memberId, groupInstanceId ?? memberId]))
  const idOf = new Map(members.map(({ memberId }) => [nameOf.get(memberId) ?? memberId, memberId]))
  const slots = assignSticky(
    members.map(({ memberId, subscription }) => ({
      id: nameOf.get(memberId) ?? memberId,
      topics: subscription.topics,
    })),
    partitions.map(({ topic, partition, owner }) => ({
      topic,
      partition,
      owner: owner === undefined ? undefined : nameOf.get(owner),
    })),
  )
  const assigned = new Map<string, { topic: string; partition: number }[]>()
  for (const { topic, partition, owner } of slots) {
    const memberId = owner === undefined ? undefined : idOf.get(owner)
    if (memberId === undefined) continue
    assigned.set(memberId, [...(assigned.get(memberId) ?? []), { topic, partition }])
  }
  return assigned
}

/**
 * The Java client's RangeAssignor: of each topic, consecutive partitions for each member in the order of instance ids (and of
 * member ids where they have none, behind those that have one), the first ones taking what does not divide.
 * @see https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/clients/consumer/RangeAssignor.java
 */
export function assignRange(members: readonly GroupMember[], partitionsOf: (topic: string) => number): Partitions {
  const ordered = members.toSorted(byInstance)
  const assigned = new Map<string, { topic: string; partition: number }[]>(
    members.map(({ memberId }) => [memberId, []]),
  )
  const topics = new Set(members.flatMap(({ subscription }) => subscription.topics))
  for (const topic of [...topics].sort()) {
    const subscribed = ordered.filter(({ subscription }) => subscription.topics.includes(topic))
    const count = partitionsOf(topic)
    const each = Math.floor(count / subscribed.length)
    const extra = count % subscribed.length
    for (const [index, { memberId }] of subscribed.entries()) {
      const first = each * index + Math.min(index, extra)
      const length = each + (index < extra ? 1 : 0)
      for (let partition = first; partition < first + length; partition++) {
        assigned.get(memberId)?.push({ topic, partition })
      }
    }
  }
  return assigned
}

/** The Java client's MemberInfo.compareTo. */
function byInstance(a: GroupMember, b: GroupMember): number {
  if (a.groupInstanceId !== null && b.groupInstanceId !== null) return compare(a.groupInstanceId, b.groupInstanceId)
  if (a.groupInstanceId !== null) return -1
  if (b.groupInstanceId !== null) return 1
  return compare(a.memberId, b.memberId)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
