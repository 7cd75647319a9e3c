/**
 * One active redrive for each group: a claim on a group instance of its own, which every broker has. The group's own
 * instances and members are not touched.
 */
import type { Broker, GroupInstance } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { BrokerError, KedgeError } from '../errors.ts'
import type { RedriveCalls } from './calls.ts'

/** What a lock needs. */
export interface RedriveLockScope {
  readonly broker: Broker
  readonly groupId: string
  readonly runId: string
  readonly claimTtlMs: number
  readonly clock: Clock
  /** Calls that do not ask for the lock. */
  readonly calls: RedriveCalls
}

/** The lock of one redrive. */
export class RedriveLock {
  readonly #scope: RedriveLockScope
  readonly #group: GroupInstance
  /** Monotonic time at which the newest claim that was granted was asked for. */
  #claimedAt = 0

  constructor(scope: RedriveLockScope) {
    this.#scope = scope
    this.#group = { groupId: `${scope.groupId}-redrive`, groupInstanceId: 'redrive' }
  }

  /** Takes the lock. @throws {BrokerError} CLAIM_HELD with `retryAfterMs` · as the broker does */
  async take(): Promise<void> {
    const { groupId, calls, broker, runId, claimTtlMs } = this.#scope
    const claimedAt = this.#scope.clock.monotonic()
    try {
      await calls.make((call) => claimOrNot(broker.claim(this.#group, { runId, claimTtlMs }, call)))
    } catch (error) {
      if (!(error instanceof NotRetried)) throw error
      const { retryAfterMs = claimTtlMs } = error.reason
      throw new BrokerError(
        'CLAIM_HELD',
        `Cannot redrive the dead letters of group ${groupId}: another redrive of it is active. Wait for it to end, or for its lock to lapse in ${retryAfterMs} ms.`,
        { retryAfterMs, cause: error.reason },
      )
    }
    this.#claimedAt = claimedAt
  }

  /**
   * Renews the lock where a third of its life is over, so that a call that begins now ends while it is held.
   * @throws {BrokerError} CLAIM_HELD where another redrive has it; CLAIM_LOST where one may have had it · as the broker does
   */
  async keep(): Promise<void> {
    const { clock, claimTtlMs, groupId } = this.#scope
    const ageMs = clock.monotonic() - this.#claimedAt
    if (ageMs < this.renewEveryMs) return
    // The process stood still. What it has read ahead may have been redriven meanwhile.
    if (ageMs >= claimTtlMs) {
      throw new BrokerError(
        'CLAIM_LOST',
        `Cannot go on with the redrive of group ${groupId}: it stood still for ${Math.floor(ageMs)} ms, in which its lock lapsed. Start it again.`,
      )
    }
    await this.take()
  }

  /** The longest time between two calls of `keep` in which the lock cannot lapse unseen. */
  get renewEveryMs(): number {
    return this.#scope.claimTtlMs / 3
  }

  /** Gives the lock back. Where that fails it lapses by itself. */
  async release(): Promise<void> {
    const { broker, runId, calls } = this.#scope
    try {
      await calls.make((call) => broker.release(this.#group, runId, call))
    } catch {
      // The next redrive only has to wait for it.
    }
  }
}

/** A claim that is held elsewhere is an answer, not a failure to be tried again. */
class NotRetried extends Error {
  override readonly name = 'NotRetried' as const
  readonly reason: KedgeError

  constructor(reason: KedgeError) {
    super(reason.message, { cause: reason })
    this.reason = reason
  }
}

async function claimOrNot(claiming: Promise<void>): Promise<void> {
  try {
    await claiming
  } catch (error) {
    throw isHeld(error) ? new NotRetried(error) : error
  }
}

function isHeld(error: unknown): error is KedgeError {
  return error instanceof KedgeError && error.code === 'CLAIM_HELD'
}

/** Whether an error says that the lock is gone. */
export function isLockLost(error: unknown): error is KedgeError {
  return isHeld(error) || (error instanceof KedgeError && error.code === 'CLAIM_LOST')
}
