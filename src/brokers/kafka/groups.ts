/**
 * Consumer groups over static membership: each call looks at the group, joins for a moment where it has to, and leaves nothing
 * behind but what the group itself keeps. So any process serves any call of any instance.
 *
 * Reading is a function of the request under a run (its positions, else the committed offsets); without one, positions stand
 * with the member, where the next poll finds them wherever it arrives.
 */
import type { GroupDescription, GroupInstance, RunPosition } from '../../broker.ts'
import { checkGroup, checkRun } from '../../broker-validation.ts'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import { partitionKey } from '../../record.ts'
import type { CommittedOffset, TopicPartition } from '../../record.ts'
import { comparePartitions } from '../../sticky-assignor.ts'
import { claimOf, refuseHeld } from './claims.ts'
import type { Cluster } from './cluster.ts'
import type { Deadline } from './deadline.ts'
import { unknownMember } from './group-errors.ts'
import type { Instances } from './instances.ts'
import { bare, deliveredOf, newState, stateOf } from './member-state.ts'
import { FencedError, MovedOnError } from './membership.ts'
import type { Memberships } from './membership.ts'

/** What groups are served with. */
export interface GroupsParts {
  readonly cluster: Cluster
  readonly memberships: Memberships
  readonly instances: Instances
  readonly clock: Clock
}

/** All groups of a cluster. */
export class Groups {
  readonly #parts: GroupsParts

  constructor(parts: GroupsParts) {
    this.#parts = parts
  }

  /** Takes or renews a claim. An instance that is no member yet joins for it, with no topics. @see Broker.claim */
  async claim(group: GroupInstance, run: Pick<RunPosition, 'runId' | 'claimTtlMs'>, deadline: Deadline): Promise<void> {
    checkGroup(group)
    checkRun(run)
    const { instances, clock } = this.#parts
    await instances.become(group, deadline, async (view, member) => {
      const now = clock.now()
      const known = stateOf(member, now) ?? newState(undefined, now)
      refuseHeld(group, known.claim, run, now)
      const isTaken = known.claim?.runId !== run.runId
      const state = { ...known, ...(isTaken ? { positions: [] } : {}), claim: claimOf(run, now, known.claim) }
      await instances.join(group, view, member?.subscription?.topics ?? [], state)
    })
  }

  /** Gives a claim back. @see Broker.release */
  async release(group: GroupInstance, runId: string, deadline: Deadline): Promise<void> {
    checkGroup(group)
    const { instances, clock } = this.#parts
    await instances.become(group, deadline, async (view, member) => {
      const state = stateOf(member, clock.now())
      if (member === undefined || state?.claim?.runId !== runId) return
      const topics = member.subscription?.topics ?? []
      if (topics.length > 0) await instances.join(group, view, topics, { ...state, positions: [], claim: null })
      else await instances.remove(group, view, deadline).catch(ignoreUnknownMember)
    })
  }

  /** Committed offsets. @see Broker.committed */
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

  /** The group, or undefined where it has neither members nor committed offsets. */
  async describe(groupId: string, deadline: Deadline): Promise<GroupDescription | undefined> {
    const view = await this.#parts.memberships.look(groupId, deadline)
    // Whoever only holds a claim holds no partitions and reads nothing.
    const members = [...view.members.values()].filter(({ subscription }) => subscription?.topics.length !== 0)
    if (members.length === 0 && view.foreignMembers === 0) {
      const committed = await this.committed(groupId, undefined, deadline)
      if (committed.length === 0) return undefined
    }
    const now = this.#parts.clock.now()
    return {
      groupId,
      generationId: Math.max(0, ...members.map(({ assignment }) => assignment?.generationId ?? 0)),
      members: members
        .toSorted((a, b) => (a.groupInstanceId < b.groupInstanceId ? -1 : 1))
        .map(({ groupInstanceId, subscription, assignment }) => {
          const claim = subscription?.state?.claim ?? null
          return {
            groupInstanceId,
            assignment: [...(assignment?.held.values() ?? [])].map(bare).toSorted(comparePartitions),
            runId: claim !== null && claim.until > now ? claim.runId : null,
          }
        }),
    }
  }

  /** Removes an instance. @see Broker.leave */
  async leave(group: GroupInstance, deadline: Deadline): Promise<void> {
    checkGroup(group)
    const { instances, memberships, clock } = this.#parts
    await instances.become(group, deadline, async (view, member) => {
      const state = stateOf(member, clock.now())
      if (state === undefined || member?.subscription?.topics.length === 0) throw unknownMember(group)
      // Whoever removes its own instance is done with what it got, so the newest answer counts too.
      const owed = state.autoCommit === null ? [] : deliveredOf(state, member?.assignment?.held ?? new Map())
      if (owed.length > 0) {
        const joined = await instances.join(group, view, member?.subscription?.topics ?? [], state)
        const { groupId, groupInstanceId } = group
        await memberships.commit(groupId, { ...joined, groupInstanceId }, owed, deadline).catch(throwFenced)
      }
      await instances.remove(group, view, deadline)
    })
  }

  /** Those of the topics that exist: Kafka forgets the offsets of a deleted topic a moment after it. */
  async #existing(partitions: readonly TopicPartition[], deadline: Deadline): Promise<Set<string>> {
    const existing = new Set<string>()
    for (const topic of new Set(partitions.map((entry) => entry.topic))) {
      try {
        await this.#parts.cluster.freshTopic(topic, deadline)
        existing.add(topic)
      } catch (error) {
        if (!(error instanceof BrokerError) || error.code !== 'UNKNOWN_TOPIC_OR_PARTITION') throw error
      }
    }
    return existing
  }
}

/** Whoever is no member any more holds no claim. */
function ignoreUnknownMember(error: unknown): void {
  if (!(error instanceof BrokerError) || error.code !== 'UNKNOWN_MEMBER_ID') throw error
}

/** A member that moved on between a join and what was to follow it is joined as anew. */
function throwFenced(error: unknown): never {
  if (error instanceof MovedOnError) throw new FencedError(error.message, { cause: error })
  throw error
}
