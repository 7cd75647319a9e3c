/**
 * What a member tells its group, and what a leader tells its members, in Kafka's own consumer protocol, so that a group can be
 * shared with other clients. Kedge puts its own state behind what the Java client's sticky assignor keeps in the user data of a
 * subscription; that client reads the first part and ignores the rest. Here every replica finds what it needs to serve an
 * instance: the claim of a run, where its polls stand, since when it has held what.
 *
 *   user data = previous assignment (array of topic and partitions)  generation:int32  "kedge1"  JSON
 *
 * @see https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/clients/consumer/StickyAssignor.java
 */
import {
  decodeConsumerProtocolAssignment,
  decodeConsumerProtocolSubscription,
  encodeConsumerProtocolAssignment,
  encodeConsumerProtocolSubscription,
  Writer,
} from '@platformatic/kafka'
import type { AutoOffsetReset } from '../../broker.ts'
import { partitionKey, textOf } from '../../record.ts'
import type { TopicPartition } from '../../record.ts'

/** A run's claim on its instance, by the wall clock. */
export interface StoredClaim {
  /** null: somebody may hold it, and nobody knows who. A run that can show that it ran before may go on. */
  readonly runId: string | null
  readonly ttlMs: number
  /** Milliseconds since 1970. */
  readonly until: number
  /** The run before it never gave the claim back. */
  readonly isAfterLapse?: true
}

/** Where an instance reads on that does not say so itself. */
export interface StoredPosition extends TopicPartition {
  readonly offset: number
  /** Records before it were handed out, and none of them committed by the instance itself. */
  readonly isDelivered: boolean
}

/** What Kedge keeps with a member. */
export interface MemberState {
  readonly sessionTimeoutMs: number
  readonly autoOffsetReset: AutoOffsetReset
  /** null: no auto-commit. `at` is when it last committed, milliseconds since 1970. */
  readonly autoCommit: { readonly everyMs: number; readonly at: number } | null
  readonly claim: StoredClaim | null
  /** Good for partitions that were held without a break since `positionsGeneration`. */
  readonly positions: readonly StoredPosition[]
  readonly positionsGeneration: number
  /** The newest poll: an older one that still waits knows by it that it is not wanted any more. */
  readonly poll: string
}

/** A partition a member holds, and the generation since which it has held it without a break. */
export interface Held extends TopicPartition {
  readonly since: number
}

/** A member's subscription. `state` is absent where the member is not of Kedge. */
export interface Subscription {
  readonly topics: readonly string[]
  readonly state: MemberState | undefined
  /** What it held, and in which generation, when it last joined. */
  readonly owned: readonly Held[]
  readonly ownedGeneration: number
}

/** What a member was given. `generationId` is absent where the leader was not of Kedge. */
export interface Assignment {
  readonly held: ReadonlyMap<string, Held>
  readonly generationId: number | undefined
}

const MARK = Buffer.from('kedge1')
/** Has the owned partitions, as clients since 2.4 send them; newer fields are of use to cooperative assignors only. */
const PROTOCOL_VERSION = 1

/** Partitions by topic, as the protocol lists them. */
export function byTopic<P extends TopicPartition>(partitions: Iterable<P>): { topic: string; partitions: number[] }[] {
  return Array.from(
    Map.groupBy(partitions, ({ topic }) => topic),
    ([topic, held]) => ({ topic, partitions: held.map(({ partition }) => partition) }),
  )
}

/** A subscription as bytes. `nonce` makes two equal ones differ, which forces a rebalance. */
export function encodeSubscription(
  { topics, state, owned, ownedGeneration }: Subscription,
  nonce: string | undefined,
): Buffer {
  const known = Writer.create().appendArray(
    byTopic(owned),
    (writer, { topic, partitions }) => {
      writer.appendString(topic, false)
      writer.appendArray(partitions, (list, partition) => void list.appendInt32(partition), false, false)
    },
    false,
    false,
  )
  const since = owned.map((held) => [held.topic, held.partition, held.since])
  const json = JSON.stringify({ state, since, nonce })
  const userData = Buffer.concat([known.appendInt32(ownedGeneration).buffer, MARK, Buffer.from(json)])
  return encodeConsumerProtocolSubscription({
    version: PROTOCOL_VERSION,
    topics: [...topics],
    userData,
    ownedPartitions: byTopic(owned),
  })
}

/** A subscription from bytes, whoever wrote it. */
export function decodeSubscription(bytes: Buffer): Subscription {
  const { topics, userData, ownedPartitions } = decodeConsumerProtocolSubscription(bytes)
  const foreign = ownedPartitions.flatMap(({ topic, partitions }) =>
    partitions.map((partition) => ({ topic, partition, since: -1 })),
  )
  const at = userData === null || userData === undefined ? -1 : Buffer.from(userData).indexOf(MARK)
  if (userData === null || userData === undefined || at < 4) {
    return { topics: topics ?? [], state: undefined, owned: foreign, ownedGeneration: -1 }
  }
  const data = Buffer.from(userData)
  // Written by a replica of ours and by nobody else: what the mark begins is what `encodeSubscription` wrote.
  const { state, since } = JSON.parse(textOf(data.subarray(at + MARK.length))) as {
    readonly state: MemberState
    readonly since: readonly (readonly [string, number, number])[]
  }
  const owned = since.map(([topic, partition, generation]) => ({ topic, partition, since: generation }))
  return { topics: topics ?? [], state, owned, ownedGeneration: data.readInt32BE(at - 4) }
}

/** What a member is given, as bytes. Members of other clients get no user data. */
export function encodeAssignment(held: readonly Held[], generationId: number | undefined): Buffer {
  const userData =
    generationId === undefined
      ? null
      : Buffer.concat([
          MARK,
          Buffer.from(JSON.stringify([generationId, held.map((one) => [one.topic, one.partition, one.since])])),
        ])
  return encodeConsumerProtocolAssignment({
    version: PROTOCOL_VERSION,
    assignedPartitions: byTopic(held),
    userData,
  })
}

/** What a member was given, from bytes. Where the leader did not say since when it holds a partition, it is `generationId`. */
export function decodeAssignment(bytes: Buffer, generationId: number): Assignment {
  const { assignedPartitions, userData } = decodeConsumerProtocolAssignment(bytes)
  const data = userData === null || userData === undefined ? Buffer.alloc(0) : Buffer.from(userData)
  const since = new Map<string, number>()
  let known: number | undefined
  if (data.subarray(0, MARK.length).equals(MARK)) {
    const [generation, held] = JSON.parse(textOf(data.subarray(MARK.length))) as [
      number,
      readonly (readonly [string, number, number])[],
    ]
    known = generation
    for (const [topic, partition, at] of held) since.set(partitionKey({ topic, partition }), at)
  }
  const held = new Map<string, Held>()
  for (const { topic, partitions } of assignedPartitions ?? []) {
    for (const partition of partitions) {
      const key = partitionKey({ topic, partition })
      held.set(key, { topic, partition, since: since.get(key) ?? generationId })
    }
  }
  return { held, generationId: known }
}
