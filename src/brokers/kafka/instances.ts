/**
 * The instances that this process joins as: one step after the other for each, a rebalance forced where Kafka sees no reason for
 * one, and the membership kept for the next call.
 */
import type { GroupInstance } from '../../broker.ts'
import type { Clock } from '../../clock.ts'
import type { Random } from '../../random.ts'
import { partitionKey } from '../../record.ts'
import type { TopicPartition } from '../../record.ts'
import type { Cluster } from './cluster.ts'
import { Deadline } from './deadline.ts'
import { contested, newerProtocol } from './group-errors.ts'
import { ownedBy, topicsOf } from './member-state.ts'
import { FencedError } from './membership.ts'
import type { GroupView, Joined, Memberships, MemberView } from './membership.ts'
import type { MemberState, Subscription } from './subscription.ts'
import { Turns } from './turns.ts'

/** What instances are joined with. */
export interface InstancesParts {
  readonly cluster: Cluster
  readonly memberships: Memberships
  readonly clock: Clock
  readonly random: Random
  /** Whether memberships are kept between calls. */
  readonly isKeeping: boolean
  /** Aborted when the broker object closes. */
  readonly closing: AbortSignal
}

/** A membership between calls. It is good for as long as a heartbeat says so. */
export interface Kept {
  readonly joined: Joined
  readonly state: MemberState
  /** Monotonic time at which the whole group was looked at. */
  readonly lookedAt: number
}

/** A rebalance that changed nothing is not forced again so soon: a leader of another kind may not know better yet. */
const FORCE_AGAIN_MS = 10_000
/** A group is looked at whole so often at least: by then partitions that were added are seen. */
const KEPT_MS = 5_000
const MAX_KEPT = 10_000
const MAX_RACES = 5
const RACE_PAUSE_MS = 30
const ADOPT_LIMIT_MS = 2_000
const LOOK_LIMIT_MS = 5_000

/** All instances of this process. */
export class Instances {
  readonly #parts: InstancesParts
  readonly #steps = new Turns()
  readonly #kept = new Map<string, Kept>()
  /** When a rebalance was forced, by group. */
  readonly #forcedAt = new Map<string, number>()

  constructor(parts: InstancesParts) {
    this.#parts = parts
  }

  /** Does the work when no other step of the instance is under way in this process: looking and joining are one. */
  async step<T>(group: GroupInstance, deadline: Deadline | undefined, work: () => Promise<T>): Promise<T> {
    const step = this.#steps.take(keyOf(group), async () => {
      deadline?.signal.throwIfAborted()
      return await work()
    })
    return await (deadline === undefined ? step : deadline.race(step))
  }

  /**
   * Looks at the instance, when it is shown, and does the work that may join as it; again where another process was quicker.
   * A group that rebalances hides its members. Whoever knows this one, or nobody, will let it rest; then it is seen.
   * `onHidden` is called while that takes.
   */
  async become<T>(
    group: GroupInstance,
    deadline: Deadline,
    work: (view: GroupView, member: MemberView | undefined) => Promise<T>,
    onHidden: () => void = () => {},
  ): Promise<T> {
    const { memberships, random } = this.#parts
    return await this.step(group, deadline, async () => {
      for (let races = 0; ;) {
        // A join that is under way already goes on; this one follows it.
        await deadline.race(memberships.joining(group)?.then(ignore, ignore) ?? Promise.resolve())
        deadline.signal.throwIfAborted()
        const view = await memberships.look(group.groupId, deadline)
        const member = view.members.get(group.groupInstanceId)
        if (member?.isCertain === false) {
          onHidden()
          void memberships.tend(group.groupId)
          await deadline.pause(RACE_PAUSE_MS)
          continue
        }
        try {
          return await deadline.race(work(view, member))
        } catch (error) {
          if (!(error instanceof FencedError)) throw error
          races += 1
          if (races > MAX_RACES) throw contested(group, error)
          await deadline.pause(RACE_PAUSE_MS * (1 + 2 * random()))
        }
      }
    })
  }

  /** The membership from an earlier call; undefined also while it is being changed. */
  kept(group: GroupInstance): Kept | undefined {
    const key = keyOf(group)
    return this.#steps.isTaken(key) ? undefined : this.#kept.get(key)
  }

  /** Whether a kept membership may still be relied on for what the group as a whole looks like. */
  isFresh({ lookedAt }: Kept): boolean {
    return this.#parts.clock.monotonic() - lookedAt < KEPT_MS
  }

  /** Keeps what this process joined as. @param lookedAt as in `Kept`; the one before where absent */
  keep(group: GroupInstance, joined: Joined, state: MemberState, lookedAt?: number): void {
    this.#parts.memberships.watch(group.groupId)
    if (!this.#parts.isKeeping) return
    const key = keyOf(group)
    const before = this.#kept.get(key)?.lookedAt ?? Number.NEGATIVE_INFINITY
    // What was committed then is not what is committed when it is used.
    const { committed: _, ...lasting } = joined
    this.#kept.delete(key)
    this.#kept.set(key, { joined: lasting, state, lookedAt: lookedAt ?? before })
    const oldest = this.#kept.size > MAX_KEPT ? this.#kept.keys().next().value : undefined
    if (oldest !== undefined) this.#kept.delete(oldest)
  }

  /** Forgets a membership that is not good any more. */
  forget(group: GroupInstance): void {
    this.#kept.delete(keyOf(group))
  }

  /**
   * Joins as the instance with what it is to be from now on, and sees that its topics are shared as they are now. Within a step.
   * `reading` as in `Application`.
   * @throws {FencedError}
   */
  async join(
    group: GroupInstance,
    view: GroupView,
    topics: readonly string[],
    state: MemberState,
    reading: readonly TopicPartition[] = [],
  ): Promise<Joined> {
    const { memberships, clock, random } = this.#parts
    const member = view.members.get(group.groupInstanceId)
    const subscription = { topics: topicsOf(topics), state, ...ownedBy(member) }
    let joined = await memberships.join({ group, memberId: '', subscription, reading }, view)
    if (view.state === 'Dead') await this.#requireClassic(group)
    if (topics.length > 0 && this.#mustForce(group, view, member, subscription, joined)) {
      this.#forcedAt.set(group.groupId, clock.monotonic())
      const again = { ...subscription, ...ownedBy(undefined, joined) }
      joined = await memberships.join(
        { group, memberId: joined.memberId, subscription: again, nonce: String(random()) },
        view,
      )
    }
    this.keep(group, joined, state, clock.monotonic())
    return joined
  }

  /** Removes the instance, and lets the others have its partitions at once. Within a step. */
  async remove(group: GroupInstance, view: GroupView, deadline: Deadline): Promise<void> {
    const { memberships, clock } = this.#parts
    this.forget(group)
    await memberships.leave(group, deadline)
    // The others are told by a rebalance, which waits for them.
    await deadline.within(
      memberships.adoptAll(group.groupId, view, group.groupInstanceId),
      clock.monotonic() + ADOPT_LIMIT_MS,
    )
  }

  /**
   * A group of the newer protocol (KIP-848) takes members of the classic one, and shows them to nobody who asks the classic way:
   * claims would be hidden. @throws {BrokerError} INCONSISTENT_GROUP_PROTOCOL
   */
  async #requireClassic(group: GroupInstance): Promise<void> {
    const { memberships, clock, closing } = this.#parts
    const deadline = new Deadline(clock, LOOK_LIMIT_MS, {}, closing)
    try {
      const { state } = await memberships.look(group.groupId, deadline)
      if (state !== 'Dead') return
      await memberships.leave(group, deadline)
      throw newerProtocol(group)
    } finally {
      deadline.close()
    }
  }

  /**
   * Kafka does not rebalance for a static member that comes back, whatever it asks for now: whether its topics changed, or have
   * partitions that nobody holds, is for us to see.
   */
  #mustForce(
    group: GroupInstance,
    view: GroupView,
    member: MemberView | undefined,
    { topics }: Subscription,
    joined: Joined,
  ): boolean {
    if (member?.assignment === undefined || view.state !== 'Stable') return false
    const { generationId } = member.assignment
    // A rebalance since the look has taken everything into account.
    if (generationId !== undefined && generationId !== joined.generationId) return false
    if (member.subscription?.topics.join() !== topics.join()) return true
    const held = new Set([
      ...[...view.members.values()].flatMap(({ assignment }) => [...(assignment?.held.keys() ?? [])]),
      ...view.foreign.map(partitionKey),
    ])
    const isUnheld = topics.some((topic) =>
      (this.#parts.cluster.cachedTopic(topic)?.leaders ?? []).some(
        (_, partition) => !held.has(partitionKey({ topic, partition })),
      ),
    )
    const forcedAt = this.#forcedAt.get(group.groupId) ?? Number.NEGATIVE_INFINITY
    return isUnheld && this.#parts.clock.monotonic() - forcedAt > FORCE_AGAIN_MS
  }
}

function ignore(): void {}

/** A group instance as the key of a map. */
export function keyOf({ groupId, groupInstanceId }: GroupInstance): string {
  return JSON.stringify([groupId, groupInstanceId])
}
