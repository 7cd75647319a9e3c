/** The goals that the benches answer. Every one is a ratio to a reference loop of the same run, but G13, which is a cost. */

export interface Goal {
  readonly what: string
  /** Beats every peer. */
  readonly floor: number
  /** Near the limit. */
  readonly target: number
  readonly better: 'higher' | 'lower'
}

export type GoalName = 'G1' | 'G2' | 'G4-log' | 'G10' | 'G13' | 'G19'

export const goals: Readonly<Record<GoalName, Goal>> = {
  G1: {
    what: 'produce of single records, memory (D0) / bare node:http',
    floor: 0.7,
    target: 0.85,
    better: 'higher',
  },
  G2: {
    what: 'produce of single records, log (D2) / bare node:http',
    floor: 0.5,
    target: 0.7,
    better: 'higher',
  },
  'G4-log': {
    what: 'produce of 1,000 records a request, log (D2) / append + fdatasync',
    floor: 0.5,
    target: 0.7,
    better: 'higher',
  },
  G10: {
    what: 'drain by a consumer run / hand-written fetch loop',
    floor: 0.9,
    target: 0.97,
    better: 'higher',
  },
  G13: {
    what: 'router and dispatch over a bare loop, microseconds per record',
    floor: 1,
    target: 0.4,
    better: 'lower',
  },
  G19: {
    what: 'durable append by the log (D2) / append + fdatasync',
    floor: 0.8,
    target: 0.9,
    better: 'higher',
  },
}

/** What a goal came to. A goal with variants has its worst one as value. */
export interface GoalResult extends Omit<Goal, 'what'> {
  readonly value: number
}

/** The result of a goal with this value, in the form in which benches report it. */
export function goalResult(name: GoalName, value: number): GoalResult {
  const { floor, target, better } = goals[name]
  return { value: Number(value.toFixed(3)), floor, target, better }
}

/** Whether the value reaches the target, the floor, or neither. */
export function verdict({ value, floor, target, better }: GoalResult): 'target' | 'floor' | 'missed' {
  const reaches = (bar: number): boolean => (better === 'higher' ? value >= bar : value <= bar)
  if (reaches(target)) return 'target'
  return reaches(floor) ? 'floor' : 'missed'
}
