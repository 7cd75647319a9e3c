/** One part of the proof: what it plays, and what it found. */
import type { GatewayProcess } from '../gateway-process.ts'

/** What a scenario works with. */
export interface Stage {
  /** Started. */
  readonly gateway: GatewayProcess
  /** For its journals; empty. */
  readonly folder: string
  /** How often it strikes. */
  readonly strikes: number
  readonly random: () => number
  readonly stop: AbortSignal
}

/** What a scenario found. */
export interface Played {
  /** One line for each thing that may not be. */
  readonly violations: readonly string[]
  /** What happened. */
  readonly figures: Readonly<Record<string, number>>
}

/** One promise under trial. */
export interface Scenario {
  readonly promise: string
  readonly strikes: { readonly full: number; readonly quick: number }
  /** What must have happened; where it did not, nothing was shown. */
  readonly needs: readonly string[]
  readonly play: (stage: Stage) => Promise<Played>
}
