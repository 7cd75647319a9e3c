/**
 * A log with one topic and one group, as plain as can be: lists of values, committed offsets, who is a member until when, who has
 * the claim until when. It says what a broker must answer. Which member gets which partition it does not say; it is told, and
 * checks that everything is shared out, once.
 */
import type { GroupDescription } from '../../src/broker.ts'

/** Partitions of the topic. */
export const PARTITIONS = 3
/** The topic. */
export const TOPIC = 't'
/** The group. */
export const GROUP = 'g'
/** How long a member may be silent, milliseconds. */
export const SESSION_MS = 4_000
/** How long a claim lives, milliseconds. */
export const CLAIM_MS = 2_500

/** A partition that a member holds, and since which generation. */
interface Held {
  readonly since: number
}

interface Member {
  expiresAt: number
  held: Map<number, Held>
  /** Where its next poll goes on that names no positions. */
  positions: Map<number, number>
}

interface Claim {
  readonly runId: string
  expiresAt: number
  /**
   * It had lapsed, and somebody without a run committed since: the log has forgotten it, but not on disk, so that a release
   * forgets nothing, and a log that is opened anew has it once more.
   */
  isForgotten: boolean
  /** It had lapsed when the log was opened again, which gives claims their full time: it may be there or not. */
  isUnsure: boolean
}

/** What a run knows of itself. */
export interface Knowledge {
  generationId: number | undefined
  /** Next offsets of partitions that it got records of. */
  readonly polledTo: Map<number, number>
}

/** The model. */
export class GroupModel {
  readonly values: string[][] = Array.from({ length: PARTITIONS }, () => [])
  readonly committed: Map<number, number> = new Map()
  readonly members: Map<string, Member> = new Map()
  readonly claims: Map<string, Claim> = new Map()
  readonly runs: Map<string, Knowledge> = new Map()
  generationId = 0
  produced = 0

  /** What a run of an instance knows. */
  knowledge(instance: string, runId: string): Knowledge {
    const key = `${instance} ${runId}`
    const known = this.runs.get(key) ?? { generationId: undefined, polledTo: new Map() }
    this.runs.set(key, known)
    return known
  }

  /** Members whose time is over go. */
  expire(now: number): void {
    for (const [id, { expiresAt }] of this.members) if (expiresAt <= now) this.remove(id, now)
  }

  remove(instance: string, now: number): void {
    this.members.delete(instance)
    const claim = this.claims.get(instance)
    if (claim !== undefined && claim.expiresAt <= now) this.claims.delete(instance)
  }

  /** The live claim of another run, which refuses this one. */
  claimAgainst(instance: string, runId: string | undefined, now: number): Claim | undefined {
    const claim = this.claims.get(instance)
    return claim !== undefined && claim.expiresAt > now && claim.runId !== runId ? claim : undefined
  }

  hasClaim(instance: string, runId: string, now: number): boolean {
    const claim = this.claims.get(instance)
    return claim?.runId === runId && claim.expiresAt > now
  }

  /** The claim is taken or renewed. Another run than before starts from the committed offsets. */
  take(instance: string, runId: string, now: number): void {
    if (this.claims.get(instance)?.runId !== runId) this.members.get(instance)?.positions.clear()
    this.claims.set(instance, { runId, expiresAt: now + CLAIM_MS, isForgotten: false, isUnsure: false })
    this.touch(instance, now)
  }

  touch(instance: string, now: number): void {
    const member = this.members.get(instance)
    if (member !== undefined) member.expiresAt = now + SESSION_MS
  }

  join(instance: string, now: number): Member {
    const member = this.members.get(instance) ?? { expiresAt: 0, held: new Map(), positions: new Map() }
    this.members.set(instance, member)
    member.expiresAt = now + SESSION_MS
    return member
  }

  /** Learns who holds what since the last step, and says what is wrong with it. */
  learn(group: GroupDescription | undefined): string | undefined {
    const described = group?.members ?? []
    const ids = described.map(({ groupInstanceId }) => groupInstanceId)
    const expected = [...this.members.keys()].toSorted()
    if (ids.join() !== expected.join()) return `the members are ${ids.join()} and should be ${expected.join()}`
    const generationId = group?.generationId ?? this.generationId
    if (generationId < this.generationId) return `generation ${generationId} came after ${this.generationId}`
    const held = new Map<number, string>()
    for (const { groupInstanceId, assignment } of described) {
      for (const { partition } of assignment) {
        if (held.has(partition)) return `${held.get(partition)} and ${groupInstanceId} hold partition ${partition}`
        held.set(partition, groupInstanceId)
      }
    }
    if (described.length > 0 && held.size !== PARTITIONS) return `${held.size} of ${PARTITIONS} partitions are held`
    const sizes = described.map(({ assignment }) => assignment.length)
    if (Math.max(0, ...sizes) - Math.min(PARTITIONS, ...sizes) > 1) return `shares of ${sizes.join()} are not even`
    for (const [id, member] of this.members) this.#keep(member, id, held, generationId)
    this.generationId = generationId
    return undefined
  }

  /** Where a poll of a member starts in a partition. */
  startOf(instance: string, partition: number, named: Named | undefined): number {
    const member = this.members.get(instance)
    const position = this.#position(member, partition, named) ?? this.committed.get(partition) ?? 0
    // Beyond the end nothing can be read: the reset is `earliest`.
    return position > (this.values[partition]?.length ?? 0) ? 0 : position
  }

  /** Whether a commit of a partition in a generation is to be taken. */
  mayCommit(instance: string, partition: number, generationId: number): boolean {
    const held = this.members.get(instance)?.held.get(partition)
    return held !== undefined && held.since <= generationId && generationId <= this.generationId
  }

  /** The log was closed and is opened again: what is stored is there, and everybody's time begins anew. */
  reopen(now: number): void {
    for (const member of this.members.values()) {
      member.expiresAt = now + SESSION_MS
      member.positions.clear()
    }
    for (const claim of this.claims.values()) {
      claim.isUnsure ||= claim.expiresAt <= now
      claim.isForgotten = false
      claim.expiresAt = now + CLAIM_MS
    }
  }

  #position(member: Member | undefined, partition: number, named: Named | undefined): number | undefined {
    if (named === undefined) return member?.positions.get(partition)
    const since = member?.held.get(partition)?.since ?? Number.POSITIVE_INFINITY
    return since <= (named.generationId ?? 0) ? named.positions.get(partition) : undefined
  }

  #keep(member: Member, id: string, held: ReadonlyMap<number, string>, generationId: number): void {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      if (held.get(partition) !== id) {
        member.held.delete(partition)
        member.positions.delete(partition)
      } else if (!member.held.has(partition)) member.held.set(partition, { since: generationId })
    }
  }
}

/** Positions that a poll names. */
export interface Named {
  readonly generationId: number | undefined
  readonly positions: ReadonlyMap<number, number>
}
