/** What a seed makes of a simulation: how large it is, and how bad the weather. */
import type { ParkingOptions } from '../../src/app.ts'
import type { ConsumerOptions } from '../../src/consumer.ts'
import type { Ordering } from '../../src/router.ts'
import { fairWeather, type Weather } from './network.ts'

/** All choices of one simulation. */
export interface Plan {
  readonly partitions: number
  readonly instances: readonly string[]
  /** Rounds of trouble. */
  readonly rounds: number
  readonly recordsAtStart: number
  readonly recordsPerRound: number
  readonly poisonShare: number
  readonly weather: Weather
  /** Between two ticks of an instance, milliseconds. */
  readonly tickMs: number
  /** Longer than `tickMs` in some, so that runs overlap. */
  readonly runMs: number
  readonly marginMs: number
  readonly maxCalls: number | undefined
  /** Runs end when there is nothing to read, instead of waiting for more. */
  readonly stopWhenEmpty: boolean
  readonly claimTtlMs: number
  readonly sessionTimeoutMs: number
  /** How likely a tick does not come. */
  readonly quietShare: number
  /** How likely a process dies, and within how many steps. */
  readonly deathShare: number
  readonly mostSteps: number
  /** How likely a process stands still for a while, and for how long, milliseconds. */
  readonly freezeShare: number
  readonly freezeMs: number
  /** How likely an instance that goes says so. */
  readonly leaves: number
  readonly clockSteps: number
  /** Rounds, from and to, in which the dead-letter store is down. */
  readonly storeOutages: readonly (readonly [number, number])[]
  readonly ordering: Ordering
  /** Most records that a handler gets together; undefined where it gets each alone. */
  readonly batchRecords: number | undefined
  readonly parking: ParkingOptions
  readonly attemptTimeoutMs: number
  readonly maxAttempts: number
  readonly slowShare: number
  readonly slowMs: number
  readonly failingShare: number
  readonly consumer: Pick<
    ConsumerOptions,
    'concurrency' | 'maxPollRecords' | 'maxPollWaitMs' | 'commitIntervalMs' | 'callTimeoutMs'
  >
}

/** Makes a plan. */
export function planOf(random: () => number): Plan {
  const whole = (from: number, to: number): number => from + Math.floor(random() * (to - from + 1))
  const choose = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T
  const instances = ['a', 'b', 'c'].slice(0, choose([1, 1, 2, 3]))
  const rounds = whole(3, 9)
  const outage = whole(0, rounds)
  const runMs = choose([1_500, 3_000, 6_000])
  return {
    partitions: whole(1, 3),
    instances,
    rounds,
    recordsAtStart: whole(0, 20),
    recordsPerRound: choose([0, 5, 12]),
    poisonShare: choose([0, 0.03, 0.1]),
    weather: choose([fairWeather, weatherOf(random, 0.03), weatherOf(random, 0.1), weatherOf(random, 0.25)]),
    tickMs: choose([2_000, 3_000]),
    runMs,
    marginMs: choose([runMs / 10, runMs / 5, runMs / 2]),
    maxCalls: choose([undefined, undefined, 12, 30]),
    stopWhenEmpty: random() < 0.3,
    claimTtlMs: choose([1_000, 2_500, 6_000]),
    sessionTimeoutMs: choose([2_000, 5_000, 20_000]),
    quietShare: choose([0, 0.1, 0.4]),
    deathShare: choose([0, 0.2, 0.6]),
    mostSteps: choose([10, 40, 120]),
    freezeShare: choose([0, 0, 0.3]),
    freezeMs: choose([500, 1_500, 3_000]),
    leaves: choose([0, 0.5]),
    clockSteps: choose([0, 0, 0.2]),
    storeOutages: random() < 0.3 ? [[outage, outage + whole(1, 4)]] : [],
    ordering: choose(['partition', 'partition', 'key', 'none'] as const),
    attemptTimeoutMs: choose([200, 600]),
    maxAttempts: whole(1, 3),
    slowShare: choose([0, 0.2, 0.7]),
    slowMs: choose([50, 400, 900]),
    failingShare: choose([0, 0.05, 0.2]),
    batchRecords: choose([undefined, undefined, undefined, 2, 7, 100]),
    parking: choose([{}, {}, { maxRecords: 3 }, { maxRecords: 3, whenFull: 'dead-letter' as const }]),
    consumer: {
      concurrency: whole(1, 3),
      maxPollRecords: choose([1, 3, 8, 50]),
      maxPollWaitMs: choose([100, 300, 1_000]),
      commitIntervalMs: choose([0, 100, 700]),
      callTimeoutMs: choose([150, 600, 2_000]),
    },
  }
}

function weatherOf(random: () => number, most: number): Weather {
  return {
    lostRequests: random() * most,
    lostAnswers: random() * most,
    lateRequests: (random() * most) / 2,
    refusals: random() * most,
    mostDelayMs: Math.floor(random() * 120),
  }
}
