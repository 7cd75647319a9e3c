/** Commits: in the name of the instance, where it is a member, checked against the claim on it and what it holds since when. */
import type { CommitOptions, GroupInstance, OffsetCommit } from '../../broker.ts'
import { checkCommit, checkGroup } from '../../broker-validation.ts'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import { partitionKey } from '../../record.ts'
import type { TopicPartition } from '../../record.ts'
import { claimOf, requireClaim } from './claims.ts'
import { Deadline } from './deadline.ts'
import type { Fetcher } from './fetch.ts'
import { illegalGeneration, otherMembers, rebalancing, unknownMember } from './group-errors.ts'
import type { Instances } from './instances.ts'
import { deliveredOf, newState, paid, stateOf } from './member-state.ts'
import type { GroupView, Memberships, MemberView } from './membership.ts'
import { MovedOnError } from './membership.ts'
import type { Held, MemberState } from './subscription.ts'

/** What commits are made with. */
export interface CommitsParts {
  readonly memberships: Memberships
  readonly instances: Instances
  readonly fetcher: Fetcher
  readonly clock: Clock
  /** Aborted when the broker object closes. */
  readonly closing: AbortSignal
}

/** How often a commit is made anew that the group moved away from, and how long it waits in between. */
const MAX_RACES = 20
const RACE_PAUSE_MS = 50
/** A commit's answer does not wait longer for what comes after it. */
const RENEW_LIMIT_MS = 200
const RENEW_GIVE_UP_MS = 5_000

/** All commits of this process. */
export class Commits {
  readonly #parts: CommitsParts

  constructor(parts: CommitsParts) {
    this.#parts = parts
  }

  /** Stores offsets. @see Broker.commit */
  async commit(
    group: GroupInstance,
    offsets: readonly OffsetCommit[] | 'polled',
    options: CommitOptions,
    deadline: Deadline,
  ): Promise<void> {
    checkGroup(group)
    const given = offsets === 'polled' ? undefined : lastOfEach(offsets.map(checkCommit))
    await this.#parts.fetcher.requirePartitions(given ?? [], deadline)
    let state = await this.#asKept(group, given, options, deadline)
    for (let races = 0; state === undefined; races++) {
      try {
        state = await this.#asShown(group, given, options, deadline)
      } catch (error) {
        if (!(error instanceof MovedOnError)) throw error
        if (races >= MAX_RACES) throw rebalancing(group)
        await deadline.pause(RACE_PAUSE_MS)
      }
    }
    await this.#renew(group, options, given === undefined, state, deadline)
  }

  /**
   * Commits as the member that this process joined as, where nobody took the instance over since: then nothing else can have
   * changed. Gives the member's state, or undefined where the group has to be looked at.
   */
  async #asKept(
    group: GroupInstance,
    given: readonly OffsetCommit[] | undefined,
    { runId, generationId }: CommitOptions,
    deadline: Deadline,
  ): Promise<MemberState | undefined> {
    const { instances, memberships, clock } = this.#parts
    const kept = instances.kept(group)
    if (kept === undefined || kept.joined.subscription.topics.length === 0) return undefined
    const { joined, state } = kept
    const { claim } = state
    const isItsOwn = runId === undefined ? claim === null : claim?.runId === runId && claim.until > clock.now()
    if (!isItsOwn || (generationId !== undefined && generationId !== joined.generationId)) return undefined
    const entries = given ?? deliveredOf(state, joined.assignment.held)
    const isHeld = entries.every((entry) => joined.assignment.held.has(partitionKey(entry)))
    if (entries.length === 0 || (generationId !== undefined && !isHeld)) return undefined
    try {
      const { groupId, groupInstanceId } = group
      await memberships.commit(groupId, { ...joined, groupInstanceId }, entries, deadline)
      return state
    } catch (error) {
      if (!(error instanceof MovedOnError) && !isOldGeneration(error)) throw error
      instances.forget(group)
      return undefined
    }
  }

  /** Commits by what the group shows of its members. */
  async #asShown(
    group: GroupInstance,
    given: readonly OffsetCommit[] | undefined,
    options: CommitOptions,
    deadline: Deadline,
  ): Promise<MemberState> {
    const now = this.#parts.clock.now()
    const view = await this.#parts.memberships.look(group.groupId, deadline)
    const member = view.members.get(group.groupInstanceId)
    // Who holds the claim, and what an instance was given, is not shown while its group rebalances.
    if (member?.isCertain === false) throw new MovedOnError('The group rebalances.')
    const state = stateOf(member, now)
    requireClaim(group, state?.claim ?? null, options, now)
    const isMember = member !== undefined && member.subscription?.topics.length !== 0
    if (given === undefined && (!isMember || state === undefined)) throw unknownMember(group)
    const held = member?.assignment?.held
    if (given === undefined && held === undefined) throw new MovedOnError('The group rebalances.')
    const entries = given ?? deliveredOf(state ?? newState(undefined, now), held ?? new Map<string, Held>())
    if (entries.length > 0) await this.#commitAs(group, view, member, entries, options, deadline)
    return state ?? newState(undefined, now)
  }

  /** Commits in the name of the instance, or of another of ours where it is none, or of nobody where the group is empty. */
  async #commitAs(
    group: GroupInstance,
    view: GroupView,
    member: MemberView | undefined,
    entries: readonly OffsetCommit[],
    options: CommitOptions,
    deadline: Deadline,
  ): Promise<void> {
    const { memberships } = this.#parts
    const { groupId } = group
    const { generationId } = options
    if (generationId !== undefined && member === undefined) throw illegalGeneration(group, entries, generationId)
    const speaker = member ?? view.members.values().next().value
    if (speaker === undefined) {
      if (view.foreignMembers > 0) throw otherMembers(group)
      await memberships.commit(groupId, undefined, entries, deadline)
      return
    }
    const shown = speaker.assignment
    if (generationId !== undefined && shown !== undefined) {
      requireHeld(group, shown.held, entries, generationId, shown.generationId)
    }
    const known = shown?.generationId ?? generationId
    if (known !== undefined) {
      try {
        await memberships.commit(groupId, { ...speaker, generationId: known }, entries, deadline)
        return
      } catch (error) {
        if (!isOldGeneration(error)) throw error
        // Whether the partitions stayed is shown when the group rests.
        if (shown === undefined) throw new MovedOnError('The group rebalances.')
      }
    }
    await this.#speakAs(group, speaker.groupInstanceId, entries, options, deadline)
  }

  /** Joins to learn the generation, which nothing else tells where the leader is of another kind. */
  async #speakAs(
    group: GroupInstance,
    groupInstanceId: string,
    entries: readonly OffsetCommit[],
    options: CommitOptions,
    deadline: Deadline,
  ): Promise<void> {
    const { instances, memberships, clock } = this.#parts
    const { groupId } = group
    const speaker = { groupId, groupInstanceId }
    await instances.become(speaker, deadline, async (view, member) => {
      const state = member?.subscription?.state
      if (member === undefined || state === undefined) throw new MovedOnError('The member is gone.')
      if (groupInstanceId === group.groupInstanceId) requireClaim(group, state.claim, options, clock.now())
      const joined = await instances.join(speaker, view, member.subscription?.topics ?? [], state)
      const { generationId } = options
      if (generationId !== undefined) {
        requireHeld(group, joined.assignment.held, entries, generationId, joined.generationId)
      }
      await memberships.commit(groupId, { ...joined, groupInstanceId }, entries, deadline)
    })
  }

  /** A commit of a run renews its claim, and one of what was polled leaves nothing that auto-commit owes. */
  async #renew(
    group: GroupInstance,
    { runId }: CommitOptions,
    isPolled: boolean,
    state: MemberState,
    deadline: Deadline,
  ): Promise<void> {
    const { instances, clock, closing } = this.#parts
    const { claim } = state
    const isOff = runId !== undefined && claim !== null && isOffBy(claim.until - clock.now(), claim.ttlMs)
    const isOwing = isPolled && state.autoCommit !== null && state.positions.some(({ isDelivered }) => isDelivered)
    if (!isOff && !isOwing) return
    // The renewal goes on when the commit has answered.
    const patience = new Deadline(clock, RENEW_GIVE_UP_MS, {}, closing)
    const renewing = instances.become(group, patience, async (view, member) => {
      const now = member?.subscription?.state
      if (member?.subscription === undefined || now === undefined || now.claim?.runId !== claim?.runId) return
      const run = { runId: runId ?? '', claimTtlMs: claim?.ttlMs ?? 0 }
      const renewed = runId === undefined ? now.claim : claimOf(run, clock.now(), now.claim)
      await instances.join(group, view, member.subscription.topics, { ...(isOwing ? paid(now) : now), claim: renewed })
    })
    // What is committed is committed; a rebalance that holds the renewal up does not hold up its answer.
    await deadline.within(renewing, clock.monotonic() + RENEW_LIMIT_MS).catch(() => undefined)
  }
}

/** Whether a quarter of a claim's life or more has passed, or it was given more than its life for a poll. */
function isOffBy(leftMs: number, ttlMs: number): boolean {
  return Math.abs(leftMs - ttlMs) > ttlMs / 4
}

function lastOfEach(offsets: readonly OffsetCommit[]): OffsetCommit[] {
  return [...new Map(offsets.map((entry) => [partitionKey(entry), entry] as const)).values()]
}

/** @throws {BrokerError} ILLEGAL_GENERATION where a partition was in other hands since the generation */
function requireHeld(
  group: GroupInstance,
  held: ReadonlyMap<string, Held>,
  entries: readonly TopicPartition[],
  generationId: number,
  current: number | undefined,
): void {
  const others = entries.filter((entry) => {
    const place = held.get(partitionKey(entry))
    // A generation that has not been yet is one nobody was told of.
    return place === undefined || place.since > generationId || (current !== undefined && generationId > current)
  })
  if (others.length > 0) throw illegalGeneration(group, others, generationId)
}

function isOldGeneration(error: unknown): boolean {
  return error instanceof BrokerError && error.code === 'ILLEGAL_GENERATION'
}
