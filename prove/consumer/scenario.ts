/** One promise of the consumer, and what tries to break it. */
import type { Broker } from '../../src/broker.ts'
import type { RunOptions } from '../../src/consumer.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import type { Ordering } from '../../src/router.ts'

/** Stands for bugs of the product, by which a scenario shows that it bites. */
export interface Bugs {
  /** What processes call goes through it. */
  readonly broker?: (broker: Broker) => Broker
  readonly letters?: (store: DeadLetterStore) => DeadLetterStore
  /** What a run is told in place of what it should be. */
  readonly run?: (options: RunOptions) => RunOptions
  /** The order in which records are really handled. */
  readonly ordering?: Ordering
}

/** What one play of a scenario found. */
export interface Played {
  /** One line for each thing that may not be. */
  readonly violations: readonly string[]
  /** What happened; added up over all plays. */
  readonly counts: Readonly<Record<string, number>>
}

/** One promise under trial. */
export interface Scenario {
  readonly promise: string
  /** So many plays, each of a seed of its own. */
  readonly plays: { readonly full: number; readonly quick: number }
  /**
   * What must have happened, and how often in the full form; where it did not, nothing was proved. In the quick form each
   * must have happened at all.
   */
  readonly needs: Readonly<Record<string, number>>
  /** Plays a seed. `index` counts the plays from 0. */
  readonly play: (seed: number, index: number, bugs?: Bugs) => Promise<Played>
}
