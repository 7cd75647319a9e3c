/**
 * Fair comparison: every round runs each contender once, in an order that turns from round to round, so that what slows
 * the machine slows all of them; a figure is the median of the rounds' ratios, never a ratio of two separate medians.
 */

/** What one run of one contender measured. */
export interface Sample {
  /** Records that were acknowledged, and counted again when read back. */
  readonly records: number
  readonly elapsedMs: number
  /** Processor time (user and system) of the contender itself, microseconds. */
  readonly cpuUs: number
  /** Processor time of the broker behind it meanwhile, where that is a process of its own, microseconds. */
  readonly brokerCpuUs?: number
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Comparison {
  /** Records per second, by contender. */
  readonly rates: ReadonlyMap<string, Spread>
  /** Microseconds of processor per record, by contender. */
  readonly cpu: ReadonlyMap<string, Spread>
  /** Microseconds of the broker's processor per record, by contender. */
  readonly brokerCpu: ReadonlyMap<string, Spread>
  /** How much of its core a contender used, 0 to 1, by contender. */
  readonly busy: ReadonlyMap<string, Spread>
  /** Of each round: rate of one contender over that of another. */
  ratio(of: string, to: string): Spread
  /** Of each round: processor time per record of another over that of one, so that more is better here too. */
  cpuRatio(of: string, to: string): Spread
}

export type Contenders = Readonly<Record<string, () => Promise<Sample>>>

/** Runs the rounds. */
export async function compare(contenders: Contenders, rounds: number): Promise<Comparison> {
  const names = Object.keys(contenders)
  const samples = await inRounds(contenders, rounds)
  const each = (figure: (sample: Sample) => number): Map<string, Spread> =>
    new Map(names.map((name) => [name, spread((samples.get(name) ?? []).map(figure))]))
  const ratio = (of: string, to: string, figure: (sample: Sample) => number): Spread => {
    const theirs = samples.get(to) ?? []
    return spread((samples.get(of) ?? []).map((sample, round) => figure(sample) / figure(theirs[round] ?? sample)))
  }
  return {
    rates: each(rate),
    cpu: each(cpuPerRecord),
    brokerCpu: each(({ brokerCpuUs = Number.NaN, records }) => brokerCpuUs / records),
    busy: each(({ cpuUs, elapsedMs }) => cpuUs / 1000 / elapsedMs),
    ratio: (of, to) => ratio(of, to, rate),
    cpuRatio: (of, to) => ratio(to, of, cpuPerRecord),
  }
}

/** Runs each contender once in each round and gives what they measured, by contender and round. */
export async function inRounds<T extends object>(
  contenders: Readonly<Record<string, () => Promise<T>>>,
  rounds: number,
): Promise<Map<string, T[]>> {
  const names = Object.keys(contenders)
  const samples = new Map<string, T[]>(names.map((name) => [name, []]))
  for (let round = 0; round < rounds; round += 1) {
    for (const name of turned(names, round)) {
      const sample = await contenders[name]?.()
      if (sample !== undefined) samples.get(name)?.push(sample)
    }
  }
  return samples
}

/** The median and the ends of some figures. */
export function spread(figures: readonly number[]): Spread {
  const sorted = figures.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  const median = sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2
  return { median, min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN }
}

function rate({ records, elapsedMs }: Sample): number {
  return (records / elapsedMs) * 1000
}

function cpuPerRecord({ records, cpuUs }: Sample): number {
  return cpuUs / records
}

/** ABC, CBA, BCA, ...: each contender follows each other one about as often as it goes before it. */
function turned(names: readonly string[], round: number): string[] {
  const start = (round >> 1) % names.length
  const order = [...names.slice(start), ...names.slice(0, start)]
  return round % 2 === 0 ? order : order.reverse()
}
