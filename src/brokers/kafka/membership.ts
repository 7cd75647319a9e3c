/**
 * Members of a group that nobody keeps alive: static members (group.instance.id) of Kafka's classic protocol, which any process
 * joins as, for a moment, by single requests. The broker gives whoever joins under a known instance its old assignment and
 * fences the one before; no rebalance, no state here.
 *
 * What absent members are bad for is a rebalance (a new instance, one that leaves, a client of another kind that comes or goes):
 * it waits for every one of them. So the process whose join waits *adopts* the absent ones of Kedge: it joins and syncs in their
 * names, with what they told the group before.
 *
 * It is one file because a join, what it waits for and who is adopted are one exchange with the coordinator.
 *
 * @see docs/decisions/0008-groups-by-static-membership.md
 */
import {
  describeGroupsV5,
  heartbeatV4,
  joinGroupV9,
  leaveGroupV5,
  offsetCommitV8,
  offsetFetchV8,
  syncGroupV5,
} from '@platformatic/kafka'
import type { Connection } from '@platformatic/kafka'
import type { GroupInstance, OffsetCommit } from '../../broker.ts'
import type { Clock } from '../../clock.ts'
import { sleep } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import type { Random } from '../../random.ts'
import type { CommittedOffset, TopicPartition } from '../../record.ts'
import { assign, assignors } from './assignor.ts'
import type { GroupMember } from './assignor.ts'
import { MAX_LOSSES, movedCoordinator } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { Deadline } from './deadline.ts'
import { failureOf, isConnectionFailure, kafkaNameOf } from './failures.ts'
import { byTopic, decodeAssignment, decodeSubscription, encodeAssignment, encodeSubscription } from './subscription.ts'
import type { Assignment, MemberState, Subscription } from './subscription.ts'

/** How this process takes part in groups. */
export interface MembershipSettings {
  readonly cluster: Cluster
  readonly clock: Clock
  readonly random: Random
  /** Whether groups are watched between calls. */
  readonly isWatching: boolean
  /** Aborted when the broker object closes. */
  readonly closing: AbortSignal
}

/** A member as the coordinator describes it. */
export interface MemberView {
  readonly memberId: string
  readonly groupInstanceId: string
  /** What it told the group; undefined where the group shows nothing and this process has not seen it before. */
  readonly subscription: Subscription | undefined
  /** Whether that is still so: a claim that lapsed may have been renewed while the group hides it. */
  readonly isCertain: boolean
  /** Undefined while the group rebalances. */
  readonly assignment: Assignment | undefined
}

/** A group as its coordinator describes it. */
export interface GroupView {
  readonly state: string
  /** Members of Kedge, by instance id. */
  readonly members: ReadonlyMap<string, MemberView>
  /** Partitions that members of other clients hold. */
  readonly foreign: readonly TopicPartition[]
  readonly foreignMembers: number
}

/** What an instance joins with. */
export interface Application {
  readonly group: GroupInstance
  /** Empty: takes the instance over. Otherwise goes on as this member. */
  readonly memberId: string
  readonly subscription: Subscription
  /** Makes the broker rebalance though nothing changed. */
  readonly nonce?: string
  /** Partitions whose committed offsets are read right behind the join: by then nobody else can commit as the instance. */
  readonly reading?: readonly TopicPartition[]
}

/** A member that has joined and was given its partitions. */
export interface Joined {
  readonly memberId: string
  readonly generationId: number
  readonly assignment: Assignment
  readonly subscription: Subscription
  /** What was read with the join, as it was then. */
  readonly committed?: readonly CommittedOffset[]
}

/** On whose behalf something is committed. */
export type CommittingMember = Pick<Joined, 'memberId' | 'generationId'> & {
  readonly groupInstanceId: string | null
}

/** What a heartbeat says of a member. */
export type Pulse = 'alive' | 'rebalancing' | 'replaced' | 'gone'

const pulses: Readonly<Record<string, Pulse>> = {
  REBALANCE_IN_PROGRESS: 'rebalancing',
  ILLEGAL_GENERATION: 'rebalancing',
  FENCED_INSTANCE_ID: 'replaced',
  UNKNOWN_MEMBER_ID: 'gone',
}

/** Begins the client ids of all members of Kedge: by it one is known, also while its group shows nothing else of it. */
export const CLIENT_ID = 'kedge'
/** How long a rebalance waits for our members at most. All that wait for it here are there long before. */
const REBALANCE_TIMEOUT_MS = 5_000
/** A join that is not answered by then waits for others. */
const ADOPT_AFTER_MS = 15
/** Members that joined since this process looked may be waiting themselves; they are adopted when they are not. */
const ADOPT_OTHERS_AFTER_MS = 400
/** What is not known of a member may be known to another process, which then adopts it first. */
const ADOPT_UNKNOWN_AFTER_MS = 2_500
/** To a process that watches the group, only what happened in the last second is unknown: somebody else is there. */
const ADOPT_UNKNOWN_WATCHED_AFTER_MS = 5_000
/**
 * A group that has all members and waits for some of them to take their assignments removes those that do not, within the
 * rebalance timeout. Where it waits so long, whoever had joined for them is gone, and they are joined anew.
 */
const ADOPT_UNSYNCED_AFTER_MS = 1_500
/** A join is begun again so often where it was replaced while the group hid what it was. */
const MAX_REPLACED = 20
const LOOK_MS = 20
const MOST_LOOK_MS = 1_000
/** How often a watched group is looked at, and for how long after its last call. */
const WATCH_MS = 1_000
const WATCH_FOR_MS = 1_800_000
const MAX_WATCHED = 1_000
/** Replicas that watch one group see a rebalance at about the same time; the first that acts is enough. */
const TEND_AFTER_MS = 300
/** A member of another client may hold a rebalance up for its max.poll.interval.ms: five minutes by default. */
const JOIN_LIMIT_MS = 330_000
/**
 * So long, and a broker's time to answer, a join waits over one connection: one that the network has forgotten would keep it
 * waiting for ever. Joining anew goes on with the same rebalance.
 */
const JOIN_ATTEMPT_MS = 5_000
const RETRY_MS = 30
/** Partitions are shared out by what is known of topics and no older. */
const ASSIGNED_BY_MS = 500
/** A claim that nobody can read any more is taken for live so long: by then a run that holds it has renewed it. */
export const UNKNOWN_CLAIM_MS = 30_000
/** What was seen of so many members is remembered. */
const MAX_SEEN = 10_000
/** Kafka's default group.max.session.timeout.ms. */
const MOST_SESSION_MS = 1_800_000
const CLAIM_ROOM_MS = 10_000
const PROTOCOL_TYPE = 'consumer'
const UNSTABLE = -1

const adoptedDefaults: MemberState = {
  claim: null,
  sessionTimeoutMs: 120_000,
  autoOffsetReset: 'latest',
  autoCommit: null,
  positions: [],
  positionsGeneration: -1,
  poll: '',
}

/** Another process took the instance over. */
export class FencedError extends Error {
  override readonly name = 'FencedError' as const
}

/** The group moved on since it was looked at: another look may help. */
export class MovedOnError extends Error {
  override readonly name = 'MovedOnError' as const
}

const movedOn: ReadonlySet<string> = new Set(['FENCED_INSTANCE_ID', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS'])

/** The members that this process joins as. */
export class Memberships {
  readonly #settings: MembershipSettings
  /** Joins that are not answered yet, by group and instance. */
  readonly #joining = new Map<string, Promise<Joined>>()
  /** What members told their groups when that was last shown, by member id. */
  readonly #seen = new Map<string, Subscription>()
  /** What members were given when that was last shown, by member id. */
  readonly #given = new Map<string, Assignment>()
  /** Groups that are watched, and until when (monotonic). */
  readonly #watched = new Map<string, number>()
  /** Groups in whose rebalance this process takes part for others. */
  readonly #tended = new Set<string>()
  #cancelWatch: (() => void) | undefined

  constructor(settings: MembershipSettings) {
    this.#settings = settings
    settings.closing.addEventListener('abort', () => this.#cancelWatch?.())
  }

  /**
   * Looks at the group now and then from now on, so that this process knows what its members told it before a rebalance hides
   * it, and takes part for those that are absent. Nothing relies on it: it makes rebalances short that other clients begin.
   */
  watch(groupId: string): void {
    if (!this.#settings.isWatching) return
    this.#watched.delete(groupId)
    this.#watched.set(groupId, this.#settings.clock.monotonic() + WATCH_FOR_MS)
    if (this.#watched.size > MAX_WATCHED) forgetOldest(this.#watched)
    this.#scheduleWatch()
  }

  /** The group as it is now. */
  async look(groupId: string, deadline: Deadline): Promise<GroupView> {
    const what = `describe group ${JSON.stringify(groupId)}`
    const { groups } = await this.#settings.cluster.onCoordinator(groupId, what, deadline, (connection) =>
      describeGroupsV5.api.async(connection, [groupId], false),
    )
    const [group] = groups
    const members = new Map<string, MemberView>()
    const foreign: TopicPartition[] = []
    let foreignMembers = 0
    for (const { memberId, groupInstanceId, clientId, memberMetadata, memberAssignment } of group?.members ?? []) {
      const isShown = memberMetadata.length > 0
      const assignment = isShown ? decodeAssignment(memberAssignment, UNSTABLE) : undefined
      const isOurs = typeof groupInstanceId === 'string' && clientId.startsWith(CLIENT_ID)
      if (!isOurs) {
        foreignMembers += 1
        for (const { topic, partition } of assignment?.held.values() ?? []) foreign.push({ topic, partition })
        continue
      }
      if (isShown) this.#remember(memberId, decodeSubscription(memberMetadata), assignment)
      const subscription = this.#seen.get(memberId)
      const isCertain = isShown || (subscription !== undefined && !isLapsed(subscription, this.#settings.clock.now()))
      members.set(groupInstanceId, { memberId, groupInstanceId, subscription, isCertain, assignment })
    }
    return { state: group?.groupState ?? 'Dead', members, foreign, foreignMembers }
  }

  /** A join of the instance that is not answered yet, of this process. */
  joining(group: GroupInstance): Promise<Joined> | undefined {
    return this.#joining.get(keyOf(group))
  }

  /**
   * Joins, and adopts whom the join would wait for. Goes on when nobody waits for it any more: a rebalance that is given up is
   * one that the next join has to begin anew. `view` is the group as it was seen before.
   * @throws {FencedError} when another process took the instance over meanwhile
   */
  async join(application: Application, view: GroupView): Promise<Joined> {
    return await this.#noted(application, this.#join(application, view))
  }

  async #noted({ group }: Application, join: Promise<Joined>): Promise<Joined> {
    const key = keyOf(group)
    const joining = join.finally(() => {
      if (this.#joining.get(key) === joining) this.#joining.delete(key)
    })
    this.#joining.set(key, joining)
    joining.catch(() => {})
    return await joining
  }

  /** Takes part in a rebalance that others began, for those of Kedge that are absent. */
  async tend(groupId: string): Promise<void> {
    const { clock, random, closing } = this.#settings
    if (this.#tended.has(groupId)) return
    this.#tended.add(groupId)
    try {
      await sleep(clock, TEND_AFTER_MS * random(), closing)
      await this.#adoptAbsent(groupId, undefined, undefined, closing)
    } catch {
      // Whoever looks next sees what is left to do.
    } finally {
      this.#tended.delete(groupId)
    }
  }

  /** Lets the members that are left after one is gone share its partitions, so that the group rests and shows what they know. */
  async adoptAll(groupId: string, view: GroupView, except: string): Promise<void> {
    const absent = [...view.members.values()].filter(({ groupInstanceId }) => groupInstanceId !== except)
    await Promise.allSettled(absent.map((member) => this.#adopt(groupId, member, view)))
  }

  /** Whether the member still is one, and of this generation. */
  async heartbeat({ groupId, groupInstanceId }: GroupInstance, member: Joined, deadline: Deadline): Promise<Pulse> {
    const { cluster } = this.#settings
    try {
      await cluster.onCoordinator(groupId, `keep a member of ${groupId}`, deadline, async (connection) => {
        await heartbeatV4.api.async(connection, groupId, member.generationId, member.memberId, groupInstanceId)
      })
      return 'alive'
    } catch (error) {
      const pulse = error instanceof BrokerError ? pulses[error.code] : undefined
      if (pulse === undefined) throw error
      return pulse
    }
  }

  /** Removes an instance. @throws {BrokerError} UNKNOWN_MEMBER_ID */
  async leave({ groupId, groupInstanceId }: GroupInstance, deadline: Deadline): Promise<void> {
    const what = `remove instance ${JSON.stringify(groupInstanceId)} of group ${JSON.stringify(groupId)}`
    await this.#settings.cluster.onCoordinator(groupId, what, deadline, async (connection) => {
      await leaveGroupV5.api.async(connection, groupId, [{ memberId: '', groupInstanceId, reason: null }])
    })
  }

  /**
   * Stores offsets in a member's name, or, where the group has no members, in nobody's.
   * @throws {MovedOnError}
   * @throws {BrokerError} ILLEGAL_GENERATION, GROUP_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_OR_PARTITION, ...
   */
  async commit(
    groupId: string,
    member: CommittingMember | undefined,
    offsets: readonly OffsetCommit[],
    deadline: Deadline,
  ): Promise<void> {
    const { memberId, generationId, groupInstanceId } = member ?? {
      memberId: '',
      generationId: -1,
      groupInstanceId: null,
    }
    const topics = Array.from(
      Map.groupBy(offsets, ({ topic }) => topic),
      ([name, entries]) => ({
        name,
        partitions: entries.map(({ partition, offset, metadata }) => ({
          partitionIndex: partition,
          committedOffset: BigInt(offset),
          committedLeaderEpoch: -1,
          committedMetadata: metadata ?? null,
        })),
      }),
    )
    const what = `commit offsets of group ${JSON.stringify(groupId)}`
    try {
      await this.#settings.cluster.onCoordinator(groupId, what, deadline, async (connection) => {
        await offsetCommitV8.api.async(connection, groupId, generationId, memberId, groupInstanceId, topics)
      })
    } catch (error) {
      const isMovedOn = error instanceof BrokerError && movedOn.has(error.code)
      throw isMovedOn ? new MovedOnError(error.message, { cause: error }) : error
    }
  }

  /** The group's committed offsets: of the partitions, or all that there are. */
  async committed(
    groupId: string,
    partitions: readonly TopicPartition[] | undefined,
    deadline: Deadline,
  ): Promise<CommittedOffset[]> {
    const what = `read offsets of group ${JSON.stringify(groupId)}`
    return await this.#settings.cluster.onCoordinator(groupId, what, deadline, (connection) =>
      committedOver(connection, groupId, partitions),
    )
  }

  async #join(application: Application, view: GroupView): Promise<Joined> {
    const { clock, closing } = this.#settings
    const isOver = new AbortController()
    const deadline = new Deadline(clock, JOIN_LIMIT_MS, {}, closing)
    const isNew = !view.members.has(application.group.groupInstanceId) || application.memberId !== ''
    void this.#help(application.group, view, isNew, isOver.signal).catch(() => {})
    try {
      const expected = view.members.get(application.group.groupInstanceId)
      return await this.#tryToJoin(application, deadline, MAX_REPLACED, expected)
    } finally {
      isOver.abort()
      deadline.close()
    }
  }

  /** Joins, again where the coordinator moved, the rebalance began anew, or somebody joined as the instance without knowing it. */
  async #tryToJoin(
    application: Application,
    deadline: Deadline,
    mostReplaced: number,
    expected: MemberView | undefined,
  ): Promise<Joined> {
    const { cluster } = this.#settings
    const { groupId } = application.group
    let { memberId } = application
    let replaced = 0
    for (let losses = 0; ;) {
      const nodeId = await cluster.coordinatorOf(groupId, deadline)
      const startedAt = cluster.clock.monotonic()
      try {
        return await cluster.waitingOnNode(
          nodeId,
          'joining',
          JOIN_ATTEMPT_MS,
          (connection) =>
            this.#joinAndSync(
              connection,
              { ...application, memberId },
              expected?.assignment,
              (id) => (memberId = id),
              deadline,
            ),
          deadline.signal,
        )
      } catch (error) {
        const failure = failureOf(error, `join group ${JSON.stringify(groupId)}`)
        const name = kafkaNameOf(error) ?? (failure instanceof BrokerError ? failure.code : '')
        const isReplaced = name === 'FENCED_INSTANCE_ID'
        if (isReplaced && (replaced++ >= mostReplaced || !(await this.#isHidden(application.group, deadline)))) {
          throw new FencedError('Another process joined as the instance.', { cause: error })
        }
        const isMoved = movedCoordinator.has(name)
        const isUnanswered = cluster.clock.monotonic() - startedAt >= JOIN_ATTEMPT_MS
        const isLost = isConnectionFailure(error) && (isUnanswered || losses++ < MAX_LOSSES)
        // The rebalance began anew before the leader had decided, or after a broker was gone.
        if (!isMoved && !isLost && pulses[name] === undefined) throw failure
        if (isMoved || isLost) {
          if (mostReplaced === 0) throw failure
          cluster.forgetCoordinator(groupId)
          await this.#requireUnchanged(application.group, [expected?.memberId, memberId], deadline)
        }
        if (name === 'UNKNOWN_MEMBER_ID' || isReplaced) memberId = ''
        await deadline.pause(RETRY_MS * (1 + 2 * this.#settings.random()))
      }
    }
  }

  /** What was meant to be joined as may be somebody else's by now. @throws {FencedError} where the group shows that it is */
  async #requireUnchanged(
    { groupId, groupInstanceId }: GroupInstance,
    expected: readonly (string | undefined)[],
    deadline: Deadline,
  ): Promise<void> {
    const { state, members } = await this.look(groupId, deadline)
    const memberId = members.get(groupInstanceId)?.memberId
    if (state === 'Stable' && memberId !== undefined && !expected.includes(memberId)) {
      throw new FencedError('Another process joined as the instance meanwhile.')
    }
  }

  /** Whether the group hides what its members are, so that whoever joins as one that is not its own cannot know it. */
  async #isHidden({ groupId, groupInstanceId }: GroupInstance, deadline: Deadline): Promise<boolean> {
    const { state, members } = await this.look(groupId, deadline)
    return state === 'PreparingRebalance' && members.get(groupInstanceId)?.isCertain !== true
  }

  async #joinAndSync(
    connection: Connection,
    { group, memberId, subscription, nonce, reading = [] }: Application,
    shown: Assignment | undefined,
    onMemberId: (memberId: string) => void,
    deadline: Deadline,
  ): Promise<Joined> {
    const { groupId, groupInstanceId } = group
    const metadata = encodeSubscription(subscription, nonce)
    const joining = joinGroupV9.api.async(
      connection,
      groupId,
      sessionOf(subscription.state),
      REBALANCE_TIMEOUT_MS,
      memberId,
      groupInstanceId,
      PROTOCOL_TYPE,
      assignors.map((name) => ({ name, metadata })),
      null,
    )
    // A broker answers the requests of one connection one after the other: this one when the instance before is fenced.
    const asking = reading.length === 0 ? undefined : committedOver(connection, groupId, reading)
    asking?.catch(() => {})
    const joined = await joining
    onMemberId(joined.memberId)
    // Whoever asks for it has it, or asks again.
    const committed = await asking?.catch(() => undefined)
    const known = { memberId: joined.memberId, generationId: joined.generationId, subscription }
    const { generationId } = joined
    const mustAssign = joined.leader === joined.memberId && !joined.skipAssignment
    if (!mustAssign && shown?.generationId === generationId) {
      // The generation in which it was assigned goes on.
      this.#remember(joined.memberId, subscription, shown)
      return { ...known, assignment: shown, ...(committed === undefined ? {} : { committed }) }
    }
    const assignments = mustAssign ? await this.#assignments(joined, deadline) : []
    const { assignment } = await syncGroupV5.api.async(
      connection,
      groupId,
      generationId,
      joined.memberId,
      groupInstanceId,
      PROTOCOL_TYPE,
      joined.protocolName ?? null,
      assignments,
    )
    const decoded = decodeAssignment(assignment, generationId)
    this.#remember(joined.memberId, subscription, decoded)
    return { ...known, assignment: decoded, ...(committed === undefined ? {} : { committed }) }
  }

  /** The leader decides for all members, those of other clients too. */
  async #assignments(
    joined: joinGroupV9.JoinGroupResponse,
    deadline: Deadline,
  ): Promise<syncGroupV5.SyncGroupRequestAssignment[]> {
    const members: GroupMember[] = joined.members.map(({ memberId, groupInstanceId, metadata }) => ({
      memberId,
      groupInstanceId: groupInstanceId ?? null,
      subscription: decodeSubscription(metadata),
    }))
    const counts = new Map<string, number>()
    for (const topic of new Set(members.flatMap(({ subscription }) => subscription.topics))) {
      counts.set(topic, await this.#partitionsOf(topic, deadline))
    }
    const assigned = assign(joined.protocolName ?? '', members, (topic) => counts.get(topic) ?? 0, joined.generationId)
    return members.map(({ memberId, subscription }) => ({
      memberId,
      assignment: encodeAssignment(
        assigned.get(memberId) ?? [],
        subscription.state === undefined ? undefined : joined.generationId,
      ),
    }))
  }

  #refreshTopics({ members }: GroupView): void {
    const { cluster, clock, closing } = this.#settings
    const topics = new Set([...members.values()].flatMap(({ subscription }) => subscription?.topics ?? []))
    const deadline = new Deadline(clock, REBALANCE_TIMEOUT_MS, {}, closing)
    const refreshing = Array.from(topics, (topic) => cluster.topic(topic, deadline, ASSIGNED_BY_MS / 2))
    void Promise.allSettled(refreshing).then(() => deadline.close())
  }

  async #partitionsOf(topic: string, deadline: Deadline): Promise<number> {
    try {
      // As it is now: what a leader does not know of is left out, and another process that knows would have it all done again.
      return (await this.#settings.cluster.topic(topic, deadline, ASSIGNED_BY_MS)).leaders.length
    } catch (error) {
      // A topic that is gone has no partitions; a member that still asks for it will be told when it polls.
      if (error instanceof BrokerError && error.code === 'UNKNOWN_TOPIC_OR_PARTITION') return 0
      throw error
    }
  }

  /** While a join waits: adopts those of Kedge that it may wait for. */
  async #help(group: GroupInstance, before: GroupView, isNew: boolean, isOver: AbortSignal): Promise<void> {
    const { clock, random } = this.#settings
    // Where the join changes nothing, somebody else began the rebalance and may be adopting already.
    await sleep(clock, isNew ? ADOPT_AFTER_MS / 3 : ADOPT_AFTER_MS + 200 * random(), isOver)
    await this.#adoptAbsent(group.groupId, before, group.groupInstanceId, isOver)
  }

  /** Adopts absent members for as long as the group waits for them: those that are known first, then the others. */
  async #adoptAbsent(
    groupId: string,
    before: GroupView | undefined,
    except: string | undefined,
    isOver: AbortSignal,
  ): Promise<void> {
    const { clock, random, closing } = this.#settings
    const startedAt = clock.monotonic()
    const adopted = new Set<string>()
    let completingSince: number | undefined
    while (!isOver.aborted) {
      const deadline = new Deadline(clock, REBALANCE_TIMEOUT_MS, { signal: isOver }, closing)
      try {
        const view = await this.look(groupId, deadline)
        const isCompleting = view.state === 'CompletingRebalance'
        if (view.state !== 'PreparingRebalance' && !isCompleting && except === undefined) return
        const now = clock.monotonic()
        completingSince = isCompleting ? (completingSince ?? now) : undefined
        const isUnsynced = isCompleting && now - (completingSince ?? now) > ADOPT_UNSYNCED_AFTER_MS * (1 + random())
        const isWaiting = view.state === 'PreparingRebalance' || isUnsynced
        // Whoever leads will need them, at once: who joins between its answer and its decision has it all done again.
        if (isWaiting) this.#refreshTopics(view)
        const waitedMs = now - startedAt
        for (const member of isWaiting ? view.members.values() : []) {
          const { memberId, groupInstanceId } = member
          if (groupInstanceId === except) continue
          if (this.joining({ groupId, groupInstanceId }) !== undefined) continue
          const wasThere = before === undefined || before.members.get(groupInstanceId)?.memberId === memberId
          const isKnown = member.subscription !== undefined
          // Whoever takes an instance back from one that did not know it, knew it.
          const name = isKnown ? memberId : groupInstanceId
          if (adopted.has(name)) continue
          const afterMs = isUnsynced
            ? 0
            : !isKnown
              ? this.#adoptUnknownAfterMs(groupId)
              : wasThere
                ? 0
                : ADOPT_OTHERS_AFTER_MS
          if (waitedMs < afterMs + afterMs * random()) continue
          adopted.add(name)
          void this.#adopt(groupId, member, before)
        }
      } finally {
        deadline.close()
      }
      // The longer it takes, the less a moment matters.
      const pauseMs = Math.min(MOST_LOOK_MS, LOOK_MS + (clock.monotonic() - startedAt) / 10)
      await sleep(clock, pauseMs * (1 + random()), isOver)
    }
  }

  #adoptUnknownAfterMs(groupId: string): number {
    return this.#watched.has(groupId) ? ADOPT_UNKNOWN_WATCHED_AFTER_MS : ADOPT_UNKNOWN_AFTER_MS
  }

  /** Joins in the name of an absent member, with what it told the group, its claim above all. */
  async #adopt(groupId: string, member: MemberView, before: GroupView | undefined): Promise<void> {
    const { clock, closing } = this.#settings
    const group = { groupId, groupInstanceId: member.groupInstanceId }
    const known = member.subscription ?? before?.members.get(member.groupInstanceId)?.subscription
    const given = member.assignment ?? this.#given.get(member.memberId)
    const others = [...(before?.members.values() ?? [])].flatMap(({ subscription }) => subscription?.topics ?? [])
    const subscription: Subscription = {
      topics: known?.topics ?? [...new Set(others)],
      state: member.subscription === undefined ? this.#unknownState(known) : known?.state,
      owned: given === undefined ? (known?.owned ?? []) : [...given.held.values()],
      ownedGeneration: given === undefined ? (known?.ownedGeneration ?? -1) : (given.generationId ?? -1),
    }
    const application = { group, memberId: '', subscription }
    const deadline = new Deadline(clock, JOIN_LIMIT_MS, {}, closing)
    try {
      await this.#noted(application, this.#tryToJoin(application, deadline, 0, member))
    } catch {
      // Whoever fenced it, or cannot reach the cluster either, is on it.
    } finally {
      deadline.close()
    }
  }

  #scheduleWatch(): void {
    const { clock, closing } = this.#settings
    if (this.#cancelWatch !== undefined || this.#watched.size === 0 || closing.aborted) return
    this.#cancelWatch = clock.after(WATCH_MS, () => {
      void this.#lookAtWatched().finally(() => {
        this.#cancelWatch = undefined
        this.#scheduleWatch()
      })
    })
  }

  async #lookAtWatched(): Promise<void> {
    const { clock, closing } = this.#settings
    const now = clock.monotonic()
    for (const [groupId, until] of this.#watched) {
      if (until < now) {
        this.#watched.delete(groupId)
        continue
      }
      if (closing.aborted) return
      const deadline = new Deadline(clock, WATCH_MS, {}, closing)
      try {
        const { state, members } = await this.look(groupId, deadline)
        if (state === 'PreparingRebalance' || state === 'CompletingRebalance') void this.tend(groupId)
        else if (members.size === 0) this.#watched.delete(groupId)
      } catch {
        // A cluster that cannot be reached is for those to report who need it.
      } finally {
        deadline.close()
      }
    }
  }

  /** The state of a member of which nothing exact is known: somebody may hold its claim. */
  #unknownState(stale: Subscription | undefined): MemberState {
    const until = this.#settings.clock.now() + UNKNOWN_CLAIM_MS
    const { positions: _, ...settings } = stale?.state ?? { ...adoptedDefaults, claim: null }
    return { ...settings, positions: [], claim: { runId: null, ttlMs: UNKNOWN_CLAIM_MS, until } }
  }

  #remember(memberId: string, subscription: Subscription, assignment: Assignment | undefined): void {
    this.#seen.delete(memberId)
    this.#seen.set(memberId, subscription)
    if (assignment !== undefined) this.#given.set(memberId, assignment)
    if (this.#seen.size <= MAX_SEEN) return
    const oldest = forgetOldest(this.#seen)
    if (oldest !== undefined) this.#given.delete(oldest)
  }
}

async function committedOver(
  connection: Connection,
  groupId: string,
  partitions: readonly TopicPartition[] | undefined,
): Promise<CommittedOffset[]> {
  const topics =
    partitions === undefined
      ? null
      : byTopic(partitions).map(({ topic, partitions }) => ({ name: topic, partitionIndexes: partitions }))
  const request = { groupId, memberId: null, memberEpoch: -1, topics }
  const { groups } = await offsetFetchV8.api.async(connection, [request], false)
  return (groups[0]?.topics ?? []).flatMap(({ name, partitions }) =>
    partitions.map(({ partitionIndex, committedOffset, metadata }) => ({
      topic: name,
      partition: partitionIndex,
      offset: Number(committedOffset),
      // Kafka stores no metadata as an empty text.
      metadata: metadata === '' ? null : (metadata ?? null),
    })),
  )
}

function forgetOldest(map: Map<string, unknown>): string | undefined {
  const oldest = map.keys().next().value
  if (oldest !== undefined) map.delete(oldest)
  return oldest
}

function isLapsed({ state }: Subscription, nowMs: number): boolean {
  const claim = state?.claim ?? null
  return claim !== null && claim.until <= nowMs
}

/** A claim lives no longer than the member with which it stands. */
function sessionOf(state: MemberState | undefined): number {
  const { sessionTimeoutMs, claim } = state ?? adoptedDefaults
  return Math.min(MOST_SESSION_MS, Math.max(sessionTimeoutMs, claim === null ? 0 : claim.ttlMs + CLAIM_ROOM_MS))
}

function keyOf({ groupId, groupInstanceId }: GroupInstance): string {
  return JSON.stringify([groupId, groupInstanceId])
}
