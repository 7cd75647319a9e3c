/** One promise of the consumer, and what tries to break it. */
import type { Broker } from '../../src/broker.ts'
import type { Fetch } from '../../src/brokers/rest/transport.ts'
import type { RunOptions } from '../../src/consumer.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import type { IdempotencyStore } from '../../src/idempotency.ts'
import type { Ordering } from '../../src/router.ts'

/** Stands for bugs of the product, by which a scenario shows that it bites. */
export interface Bugs {
  /** What processes call goes through it. */
  readonly broker?: (broker: Broker) => Broker
  readonly letters?: (store: DeadLetterStore) => DeadLetterStore
  /** What a run is told in place of what it should be; `scheduledMs` is the time that its tick is for. */
  readonly run?: (options: RunOptions, scheduledMs: number) => RunOptions
  /** What a process's requests go through. */
  readonly fetch?: (fetch: Fetch) => Fetch
  /** What calls of an isolate go through; made anew where the isolate is. */
  readonly isolate?: (broker: Broker) => Broker
  readonly idempotency?: (store: IdempotencyStore) => IdempotencyStore
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
