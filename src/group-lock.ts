/**
 * A lock on something of a group: a claim on a group instance, which every broker has. One that is called after the thing
 * and that nobody consumes with keeps two of a kind from being active at once; one that a run consumes with keeps that run
 * away.
 */
import type { Broker, Call, GroupInstance } from './broker.ts'
import type { Clock } from './clock.ts'
import { BrokerError, KedgeError } from './errors.ts'

/** What a lock needs. */
export interface GroupLockScope {
  readonly broker: Broker
  /** What is claimed. */
  readonly instance: GroupInstance
  /** What is done under the lock, for its errors: `redrive the dead letters of group shop`. */
  readonly task: string
  /** Who has the lock where it cannot be had, for its errors: `another redrive of it`. */
  readonly holder: string
  readonly runId: string
  readonly claimTtlMs: number
  readonly clock: Clock
  /** Calls that do not ask for the lock. */
  readonly calls: { make<T>(work: (call: Call) => Promise<T>): Promise<T> }
}

/** A lock, held or not. */
export class GroupLock {
  readonly #scope: GroupLockScope
  /** Monotonic time at which the newest claim that was granted was asked for. */
  #claimedAt = 0

  constructor(scope: GroupLockScope) {
    this.#scope = scope
  }

  /** Takes the lock. @throws {BrokerError} CLAIM_HELD with `retryAfterMs` · as the broker does */
  async take(): Promise<void> {
    const { instance, task, holder, calls, broker, runId, claimTtlMs } = this.#scope
    const claimedAt = this.#scope.clock.monotonic()
    try {
      await calls.make((call) => claimOrNot(broker.claim(instance, { runId, claimTtlMs }, call)))
    } catch (error) {
      if (!(error instanceof NotRetried)) throw error
      const { retryAfterMs = claimTtlMs } = error.reason
      throw new BrokerError(
        'CLAIM_HELD',
        `Cannot ${task}: ${holder} is active. Wait for it to end, or for its lock to lapse in ${retryAfterMs} ms.`,
        { retryAfterMs, cause: error.reason },
      )
    }
    this.#claimedAt = claimedAt
  }

  /**
   * Renews the lock where a third of its life is over, so that a call that begins now ends while it is held.
   * @throws {BrokerError} CLAIM_HELD where another has it; CLAIM_LOST where one may have had it · as the broker does
   */
  async keep(): Promise<void> {
    const { clock, claimTtlMs, task } = this.#scope
    const ageMs = clock.monotonic() - this.#claimedAt
    if (ageMs < this.renewEveryMs) return
    // The process stood still. Another may have had the lock meanwhile, and changed what this one has read.
    if (ageMs >= claimTtlMs) {
      throw new BrokerError(
        'CLAIM_LOST',
        `Cannot ${task} to the end: it stood still for ${Math.floor(ageMs)} ms, in which its lock lapsed. Start it again.`,
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
    const { broker, instance, runId, calls } = this.#scope
    try {
      await calls.make((call) => broker.release(instance, runId, call))
    } catch {
      // The next one only has to wait for it.
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
