/**
 * Serves the calls of consumer groups: joining, polling, claims, commits. Reading is a function of the request under a run
 * (its positions, else the committed offsets) and of the member's own position otherwise; see `Broker.poll`.
 *
 * It is one file because joining, claiming, reading and committing share one order of events: whatever changes a group
 * is durable before anybody is told of it.
 */
import type {
  CommitOptions,
  GroupDescription,
  GroupInstance,
  OffsetCommit,
  PollRequest,
  PollResult,
  RunPosition,
} from '../broker.ts'
import { DEFAULT_CLAIM_TTL_MS } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { abortError, BrokerError } from '../errors.ts'
import { partitionKey } from '../record.ts'
import type { CommittedOffset, TopicPartition, TopicPartitionOffset } from '../record.ts'
import { comparePartitions } from '../sticky-assignor.ts'
import { assignmentOf, Group, subscription } from './group.ts'
import type { Claim, Held, Member } from './group.ts'
import { Answer } from './partitions.ts'
import type { Partition, Topics } from './partitions.ts'
import type { LogStore } from './store.ts'
import { checkCommit, checkGroup, checkPoll, checkRun } from '../broker-validation.ts'
import type { Waiters } from './waiters.ts'
import type { Writer } from './writer.ts'

/** The parts of the engine that groups work with. */
export interface CoordinatorParts {
  readonly store: LogStore
  readonly writer: Writer
  readonly topics: Topics
  readonly waiters: Waiters
  readonly clock: Clock
  readonly isClosed: () => boolean
}

/** All groups of a log. */
export class GroupCoordinator {
  readonly #parts: CoordinatorParts
  readonly #groups = new Map<string, Group>()
  /** The newest poll of each instance, so that the next one waits for it. */
  readonly #turns = new Map<string, Promise<unknown>>()
  /** Settles when the newest state of a group that is on its way to the store has come there, or failed to. */
  readonly #saves = new Map<Group, Promise<unknown>>()

  constructor(parts: CoordinatorParts) {
    this.#parts = parts
    const now = parts.clock.monotonic()
    for (const { groupId, state } of parts.store.groups()) this.#group(groupId).restore(state, now)
    for (const { groupId, offset } of parts.store.committed()) {
      this.#group(groupId).committed.set(partitionKey(offset), offset)
    }
  }

  async poll(request: PollRequest, signal?: AbortSignal): Promise<PollResult> {
    checkPoll(request)
    for (const topic of request.topics) this.#parts.topics.get(topic)
    const { group: at, run } = request
    const group = this.#group(at.groupId)
    await this.#expire(group)
    const poll = (): Promise<PollResult> => this.#inTurn(at, signal, () => this.#pollNow(group, request, signal))
    if (run === undefined) {
      this.#refuseWhileClaimed(group, at, 'CLAIM_HELD')
      return await poll()
    }
    const claim = await this.#claim(group, at, run)
    claim.polls += 1
    try {
      return await poll()
    } finally {
      claim.polls -= 1
      claim.expiresAt = this.#now() + claim.ttlMs
    }
  }

  async claim(at: GroupInstance, run: Pick<RunPosition, 'runId' | 'claimTtlMs'>): Promise<void> {
    checkGroup(at)
    checkRun(run)
    const group = this.#group(at.groupId)
    await this.#expire(group)
    await this.#claim(group, at, run)
  }

  async release(at: GroupInstance, runId: string): Promise<void> {
    checkGroup(at)
    const group = this.#groups.get(at.groupId)
    if (group?.claims.get(at.groupInstanceId)?.runId !== runId) return
    group.claims.delete(at.groupInstanceId)
    await this.#save(group)
  }

  async commit(at: GroupInstance, offsets: readonly OffsetCommit[] | 'polled', options: CommitOptions): Promise<void> {
    checkGroup(at)
    const group = this.#group(at.groupId)
    await this.#expire(group)
    const member = group.members.get(at.groupInstanceId)
    const claim = group.claimOn(at.groupInstanceId, this.#now())
    if (options.runId === undefined) this.#refuseWhileClaimed(group, at, 'CLAIM_LOST')
    else if (claim?.runId !== options.runId) throw claimLost(at, options.runId)
    else claim.expiresAt = this.#now() + claim.ttlMs
    if (member !== undefined) member.expiresAt = this.#now() + member.sessionTimeoutMs
    if (offsets === 'polled' && member === undefined) throw unknownMember(at)
    const entries = offsets === 'polled' ? offsetsOf(member?.delivered) : offsets.map(checkCommit)
    for (const entry of entries) this.#parts.topics.partition(entry)
    if (options.generationId !== undefined) checkGeneration(at, group, entries, options.generationId)
    if (offsets === 'polled') member?.owed.clear()
    await this.#store(group, entries)
  }

  committed(groupId: string, partitions?: readonly TopicPartition[]): CommittedOffset[] {
    const committed = this.#groups.get(groupId)?.committed
    if (partitions === undefined) return [...(committed?.values() ?? [])].toSorted(comparePartitions)
    return partitions.map(
      ({ topic, partition }) =>
        committed?.get(partitionKey({ topic, partition })) ?? { topic, partition, offset: -1, metadata: null },
    )
  }

  async groups(): Promise<GroupDescription[]> {
    for (const group of this.#groups.values()) await this.#expire(group)
    return [...this.#groups.values()]
      .filter((group) => group.members.size > 0 || group.committed.size > 0)
      .toSorted((a, b) => (a.groupId < b.groupId ? -1 : 1))
      .map((group) => group.describe(this.#now()))
  }

  async leave(at: GroupInstance): Promise<void> {
    checkGroup(at)
    const group = this.#group(at.groupId)
    await this.#expire(group)
    const member = group.members.get(at.groupInstanceId)
    if (member === undefined) throw unknownMember(at)
    group.claims.delete(at.groupInstanceId)
    // Whoever removes its own instance is done with what it got, so the newest answer counts too.
    for (const [key, offset] of member.delivered) member.owed.set(key, offset)
    await this.#remove(group, [member])
  }

  /** Forgets a deleted topic: its committed offsets and whoever holds its partitions. Called once it is gone from the store. */
  async topicDeleted(topic: string): Promise<void> {
    for (const group of this.#groups.values()) {
      for (const [key, committed] of group.committed) if (committed.topic === topic) group.committed.delete(key)
      if ([...group.members.values()].some((member) => member.topics.includes(topic))) await this.#rebalance(group)
    }
  }

  #now(): number {
    return this.#parts.clock.monotonic()
  }

  #group(groupId: string): Group {
    const found = this.#groups.get(groupId)
    if (found !== undefined) return found
    const group = new Group(groupId)
    this.#groups.set(groupId, group)
    return group
  }

  async #claim(group: Group, at: GroupInstance, run: Pick<RunPosition, 'runId' | 'claimTtlMs'>): Promise<Claim> {
    const now = this.#now()
    const ttlMs = run.claimTtlMs ?? DEFAULT_CLAIM_TTL_MS
    const live = group.claimOn(at.groupInstanceId, now)
    if (live !== undefined && live.runId !== run.runId) throw claimHeld(at, live, now)
    const former = group.claims.get(at.groupInstanceId)
    // A run whose handlers take long renews its claim without polling; its member is as alive as it is.
    const known = group.members.get(at.groupInstanceId)
    if (known !== undefined) known.expiresAt = now + known.sessionTimeoutMs
    if (former?.runId === run.runId) {
      former.ttlMs = ttlMs
      former.expiresAt = now + ttlMs
      return former
    }
    // A run that ends in order gives its claim back: what is still there was left by one that did not.
    const isAfterLapse = group.lapsed.delete(at.groupInstanceId) || former !== undefined
    const claim = { runId: run.runId, ttlMs, expiresAt: now + ttlMs, polls: 0, isAfterLapse }
    group.claims.set(at.groupInstanceId, claim)
    // What the former run, or a caller without one, polled and did not commit has to come again.
    const member = group.members.get(at.groupInstanceId)
    for (const map of [member?.positions, member?.delivered, member?.owed]) map?.clear()
    this.#parts.waiters.wake(groupName(group))
    await this.#save(group)
    return claim
  }

  #refuseWhileClaimed(group: Group, at: GroupInstance, code: 'CLAIM_HELD' | 'CLAIM_LOST'): void {
    const now = this.#now()
    const live = group.claimOn(at.groupInstanceId, now)
    if (live !== undefined) throw code === 'CLAIM_HELD' ? claimHeld(at, live, now) : claimLost(at, undefined)
    // The claim lapsed, and with it the positions of the run that held it.
    if (!group.dropLapsed(at.groupInstanceId)) return
    const member = group.members.get(at.groupInstanceId)
    for (const map of [member?.positions, member?.delivered, member?.owed]) map?.clear()
  }

  /** Lets polls of one instance answer one after the other. */
  async #inTurn<T>(at: GroupInstance, signal: AbortSignal | undefined, poll: () => Promise<T>): Promise<T> {
    const name = JSON.stringify([at.groupId, at.groupInstanceId])
    const before = this.#turns.get(name)
    const turn = (async () => {
      await before
      if (signal?.aborted === true) throw abortError(signal)
      return await poll()
    })()
    // The next in line waits for this turn to end, however it ends.
    const ended = Promise.allSettled([turn])
    this.#turns.set(name, ended)
    try {
      return await turn
    } finally {
      if (this.#turns.get(name) === ended) this.#turns.delete(name)
    }
  }

  async #pollNow(group: Group, request: PollRequest, signal?: AbortSignal): Promise<PollResult> {
    const { waiters, clock } = this.#parts
    const giveUpAt = this.#now() + request.maxWaitMs
    const member = await this.#join(group, request)
    member.polls += 1
    try {
      if (request.run !== undefined) this.#takePositions(member, request.run)
      await this.#autoCommit(group, member)
      for (;;) {
        // Until then a crash would take the generation back; and commits that came before it are not seen yet.
        while (this.#saves.has(group)) await this.#saves.get(group)
        const ended = this.#endedFor(group, member, request)
        if (ended) return this.#result(group, member, request, [])
        await this.#settlePositions(group, member, request)
        if (this.#saves.has(group)) continue
        const answer = this.#read(member, request)
        const now = this.#now()
        if (answer.records.length > 0 || now >= giveUpAt) return this.#result(group, member, request, answer.records)
        const names = [groupName(group), ...member.held.keys()]
        await waiters.wait(names, Math.max(0, Math.min(giveUpAt, group.nextExpiry()) - now), clock, signal)
        if (signal?.aborted === true) throw abortError(signal)
        await this.#expire(group)
      }
    } finally {
      member.polls -= 1
      member.expiresAt = this.#now() + member.sessionTimeoutMs
    }
  }

  /** Whether the poll is to end empty: closed, its member gone, or a topic of it deleted. Throws when its claim was taken. */
  #endedFor(group: Group, member: Member, request: PollRequest): boolean {
    const { run } = request
    if (run !== undefined) {
      const claim = group.claims.get(member.id)
      if (claim !== undefined && claim.runId !== run.runId) throw claimLost(request.group, run.runId)
    }
    if (this.#parts.isClosed() || group.members.get(member.id) !== member) return true
    return member.topics.some((topic) => !this.#parts.topics.has(topic))
  }

  #result(group: Group, member: Member, { run }: PollRequest, records: PollResult['records']): PollResult {
    // Removed while it waited: what it held is another's in the generation that the answer names.
    const isMember = group.members.get(member.id) === member
    const assignment = isMember ? assignmentOf(member) : []
    const isAfterLapse = run !== undefined && group.claims.get(member.id)?.isAfterLapse === true
    return { records, generationId: group.generationId, assignment, ...(isAfterLapse ? { formerRunLapsed: true } : {}) }
  }

  async #join(group: Group, request: PollRequest): Promise<Member> {
    const instance = request.group.groupInstanceId
    const known = group.members.get(instance)
    const topics = subscription(request.topics)
    if (known === undefined) {
      const member = group.join(instance, request, this.#now())
      await this.#rebalance(group)
      return member
    }
    if (known.topics.join() !== topics.join()) {
      known.topics = topics
      await this.#rebalance(group)
    }
    return known
  }

  /** The positions a run names hold, where the member has held the partition since the generation that the run knows. */
  #takePositions(member: Member, run: RunPosition): void {
    if (run.positions === undefined) return
    member.positions.clear()
    member.delivered.clear()
    for (const { topic, partition, offset } of run.positions) {
      const key = partitionKey({ topic, partition })
      const held = member.held.get(key)
      if (held !== undefined && held.since <= (run.generationId ?? 0)) member.positions.set(key, offset)
    }
  }

  /** Commits what answers before this poll delivered, when the interval is over. Asking again says that they were handled. */
  async #autoCommit(group: Group, member: Member): Promise<void> {
    if (!member.enableAutoCommit) return
    for (const [key, offset] of member.delivered) member.owed.set(key, offset)
    if (member.owed.size === 0 || this.#now() - member.autoCommittedAt < member.autoCommitIntervalMs) return
    member.autoCommittedAt = this.#now()
    const owed = offsetsOf(member.owed)
    member.owed.clear()
    await this.#store(group, owed)
  }

  /** Finds where to read each held partition from that has no position yet, or one that the log does not reach. */
  async #settlePositions(group: Group, member: Member, request: PollRequest): Promise<void> {
    const pins: TopicPartitionOffset[] = []
    for (const [key, held] of member.held) {
      const partition = this.#parts.topics.partition(held)
      const position = member.positions.get(key) ?? group.committed.get(key)?.offset
      if (position !== undefined && position >= partition.logStartOffset && position <= partition.logEndOffset) {
        member.positions.set(key, position)
        continue
      }
      const offset = startOf(member, partition, position)
      member.positions.set(key, offset)
      // Without this the next run would look for the end again, past what came in between.
      if (request.run !== undefined && position === undefined && member.autoOffsetReset === 'latest') {
        pins.push({ topic: held.topic, partition: held.partition, offset })
      }
    }
    if (pins.length > 0) await this.#store(group, pins)
  }

  #read(member: Member, request: PollRequest): Answer {
    const answer = new Answer(request)
    const held = [...member.held]
    const first = member.turn++ % Math.max(1, held.length)
    for (const [key, partition] of [...held.slice(first), ...held.slice(0, first)]) {
      const from = member.positions.get(key) ?? 0
      const next = answer.read(this.#parts.store, this.#parts.topics.partition(partition), from)
      if (next === from) continue
      member.positions.set(key, next)
      member.delivered.set(key, next)
    }
    return answer
  }

  /** Removes members whose session ended. */
  async #expire(group: Group): Promise<void> {
    const expired = group.expired(this.#now())
    if (expired.length > 0) await this.#remove(group, expired)
  }

  async #remove(group: Group, members: readonly Member[]): Promise<void> {
    const owed = members.filter((member) => member.enableAutoCommit).flatMap((member) => offsetsOf(member.owed))
    for (const member of members) {
      group.members.delete(member.id)
      if (group.claimOn(member.id, this.#now()) === undefined) group.dropLapsed(member.id)
    }
    const rebalanced = this.#rebalance(group)
    if (owed.length > 0) await this.#store(group, owed)
    await rebalanced
  }

  async #rebalance(group: Group): Promise<void> {
    const { topics, waiters } = this.#parts
    const owed = new Map<string, number>()
    for (const member of group.members.values()) {
      if (member.enableAutoCommit) for (const [key, offset] of member.owed) owed.set(key, offset)
    }
    group.rebalance((topic) => (topics.has(topic) ? topics.get(topic).partitions.length : 0))
    for (const member of group.members.values()) for (const key of member.owed.keys()) owed.delete(key)
    waiters.wake(groupName(group))
    const saved = this.#save(group)
    if (owed.size > 0) await this.#store(group, offsetsOf(owed))
    await saved
  }

  async #save(group: Group): Promise<void> {
    const state = group.save()
    const saved = this.#parts.writer.run((store) => store.putGroup(group.groupId, state))
    const ended = Promise.allSettled([saved])
    this.#saves.set(group, ended)
    try {
      await saved
    } finally {
      if (this.#saves.get(group) === ended) this.#saves.delete(group)
    }
  }

  async #store(group: Group, offsets: readonly OffsetCommit[]): Promise<void> {
    const entries = offsets
      .map(({ topic, partition, offset, metadata }) => ({ topic, partition, offset, metadata: metadata ?? null }))
      // A topic that was deleted meanwhile takes no offsets.
      .filter((entry) => this.#parts.topics.has(entry.topic))
    if (entries.length === 0) return
    await this.#parts.writer.run(
      (store) => {
        for (const entry of entries) store.putCommitted(group.groupId, entry)
      },
      () => {
        for (const entry of entries) group.committed.set(partitionKey(entry), entry)
      },
    )
  }
}

function groupName(group: Group): string {
  return `group:${group.groupId}`
}

/**
 * Where a partition without a usable position is read from. Records that retention deleted cannot be had, so what is
 * left is read from the log start; otherwise the member's reset policy decides.
 */
function startOf(member: Member, partition: Partition, position: number | undefined): number {
  if (position !== undefined && position < partition.logStartOffset) return partition.logStartOffset
  if (member.autoOffsetReset === 'earliest') return partition.logStartOffset
  if (member.autoOffsetReset === 'latest') return partition.logEndOffset
  const name = `${partition.topic}[${partition.partition}]`
  if (position === undefined) {
    throw new BrokerError(
      'NO_COMMITTED_OFFSET',
      `Cannot poll ${name}: the group has committed nothing there and its offset reset is none. Commit an offset first.`,
    )
  }
  throw new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot poll ${name} at offset ${position}: the log ends at ${partition.logEndOffset} and the offset reset is none. Commit an offset that exists.`,
  )
}

function offsetsOf(positions: ReadonlyMap<string, number> | undefined): TopicPartitionOffset[] {
  return [...(positions ?? [])].map(([key, offset]) => {
    const slash = key.lastIndexOf('/')
    return { topic: key.slice(0, slash), partition: Number(key.slice(slash + 1)), offset }
  })
}

function checkGeneration(
  at: GroupInstance,
  group: Group,
  offsets: readonly TopicPartition[],
  generationId: number,
): void {
  const member = group.members.get(at.groupInstanceId)
  const moved = offsets.filter((offset) => {
    const held: Held | undefined = member?.held.get(partitionKey(offset))
    // A generation that has not been yet is one nobody was told of.
    return held === undefined || held.since > generationId || generationId > group.generationId
  })
  if (moved.length === 0) return
  const names = moved.map(({ topic, partition }) => `${topic}[${partition}]`).join(', ')
  throw new BrokerError(
    'ILLEGAL_GENERATION',
    `Cannot commit ${names} for ${nameOf(at)} in generation ${generationId}: the instance has not held it since. Poll again and commit what it holds.`,
  )
}

function claimHeld(at: GroupInstance, claim: Claim, now: number): BrokerError {
  // While a poll is served the end is not known; its time starts over when the poll has ended.
  const retryAfterMs = Math.ceil(claim.polls > 0 ? claim.ttlMs : claim.expiresAt - now)
  return new BrokerError(
    'CLAIM_HELD',
    `Cannot poll as ${nameOf(at)}: another run holds its claim. Wait for that run to end, or for its claim to lapse in ${retryAfterMs} ms.`,
    { retryAfterMs },
  )
}

function claimLost(at: GroupInstance, runId: string | undefined): BrokerError {
  const who = runId === undefined ? 'a caller without a run' : `run ${runId}`
  return new BrokerError(
    'CLAIM_LOST',
    `Cannot go on as ${nameOf(at)} for ${who}: it does not hold the claim. Stop this run; the next one starts from the committed offsets.`,
  )
}

function unknownMember(at: GroupInstance): BrokerError {
  return new BrokerError(
    'UNKNOWN_MEMBER_ID',
    `Unknown instance ${nameOf(at)}: it has not polled, or its session ended.`,
  )
}

function nameOf(at: GroupInstance): string {
  return `${JSON.stringify(at.groupInstanceId)} of group ${JSON.stringify(at.groupId)}`
}
