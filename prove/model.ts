/**
 * `npm run prove -- model`: sequences of up to a hundred commands to the embedded log, in memory and on disk, agree with a plain
 * model of it; and calls whose requests and answers overtake each other leave histories that may be. A divergence is made as short
 * as it can be, and printed with the seed that replays it.
 */
import * as fc from 'fast-check'
import { rmSync } from 'node:fs'
import { logBroker } from '../src/brokers/log.ts'
import { memoryBroker } from '../src/brokers/memory.ts'
import type { Broker } from '../src/broker.ts'
import { FakeClock } from '../test/support/clock.ts'
import { temporaryFolder } from './embedded-log/folder.ts'
import {
  type Command,
  Commit,
  Leave,
  Pass,
  Poll,
  Produce,
  Release,
  Reopen,
  SetClock,
  type System,
} from './model/commands.ts'
import { GroupModel, PARTITIONS, TOPIC } from './model/group-model.ts'
import { interleaved } from './model/interleaved.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'
import { WorldClock } from './run-sim/process.ts'

/** The log against a model. */
export const model: Proof = {
  summary: 'random sequences of commands agree with a plain model; overtaking calls leave a history that may be',
  prove,
}

const MOST_COMMANDS = 100
const sizes = {
  full: { memory: 6_000, log: 1_500, interleaved: 2_500 },
  quick: { memory: 150, log: 30, interleaved: 60 },
}

async function prove({ seed, quick, say, stop }: ProofOptions): Promise<ProofResult> {
  const counts: Record<string, number> = {}
  const size = quick ? sizes.quick : sizes.full
  let violations = 0
  let runs = 0
  const parts: readonly (readonly [string, number, fc.IAsyncProperty<unknown>])[] = [
    ['memory', size.memory, sequences(openInMemory, counts)],
    ['log', size.log, sequences(openOnDisk, counts)],
    ['interleaved', size.interleaved, interleaved(counts)],
  ]
  for (const [name, numRuns, property] of parts) {
    if (stop.aborted) break
    const details = await fc.check(property, { seed, numRuns })
    runs += details.numRuns
    if (!details.failed) continue
    violations += 1
    const { errorInstance: error } = details
    say(`  ${name}: ${error instanceof Error ? error.message : String(error)}`)
    say(`  ${fc.defaultReportMessage(details)}`)
  }
  const expected = ['answers lost', 'commits taken', 'commits refused ILLEGAL_GENERATION', 'commits refused CLAIM_LOST']
  const missing = [...expected, 'polls refused', 'records read', 'Reopen'].filter((name) => (counts[name] ?? 0) === 0)
  for (const name of missing) say(`  nothing was shown: there were no ${name}`)
  return { runs, violations: violations + missing.length, figures: { counts } }
}

const instance = fc.constantFrom('a', 'b', 'c')
const runId = fc.constantFrom('r0', 'r1', 'r2')
const partition = fc.nat({ max: PARTITIONS - 1 })
/** Short times, and each limit from both sides. */
const passing = fc.constantFrom(1, 100, 1_000, 2_499, 2_500, 3_999, 4_000, 9_000)

const commandArbitraries: fc.Arbitrary<Command>[] = [
  fc.tuple(partition, fc.integer({ min: 1, max: 5 })).map((args) => new Produce(...args)),
  fc
    .tuple(instance, runId, fc.integer({ min: 1, max: 12 }), fc.boolean(), fc.boolean())
    .map(([who, run, most, isLost, isBare]) => new Poll(who, run, most, isLost, !isBare)),
  fc
    .tuple(instance, runId, fc.integer({ min: 1, max: 12 }))
    .map(([who, run, most]) => new Poll(who, run, most, false, true)),
  fc.tuple(instance, runId, fc.constantFrom(0, 0, 1)).map((args) => new Commit(...args)),
  fc.tuple(instance, runId, fc.constantFrom(0, 0, 1)).map((args) => new Commit(...args)),
  instance.map((who) => new Commit(who, undefined, 0)),
  fc.tuple(instance, runId).map((args) => new Release(...args)),
  instance.map((who) => new Leave(who)),
  passing.map((ms) => new Pass(ms)),
  fc.constantFrom(-86_400_000, -3_600_000, 3_600_000, 86_400_000).map((ms) => new SetClock(ms)),
  fc.constant(new Reopen()),
]

type Open = (time: FakeClock, clock: WorldClock) => Promise<Opened>

interface Opened {
  readonly broker: Broker
  readonly reopen: (() => Promise<Broker>) | undefined
  readonly remove: () => void
}

function sequences(open: Open, counts: Record<string, number>): fc.IAsyncProperty<unknown> {
  const commands = fc.commands(commandArbitraries, { maxCommands: MOST_COMMANDS, size: '+1' })
  return fc.asyncProperty(commands, async (steps) => {
    const time = new FakeClock()
    const clock = new WorldClock(time)
    const opened = await open(time, clock)
    const system: System = { broker: opened.broker, time, clock, reopen: opened.reopen, counts }
    try {
      await system.broker.createTopic({ topic: TOPIC, partitions: PARTITIONS, retentionMs: null })
      await fc.asyncModelRun(() => ({ model: new GroupModel(), real: system }), steps)
    } finally {
      await system.broker.close()
      opened.remove()
    }
  })
}

function openInMemory(_time: FakeClock, clock: WorldClock): Promise<Opened> {
  return Promise.resolve({ broker: memoryBroker({ clock }), reopen: undefined, remove: () => {} })
}

async function openOnDisk(_time: FakeClock, clock: WorldClock): Promise<Opened> {
  // Memory, where there is some: what syncs are worth is what other proofs show.
  const { path } = temporaryFolder('model', '/dev/shm')
  const open = (): Broker => logBroker({ dir: path, clock, defer: queueMicrotask })
  let broker = open()
  return {
    broker,
    reopen: async () => {
      await broker.close()
      broker = open()
      return broker
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  }
}
