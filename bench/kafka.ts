/** A Kafka broker for a bench: on the core of the load, as it would be on another machine. Durability is D1, its own default. */
import { readFileSync } from 'node:fs'

import { startKafka } from '../scripts/kafka/cluster.ts'

export interface BenchBroker extends AsyncDisposable {
  readonly bootstrapServers: string
  /** Processor time used so far, user and system, microseconds, to a hundredth of a second. */
  cpuUs(): number
}

/** Starts a broker on the core that this process is pinned to. */
export async function startBroker(settings: Readonly<Record<string, string>> = {}): Promise<BenchBroker> {
  const cluster = await startKafka({
    // What a contender wrote makes room for what the next one writes.
    settings: { 'log.segment.delete.delay.ms': '100', ...settings },
  })
  const pid = cluster.nodes[0]?.pid ?? 0
  return {
    bootstrapServers: cluster.bootstrapServers,
    cpuUs: () => ticksOf(pid) * US_PER_TICK,
    [Symbol.asyncDispose]: () => cluster.stop(),
  }
}

/** Linux counts in hundredths of a second wherever Node runs (USER_HZ). */
const US_PER_TICK = 10_000

function ticksOf(pid: number): number {
  const line = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field, the program's name, may hold blanks.
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}
