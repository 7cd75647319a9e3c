/**
 * One process as a platform starts it for a tick: it has a clock of its own and dies at some step, between any two things that it
 * waits for. After its death nothing that it waits for comes, and none of its timers fires; what it has sent is on its way still.
 */
import type { Clock } from '../../src/clock.ts'
import type { FakeClock } from '../../test/support/clock.ts'

/** The time of the world: it passes when the simulation says so, and its wall clock can be set. */
export class WorldClock implements Clock {
  readonly #clock: FakeClock
  #stepMs = 0

  constructor(clock: FakeClock) {
    this.#clock = clock
  }

  now(): number {
    return this.#clock.now() + this.#stepMs
  }

  monotonic(): number {
    return this.#clock.monotonic()
  }

  after(delayMs: number, fire: () => void): () => void {
    return this.#clock.after(delayMs, fire)
  }

  /** Sets the wall clock forward or back. */
  step(ms: number): void {
    this.#stepMs += ms
  }
}

/** A process, and its clock. */
export class SimulatedProcess implements Clock {
  readonly #world: Clock
  readonly #diesAtStep: number
  #steps = 0
  #isDead = false
  #frozenUntil = Number.NEGATIVE_INFINITY
  /** It stood still for a while, and was late with everything. */
  wasFrozen = false
  /** Calls to the broker and the dead-letter store. */
  calls = 0

  constructor(world: Clock, diesAtStep: number) {
    this.#world = world
    this.#diesAtStep = diesAtStep
  }

  get isDead(): boolean {
    return this.#isDead
  }

  /** Passes a point at which it may die. Says whether it lives. */
  passes(): boolean {
    this.#steps += 1
    if (this.#steps >= this.#diesAtStep) this.kill()
    return !this.#isDead
  }

  kill(): void {
    this.#isDead = true
  }

  /** It stands still, as a machine does that is suspended; then it goes on as if nothing had been. */
  freeze(ms: number): void {
    this.wasFrozen = true
    this.#frozenUntil = this.#world.monotonic() + ms
  }

  /** Does something of the process: at once, when it goes on again, or never. */
  wake(go: () => void): void {
    if (this.#isDead) return
    const leftMs = this.#frozenUntil - this.#world.monotonic()
    if (leftMs <= 0) go()
    else this.#world.after(leftMs, () => this.wake(go))
  }

  now(): number {
    return this.#world.now()
  }

  monotonic(): number {
    return this.#world.monotonic()
  }

  after(delayMs: number, fire: () => void): () => void {
    let isCancelled = false
    const cancel = this.#world.after(delayMs, () =>
      this.wake(() => {
        if (!isCancelled) fire()
      }),
    )
    return () => {
      isCancelled = true
      cancel()
    }
  }
}
