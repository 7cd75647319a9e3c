/**
 * `npm run prove -- kafka-faults` (PROVE_SCENARIOS names some of them, to look at): producers and a group of four instances work through two gateways over a real Kafka, while
 * gateways, connections and brokers are killed, frozen, cut and slowed. Then every record and every offset is accounted for.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { seeded } from '../test/support/chaos.ts'
import { check } from './history/check.ts'
import type { HistoryEvent, Violation } from './history/history.ts'
import { Load, MAX_POLL_RECORDS } from './kafka-faults/load.ts'
import { Pace } from './kafka-faults/pace.ts'
import { type Scenario, scenarios } from './kafka-faults/scenarios.ts'
import { openWorld, type World } from './kafka-faults/world.ts'
import type { Proof, ProofOptions } from './proof.ts'

/** Faults between gateways and a cluster. */
export const kafkaFaults: Proof = {
  summary: 'gateways, connections and brokers fail under load; nothing is lost, out of order, or late',
  async prove(options) {
    const found: Record<string, unknown> = {}
    let violations = 0
    for (const brokers of [1, 3] as const) {
      const mine = scenarios.filter((scenario) => scenario.brokers === brokers && isWanted(scenario))
      if (mine.length === 0 || options.stop.aborted) continue
      await using world = await openWorld({ brokers, gateways: 2 })
      for (const scenario of mine) {
        if (options.stop.aborted) break
        const outcome = await orStopped(play(world, scenario, options), options.stop)
        violations += outcome.violations
        found[scenario.name] = outcome.figures
      }
    }
    return { runs: Object.keys(found).length, violations, figures: { scenarios: found } }
  },
}

const PARTITIONS = 8
const INSTANCES = ['a', 'b', 'c', 'd']
/**
 * A poll is to be answered 250 ms after its wait. On two cores that also run the cluster, the gateways and their clients, so
 * much again is allowed; and the time is taken off in which this process or a gateway stood still.
 */
const MOST_OVER_MS = 500
const SETTLE_LIMIT_MS = 60_000
const SHOWN = 10

function isWanted({ name }: Scenario): boolean {
  const only = process.env['PROVE_SCENARIOS'] ?? ''
  return only === '' || only.split(',').includes(name)
}

interface Outcome {
  readonly violations: number
  readonly figures: Readonly<Record<string, unknown>>
}

async function play(
  world: World,
  { name, brokers, strike }: Scenario,
  { seed, quick, say }: ProofOptions,
): Promise<Outcome> {
  const startedAt = performance.now()
  const random = seeded(seed)
  const topic = name.replaceAll('-', '.')
  const groupId = `group-of-${name}`
  using pace = new Pace(world.urls)
  const probeTopic = `${topic}.probe`
  await world.direct.createTopic({ topic, partitions: PARTITIONS })
  await world.direct.createTopic({ topic: probeTopic, partitions: 1 })
  const load = new Load({
    world,
    pace,
    groupId,
    topics: [topic],
    probeTopic,
    instances: INSTANCES,
    keys: 16,
    pauseMs: 100,
    random,
  })
  const settled = async (): Promise<number> => {
    const deadline = performance.now() + SETTLE_LIMIT_MS
    while (performance.now() < deadline) {
      const generation = await load.sharedGeneration()
      if (generation !== undefined) return generation
      await sleep(20)
    }
    throw new Error(`The instances did not come to share the partitions of ${topic}.`)
  }
  const more: string[] = []
  const notes: Record<string, number> = {}
  load.consume()
  await settled()
  load.produce()
  await sleep(quick ? 500 : 2_000)
  const strikes = await strike({
    world,
    load,
    groupId,
    topic,
    quick,
    random,
    settled,
    note: (name, value) => void (notes[name] = value),
    expect: (holds, what) => void (holds || more.push(what)),
  })
  await load.stopProducing()
  await load.drain()
  const expectations = { mostOverMs: MOST_OVER_MS, mayLookBack: brokers > 1 }
  const { violations, figures } = check(load.history, { log: await load.readLog() }, expectations)
  for (const { ended } of world.gateways) if (ended !== undefined) more.push(`a gateway ended by itself: ${ended}`)
  // What comes again, beside that it was not committed: no more than each instance can have had in hand when trouble struck.
  const mostAgain = strikes * INSTANCES.length * 2 * MAX_POLL_RECORDS
  if (figures.handledAgain > mostAgain)
    more.push(`${figures.handledAgain} records were handled again, over ${mostAgain}`)
  const seconds = Math.round((performance.now() - startedAt) / 1_000)
  const count = violations.length + more.length
  say(`  ${name}: ${count} violations in ${seconds} s; ${JSON.stringify({ strikes, ...notes, ...figures })}`)
  for (const line of [...more, ...violations.slice(0, SHOWN).map(textOf)]) say(`    ${line}`)
  if (count > 0) say(`    the history is in ${await keep(name, load.history)}`)
  if (violations.length > SHOWN) say(`    and ${violations.length - SHOWN} more: ${countsOf(violations)}`)
  return {
    violations: count,
    figures: { strikes, ...notes, ...figures, runs: load.ends, machineLateMs: Math.round(pace.longestMs), seconds },
  }
}

/** What it gives, unless Ctrl-C comes before: then the world ends under it. */
async function orStopped<T>(work: Promise<T>, stop: AbortSignal): Promise<T> {
  work.catch(() => {})
  const { promise, reject } = Promise.withResolvers<never>()
  stop.addEventListener('abort', () => reject(new Error('Stopped.')), { once: true })
  return await Promise.race([work, promise])
}

/** Keeps what happened, an event a line, for whoever looks for the reason. */
async function keep(name: string, history: readonly HistoryEvent[]): Promise<string> {
  const folder = join(import.meta.dirname, '..', '.cache', 'prove')
  await mkdir(folder, { recursive: true })
  const file = join(folder, `${name}.jsonl`)
  await writeFile(file, history.map((event) => `${JSON.stringify(event)}\n`).join(''))
  return file
}

function textOf({ kind, detail }: Violation): string {
  return `${kind}: ${detail}`
}

function countsOf(violations: readonly Violation[]): string {
  const kinds = Map.groupBy(violations, ({ kind }) => kind)
  return Array.from(kinds, ([kind, { length }]) => `${length} ${kind}`).join(', ')
}
