/** What can be done to a log and its model alike. Each command does it to both and compares what they say. */
import type * as fc from 'fast-check'
import type { Broker, CommitOptions } from '../../src/broker.ts'
import { KedgeError } from '../../src/errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { FakeClock } from '../../test/support/clock.ts'
import type { WorldClock } from '../run-sim/process.ts'
import { CLAIM_MS, GROUP, type GroupModel, type Named, SESSION_MS, TOPIC } from './group-model.ts'

/** The log, with its time. */
export interface System {
  broker: Broker
  readonly time: FakeClock
  readonly clock: WorldClock
  /** Closes the log and opens it again; absent where nothing would be left of it. */
  readonly reopen: (() => Promise<Broker>) | undefined
  /** How often each command was done. */
  readonly counts: Record<string, number>
}

/** A command. */
export type Command = fc.AsyncCommand<GroupModel, System>

abstract class Step implements Command {
  abstract toString(): string
  protected abstract act(model: GroupModel, system: System, now: number): Promise<void>

  check(): boolean {
    return true
  }

  async run(model: GroupModel, system: System): Promise<void> {
    const now = system.clock.monotonic()
    const { name } = this.constructor
    system.counts[name] = (system.counts[name] ?? 0) + 1
    await this.act(model, system, now)
    const groups = await system.broker.groups()
    model.expire(system.clock.monotonic())
    const wrong = model.learn(groups.find(({ groupId }) => groupId === GROUP))
    if (wrong !== undefined) throw new Error(`After ${this.toString()}: ${wrong}.`)
    const committed = await system.broker.committed(GROUP)
    const stored = committed.map(({ partition, offset }) => `${partition}@${offset}`)
    const expected = [...model.committed].toSorted(([a], [b]) => a - b).map(([at, offset]) => `${at}@${offset}`)
    equal('what is committed', stored, expected)
  }
}

/** Appends records to a partition. */
export class Produce extends Step {
  readonly #partition: number
  readonly #count: number
  constructor(partition: number, count: number) {
    super()
    this.#partition = partition
    this.#count = count
  }

  override toString(): string {
    return `produce ${this.#count} to ${this.#partition}`
  }

  protected override async act(model: GroupModel, { broker }: System): Promise<void> {
    const list = model.values[this.#partition] ?? []
    const values = Array.from({ length: this.#count }, () => `v${model.produced++}`)
    const results = await broker.produce(
      values.map((value) => ({ topic: TOPIC, partition: this.#partition, key: null, value: bytesOf(value) })),
    )
    const offsets = results.map((result) => (result instanceof Error ? result.message : result.offset))
    equal(
      'offsets',
      offsets,
      Array.from(values, (_, index) => list.length + index),
    )
    list.push(...values)
  }
}

/** Polls as a run; the answer may be lost on its way, and the run may not say where it is. */
export class Poll extends Step {
  readonly #instance: string
  readonly #runId: string
  readonly #maxRecords: number
  readonly #isLost: boolean
  readonly #namesPositions: boolean
  constructor(instance: string, runId: string, maxRecords: number, isLost: boolean, namesPositions: boolean) {
    super()
    this.#instance = instance
    this.#runId = runId
    this.#maxRecords = maxRecords
    this.#isLost = isLost
    this.#namesPositions = namesPositions
  }

  override toString(): string {
    const lost = this.#isLost ? ', lost' : ''
    const bare = this.#namesPositions ? '' : ', without positions'
    return `poll ${this.#maxRecords} as ${this.#instance}/${this.#runId}${lost}${bare}`
  }

  protected override async act(model: GroupModel, { broker, counts }: System, now: number): Promise<void> {
    const knowledge = model.knowledge(this.#instance, this.#runId)
    const named = this.#namesPositions ? namedBy(model, knowledge) : undefined
    const polled = settle(
      broker.poll({
        group: { groupId: GROUP, groupInstanceId: this.#instance },
        topics: [TOPIC],
        autoOffsetReset: 'earliest',
        sessionTimeoutMs: SESSION_MS,
        maxWaitMs: 0,
        maxRecords: this.#maxRecords,
        maxBytes: 1 << 20,
        run: { runId: this.#runId, claimTtlMs: CLAIM_MS, ...requested(named, knowledge.generationId) },
      }),
    )
    const outcome = await polled
    model.expire(now)
    if (isRefused(model, this.#instance, this.#runId, now, outcome)) {
      count(counts, 'polls refused')
      return
    }
    if (outcome instanceof KedgeError) throw outcome
    model.take(this.#instance, this.#runId, now)
    const member = model.join(this.#instance, now)
    const groups = await broker.groups()
    const wrong = model.learn(groups.find(({ groupId }) => groupId === GROUP))
    if (wrong !== undefined) throw new Error(`In ${this.toString()}: ${wrong}.`)
    const { records, generationId, assignment } = outcome
    equal('the generation', generationId, model.generationId)
    const held = [...member.held.keys()].toSorted((a, b) => a - b)
    equal(
      'the assignment',
      assignment.map(({ partition }) => partition),
      held,
    )
    let given = 0
    let isAll = true
    const starts = new Map(held.map((at) => [at, model.startOf(this.#instance, at, named)]))
    member.positions.clear()
    for (const [at, start] of starts) {
      const mine = records.filter(({ partition }) => partition === at)
      const available = (model.values[at] ?? []).slice(start)
      equal(
        `offsets of partition ${at}`,
        mine.map(({ offset }) => offset),
        mine.map((_, index) => start + index),
      )
      equal(
        `values of partition ${at}`,
        mine.map(({ value }) => textOf(value)),
        available.slice(0, mine.length),
      )
      if (mine.length < available.length) isAll = false
      given += mine.length
      member.positions.set(at, start + mine.length)
    }
    equal('records of partitions that are held', records.length, given)
    if (!isAll) equal('records in an answer that left some out', given, this.#maxRecords)
    if (this.#isLost) {
      count(counts, 'answers lost')
      return
    }
    count(counts, 'records read', given)
    knowledge.generationId = generationId
    for (const at of knowledge.polledTo.keys()) if (!held.includes(at)) knowledge.polledTo.delete(at)
    for (const { partition, offset } of records) knowledge.polledTo.set(partition, offset + 1)
  }
}

/** Commits what a run got, or less; or some offset, as nobody. */
export class Commit extends Step {
  readonly #instance: string
  readonly #runId: string | undefined
  readonly #less: number
  constructor(instance: string, runId: string | undefined, less: number) {
    super()
    this.#instance = instance
    this.#runId = runId
    this.#less = less
  }

  override toString(): string {
    return `commit all but ${this.#less} as ${this.#instance}/${this.#runId ?? 'nobody'}`
  }

  protected override async act(model: GroupModel, { broker, counts }: System, now: number): Promise<void> {
    const runId = this.#runId
    const { generationId, polledTo } = runId === undefined ? anybody : model.knowledge(this.#instance, runId)
    const offsets = [...polledTo].map(([partition, offset]) => ({
      topic: TOPIC,
      partition,
      offset: Math.max(0, offset - this.#less),
    }))
    const options: CommitOptions = {
      ...(runId === undefined ? {} : { runId }),
      ...(generationId === undefined ? {} : { generationId }),
    }
    const group = { groupId: GROUP, groupInstanceId: this.#instance }
    const outcome = await settle(broker.commit(group, offsets, options))
    model.expire(now)
    const code = outcome instanceof KedgeError ? outcome.code : undefined
    const unsure = model.claims.get(this.#instance)
    // Of a third run it says nothing: that one is refused either way. And so is anybody's whose claim has lapsed again.
    if (unsure?.isUnsure === true && unsure.expiresAt > now && (runId === undefined || runId === unsure.runId)) {
      resolveClaim(model, this.#instance, (code === 'CLAIM_LOST') === (runId === undefined))
    }
    const expected = this.#expected(model, offsets, generationId, now)
    equal('the answer', code, expected)
    count(counts, expected === undefined ? 'commits taken' : `commits refused ${expected}`)
    if (expected === undefined) for (const { partition, offset } of offsets) model.committed.set(partition, offset)
  }

  #expected(
    model: GroupModel,
    offsets: readonly { readonly partition: number }[],
    generationId: number | undefined,
    now: number,
  ): string | undefined {
    const instance = this.#instance
    if (this.#runId === undefined) {
      if (model.claimAgainst(instance, undefined, now) !== undefined) return 'CLAIM_LOST'
      // A claim that has lapsed is forgotten, and is there again in a log that is opened anew: see `isUnsure`.
      const lapsed = model.claims.get(instance)
      if (lapsed !== undefined) {
        lapsed.isForgotten = true
        model.members.get(instance)?.positions.clear()
      }
    } else {
      if (!model.hasClaim(instance, this.#runId, now)) return 'CLAIM_LOST'
      model.take(instance, this.#runId, now)
    }
    model.touch(instance, now)
    if (generationId === undefined) return undefined
    return offsets.every(({ partition }) => model.mayCommit(instance, partition, generationId))
      ? undefined
      : 'ILLEGAL_GENERATION'
  }
}

/** Gives a claim back. */
export class Release extends Step {
  readonly #instance: string
  readonly #runId: string
  constructor(instance: string, runId: string) {
    super()
    this.#instance = instance
    this.#runId = runId
  }

  override toString(): string {
    return `release ${this.#instance}/${this.#runId}`
  }

  protected override async act(model: GroupModel, { broker }: System): Promise<void> {
    await broker.release({ groupId: GROUP, groupInstanceId: this.#instance }, this.#runId)
    const claim = model.claims.get(this.#instance)
    if (claim?.runId === this.#runId && !claim.isForgotten) model.claims.delete(this.#instance)
  }
}

/** Removes an instance. */
export class Leave extends Step {
  readonly #instance: string
  constructor(instance: string) {
    super()
    this.#instance = instance
  }

  override toString(): string {
    return `leave ${this.#instance}`
  }

  protected override async act(model: GroupModel, { broker }: System, now: number): Promise<void> {
    const outcome = await settle(broker.leave({ groupId: GROUP, groupInstanceId: this.#instance }))
    model.expire(now)
    const isMember = model.members.has(this.#instance)
    equal(
      'the answer',
      outcome instanceof KedgeError ? outcome.code : undefined,
      isMember ? undefined : 'UNKNOWN_MEMBER_ID',
    )
    if (!isMember) return
    model.claims.delete(this.#instance)
    model.remove(this.#instance, now)
  }
}

/** Time passes. */
export class Pass extends Step {
  readonly #ms: number
  constructor(ms: number) {
    super()
    this.#ms = ms
  }

  override toString(): string {
    return `${this.#ms} ms pass`
  }

  protected override async act(_model: GroupModel, { time }: System): Promise<void> {
    await time.advance(this.#ms)
  }
}

/** The wall clock is set, which changes nothing. */
export class SetClock extends Step {
  readonly #ms: number
  constructor(ms: number) {
    super()
    this.#ms = ms
  }

  override toString(): string {
    return `the clock is set by ${this.#ms} ms`
  }

  protected override act(_model: GroupModel, { clock }: System): Promise<void> {
    clock.step(this.#ms)
    return Promise.resolve()
  }
}

/** The log is closed and opened again. */
export class Reopen extends Step {
  override toString(): string {
    return 'reopen'
  }

  protected override async act(model: GroupModel, system: System, now: number): Promise<void> {
    if (system.reopen === undefined) return
    // What nobody has asked about since it lapsed is not stored as lapsed: before, so that both agree on who is a member.
    model.expire(now)
    system.broker = await system.reopen()
    model.reopen(now)
  }
}

const anybody = { generationId: undefined, polledTo: new Map([[0, 1]]) }

/** The positions that a run names: of what it got and has not committed. */
function namedBy(model: GroupModel, { generationId, polledTo }: ReturnType<GroupModel['knowledge']>): Named {
  const positions = new Map([...polledTo].filter(([at, offset]) => offset > (model.committed.get(at) ?? 0)))
  return { generationId, positions }
}

function requested(
  named: Named | undefined,
  generationId: number | undefined,
): { generationId?: number; positions?: { topic: string; partition: number; offset: number }[] } {
  const known = generationId === undefined ? {} : { generationId }
  if (named === undefined) return known
  const positions = [...named.positions].map(([partition, offset]) => ({ topic: TOPIC, partition, offset }))
  return { ...known, positions }
}

/** Whether another run's claim refuses a call, and whether the answer says so. */
function isRefused(model: GroupModel, instance: string, runId: string, now: number, outcome: unknown): boolean {
  const code = outcome instanceof KedgeError ? outcome.code : undefined
  const claim = model.claims.get(instance)
  if (claim?.isUnsure === true && claim.expiresAt > now && claim.runId !== runId)
    resolveClaim(model, instance, code === 'CLAIM_HELD')
  const against = model.claimAgainst(instance, runId, now)
  equal('the answer', code, against === undefined ? undefined : 'CLAIM_HELD')
  if (against === undefined) return false
  const retryAfterMs = outcome instanceof KedgeError ? outcome.retryAfterMs : undefined
  equal('the time to wait', retryAfterMs, Math.ceil(against.expiresAt - now))
  return true
}

function resolveClaim(model: GroupModel, instance: string, isThere: boolean): void {
  const claim = model.claims.get(instance)
  if (claim === undefined) return
  if (isThere) claim.isUnsure = false
  else model.claims.delete(instance)
}

async function settle<T>(call: Promise<T>): Promise<T | KedgeError> {
  try {
    return await call
  } catch (error) {
    if (error instanceof KedgeError) return error
    throw error
  }
}

function equal(what: string, seen: unknown, expected: unknown): void {
  if (JSON.stringify(seen) === JSON.stringify(expected)) return
  throw new Error(`${what}: ${JSON.stringify(seen)}, and it should be ${JSON.stringify(expected)}.`)
}

function count(counts: Record<string, number>, what: string, by = 1): void {
  counts[what] = (counts[what] ?? 0) + by
}
