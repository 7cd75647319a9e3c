/**
 * Consumer groups over static membership: each call looks at the group, joins for a moment where it has to, and leaves nothing
 * behind but what the group itself keeps. So any process serves any call of any instance.
 *
 * Reading is a function of the request under a run (its positions, else the committed offsets); without one, positions stand
 * with the member, where the next poll finds them wherever it arrives.
 *
 * It is one file because claims, positions and membership are one state, the member's subscription, and change together.
 */
import { DEFAULT_CLAIM_TTL_MS, DEFAULT_SESSION_TIMEOUT_MS } from '../../broker.ts'
import type {
  CommitOptions,
  GroupDescription,
  GroupInstance,
  OffsetCommit,
  PollRequest,
  PollResult,
  RunPosition,
} from '../../broker.ts'
import { checkCommit, checkGroup, checkPoll, checkRun } from '../../broker-validation.ts'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import type { Log } from '../../logger.ts'
import type { Random } from '../../random.ts'
import { partitionKey } from '../../record.ts'
import type { CommittedOffset, ConsumerRecord, TopicPartition, TopicPartitionOffset } from '../../record.ts'
import { comparePartitions } from '../../sticky-assignor.ts'
import type { Cluster } from './cluster.ts'
import type { Deadline } from './deadline.ts'
import type { Fetcher } from './fetch.ts'
import { SLICE_MS } from './fetch.ts'
import { FencedError, UNKNOWN_CLAIM_MS } from './membership.ts'
import type { GroupView, Joined, Memberships, MemberView } from './membership.ts'
import { Turns } from './turns.ts'
import type { Held, MemberState, StoredClaim, StoredPosition, Subscription } from './subscription.ts'

/** What groups are served with. */
export interface GroupsParts {
  readonly cluster: Cluster
  readonly memberships: Memberships
  readonly fetcher: Fetcher
  readonly clock: Clock
  readonly random: Random
  readonly log: Log | undefined
  /** How much longer than its wait a poll may take, milliseconds. */
  readonly graceMs: number
  /** Whether memberships are kept between calls. */
  readonly isKeeping: boolean
}

/** How long a caller whose join still waits for others is asked to stay away. */
const JOIN_RETRY_AFTER_MS = 500
/** A membership that was found good is taken for good so long. */
const TRUSTED_MS = 100
/** What was read is noted with the member within this time, or not at all: it comes again then. */
const NOTE_LIMIT_MS = 200
/** A rebalance that changed nothing is not forced again so soon. */
const FORCE_AGAIN_MS = 10_000
/** A group is looked at whole so often at least: by then partitions that were added are seen. */
const KEPT_MS = 5_000
const MAX_KEPT = 10_000
const MAX_RACES = 5
const RACE_PAUSE_MS = 30

/** A poll's membership, as far as it knows. */
interface Serving {
  joined: Joined
  state: MemberState
  /** Monotonic time at which it was good. */
  goodAt: number
  /** The group does not have the state yet. */
  isUnnoted: boolean
}

/** A membership between calls. It is good for as long as a heartbeat says so. */
interface Kept {
  readonly joined: Joined
  readonly state: MemberState
  /** Monotonic time at which the whole group was looked at. */
  readonly lookedAt: number
}

/** All groups of a cluster. */
export class Groups {
  readonly #parts: GroupsParts
  /** Polls of one instance are served one after the other. */
  readonly #polls = new Turns()
  /** Looking at an instance and joining as it is one step in this process. */
  readonly #steps = new Turns()
  /** As whom this process joined last, by group and instance, so that a next call need not join again. */
  readonly #joined = new Map<string, Kept>()
  /** When a rebalance was forced, by group. */
  readonly #forcedAt = new Map<string, number>()

  constructor(parts: GroupsParts) {
    this.#parts = parts
  }

  async poll(request: PollRequest, deadline: Deadline): Promise<PollResult> {
    checkPoll(request)
    const { group, run } = request
    const until = this.#now() + request.maxWaitMs
    const key = keyOf(group)
    const isTaken = this.#polls.isTaken(key)
    const prelude = async (): Promise<void> => {
      for (const topic of request.topics) await this.#parts.cluster.freshTopic(topic, deadline)
      if (!isTaken) return
      // A run that has to wait for its turn is told at once where another holds the claim.
      const view = await this.#parts.memberships.look(group.groupId, deadline)
      if (view.members.get(group.groupInstanceId)?.subscription !== undefined) this.#refuseHeld(group, run, view)
    }
    const poll = async (): Promise<PollResult> => {
      deadline.signal.throwIfAborted()
      return await this.#poll(request, until, deadline)
    }
    return await deadline.race(this.#polls.take(key, poll, prelude))
  }

  async claim(group: GroupInstance, run: Pick<RunPosition, 'runId' | 'claimTtlMs'>, deadline: Deadline): Promise<void> {
    checkGroup(group)
    checkRun(run)
    await this.#step(group, deadline, async () => {
      const view = await this.#parts.memberships.look(group.groupId, deadline)
      const member = view.members.get(group.groupInstanceId)
      const known = this.#stateOf(member)
      const isUnknown = known?.claim?.runId === null
      if (!isUnknown) this.#refuseHeld(group, { ...run }, view)
      const isTaken = known?.claim?.runId !== run.runId && !isUnknown
      const state: MemberState = {
        ...(known ?? newState(undefined)),
        ...(isTaken ? { positions: [] } : {}),
        claim: this.#claimOf(run),
      }
      const topics = member?.subscription?.topics ?? []
      await deadline.race(this.#rejoin(group, view, topics, state))
    })
  }

  async release(group: GroupInstance, runId: string, deadline: Deadline): Promise<void> {
    checkGroup(group)
    await this.#step(group, deadline, async () => {
      const view = await this.#parts.memberships.look(group.groupId, deadline)
      const member = view.members.get(group.groupInstanceId)
      const state = this.#stateOf(member)
      if (member === undefined || state?.claim?.runId !== runId) return
      const topics = member.subscription?.topics ?? []
      if (topics.length === 0) await this.#remove(group, view, deadline)
      else await deadline.race(this.#rejoin(group, view, topics, { ...state, positions: [], claim: null }))
    })
  }

  async commit(
    group: GroupInstance,
    offsets: readonly OffsetCommit[] | 'polled',
    options: CommitOptions,
    deadline: Deadline,
  ): Promise<void> {
    checkGroup(group)
    const given = offsets === 'polled' ? [] : lastOfEach(offsets.map(checkCommit))
    await this.#parts.fetcher.requirePartitions(given, deadline)
    const kept = await this.#commitKept(group, offsets === 'polled' ? undefined : given, options, deadline)
    if (kept !== undefined) {
      await this.#afterCommit(group, options, offsets === 'polled', kept, deadline)
      return
    }
    for (let races = 0; ; races++) {
      const view = await this.#parts.memberships.look(group.groupId, deadline)
      const member = view.members.get(group.groupInstanceId)
      const isMember = member !== undefined && (member.subscription?.topics.length ?? 1) > 0
      this.#requireClaim(group, member, options)
      if (offsets === 'polled' && !isMember) throw unknownMember(group)
      const state = this.#stateOf(member)
      const entries = offsets === 'polled' ? deliveredOf(state) : given
      if (entries.length > 0) {
        try {
          await this.#commitAs(group, view, member, entries, options.generationId, deadline)
        } catch (error) {
          if (!(error instanceof BrokerError) || !movedOn.has(error.code) || races >= MAX_RACES) throw error
          await deadline.pause(RACE_PAUSE_MS)
          continue
        }
      }
      await this.#afterCommit(group, options, offsets === 'polled', state, deadline)
      return
    }
  }

  async committed(
    groupId: string,
    partitions: readonly TopicPartition[] | undefined,
    deadline: Deadline,
  ): Promise<CommittedOffset[]> {
    if (partitions?.length === 0) return []
    const found = await this.#parts.memberships.committed(groupId, partitions, deadline)
    if (partitions === undefined) {
      const exists = await this.#existing(found, deadline)
      return found.filter(({ topic, offset }) => offset >= 0 && exists.has(topic)).toSorted(comparePartitions)
    }
    const byKey = new Map(found.map((entry) => [partitionKey(entry), entry] as const))
    return partitions.map(({ topic, partition }) => {
      const entry = byKey.get(partitionKey({ topic, partition }))
      return entry !== undefined && entry.offset >= 0 ? entry : { topic, partition, offset: -1, metadata: null }
    })
  }

  /** Those of the topics that exist: Kafka forgets the offsets of a deleted topic a moment after it. */
  async #existing(partitions: readonly TopicPartition[], deadline: Deadline): Promise<Set<string>> {
    const existing = new Set<string>()
    for (const topic of new Set(partitions.map((entry) => entry.topic))) {
      const isThere = await this.#parts.cluster.freshTopic(topic, deadline).then(
        () => true,
        (error: unknown) => {
          if (error instanceof BrokerError && error.code === 'UNKNOWN_TOPIC_OR_PARTITION') return false
          throw error
        },
      )
      if (isThere) existing.add(topic)
    }
    return existing
  }

  /** The group, or undefined where it has neither members nor committed offsets. */
  async describe(groupId: string, deadline: Deadline): Promise<GroupDescription | undefined> {
    const view = await this.#parts.memberships.look(groupId, deadline)
    // Whoever only holds a claim holds no partitions and reads nothing.
    const members = [...view.members.values()].filter(({ subscription }) => subscription?.topics.length !== 0)
    if (members.length === 0 && view.foreignMembers === 0) {
      const committed = await this.committed(groupId, undefined, deadline)
      if (committed.length === 0) return undefined
    }
    const generations = members.map(({ assignment }) => assignment?.generationId ?? 0)
    return {
      groupId,
      generationId: Math.max(0, ...generations),
      members: members
        .toSorted((a, b) => (a.groupInstanceId < b.groupInstanceId ? -1 : 1))
        .map(({ groupInstanceId, subscription, assignment }) => {
          const claim = subscription?.state?.claim ?? null
          return {
            groupInstanceId,
            assignment: [...(assignment?.held.values() ?? [])].map(bare).toSorted(comparePartitions),
            runId: claim !== null && this.#leftOf(claim) > 0 ? claim.runId : null,
          }
        }),
    }
  }

  async leave(group: GroupInstance, deadline: Deadline): Promise<void> {
    checkGroup(group)
    await this.#step(group, deadline, async () => {
      const view = await this.#parts.memberships.look(group.groupId, deadline)
      const member = view.members.get(group.groupInstanceId)
      if (member === undefined || member.subscription?.topics.length === 0) throw unknownMember(group)
      const state = this.#stateOf(member)
      // Whoever removes its own instance is done with what it got, so the newest answer counts too.
      const owed = state?.autoCommit === null || state === undefined ? [] : deliveredOf(state)
      if (owed.length > 0) await this.#commitAs(group, view, member, owed, undefined, deadline)
      await this.#remove(group, view, deadline)
    })
  }

  // --- polls ----------------------------------------------------------------------------------------------------------------

  async #poll(request: PollRequest, until: number, deadline: Deadline): Promise<PollResult> {
    const { graceMs } = this.#parts
    const answerBy = until + graceMs
    const late = new AbortController()
    const entered = await this.#inTime(this.#enter(request, deadline, late.signal), answerBy)
    if (entered === undefined) {
      late.abort()
      return await this.#waiting(request, deadline)
    }
    let serving = entered
    await this.#autoCommit(request, serving, deadline)
    let positions = await this.#positions(request, serving, undefined, deadline)
    for (;;) {
      const leftMs = Math.max(0, until - this.#now())
      const from = [...positions.values()]
      const seen = await this.#readOrEnd(request, from, Math.min(leftMs, SLICE_MS), deadline)
      if (seen === undefined) return resultOf(serving, [])
      if (seen.outOfRange.length > 0) {
        await this.#settleOutOfRange(request, serving, positions, seen.outOfRange, deadline)
        continue
      }
      const isEnd = seen.records.length > 0 || this.#now() >= until
      const by = Math.max(answerBy, this.#now() + graceMs)
      const next: Serving | 'ended' | undefined = await this.#inTime(this.#confirm(request, serving, deadline), by)
      if (next === undefined) return resultOf(serving, [], JOIN_RETRY_AFTER_MS)
      if (next === 'ended') return resultOf(serving, [])
      if (next !== serving) {
        positions = await this.#positions(request, next, positions, deadline)
        serving = next
        if (this.#now() >= until + graceMs) return resultOf(serving, [])
        continue
      }
      if (isEnd) {
        await this.#note(request, serving, positions, seen.records)
        return resultOf(serving, seen.records)
      }
    }
  }

  /** Undefined where the poll is to end empty: a topic of it was deleted while it waited. */
  async #readOrEnd(
    request: PollRequest,
    from: readonly TopicPartitionOffset[],
    waitMs: number,
    deadline: Deadline,
  ): Promise<Awaited<ReturnType<Fetcher['read']>> | undefined> {
    try {
      return await this.#parts.fetcher.read(from, request, waitMs, deadline)
    } catch (error) {
      if (error instanceof BrokerError && error.code === 'UNKNOWN_TOPIC_OR_PARTITION') return undefined
      throw error
    }
  }

  /** What `work` gives, or undefined when its time is over; the work goes on. */
  async #inTime<T>(work: Promise<T>, at: number): Promise<T | undefined> {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    const cancel = this.#parts.clock.after(Math.max(0, at - this.#now()), () => resolve(undefined))
    try {
      return await Promise.race([work, promise])
    } finally {
      cancel()
      work.catch(() => {})
    }
  }

  /** The answer of a poll whose join waits for others: nothing is known to have changed. */
  async #waiting({ group, run }: PollRequest, deadline: Deadline): Promise<PollResult> {
    const look = this.#parts.memberships.look(group.groupId, deadline)
    const view = await this.#inTime(look, this.#now() + NOTE_LIMIT_MS / 4).catch(() => undefined)
    const assignment = view?.members.get(group.groupInstanceId)?.assignment
    return {
      records: [],
      generationId: assignment?.generationId ?? run?.generationId ?? 0,
      assignment: [...(assignment?.held.values() ?? [])].map(bare).toSorted(comparePartitions),
      retryAfterMs: JOIN_RETRY_AFTER_MS,
    }
  }

  /** Takes the instance over for a poll, where its claim allows it. */
  async #enter(request: PollRequest, deadline: Deadline, late: AbortSignal): Promise<Serving> {
    const { group, run } = request
    const kept = await this.#kept(request, deadline)
    if (kept !== undefined) return kept
    const token = Math.floor(this.#parts.random() * Number.MAX_SAFE_INTEGER).toString(36)
    return await this.#step(group, deadline, async () => {
      for (let races = 0; ;) {
        late.throwIfAborted()
        const view = await this.#parts.memberships.look(group.groupId, deadline)
        const member = view.members.get(group.groupInstanceId)
        if (member !== undefined && member.subscription === undefined) {
          // A group that rebalances hides its members. Whoever knows this one, or nobody, will let it rest; then it is seen.
          void this.#parts.memberships.tend(group.groupId)
          await deadline.pause(RACE_PAUSE_MS)
          continue
        }
        const known = this.#stateOf(member)
        this.#refuseHeld(group, run, view)
        const isTaken = isTaking(known?.claim ?? null, run)
        const settings = known === undefined || member?.subscription?.topics.length === 0 ? newState(request) : known
        const state: MemberState = {
          ...settings,
          autoCommit:
            settings.autoCommit?.at === 0
              ? { ...settings.autoCommit, at: this.#parts.clock.now() }
              : settings.autoCommit,
          positions: isTaken || run?.positions !== undefined ? [] : (known?.positions ?? []),
          claim: run === undefined ? null : this.#claimOf(run),
          poll: token,
        }
        try {
          const joined = await this.#rejoin(group, view, request.topics, state)
          if (isTaken && run !== undefined) await this.#requireStillHeld(group, joined, run, deadline)
          return { joined, state, goodAt: this.#now(), isUnnoted: false }
        } catch (error) {
          if (!(error instanceof FencedError) || races++ >= MAX_RACES) throw asFailure(error, group)
          await deadline.pause(RACE_PAUSE_MS * (1 + this.#parts.random() * 2))
        }
      }
    })
  }

  /** The membership that this process has from an earlier call, where it is still good for this one. */
  async #kept(request: PollRequest, deadline: Deadline): Promise<Serving | undefined> {
    const { group, run } = request
    const kept = this.#joined.get(keyOf(group))
    if (kept === undefined || this.#now() - kept.lookedAt > KEPT_MS) return undefined
    const { joined, state } = kept
    const { claim } = state
    if (run === undefined ? claim !== null : claim?.runId !== run.runId) return undefined
    if (claim !== null && this.#leftOf(claim) < claim.ttlMs / 2) return undefined
    if (joined.subscription.topics.join() !== [...new Set(request.topics)].toSorted().join()) return undefined
    const pulse = await this.#parts.memberships.heartbeat(group, joined, deadline)
    if (pulse === 'alive') return { joined, state, goodAt: this.#now(), isUnnoted: false }
    this.#joined.delete(keyOf(group))
    return undefined
  }

  #keep(group: GroupInstance, joined: Joined, state: MemberState, lookedAt: number): void {
    this.#parts.memberships.watch(group.groupId)
    if (!this.#parts.isKeeping) return
    const key = keyOf(group)
    this.#joined.delete(key)
    this.#joined.set(key, { joined, state, lookedAt })
    const oldest = this.#joined.size > MAX_KEPT ? this.#joined.keys().next().value : undefined
    if (oldest !== undefined) this.#joined.delete(oldest)
  }

  /** Joins as the instance with what it is to be from now on, and sees that its topics are shared as they are now. */
  async #rejoin(group: GroupInstance, view: GroupView, topics: readonly string[], state: MemberState): Promise<Joined> {
    const { memberships } = this.#parts
    const member = view.members.get(group.groupInstanceId)
    // A join that is under way already goes on; this one follows it.
    await memberships.joining(group)?.catch(() => undefined)
    const subscription = { topics: [...new Set(topics)].toSorted(), state, ...ownedBy(member) }
    let joined = await memberships.join({ group, memberId: '', subscription }, view)
    if (topics.length > 0 && this.#mustForce(group, view, member, subscription, joined)) {
      this.#forcedAt.set(group.groupId, this.#now())
      const owned = { owned: [...joined.assignment.held.values()], ownedGeneration: joined.generationId }
      const again = { ...subscription, ...owned }
      const nonce = String(this.#parts.random())
      joined = await memberships.join({ group, memberId: joined.memberId, subscription: again, nonce }, view)
    }
    this.#keep(group, joined, state, this.#now())
    return joined
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
    // A rebalance since the look has taken everything into account.
    if (member.assignment.generationId !== undefined && member.assignment.generationId !== joined.generationId)
      return false
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
    // A leader of another kind may not know of them yet.
    return isUnheld && this.#now() - (this.#forcedAt.get(group.groupId) ?? Number.NEGATIVE_INFINITY) > FORCE_AGAIN_MS
  }

  /** Two runs that look at once both see an instance that is free; the one that joined last has it. */
  async #requireStillHeld(group: GroupInstance, joined: Joined, run: RunPosition, deadline: Deadline): Promise<void> {
    const view = await this.#parts.memberships.look(group.groupId, deadline)
    const member = view.members.get(group.groupInstanceId)
    if (member === undefined || member.memberId === joined.memberId) return
    const claim = this.#stateOf(member)?.claim ?? null
    if (claim !== null && claim.runId !== run.runId) throw this.#claimHeld(group, claim)
  }

  /**
   * Whether the poll may go on, as whom: the same, the instance after a rebalance, or not at all, because it left or a newer
   * poll serves it.
   */
  async #confirm(request: PollRequest, serving: Serving, deadline: Deadline): Promise<Serving | 'ended'> {
    const { memberships } = this.#parts
    const { group, run } = request
    const { claim } = serving.state
    const isClaimAging = run !== undefined && claim !== null && this.#leftOf(claim) < claim.ttlMs / 2
    if (!isClaimAging && this.#now() - serving.goodAt < TRUSTED_MS) return serving
    const pulse = isClaimAging ? 'rebalancing' : await memberships.heartbeat(group, serving.joined, deadline)
    if (pulse === 'alive') {
      serving.goodAt = this.#now()
      return serving
    }
    return await this.#step(group, deadline, async () => {
      await memberships.joining(group)?.catch(() => undefined)
      const view = await memberships.look(group.groupId, deadline)
      const member = view.members.get(group.groupInstanceId)
      if (member === undefined) return 'ended'
      const known = this.#stateOf(member)
      if (
        known !== undefined &&
        known.claim?.runId !== null &&
        known.poll !== serving.state.poll &&
        member.memberId !== serving.joined.memberId
      ) {
        if (run !== undefined && known.claim?.runId !== run.runId) throw claimLost(group, run.runId)
        return 'ended'
      }
      const state: MemberState = {
        ...serving.state,
        ...(run === undefined ? {} : { claim: this.#claimOf(run) }),
      }
      const topics = [...new Set(request.topics)].toSorted()
      const isSame = member.memberId === serving.joined.memberId
      const subscription = { topics, state, ...ownedBy(member, serving.joined) }
      try {
        // During a rebalance the member goes on as itself; to be shown with a younger claim it comes as new.
        const memberId = isSame && view.state !== 'Stable' ? member.memberId : ''
        const joined = await memberships.join({ group, memberId, subscription }, view)
        this.#keep(group, joined, state, this.#now())
        const now = { joined, state, goodAt: this.#now(), isUnnoted: false }
        if (!isClaimAging || joined.generationId !== serving.joined.generationId) return now
        Object.assign(serving, now)
        return serving
      } catch (error) {
        if (error instanceof FencedError) return 'ended'
        throw error
      }
    })
  }

  // --- positions ------------------------------------------------------------------------------------------------------------

  /** Where to read each held partition from. `before` is where the poll stood, for partitions that it held all the while. */
  async #positions(
    request: PollRequest,
    { joined, state }: Serving,
    before: ReadonlyMap<string, TopicPartitionOffset> | undefined,
    deadline: Deadline,
  ): Promise<Map<string, TopicPartitionOffset>> {
    const { run } = request
    const held = joined.assignment.held
    const positions = new Map<string, TopicPartitionOffset>()
    const named: readonly (TopicPartitionOffset & { readonly from: number })[] =
      run?.positions === undefined
        ? state.positions.map((position) => ({ ...position, from: state.positionsGeneration }))
        : run.positions.map((position) => ({ ...position, from: run.generationId ?? -1 }))
    for (const { topic, partition, offset, from } of named) {
      const key = partitionKey({ topic, partition })
      const place = held.get(key)
      if (place !== undefined && place.since <= from) positions.set(key, { topic, partition, offset })
    }
    const open = [...held.values()].filter((one) => !positions.has(partitionKey(one))).map(bare)
    if (open.length === 0) return positions
    const fresh: TopicPartition[] = []
    for (const { topic, partition, offset } of await this.committed(request.group.groupId, open, deadline)) {
      if (offset >= 0) positions.set(partitionKey({ topic, partition }), { topic, partition, offset })
      else fresh.push({ topic, partition })
    }
    if (fresh.length > 0) {
      const found = await this.#startsOf(request, state, fresh, before, joined, deadline)
      for (const entry of found) positions.set(partitionKey(entry), entry)
    }
    return positions
  }

  /** Where partitions begin of which nothing is committed. */
  async #startsOf(
    { group, run }: PollRequest,
    state: MemberState,
    fresh: readonly TopicPartition[],
    before: ReadonlyMap<string, TopicPartitionOffset> | undefined,
    joined: Joined,
    deadline: Deadline,
  ): Promise<TopicPartitionOffset[]> {
    const { fetcher, memberships } = this.#parts
    const { autoOffsetReset } = state
    if (autoOffsetReset === 'none') throw noCommittedOffset(fresh)
    const found = await fetcher.offsets(fresh, autoOffsetReset, deadline)
    if (autoOffsetReset !== 'latest') return found
    // The end that was found once stays the beginning, also where the poll had to join again.
    const starts = found.map((entry) => before?.get(partitionKey(entry)) ?? entry)
    if (run === undefined) {
      // Noted with the member when the poll ends.
      return starts
    }
    // Without this the next run would look for the end again, past what came in between.
    await memberships.commit(group.groupId, { ...joined, groupInstanceId: group.groupInstanceId }, starts, deadline)
    return starts
  }

  /**
   * Offsets that the log does not reach (any more). What retention deleted can't be had, so what is left is read from the log
   * start; an offset past the end is where the reset policy says.
   */
  async #settleOutOfRange(
    { group }: PollRequest,
    { state }: Serving,
    positions: Map<string, TopicPartitionOffset>,
    outOfRange: readonly TopicPartition[],
    deadline: Deadline,
  ): Promise<void> {
    const { fetcher, log } = this.#parts
    const starts = await fetcher.offsets(outOfRange, 'earliest', deadline)
    const ends = await fetcher.offsets(outOfRange, 'latest', deadline)
    for (const [index, { topic, partition }] of outOfRange.entries()) {
      const key = partitionKey({ topic, partition })
      const asked = positions.get(key)?.offset ?? 0
      const start = starts[index]?.offset ?? 0
      const end = ends[index]?.offset ?? 0
      const isDeleted = asked < start
      if (!isDeleted && state.autoOffsetReset === 'none') throw pastTheEnd({ topic, partition }, asked, end)
      const offset = isDeleted || state.autoOffsetReset === 'earliest' ? start : end
      positions.set(key, { topic, partition, offset })
      log?.({
        level: 'warn',
        event: 'offset reset',
        topic,
        partition,
        groupId: group.groupId,
        from: asked,
        to: offset,
        reason: isDeleted ? 'deleted by retention' : 'past the log end',
      })
    }
  }

  /** Keeps with the member what the next poll has to know, where the poll does not bring it itself. */
  async #note(
    request: PollRequest,
    serving: Serving,
    positions: ReadonlyMap<string, TopicPartitionOffset>,
    records: readonly ConsumerRecord[],
  ): Promise<void> {
    const { group, run } = request
    const { joined, state } = serving
    const isClaimAging = state.claim !== null && this.#leftOf(state.claim) < (state.claim.ttlMs * 3) / 4
    const stored = run?.positions === undefined ? storedAfter(serving, positions, records) : state.positions
    const isMoved = JSON.stringify(stored) !== JSON.stringify(state.positions)
    if (!isMoved && !isClaimAging && !serving.isUnnoted) return
    const next: MemberState = {
      ...state,
      claim: run === undefined || state.claim === null ? state.claim : this.#claimOf(run),
      positions: stored,
      positionsGeneration: joined.generationId,
    }
    const { topics } = joined.subscription
    const subscription = { topics, state: next, ...ownedBy(undefined, joined) }
    const noting = this.#step(group, undefined, async () => {
      const view = viewOf(group, joined)
      return await this.#parts.memberships.join({ group, memberId: '', subscription }, view)
    })
    const noted = await this.#inTime(noting, this.#now() + NOTE_LIMIT_MS).catch((error: unknown) => {
      if (error instanceof FencedError) return undefined
      throw error
    })
    if (noted === undefined) return
    const lookedAt = this.#joined.get(keyOf(group))?.lookedAt ?? Number.NEGATIVE_INFINITY
    this.#keep(group, noted, next, lookedAt)
    Object.assign(serving, { joined: noted, state: next, isUnnoted: false })
  }

  /** Commits what answers before this poll delivered, when the interval is over. Asking again says that they were handled. */
  async #autoCommit({ group }: PollRequest, serving: Serving, deadline: Deadline): Promise<void> {
    const { joined, state } = serving
    const { autoCommit } = state
    const now = this.#parts.clock.now()
    if (autoCommit === null || now - autoCommit.at < autoCommit.everyMs) return
    const owed = deliveredOf(state).filter((entry) => joined.assignment.held.has(partitionKey(entry)))
    if (owed.length === 0) return
    const { groupId, groupInstanceId } = group
    await this.#parts.memberships.commit(groupId, { ...joined, groupInstanceId }, owed, deadline)
    serving.state = { ...state, autoCommit: { ...autoCommit, at: now }, positions: state.positions.map(paid) }
    serving.isUnnoted = true
  }

  // --- commits --------------------------------------------------------------------------------------------------------------

  /**
   * Commits as the member that this process joined as, where nobody took the instance over since: then nothing else can have
   * changed. Gives the member's state, or undefined where the group has to be looked at.
   */
  async #commitKept(
    group: GroupInstance,
    given: readonly OffsetCommit[] | undefined,
    { runId, generationId }: CommitOptions,
    deadline: Deadline,
  ): Promise<MemberState | undefined> {
    const kept = this.#joined.get(keyOf(group))
    if (kept === undefined || kept.joined.subscription.topics.length === 0) return undefined
    const { joined, state } = kept
    const { claim } = state
    const isItsOwn = runId === undefined ? claim === null : claim?.runId === runId && this.#leftOf(claim) > 0
    if (!isItsOwn || (generationId !== undefined && generationId !== joined.generationId)) return undefined
    const entries = given ?? deliveredOf(state)
    const isHeld = entries.every((entry) => joined.assignment.held.has(partitionKey(entry)))
    if (generationId !== undefined && !isHeld) return undefined
    if (entries.length === 0) return state
    const { groupId, groupInstanceId } = group
    try {
      await this.#parts.memberships.commit(groupId, { ...joined, groupInstanceId }, entries, deadline)
      return state
    } catch (error) {
      if (!(error instanceof BrokerError) || !(movedOn.has(error.code) || error.code === 'ILLEGAL_GENERATION'))
        throw error
      this.#joined.delete(keyOf(group))
      return undefined
    }
  }

  /** Commits in the name of the instance, or of another of ours where it is none, or of nobody where the group is empty. */
  async #commitAs(
    group: GroupInstance,
    view: GroupView,
    member: MemberView | undefined,
    entries: readonly OffsetCommit[],
    generationId: number | undefined,
    deadline: Deadline,
  ): Promise<void> {
    const { memberships } = this.#parts
    const { groupId } = group
    const speaker = member ?? view.members.values().next().value
    if (speaker === undefined) {
      if (generationId !== undefined) throw illegalGeneration(group, entries, generationId)
      await memberships.commit(groupId, undefined, entries, deadline)
      return
    }
    const current = speaker.assignment?.generationId
    const { memberId, groupInstanceId } = speaker
    if (generationId !== undefined && member !== undefined && speaker.assignment !== undefined) {
      this.#requireHeld(group, speaker.assignment.held, entries, generationId, current)
    } else if (generationId !== undefined && member === undefined) {
      throw illegalGeneration(group, entries, generationId)
    }
    const known = current ?? generationId
    if (known !== undefined) {
      try {
        await memberships.commit(groupId, { memberId, groupInstanceId, generationId: known }, entries, deadline)
        return
      } catch (error) {
        if (!(error instanceof BrokerError) || error.code !== 'ILLEGAL_GENERATION') throw error
        if (generationId !== undefined && current === undefined && view.state !== 'Stable') throw error
      }
    }
    // Only a join tells the generation where the leader is of another kind.
    const joined = await this.#step({ groupId, groupInstanceId }, deadline, async () => {
      const { topics = [] } = speaker.subscription ?? {}
      const state = this.#stateOf(speaker)
      if (state === undefined) throw rebalancing(group)
      return await deadline.race(this.#rejoin({ groupId, groupInstanceId }, view, topics, state))
    })
    if (generationId !== undefined) {
      this.#requireHeld(group, joined.assignment.held, entries, generationId, joined.generationId)
    }
    await memberships.commit(groupId, { ...joined, groupInstanceId }, entries, deadline)
  }

  #requireHeld(
    group: GroupInstance,
    held: ReadonlyMap<string, Held>,
    entries: readonly TopicPartition[],
    generationId: number,
    current: number | undefined,
  ): void {
    const moved = entries.filter((entry) => {
      const place = held.get(partitionKey(entry))
      // A generation that has not been yet is one nobody was told of.
      return place === undefined || place.since > generationId || (current !== undefined && generationId > current)
    })
    if (moved.length > 0) throw illegalGeneration(group, moved, generationId)
  }

  /** A commit of a run renews its claim, and one of what was polled leaves nothing that auto-commit owes. */
  async #afterCommit(
    group: GroupInstance,
    { runId }: CommitOptions,
    isPolled: boolean,
    state: MemberState | undefined,
    deadline: Deadline,
  ): Promise<void> {
    const claim = state?.claim ?? null
    const isAging =
      runId !== undefined && claim !== null && Math.abs(this.#leftOf(claim) - claim.ttlMs) > claim.ttlMs / 4
    const isOwing = isPolled && state?.autoCommit !== null && deliveredOf(state).length > 0
    if (!isAging && !isOwing) return
    const renewing = this.#step(group, deadline, async () => {
      const view = await this.#parts.memberships.look(group.groupId, deadline)
      const member = view.members.get(group.groupInstanceId)
      const now = this.#stateOf(member)
      if (member?.subscription === undefined || now === undefined || now.claim?.runId !== runId) return
      const renewed = runId === undefined ? now.claim : this.#claimOf({ runId, claimTtlMs: now.claim?.ttlMs ?? 0 })
      const positions = isOwing ? now.positions.map(paid) : now.positions
      await this.#rejoin(group, view, member.subscription.topics, { ...now, claim: renewed, positions })
    })
    // What is committed is committed; a rebalance that holds the renewal up does not hold up its answer.
    await this.#inTime(renewing, this.#now() + NOTE_LIMIT_MS).catch(() => undefined)
  }

  // --- claims ---------------------------------------------------------------------------------------------------------------

  /** @throws {BrokerError} CLAIM_HELD where a live claim shuts the caller out */
  #refuseHeld(
    group: GroupInstance,
    run: Pick<RunPosition, 'runId' | 'generationId'> | undefined,
    view: GroupView,
  ): void {
    const claim = this.#stateOf(view.members.get(group.groupInstanceId))?.claim ?? null
    if (claim === null || this.#leftOf(claim) <= 0) return
    if (run !== undefined && claim.runId === run.runId) return
    // A run that can name a generation was there before anybody forgot who holds the claim. Who polls without runs has none.
    if (claim.runId === null && (run === undefined || run.generationId !== undefined)) return
    throw this.#claimHeld(group, claim)
  }

  /** @throws {BrokerError} CLAIM_LOST where the committing run, or nobody, does not hold the claim */
  #requireClaim(group: GroupInstance, member: MemberView | undefined, { runId, generationId }: CommitOptions): void {
    const claim = this.#stateOf(member)?.claim ?? null
    const isLive = claim !== null && this.#leftOf(claim) > 0
    if (runId === undefined) {
      if (isLive && claim.runId !== null) throw claimLost(group, undefined)
      return
    }
    if (!isLive) throw claimLost(group, runId)
    if (claim.runId !== runId && !(claim.runId === null && generationId !== undefined)) throw claimLost(group, runId)
  }

  #claimOf({ runId, claimTtlMs = DEFAULT_CLAIM_TTL_MS }: Pick<RunPosition, 'runId' | 'claimTtlMs'>): StoredClaim {
    return { runId, ttlMs: claimTtlMs, until: this.#parts.clock.now() + claimTtlMs }
  }

  #claimHeld(group: GroupInstance, claim: StoredClaim): BrokerError {
    const retryAfterMs = Math.max(1, Math.ceil(this.#leftOf(claim)))
    return new BrokerError(
      'CLAIM_HELD',
      `Cannot poll as ${nameOf(group)}: another run holds its claim. Wait for that run to end, or for its claim to lapse in ${retryAfterMs} ms.`,
      { retryAfterMs },
    )
  }

  #leftOf(claim: StoredClaim): number {
    return claim.until - this.#parts.clock.now()
  }

  // --- the rest -------------------------------------------------------------------------------------------------------------

  /** What is kept with a member. Where nothing is shown, and nothing was seen, somebody may hold its claim. */
  #stateOf(member: MemberView | undefined): MemberState | undefined {
    if (member === undefined) return undefined
    if (member.subscription !== undefined) return member.subscription.state ?? newState(undefined)
    const until = this.#parts.clock.now() + UNKNOWN_CLAIM_MS
    return { ...newState(undefined), claim: { runId: null, ttlMs: UNKNOWN_CLAIM_MS, until } }
  }

  async #remove(group: GroupInstance, view: GroupView, deadline: Deadline): Promise<void> {
    const { memberships } = this.#parts
    this.#joined.delete(keyOf(group))
    await memberships.leave(group, deadline)
    // The others are told by a rebalance, which waits for them: this process lets them have it at once.
    await this.#inTime(memberships.adoptAll(group.groupId, view, group.groupInstanceId), this.#now() + 2_000)
  }

  /** One look-and-join of an instance after the other, in this process. */
  async #step<T>(group: GroupInstance, deadline: Deadline | undefined, work: () => Promise<T>): Promise<T> {
    const step = this.#steps.take(keyOf(group), async () => {
      deadline?.signal.throwIfAborted()
      return await work()
    })
    return await (deadline === undefined ? step : deadline.race(step))
  }

  #now(): number {
    return this.#parts.clock.monotonic()
  }
}

/** Errors after which the group is looked at again: it moved on between the look and the commit. */
const movedOn: ReadonlySet<string> = new Set(['FENCED_INSTANCE_ID', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS'])

/** A run, or a caller without one, that begins: what the instance's last run polled and did not commit comes again. */
function isTaking(claim: StoredClaim | null, run: RunPosition | undefined): boolean {
  if (run === undefined) return claim !== null
  if (claim === null) return true
  return claim.runId === null ? run.generationId === undefined : claim.runId !== run.runId
}

/** What a new member is; its settings are those of its first poll. */
function newState(request: PollRequest | undefined): MemberState {
  const { sessionTimeoutMs, autoOffsetReset, enableAutoCommit, autoCommitIntervalMs } = request ?? {}
  return {
    sessionTimeoutMs: sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS,
    autoOffsetReset: autoOffsetReset ?? 'latest',
    autoCommit: enableAutoCommit === true ? { everyMs: autoCommitIntervalMs ?? DEFAULT_AUTO_COMMIT_MS, at: 0 } : null,
    claim: null,
    positions: [],
    positionsGeneration: -1,
    poll: '',
  }
}

/** Kafka's default auto.commit.interval.ms. */
const DEFAULT_AUTO_COMMIT_MS = 5_000

/** What the instance holds as far as anybody knows, which it says when it joins. */
function ownedBy(member: MemberView | undefined, joined?: Joined): Pick<Subscription, 'owned' | 'ownedGeneration'> {
  const shown = member?.assignment
  if (shown !== undefined) return { owned: [...shown.held.values()], ownedGeneration: shown.generationId ?? -1 }
  if (joined !== undefined) return { owned: [...joined.assignment.held.values()], ownedGeneration: joined.generationId }
  const { owned = [], ownedGeneration = -1 } = member?.subscription ?? {}
  return { owned, ownedGeneration }
}

/** The group as a poll knows it that has joined: enough for a join as the same instance. */
function viewOf({ groupInstanceId }: GroupInstance, { memberId, subscription, assignment }: Joined): GroupView {
  const member: MemberView = { memberId, groupInstanceId, subscription, assignment }
  return { state: 'Stable', members: new Map([[groupInstanceId, member]]), foreign: [], foreignMembers: 0 }
}

/** Where the member stands after an answer. */
function storedAfter(
  { joined, state }: Serving,
  positions: ReadonlyMap<string, TopicPartitionOffset>,
  records: readonly ConsumerRecord[],
): StoredPosition[] {
  const stored = new Map<string, StoredPosition>()
  for (const position of state.positions) {
    const place = joined.assignment.held.get(partitionKey(position))
    if (place !== undefined && place.since <= state.positionsGeneration) stored.set(partitionKey(position), position)
  }
  // A beginning that the reset policy found is noted, so that the next poll does not find a later one.
  if (state.autoOffsetReset === 'latest' && state.claim === null) {
    for (const [key, position] of positions) if (!stored.has(key)) stored.set(key, { ...position, isDelivered: false })
  }
  for (const { topic, partition, offset } of records) {
    stored.set(partitionKey({ topic, partition }), { topic, partition, offset: offset + 1, isDelivered: true })
  }
  return [...stored.values()]
}

function paid(position: StoredPosition): StoredPosition {
  return { ...position, isDelivered: false }
}

function deliveredOf(state: MemberState | undefined): TopicPartitionOffset[] {
  return (state?.positions ?? [])
    .filter(({ isDelivered }) => isDelivered)
    .map(({ topic, partition, offset }) => ({ topic, partition, offset }))
}

function lastOfEach(offsets: readonly OffsetCommit[]): OffsetCommit[] {
  return [...new Map(offsets.map((entry) => [partitionKey(entry), entry] as const)).values()]
}

function resultOf({ joined }: Serving, records: readonly ConsumerRecord[], retryAfterMs?: number): PollResult {
  const assignment = [...joined.assignment.held.values()].map(bare).toSorted(comparePartitions)
  const { generationId } = joined
  return { records, generationId, assignment, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }
}

function bare({ topic, partition }: TopicPartition): TopicPartition {
  return { topic, partition }
}

function keyOf({ groupId, groupInstanceId }: GroupInstance): string {
  return JSON.stringify([groupId, groupInstanceId])
}

function nameOf({ groupId, groupInstanceId }: GroupInstance): string {
  return `${JSON.stringify(groupInstanceId)} of group ${JSON.stringify(groupId)}`
}

function namesOf(partitions: readonly TopicPartition[]): string {
  return partitions.map(({ topic, partition }) => `${topic}[${partition}]`).join(', ')
}

function claimLost(group: GroupInstance, runId: string | undefined): BrokerError {
  const who = runId === undefined ? 'a caller without a run' : `run ${runId}`
  return new BrokerError(
    'CLAIM_LOST',
    `Cannot go on as ${nameOf(group)} for ${who}: it does not hold the claim. Stop this run; the next one starts from the committed offsets.`,
  )
}

function unknownMember(group: GroupInstance): BrokerError {
  return new BrokerError(
    'UNKNOWN_MEMBER_ID',
    `Unknown instance ${nameOf(group)}: it has not polled, or its session ended.`,
  )
}

function illegalGeneration(
  group: GroupInstance,
  partitions: readonly TopicPartition[],
  generationId: number,
): BrokerError {
  return new BrokerError(
    'ILLEGAL_GENERATION',
    `Cannot commit ${namesOf(partitions)} for ${nameOf(group)} in generation ${generationId}: the instance has not held it since. Poll again and commit what it holds.`,
  )
}

function noCommittedOffset(partitions: readonly TopicPartition[]): BrokerError {
  return new BrokerError(
    'NO_COMMITTED_OFFSET',
    `Cannot poll ${namesOf(partitions)}: the group has committed nothing there and its offset reset is none. Commit an offset first.`,
  )
}

function pastTheEnd({ topic, partition }: TopicPartition, offset: number, end: number): BrokerError {
  return new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot poll ${topic}[${partition}] at offset ${offset}: the log ends at ${end} and the offset reset is none. Commit an offset that exists.`,
  )
}

function rebalancing({ groupId }: GroupInstance): BrokerError {
  return new BrokerError(
    'REBALANCE_IN_PROGRESS',
    `Cannot commit for group ${JSON.stringify(groupId)}: it is rebalancing. Try again.`,
    { retriable: true },
  )
}

function asFailure(error: unknown, group: GroupInstance): unknown {
  if (!(error instanceof FencedError)) return error
  return new BrokerError('FENCED_INSTANCE_ID', `Cannot poll as ${nameOf(group)}: others poll as it at the same time.`, {
    cause: error,
    retriable: true,
  })
}
