/**
 * The goals that the benches answer. Every one is a ratio to a reference loop of the same run, but G5, which is added time, and
 * G13, which is a cost.
 */

export interface Goal {
  readonly what: string
  /** Beats every peer. */
  readonly floor: number
  /** Near the limit. */
  readonly target: number
  readonly better: 'higher' | 'lower'
}

export type GoalName =
  | 'G1'
  | 'G2'
  | 'G3'
  | 'G3-coalesced'
  | 'G4-log'
  | 'G4-kafka'
  | 'G5'
  | 'G5-p99'
  | 'G9-kafka'
  | 'G10'
  | 'G11'
  | 'G11-kafkajs'
  | 'G11-kafkajs-delay-0'
  | 'G13'
  | 'G14'
  | 'G15'
  | 'G19'

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
  G3: {
    what: 'produce of single records over Kafka (D1) / Kafka client, a send each',
    floor: 5,
    target: 10,
    better: 'higher',
  },
  'G3-coalesced': {
    what: 'the same / Kafka client, those that wait share the next send',
    floor: 0.25,
    target: 0.45,
    better: 'higher',
  },
  'G4-log': {
    what: 'produce of 1,000 records a request, log (D2) / append + fdatasync',
    floor: 0.5,
    target: 0.7,
    better: 'higher',
  },
  'G4-kafka': {
    what: 'produce of 1,000 records a request over Kafka (D1) / Kafka client, 1,000 a send',
    floor: 0.65,
    target: 0.8,
    better: 'higher',
  },
  G5: {
    what: 'median time added to the Kafka client by the gateway, milliseconds',
    floor: 1,
    target: 0.3,
    better: 'lower',
  },
  'G5-p99': {
    what: '99th percentile of the gateway less that of the Kafka client, milliseconds',
    floor: 3,
    target: 1,
    better: 'lower',
  },
  'G9-kafka': {
    what: 'drain over Kafka, 1,000 records an answer / Kafka client, same fetch size',
    floor: 0.55,
    target: 0.75,
    better: 'higher',
  },
  G10: {
    what: 'drain by a consumer run / hand-written fetch loop',
    floor: 0.9,
    target: 0.97,
    better: 'higher',
  },
  G11: {
    what: 'first record of a run over Kafka / bare HTTP round trip',
    floor: 3,
    target: 1.5,
    better: 'lower',
  },
  'G11-kafkajs': {
    what: 'first record of a kafkajs consumer / of a run, default rebalance delay',
    floor: 100,
    target: 300,
    better: 'higher',
  },
  'G11-kafkajs-delay-0': {
    what: 'first record of a kafkajs consumer / of a run, no rebalance delay',
    floor: 0.7,
    target: 1,
    better: 'higher',
  },
  G13: {
    what: 'router and dispatch over a bare loop, microseconds per record',
    floor: 1,
    target: 0.4,
    better: 'lower',
  },
  G14: {
    what: 'a run ordered by key, 100 at once / the best schedule there is',
    floor: 1.3,
    target: 1.1,
    better: 'lower',
  },
  G15: {
    what: 'healthy records beside 1 % that always fail / without them',
    floor: 0.9,
    target: 0.98,
    better: 'higher',
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
