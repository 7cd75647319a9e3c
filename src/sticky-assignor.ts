/**
 * The sticky assignor: partitions stay with the member that has them as far as balance allows. Pure and deterministic:
 * equal input in any order gives equal output.
 *
 * Balance: of two members that could both hold a partition, neither ends with two partitions more than the other.
 */

/** A member as the assignor sees it. */
export interface AssignorMember {
  readonly id: string
  readonly topics: readonly string[]
}

/** A partition, with the member that holds it now, if any. */
export interface AssignorPartition {
  readonly topic: string
  readonly partition: number
  readonly owner: string | undefined
}

/** Gives each partition, in topic and partition order, its owner; undefined where no member subscribes to its topic. */
export function assignSticky(
  members: readonly AssignorMember[],
  partitions: readonly AssignorPartition[],
): AssignorPartition[] {
  const ids = members.map((member) => member.id).toSorted(compareText)
  const topicsOf = new Map(members.map((member) => [member.id, new Set(member.topics)]))
  const load = new Map(ids.map((id) => [id, 0]))
  const loadOf = (id: string): number => load.get(id) ?? 0
  const mayHold = (id: string, topic: string): boolean => topicsOf.get(id)?.has(topic) === true
  const slots = partitions.toSorted(comparePartitions).map(({ topic, partition, owner }) => {
    const kept = owner !== undefined && mayHold(owner, topic) ? owner : undefined
    if (kept !== undefined) load.set(kept, loadOf(kept) + 1)
    return { topic, partition, owner: kept }
  })

  const leastLoaded = (topic: string): string | undefined => {
    let least: string | undefined
    for (const id of ids) if (mayHold(id, topic) && (least === undefined || loadOf(id) < loadOf(least))) least = id
    return least
  }
  const give = (slot: { owner: string | undefined }, to: string): void => {
    if (slot.owner !== undefined) load.set(slot.owner, loadOf(slot.owner) - 1)
    load.set(to, loadOf(to) + 1)
    slot.owner = to
  }

  for (const slot of slots) {
    const least = leastLoaded(slot.topic)
    if (slot.owner === undefined && least !== undefined) give(slot, least)
  }
  // Each move lowers the sum of the squared loads, so this ends.
  for (let moved = true; moved;) {
    moved = false
    for (const slot of slots) {
      const least = leastLoaded(slot.topic)
      if (slot.owner !== undefined && least !== undefined && loadOf(slot.owner) - loadOf(least) > 1) {
        give(slot, least)
        moved = true
      }
    }
  }
  return slots
}

/** Orders by topic, then partition. */
export function comparePartitions(
  a: { readonly topic: string; readonly partition: number },
  b: { readonly topic: string; readonly partition: number },
): number {
  return compareText(a.topic, b.topic) || a.partition - b.partition
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
