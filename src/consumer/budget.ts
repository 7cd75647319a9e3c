/** What a run may spend: time, calls, records. Tells when to stop taking work so that what was begun can be finished. */
import type { Clock } from '../clock.ts'
import { ConfigError } from '../errors.ts'

/** What a run may spend. */
export interface BudgetOptions {
  /** The moment by which the run has returned, milliseconds since the epoch. */
  readonly untilMs?: number
  /**
   * How long the run may take, milliseconds; no run takes longer than 24 days. The nearer of this and `untilMs` counts.
   * @default 50000 without `untilMs`, legal 0 and more
   */
  readonly runMs?: number
  /**
   * No record is begun in this last part of the run, milliseconds. Handlers that still run get half of it; the rest is
   * for the last commit. @default 2000, or a fifth of the run where that is less; legal 0 to half of the run
   */
  readonly marginMs?: number
  /** Most records to read. @default unlimited, legal 1 to 2^53 - 1 */
  readonly maxRecords?: number
  /**
   * Most calls to the broker and the dead-letter store together (a platform's sub-requests, less those that handlers
   * make). A letter that goes into a topic over a gateway may take up to five, where the topic has to be made first. Three are
   * kept for the last commit, one repetition of it, and the release. @default unlimited, legal 4 to 2^53 - 1
   */
  readonly maxCalls?: number
}

/** A budget resolved at the start of a run. Moments are of the clock's monotonic time. */
export interface Budget {
  readonly startedAt: number
  /** No poll and no record is begun from here on. */
  readonly takeUntil: number
  /** Handlers that still run are given up here. */
  readonly handleUntil: number
  /** The run has returned by then. */
  readonly deadline: number
  readonly maxRecords: number
  readonly maxCalls: number
}

const DEFAULT_RUN_MS = 50_000
const DEFAULT_MARGIN_MS = 2_000
const MIN_CALLS = 4
/** The longest that a platform's timer can wait; a longer one would fire at once. */
const MAX_RUN_MS = 2_147_483_647

/**
 * Resolves a budget. A deadline that has passed already gives a budget in which nothing is begun.
 * @throws {ConfigError} INVALID_CONFIG for a value outside its range.
 */
export function budgetOf(options: BudgetOptions, clock: Clock): Budget {
  const startedAt = clock.monotonic()
  const left = options.untilMs === undefined ? Number.POSITIVE_INFINITY : options.untilMs - clock.now()
  const asked = options.runMs ?? (options.untilMs === undefined ? DEFAULT_RUN_MS : Number.POSITIVE_INFINITY)
  if (Number.isNaN(left)) refuse('untilMs', options.untilMs, 'a time in milliseconds since the epoch')
  if (Number.isNaN(asked) || asked < 0) refuse('runMs', options.runMs, 'a number of milliseconds, at least 0')
  const totalMs = Math.max(0, Math.min(left, asked, MAX_RUN_MS))
  const marginMs = options.marginMs ?? Math.min(DEFAULT_MARGIN_MS, totalMs / 5)
  if (!(marginMs >= 0)) refuse('marginMs', options.marginMs, 'a number of milliseconds, at least 0')
  const deadline = startedAt + totalMs
  // A margin of more than half, as when a tick comes late, must not leave a run that can never begin anything.
  const margin = Math.min(marginMs, totalMs / 2)
  return {
    startedAt,
    takeUntil: deadline - margin,
    handleUntil: deadline - margin / 2,
    deadline,
    maxRecords: count('maxRecords', options.maxRecords, 1),
    maxCalls: count('maxCalls', options.maxCalls, MIN_CALLS),
  }
}

function count(name: string, value: number | undefined, min: number): number {
  if (value === undefined) return Number.POSITIVE_INFINITY
  if (!Number.isSafeInteger(value) || value < min) refuse(name, value, `an integer of at least ${min}`)
  return value
}

function refuse(name: string, value: number | undefined, expected: string): never {
  throw new ConfigError(`Cannot run: budget.${name} is ${String(value)}: give ${expected}.`)
}
