/** Keeps a run's claim alive while no poll or commit does so, as during a long handler. */
import { backoffMs } from '../backoff.ts'
import type { Backoff } from '../backoff.ts'
import type { Broker, GroupInstance } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { BrokerError, KedgeError } from '../errors.ts'
import type { Random } from '../random.ts'
import type { Calls } from './calls.ts'

/** What keeping a claim alive needs. */
export interface ClaimScope {
  readonly broker: Broker
  readonly group: GroupInstance
  readonly runId: string
  readonly claimTtlMs: number
  readonly clock: Clock
  readonly random: Random
  readonly calls: Calls
  /** Aborted when the claim is not needed any more. */
  readonly ending: AbortSignal
  readonly backoff: Backoff
  /**
   * There is no call left to renew the claim with: what the run has done is to be committed while it has it. Called a third
   * of the claim's life after the last renewal, and again, `isLast`, after another third.
   */
  readonly onSpent: (isLast: boolean) => void
  /** Another run has the claim, or may have had it. */
  readonly onClaimLost: (error: KedgeError) => void
}

/** The claim of one run. */
export class Claim {
  readonly #scope: ClaimScope
  /** The beginning of the newest call that renewed the claim, or undefined. */
  #contactAt: number | undefined
  #cancelTimer: (() => void) | undefined
  #failures = 0

  constructor(scope: ClaimScope) {
    this.#scope = scope
  }

  /** Whether the run has had the claim. */
  get wasHeld(): boolean {
    return this.#contactAt !== undefined
  }

  /** How long the broker has not heard of the run, milliseconds. */
  get silentMs(): number {
    const { clock } = this.#scope
    return clock.monotonic() - (this.#contactAt ?? clock.monotonic())
  }

  /** A call that renews the claim was answered; it began at this monotonic time. */
  renewed(startedAt: number): void {
    this.#contactAt = Math.max(this.#contactAt ?? startedAt, startedAt)
    if (this.#cancelTimer === undefined) this.#arm(this.#dueAt())
  }

  /**
   * Gives the claim up where it lapsed: the run stood still, or could reach nobody, for the whole of its life. Another run may
   * have had it since and given it back, and nobody would refuse this one what it does with older offsets.
   */
  checkLapse(): void {
    const { clock, claimTtlMs, runId, onClaimLost } = this.#scope
    if (this.#contactAt === undefined || clock.monotonic() < this.#contactAt + claimTtlMs) return
    const message = `Cannot go on with run ${runId}: its claim was not renewed for ${claimTtlMs} ms, and lapsed. The next run starts from the committed offsets.`
    onClaimLost(new BrokerError('CLAIM_LOST', message))
  }

  close(): void {
    this.#cancelTimer?.()
  }

  #dueAt(): number {
    return (this.#contactAt ?? 0) + renewalMs(this.#scope.claimTtlMs)
  }

  #arm(dueAt: number): void {
    const { clock, ending } = this.#scope
    if (ending.aborted) return
    this.#cancelTimer = clock.after(Math.max(0, dueAt - clock.monotonic()), () => void this.#onTimer())
  }

  async #onTimer(): Promise<void> {
    const { clock, random, calls, claimTtlMs, backoff, ending, onSpent } = this.#scope
    this.checkLapse()
    if (ending.aborted) return
    const now = clock.monotonic()
    if (now < this.#dueAt()) return this.#arm(this.#dueAt())
    if (!calls.mayMake) {
      onSpent(now >= (this.#contactAt ?? now) + 2 * renewalMs(claimTtlMs))
      return this.#arm(now + renewalMs(claimTtlMs))
    }
    if (await this.#renew(now)) return this.#arm(this.#dueAt())
    return this.#arm(clock.monotonic() + backoffMs(backoff, this.#failures, random))
  }

  async #renew(now: number): Promise<boolean> {
    const { broker, group, runId, claimTtlMs, calls, ending, onClaimLost } = this.#scope
    try {
      await calls.make((call) => broker.claim(group, { runId, claimTtlMs }, call), { signal: ending })
      this.#failures = 0
      this.#contactAt = Math.max(this.#contactAt ?? now, now)
      return true
    } catch (error) {
      this.#failures += 1
      if (isClaimLost(error)) onClaimLost(error)
      return false
    }
  }
}

/** When a claim is renewed: a third of its life after the last time, so that two more tries fit before it lapses. */
export function renewalMs(claimTtlMs: number): number {
  return claimTtlMs / 3
}

/** Whether an error says that another run has the instance. */
export function isClaimLost(error: unknown): error is KedgeError {
  return error instanceof KedgeError && (error.code === 'CLAIM_LOST' || error.code === 'CLAIM_HELD')
}
