/**
 * One consumer group: its members, who holds which partition since which generation, claims of runs, committed offsets.
 * Pure state over the time it is given; `group-coordinator.ts` makes it durable and answers calls.
 */
import type { AutoOffsetReset, GroupDescription, PollRequest } from '../broker.ts'
import { DEFAULT_SESSION_TIMEOUT_MS } from '../broker.ts'
import { partitionKey } from '../record.ts'
import type { CommittedOffset, TopicPartition } from '../record.ts'
import { assignSticky, comparePartitions } from '../sticky-assignor.ts'

/** A run's claim on a member's instance. */
export interface Claim {
  readonly runId: string
  ttlMs: number
  /** Monotonic; put off while a poll of the run is being served. */
  expiresAt: number
  polls: number
  /** The run before it never gave the claim back. */
  readonly isAfterLapse: boolean
}

/** A partition a member holds, and the generation since which it has held it without a break. */
export interface Held extends TopicPartition {
  readonly since: number
}

interface MemberSettings {
  readonly autoOffsetReset: AutoOffsetReset
  readonly enableAutoCommit: boolean
  readonly autoCommitIntervalMs: number
  readonly sessionTimeoutMs: number
}

/** One member of the group. */
export interface Member extends MemberSettings {
  readonly id: string
  topics: readonly string[]
  /** Monotonic; put off while a poll of the member is being served. */
  expiresAt: number
  polls: number
  held: Map<string, Held>
  /** The next offset to read, by partition. */
  positions: Map<string, number>
  /** Positions after the newest answer, of the partitions it had records of. */
  delivered: Map<string, number>
  /** Positions that auto-commit owes: delivered by answers before the newest. */
  owed: Map<string, number>
  /** Monotonic. */
  autoCommittedAt: number
  /** Which of its partitions is read first, so that a busy one starves no other. */
  turn: number
}

interface SavedGroup {
  readonly generationId: number
  readonly members: readonly (MemberSettings & {
    readonly id: string
    readonly topics: readonly string[]
    readonly held: readonly Held[]
  })[]
  readonly claims: readonly {
    readonly id: string
    readonly runId: string
    readonly ttlMs: number
    readonly isAfterLapse?: boolean
  }[]
  readonly lapsed?: readonly string[]
}

/** Names of instances may be made up for each process: some of them never come back. */
const MAX_LAPSED = 1_000

/** The state of one group, in memory. */
export class Group {
  readonly groupId: string
  generationId = 0
  readonly members: Map<string, Member> = new Map()
  readonly claims: Map<string, Claim> = new Map()
  readonly committed: Map<string, CommittedOffset> = new Map()
  /** Instances that are without a claim because the last one lapsed; those that lapsed first come first. */
  readonly lapsed: Set<string> = new Set()

  constructor(groupId: string) {
    this.groupId = groupId
  }

  /** What `save` returned, back in force. Sessions and claims get their full time again. */
  restore(state: string, now: number): void {
    const saved = JSON.parse(state) as SavedGroup
    this.generationId = saved.generationId
    for (const { held, ...member } of saved.members) {
      const restored = newMember(member.id, member.topics, member, now)
      restored.held = new Map(held.map((partition) => [partitionKey(partition), partition]))
      this.members.set(member.id, restored)
    }
    for (const { id, runId, ttlMs, isAfterLapse = false } of saved.claims)
      this.claims.set(id, { runId, ttlMs, expiresAt: now + ttlMs, polls: 0, isAfterLapse })
    for (const id of saved.lapsed ?? []) this.lapsed.add(id)
  }

  /** What has to survive a restart so that nobody is rebalanced by it. */
  save(): string {
    const saved: SavedGroup = {
      generationId: this.generationId,
      members: [...this.members.values()].map((member) => ({
        id: member.id,
        topics: member.topics,
        autoOffsetReset: member.autoOffsetReset,
        enableAutoCommit: member.enableAutoCommit,
        autoCommitIntervalMs: member.autoCommitIntervalMs,
        sessionTimeoutMs: member.sessionTimeoutMs,
        held: [...member.held.values()],
      })),
      claims: [...this.claims].map(([id, { runId, ttlMs, isAfterLapse }]) => ({ id, runId, ttlMs, isAfterLapse })),
      lapsed: [...this.lapsed],
    }
    return JSON.stringify(saved)
  }

  /** The live claim on an instance. */
  claimOn(instance: string, now: number): Claim | undefined {
    const claim = this.claims.get(instance)
    return claim !== undefined && (claim.polls > 0 || claim.expiresAt > now) ? claim : undefined
  }

  /** Takes a claim away that is not live any more. Says whether there was one. */
  dropLapsed(instance: string): boolean {
    if (!this.claims.delete(instance)) return false
    this.lapsed.add(instance)
    const [oldest] = this.lapsed
    if (oldest !== undefined && this.lapsed.size > MAX_LAPSED) this.lapsed.delete(oldest)
    return true
  }

  join(instance: string, request: PollRequest, now: number): Member {
    const member = newMember(
      instance,
      subscription(request.topics),
      {
        autoOffsetReset: request.autoOffsetReset ?? 'latest',
        enableAutoCommit: request.enableAutoCommit ?? false,
        autoCommitIntervalMs: request.autoCommitIntervalMs ?? 5000,
        sessionTimeoutMs: request.sessionTimeoutMs ?? DEFAULT_SESSION_TIMEOUT_MS,
      },
      now,
    )
    this.members.set(instance, member)
    return member
  }

  /** Members whose session ended. */
  expired(now: number): Member[] {
    return [...this.members.values()].filter((member) => member.polls === 0 && member.expiresAt <= now)
  }

  /** When the next member's session ends, or Infinity. */
  nextExpiry(): number {
    let next = Number.POSITIVE_INFINITY
    for (const member of this.members.values()) if (member.polls === 0) next = Math.min(next, member.expiresAt)
    return next
  }

  /** Starts a new generation: gives the partitions of all subscribed topics to the members, keeping what can be kept. */
  rebalance(partitionsOf: (topic: string) => number): void {
    this.generationId += 1
    const topics = new Set([...this.members.values()].flatMap((member) => member.topics))
    const ownerOf = new Map<string, string>()
    for (const member of this.members.values()) for (const key of member.held.keys()) ownerOf.set(key, member.id)
    const partitions = [...topics].flatMap((topic) =>
      Array.from({ length: partitionsOf(topic) }, (_, partition) => {
        const owner = ownerOf.get(partitionKey({ topic, partition }))
        return { topic, partition, owner }
      }),
    )
    const assigned = Map.groupBy(assignSticky([...this.members.values()], partitions), (slot) => slot.owner)
    for (const member of this.members.values()) {
      const before = member.held
      member.held = new Map(
        (assigned.get(member.id) ?? []).map(({ topic, partition }) => {
          const key = partitionKey({ topic, partition })
          return [key, before.get(key) ?? { topic, partition, since: this.generationId }]
        }),
      )
      for (const map of [member.positions, member.delivered, member.owed]) {
        for (const key of map.keys()) if (!member.held.has(key)) map.delete(key)
      }
    }
  }

  describe(now: number): GroupDescription {
    return {
      groupId: this.groupId,
      generationId: this.generationId,
      members: [...this.members.values()]
        .toSorted((a, b) => (a.id < b.id ? -1 : 1))
        .map((member) => ({
          groupInstanceId: member.id,
          assignment: assignmentOf(member),
          runId: this.claimOn(member.id, now)?.runId ?? null,
        })),
    }
  }
}

/** What a member holds, ordered by topic and partition. */
export function assignmentOf(member: Member): TopicPartition[] {
  return [...member.held.values()].map(({ topic, partition }) => ({ topic, partition })).toSorted(comparePartitions)
}

/** A subscription as it is compared: each topic once, in order. */
export function subscription(topics: readonly string[]): string[] {
  return [...new Set(topics)].toSorted()
}

function newMember(id: string, topics: readonly string[], settings: MemberSettings, now: number): Member {
  return {
    id,
    topics,
    autoOffsetReset: settings.autoOffsetReset,
    enableAutoCommit: settings.enableAutoCommit,
    autoCommitIntervalMs: settings.autoCommitIntervalMs,
    sessionTimeoutMs: settings.sessionTimeoutMs,
    expiresAt: now + settings.sessionTimeoutMs,
    polls: 0,
    held: new Map(),
    positions: new Map(),
    delivered: new Map(),
    owed: new Map(),
    autoCommittedAt: now,
    turn: 0,
  }
}
