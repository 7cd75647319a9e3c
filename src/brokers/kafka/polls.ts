/**
 * Polls: join for a moment where it has to be, read in slices and see between them whether the membership is still good, note
 * with the member what the next poll has to know. A poll answers within its wait, whatever its group is doing.
 *
 * It is one file because a poll's membership changes under it, and every step goes on from what it is then.
 */
import type { GroupInstance, PollRequest, PollResult, RunPosition } from '../../broker.ts'
import { checkPoll } from '../../broker-validation.ts'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import type { Random } from '../../random.ts'
import type { ConsumerRecord, TopicPartitionOffset } from '../../record.ts'
import { comparePartitions } from '../../sticky-assignor.ts'
import { claimOf, isAging, isTaking, refuseHeld } from './claims.ts'
import type { Cluster } from './cluster.ts'
import { Deadline, lateAfter } from './deadline.ts'
import { isTimeout } from './failures.ts'
import type { Fetcher } from './fetch.ts'
import { SLICE_MS } from './fetch.ts'
import { claimHeld, claimLost } from './group-errors.ts'
import type { Instances } from './instances.ts'
import { keyOf } from './instances.ts'
import { bare, deliveredOf, newState, ownedBy, paid, positionsAfter, stateOf, topicsOf } from './member-state.ts'
import type { GroupView, Joined, Memberships, MemberView } from './membership.ts'
import { FencedError, MovedOnError } from './membership.ts'
import type { PositionMap, Positions } from './positions.ts'
import type { Assignment, MemberState } from './subscription.ts'
import { Turns } from './turns.ts'

/** What polls are served with. */
export interface PollsParts {
  readonly cluster: Cluster
  readonly memberships: Memberships
  readonly instances: Instances
  readonly positions: Positions
  readonly fetcher: Fetcher
  readonly clock: Clock
  readonly random: Random
  /** How much longer than its wait a poll may take, milliseconds. */
  readonly graceMs: number
  /** Aborted when the broker object closes. */
  readonly closing: AbortSignal
}

/** How long a caller whose join still waits for others is asked to stay away. */
const JOIN_RETRY_AFTER_MS = 500
/** A membership that was found good is taken for good so long. */
const TRUSTED_MS = 100
/** What was read is noted with the member within this time, or not at all: it comes again then. */
const NOTE_LIMIT_MS = 200
const NOTE_GIVE_UP_MS = 5_000
/** A cluster so near needs nothing of a poll's wait for the way. */
const NEAR_MS = 20
/** A poll of a member that has joined takes up to so many requests, one after the other. */
const ROUND_TRIPS = 6
const MOST_GRACE_MS = 5_000
/** Before a cluster has ever answered: what it refuses, credentials above all, it refuses late. */
const FIRST_POLL_MS = 2_000
const RACE_PAUSE_MS = 30

/** As whom a poll is served, as far as it knows. */
interface Serving {
  readonly joined: Joined
  readonly state: MemberState
  /** Monotonic time at which it was good. */
  readonly goodAt: number
  /** The group does not have the state yet. */
  readonly isUnnoted: boolean
}

/** A poll's membership at its beginning. */
interface Entered extends Serving {
  /** Settles while the poll reads already: rejects where the membership turns out not to be good. */
  readonly checked: Promise<void>
}

/** One poll under way. */
interface Attempt {
  readonly request: PollRequest
  /** Monotonic: the end of its wait. */
  readonly until: number
  /** Ends a little after that. What the poll waits for it waits for within its patience; then it answers without. */
  readonly patience: Deadline
  /** The end of the call. */
  readonly deadline: Deadline
  /** The group was seen: from here on, it is others that the poll waits for. */
  hasSeenGroup: boolean
  /** Its records are being noted with the member. */
  isNoting: boolean
}

/** All polls of this process. */
export class Polls {
  readonly #parts: PollsParts
  /** Polls of one instance are served one after the other. */
  readonly #turns = new Turns()

  constructor(parts: PollsParts) {
    this.#parts = parts
  }

  /** Serves a poll. @see Broker.poll */
  async poll(request: PollRequest, deadline: Deadline): Promise<PollResult> {
    checkPoll(request)
    const { clock, cluster, memberships } = this.#parts
    const { group, maxWaitMs } = request
    const key = keyOf(group)
    const isTaken = this.#turns.isTaken(key)
    const isFirst = cluster.roundTripMs === undefined
    const attempt: Attempt = {
      request,
      until: this.#now() + maxWaitMs,
      patience: new Deadline(clock, maxWaitMs + this.#graceFor(maxWaitMs), {}, deadline.signal),
      deadline,
      hasSeenGroup: isTaken,
      isNoting: false,
    }
    // A cluster that has answered needs no more time than any other.
    const cancel = clock.after(maxWaitMs + this.#parts.graceMs, () => {
      if (isFirst && cluster.roundTripMs !== undefined) attempt.patience.end(lateAfter(maxWaitMs + this.#parts.graceMs))
    })
    const { patience } = attempt
    const prelude = async (): Promise<void> => {
      for (const topic of request.topics) await cluster.freshTopic(topic, patience)
      // A run that has to wait for its turn is told at once where another holds the claim.
      if (isTaken) this.#refuseShown(request, await memberships.look(group.groupId, patience))
    }
    const serving = this.#turns.take(key, () => this.#poll(attempt), prelude)
    try {
      return await patience.race(serving)
    } catch (error) {
      if (deadline.signal.aborted || !isTimeout(patience.signal.reason)) throw error
      // What is being noted as handed out has to be handed out.
      if (attempt.isNoting) return await deadline.race(serving)
      // A cluster of which nothing was heard is not one that has nothing.
      if (!attempt.hasSeenGroup && memberships.joining(group) === undefined) throw error
      return waiting(request)
    } finally {
      cancel()
      patience.close()
    }
  }

  /** How much longer than its wait a poll may take. It must be able to get something done, also where the cluster is far away. */
  #graceFor(maxWaitMs: number): number {
    const { graceMs, cluster } = this.#parts
    const { roundTripMs } = cluster
    const leastMs = roundTripMs === undefined ? FIRST_POLL_MS : Math.min(ROUND_TRIPS * roundTripMs, MOST_GRACE_MS)
    return Math.max(graceMs, leastMs - maxWaitMs)
  }

  /** Serves a poll, again from its beginning where the group moved on at the wrong moment. */
  async #poll(attempt: Attempt): Promise<PollResult> {
    for (;;) {
      try {
        attempt.patience.signal.throwIfAborted()
        return await this.#serve(attempt)
      } catch (error) {
        if (!(error instanceof MovedOnError) && !isOldGeneration(error)) throw error
        this.#parts.instances.forget(attempt.request.group)
        await attempt.patience.pause(RACE_PAUSE_MS)
      }
    }
  }

  async #serve(attempt: Attempt): Promise<PollResult> {
    const { request, until, patience } = attempt
    const { positions: places, cluster } = this.#parts
    // Far from the cluster, the last answer of the broker is on its way for a while, and so is the confirmation after it.
    const readUntil = until - Math.min(2 * Math.max(0, (cluster.roundTripMs ?? 0) - NEAR_MS), request.maxWaitMs / 2)
    const entered = await this.#enter(attempt)
    attempt.hasSeenGroup = true
    let serving = await this.#autoCommit(request, entered, patience)
    let positions = await places.of(request, serving.joined, serving.state, undefined, patience)
    for (;;) {
      const leftMs = Math.max(0, readUntil - this.#now())
      const seen = await this.#read(request, [...positions.values()], Math.min(leftMs, SLICE_MS), patience)
      await patience.race(entered.checked)
      if (seen === undefined) return resultOf(serving, [])
      if (seen.outOfRange.length > 0) {
        await places.settle(request.group, serving.state, positions, seen.outOfRange, patience)
        continue
      }
      const isEnd = seen.records.length > 0 || this.#now() >= readUntil
      const next: Serving | 'ended' = await this.#confirm(request, serving, patience)
      if (next === 'ended') return resultOf(serving, [])
      const isSame = next.joined.generationId === serving.joined.generationId
      serving = next
      if (!isSame) {
        // Others may hold what was read. What this instance holds now is read anew.
        positions = await places.of(request, serving.joined, serving.state, positions, patience)
      } else if (isEnd) {
        patience.signal.throwIfAborted()
        attempt.isNoting = true
        const joined = await this.#note(request, serving, positions, seen.records, attempt.deadline)
        return resultOf({ ...serving, joined }, seen.records)
      }
    }
  }

  /** Undefined where the poll is to end empty: a topic of it was deleted while it waited. */
  async #read(
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

  /** Becomes the instance for a poll, where its claim allows it. A join goes on when the poll has answered without. */
  async #enter(attempt: Attempt): Promise<Entered> {
    const { request, patience: deadline } = attempt
    const { instances, clock, random } = this.#parts
    const { group, run } = request
    const kept = this.#asKept(request, deadline)
    if (kept !== undefined) return kept
    const poll = Math.floor(random() * Number.MAX_SAFE_INTEGER).toString(36)
    const see = (): void => {
      attempt.hasSeenGroup = true
    }
    const join = async (view: GroupView, member: MemberView | undefined): Promise<Entered> => {
      this.#refuseShown(request, view)
      const state = this.#stateFor(request, member, poll)
      see()
      const isTaken = run !== undefined && isTaking(stateOf(member, clock.now())?.claim ?? null, run)
      // A run that begins reads from committed offsets.
      const reading = isTaken ? partitionsOf(member?.assignment) : []
      const joined = await instances.join(group, view, request.topics, state, reading)
      const checking = isTaken ? this.#requireStillHeld(group, joined, run, deadline) : Promise.resolve()
      return { joined, state, goodAt: this.#now(), isUnnoted: false, checked: unheard(checking) }
    }
    return await instances.become(group, deadline, join, see)
  }

  /** What the member is to be from now on. */
  #stateFor({ run, ...request }: PollRequest, member: MemberView | undefined, poll: string): MemberState {
    const now = this.#parts.clock.now()
    const known = stateOf(member, now)
    // Whoever only held a claim has not joined yet.
    const isNew = known === undefined || member?.subscription?.topics.length === 0
    const settings = isNew ? newState(request, now) : known
    const keepsPositions = !isTaking(known?.claim ?? null, run) && run?.positions === undefined
    return {
      ...settings,
      positions: keepsPositions ? (known?.positions ?? []) : [],
      claim: run === undefined ? null : claimOf(run, now, known?.claim ?? null),
      poll,
    }
  }

  /** The membership that this process has from an earlier call, where it can still be good for this one. */
  #asKept(request: PollRequest, deadline: Deadline): Entered | undefined {
    const { instances, clock } = this.#parts
    const { group, run } = request
    const kept = instances.kept(group)
    if (kept === undefined || !instances.isFresh(kept)) return undefined
    const { joined, state } = kept
    if ((state.claim?.runId ?? undefined) !== run?.runId || isAging(state.claim, 1 / 2, clock.now())) return undefined
    if (joined.subscription.topics.join() !== topicsOf(request.topics).join()) return undefined
    const checked = unheard(this.#requireAlive(group, joined, deadline))
    return { joined, state, goodAt: this.#now(), isUnnoted: false, checked }
  }

  /** @throws {MovedOnError} where the member is not what it was */
  async #requireAlive(group: GroupInstance, joined: Joined, deadline: Deadline): Promise<void> {
    const pulse = await this.#parts.memberships.heartbeat(group, joined, deadline)
    if (pulse !== 'alive') throw new MovedOnError('The group moved on since the last poll.')
  }

  /** Two runs that look at once both see an instance that is free; the one that joined last has it. */
  async #requireStillHeld(group: GroupInstance, joined: Joined, run: RunPosition, deadline: Deadline): Promise<void> {
    const { memberships, clock } = this.#parts
    const view = await memberships.look(group.groupId, deadline)
    const member = view.members.get(group.groupInstanceId)
    if (member === undefined || member.memberId === joined.memberId) return
    const claim = stateOf(member, clock.now())?.claim ?? null
    if (claim !== null && claim.runId !== run.runId) throw claimHeld(group, claim.until - clock.now())
  }

  /**
   * As whom the poll may go on: the same, the instance after a rebalance, or not at all, because it left or a newer poll is
   * served. Renews the run's claim where that is due.
   */
  async #confirm(request: PollRequest, serving: Serving, deadline: Deadline): Promise<Serving | 'ended'> {
    const { memberships, instances, clock } = this.#parts
    const { group, run } = request
    const { joined } = serving
    const isClaimAging = run !== undefined && isAging(serving.state.claim, 1 / 2, clock.now())
    if (!isClaimAging) {
      if (this.#now() - serving.goodAt < TRUSTED_MS) return serving
      const pulse = await memberships.heartbeat(group, joined, deadline)
      if (pulse === 'alive') return { ...serving, goodAt: this.#now() }
    }
    return await instances.step(group, deadline, async () => {
      const view = await this.#lookUntilShown(group, joined.memberId, deadline)
      const member = view.members.get(group.groupInstanceId)
      if (member === undefined) return 'ended'
      const isSame = member.memberId === joined.memberId
      const now = stateOf(member, clock.now())
      // Whoever adopted the instance kept what it was.
      if (!isSame && now?.poll !== serving.state.poll) {
        if (run !== undefined && now?.claim?.runId !== run.runId) throw claimLost(group, run.runId)
        return 'ended'
      }
      const claim = run === undefined ? serving.state.claim : claimOf(run, clock.now(), serving.state.claim)
      const state: MemberState = { ...serving.state, claim }
      const subscription = { topics: topicsOf(request.topics), state, ...ownedBy(member, joined) }
      // During a rebalance the member goes on as itself; to be shown with a younger claim it comes as new.
      const memberId = isSame && view.state !== 'Stable' ? member.memberId : ''
      try {
        const again = await memberships.join({ group, memberId, subscription }, view)
        instances.keep(group, again, state, this.#now())
        return { joined: again, state, goodAt: this.#now(), isUnnoted: serving.isUnnoted }
      } catch (error) {
        if (error instanceof FencedError) return 'ended'
        throw error
      }
    })
  }

  /** The group as it is when it shows who the instance is, unless that is still the member itself. */
  async #lookUntilShown(
    { groupId, groupInstanceId }: GroupInstance,
    memberId: string,
    deadline: Deadline,
  ): Promise<GroupView> {
    const { memberships } = this.#parts
    for (;;) {
      const joining = memberships.joining({ groupId, groupInstanceId }) ?? Promise.resolve(undefined)
      await deadline.race(joining.catch(() => undefined))
      const view = await memberships.look(groupId, deadline)
      const member = view.members.get(groupInstanceId)
      if (member?.memberId === memberId || member?.isCertain !== false) return view
      void memberships.tend(groupId)
      await deadline.pause(RACE_PAUSE_MS)
    }
  }

  /** Commits what answers before this poll delivered, when the interval is over. Asking again says that they were handled. */
  async #autoCommit({ group }: PollRequest, serving: Serving, deadline: Deadline): Promise<Serving> {
    const { joined, state } = serving
    const { autoCommit } = state
    const at = this.#parts.clock.now()
    if (autoCommit === null || at - autoCommit.at < autoCommit.everyMs) return serving
    const owed = deliveredOf(state, joined.assignment.held)
    if (owed.length === 0) return serving
    const { groupId, groupInstanceId } = group
    await this.#parts.memberships.commit(groupId, { ...joined, groupInstanceId }, owed, deadline)
    return { ...serving, state: { ...paid(state), autoCommit: { ...autoCommit, at } }, isUnnoted: true }
  }

  /** Keeps with the member what the next poll has to know, where that does not bring it itself. Gives the membership since. */
  async #note(
    { group, run }: PollRequest,
    { joined, state, isUnnoted }: Serving,
    began: PositionMap,
    records: readonly ConsumerRecord[],
    deadline: Deadline,
  ): Promise<Joined> {
    const { memberships, instances, clock, closing } = this.#parts
    const positions = run?.positions === undefined ? positionsAfter(joined, state, began, records) : state.positions
    const isMoved = JSON.stringify(positions) !== JSON.stringify(state.positions)
    if (!isMoved && !isUnnoted && !isAging(state.claim, 3 / 4, clock.now())) return joined
    const claim = run === undefined ? state.claim : claimOf(run, clock.now(), state.claim)
    const next: MemberState = { ...state, claim, positions, positionsGeneration: joined.generationId }
    const subscription = { topics: joined.subscription.topics, state: next, ...ownedBy(undefined, joined) }
    // The note goes on when the poll has answered.
    const patience = new Deadline(clock, NOTE_GIVE_UP_MS, {}, closing)
    const noting = instances.step(group, patience, async () => {
      // Somebody else may be the instance by now.
      if ((await memberships.heartbeat(group, joined, patience)) !== 'alive') return joined
      const noted = await memberships.join({ group, memberId: '', subscription }, viewOf(group, joined))
      instances.keep(group, noted, next)
      return noted
    })
    try {
      return (await deadline.within(noting, this.#now() + NOTE_LIMIT_MS)) ?? joined
    } catch (error) {
      if (error instanceof FencedError) return joined
      throw error
    }
  }

  /** @throws {BrokerError} CLAIM_HELD where the group shows a claim that shuts the poll out */
  #refuseShown({ group, run }: PollRequest, view: GroupView): void {
    const member = view.members.get(group.groupInstanceId)
    const now = this.#parts.clock.now()
    if (member?.isCertain === true) refuseHeld(group, stateOf(member, now)?.claim ?? null, run, now)
  }

  #now(): number {
    return this.#parts.clock.monotonic()
  }
}

/** What may fail when nobody is there any more to hear of it. */
function unheard(work: Promise<void>): Promise<void> {
  work.catch(() => {})
  return work
}

/** A commit of the poll's own met a rebalance. */
function isOldGeneration(error: unknown): boolean {
  return error instanceof BrokerError && error.code === 'ILLEGAL_GENERATION'
}

/** The group as a poll knows it that has joined: enough for a join as the same instance. */
function viewOf({ groupInstanceId }: GroupInstance, { memberId, subscription, assignment }: Joined): GroupView {
  const member: MemberView = { memberId, groupInstanceId, subscription, isCertain: true, assignment }
  return { state: 'Stable', members: new Map([[groupInstanceId, member]]), foreign: [], foreignMembers: 0 }
}

function resultOf(
  { joined, state }: Pick<Serving, 'joined' | 'state'>,
  records: readonly ConsumerRecord[],
): PollResult {
  const { generationId, assignment } = joined
  const answer = { records, generationId, assignment: partitionsOf(assignment) }
  return state.claim?.isAfterLapse === true ? { ...answer, formerRunLapsed: true } : answer
}

function partitionsOf(assignment: Assignment | undefined): PollResult['assignment'] {
  return [...(assignment?.held.values() ?? [])].map(bare).toSorted(comparePartitions)
}

/** The answer of a poll that could not join, or read, in its time: nothing is known to have changed. */
function waiting({ run }: PollRequest): PollResult {
  return { records: [], generationId: run?.generationId ?? 0, assignment: [], retryAfterMs: JOIN_RETRY_AFTER_MS }
}
