/**
 * Commits for a group from outside of it. A run that is on would commit over it, so the instances of all members are claimed
 * first: runs that are on refuse it, and those that begin meanwhile are refused.
 */
import type { GroupInstance, OffsetCommit } from '../broker.ts'
import { sleep } from '../clock.ts'
import { BrokerError, type ErrorCode, KedgeError } from '../errors.ts'
import { GroupLock } from '../group-lock.ts'
import type { RedriveCalls } from '../redrive/calls.ts'
import type { OperationsSettings } from './frame.ts'

/** What holding a group needs. */
export interface HoldScope extends OperationsSettings {
  /** What it is held for, for errors: `seek orders of group shop`. */
  readonly task: string
  readonly operationId: string
  readonly calls: RedriveCalls
  /** How long to wait for runs to end, milliseconds. */
  readonly waitMs: number
}

/** Members that join again and again while offsets are committed would go on for ever. */
const MAX_ROUNDS = 10
/** Between two tries to claim an instance whose run is on. */
const RETRY_MS = 500

/** A group whose members are all held. */
export class GroupHold {
  readonly #scope: HoldScope
  readonly #locks = new Map<string, GroupLock>()
  readonly #untilAt: number

  private constructor(scope: HoldScope) {
    this.#scope = scope
    this.#untilAt = scope.clock.monotonic() + scope.waitMs
  }

  /**
   * Does something while the members of a group are held.
   * @throws {BrokerError} CLAIM_HELD with `retryAfterMs` where a run is on for longer than `waitMs` · as the broker does
   */
  static async during<T>(scope: HoldScope, work: (hold: GroupHold) => Promise<T>): Promise<T> {
    const hold = new GroupHold(scope)
    try {
      while (await hold.#claimNew());
      return await work(hold)
    } finally {
      for (const lock of hold.#locks.values()) await lock.release()
    }
  }

  /**
   * Stores offsets, and again where an instance has joined meanwhile, which may have read older ones.
   * @throws {BrokerError} UNKNOWN_MEMBER_ID where only clients of another kind consume as the group
   */
  async commit(offsets: readonly OffsetCommit[]): Promise<void> {
    const { broker, groupId, operationId, calls, task } = this.#scope
    for (let round = 1; round <= MAX_ROUNDS; round++) {
      await this.#keep()
      const [held] = this.#locks.keys()
      const instance: GroupInstance = { groupId, groupInstanceId: held ?? 'operate' }
      const options = held === undefined ? {} : { runId: operationId }
      try {
        await calls.make((call) => broker.commit(instance, offsets, options, call))
      } catch (cause) {
        if (held !== undefined || !isCode(cause, 'UNKNOWN_MEMBER_ID')) throw cause
        const why = 'clients of another kind consume as the group, and they know no claims. Stop them first'
        throw new BrokerError('UNKNOWN_MEMBER_ID', `Cannot ${task}: ${why}.`, { cause })
      }
      if (!(await this.#claimNewcomers())) return
    }
    throw new BrokerError('REBALANCE_IN_PROGRESS', `Cannot ${task}: instances keep joining it. Pause the group first.`)
  }

  /** The same after a commit, when it is too late to refuse. */
  async #claimNewcomers(): Promise<boolean> {
    try {
      return await this.#claimNew()
    } catch (cause) {
      if (!isHeld(cause)) throw cause
      const { task } = this.#scope
      throw new BrokerError(
        'REBALANCE_IN_PROGRESS',
        `Cannot ${task} for certain: it is done, but an instance joined meanwhile, whose run may commit over it. Look where the group stands, and do it again.`,
        { cause },
      )
    }
  }

  /** Claims instances that are not held yet. Says whether there were any. */
  async #claimNew(): Promise<boolean> {
    const { broker, groupId, calls } = this.#scope
    const groups = await calls.make((call) => broker.groups(call))
    const members = groups.find((group) => group.groupId === groupId)?.members ?? []
    const fresh = members.filter(({ groupInstanceId }) => !this.#locks.has(groupInstanceId))
    for (const { groupInstanceId } of fresh) await this.#claim(groupInstanceId)
    return fresh.length > 0
  }

  async #claim(groupInstanceId: string): Promise<void> {
    const { groupId, operationId, task, clock, calls } = this.#scope
    const instance = { groupId, groupInstanceId }
    const holder = `a run of its instance ${groupInstanceId}`
    const lock = new GroupLock({ ...this.#scope, instance, task, holder, runId: operationId, calls })
    for (;;) {
      try {
        await lock.take()
        this.#locks.set(groupInstanceId, lock)
        return
      } catch (error) {
        if (!isHeld(error) || clock.monotonic() + RETRY_MS > this.#untilAt) throw error
        await sleep(clock, RETRY_MS)
        await this.#keep()
      }
    }
  }

  async #keep(): Promise<void> {
    for (const lock of this.#locks.values()) await lock.keep()
  }
}

function isHeld(error: unknown): boolean {
  return isCode(error, 'CLAIM_HELD')
}

function isCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof KedgeError && error.code === code
}
