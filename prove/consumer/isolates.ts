/**
 * Each invocation has a fresh isolate: all modules of the product are loaded anew, and so is everything that they remember. It is
 * compared with the same seed in one process that goes on: the same handlers are called at the same times with the same attempts,
 * the same letters are stored, the same offsets committed. What attempts and waits a record had is counted from outside, too.
 *
 * Broker and store are behind the rest driver and a gateway, which live outside of either.
 */
import type { ConsumerRecord } from '../../src/record.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import type { HandlerContext } from '../../src/router.ts'
import type { Fate } from '../run-sim/records.ts'
import { atOf } from '../history/noted-broker.ts'
import { bundledProduct, type Product, product } from './product.ts'
import type { Bugs, Played, Scenario } from './scenario.ts'
import { GROUP, type Mortal, nameOf, World } from './world.ts'
import { GATEWAY_URL, Wire } from './wire.ts'

const INVOCATIONS = 1_000
const PER_PLAY = 10
const TICK_MS = 20_000
const RUN_MS = 3_000
const MAX_ATTEMPTS = 5
const LETTERS = 'letters'

/** Fresh isolates. */
export const isolates: Scenario = {
  promise: 'A fresh isolate for each invocation changes nothing: attempts, waits and positions are kept outside of it.',
  plays: { full: INVOCATIONS / PER_PLAY, quick: 1 },
  needs: {
    'invocations in a fresh isolate': INVOCATIONS,
    'attempts counted on by a later invocation': INVOCATIONS / 2,
    'waits kept by a later invocation': INVOCATIONS / 4,
    letters: INVOCATIONS / 10,
  },
  async play(seed, index, bugs) {
    const load = await (fresh ??= bundledProduct())
    await warmUp(load())
    const kept = await playOnce(seed, index, keptIn(product, bugs))
    const anew = await playOnce(seed, index, (reached, process) => loadedFrom(load(), reached, process, bugs))
    const counts = { ...anew.counts, 'invocations in a fresh isolate': PER_PLAY }
    return { counts, violations: [...kept.violations, ...anew.violations, ...differences(kept.trace, anew.trace)] }
  },
}

/** What a platform loads when it is used first takes real time, during which that of a world would pass. */
async function warmUp(loaded: Product): Promise<void> {
  for (const one of [product, loaded]) {
    await using broker = memoryBroker()
    await using through = one.restBroker({ url: GATEWAY_URL, fetch: new Wire(broker).fetch })
    await through.createTopic({ topic: 'warm' })
    await through.topics()
  }
}

/** The bundle, which all plays share: what is loaded from it is not. */
let fresh: ReturnType<typeof bundledProduct> | undefined

interface Isolate {
  readonly product: Product
  readonly broker: Broker
  readonly letters: DeadLetterStore
}

/** A process that goes on has loaded the product once, and opened its broker once. */
function keptIn(loaded: Product, bugs: Bugs | undefined): (reached: Broker, process: Mortal) => Isolate {
  let isolate: Isolate | undefined
  let current: Broker | undefined
  return (reached, process) => {
    current = reached
    // What reaches the broker belongs to one run.
    isolate ??= loadedFrom(
      loaded,
      new Proxy(reached, { get: (_, name) => Reflect.get(current ?? reached, name, current) as unknown }),
      process,
      bugs,
    )
    return isolate
  }
}

function loadedFrom(loaded: Product, reached: Broker, clock: Mortal, bugs: Bugs | undefined): Isolate {
  const { fetch } = new Wire(reached)
  const rest = loaded.restBroker({ url: GATEWAY_URL, fetch, clock })
  const broker = bugs?.isolate?.(rest) ?? rest
  return { product: loaded, broker, letters: loaded.topicDeadLetters({ broker, topic: LETTERS }) }
}

async function playOnce(
  seed: number,
  index: number,
  load: (reached: Broker, process: Mortal) => Isolate,
): Promise<Played & { readonly trace: readonly string[] }> {
  const trace: string[] = []
  const attempts = new Attempts()
  const world: World = new World({
    seed,
    partitions: 2,
    ordering: (['key', 'none', 'partition'] as const)[index % 3] ?? 'key',
    app: {
      attemptTimeoutMs: 1_000,
      retry: { maxAttempts: MAX_ATTEMPTS, initialMs: 1_000, maxMs: 60_000 },
    },
    // Handlers that begin at one moment begin in any order, and would swap what they draw for their waits.
    consumer: { concurrency: 2, maxPollRecords: 5, maxPollWaitMs: 500, claimTtlMs: 5_000, random: () => 0.5 },
    openLetters: (broker) => topicDeadLetters({ broker, topic: LETTERS }),
    load,
    fateOf: (record, { attempt }) => fateAt(world.fateOf(record), record, attempt),
    onHandler: (_, record, context) => {
      trace.push(`${world.time.monotonic()} ${nameOf(record)} attempt ${context.attempt}`)
      attempts.begin(world, record, context)
    },
    thrown: (record, _, { RetryAfterError }) => {
      const waitMs = record.offset % 2 === 0 ? ((record.offset * 7_919) % 90) * 1_000 : 0
      attempts.failed(world, record, waitMs)
      return waitMs === 0 ? undefined : new RetryAfterError(waitMs)
    },
  })
  await world.open()
  for (let invocation = 0; invocation < PER_PLAY; invocation++) {
    attempts.invocation = invocation
    await world.produce(fatesOf(world))
    await world.finish(world.start({ runMs: RUN_MS }))
    const committed = (await world.broker.committed(GROUP)).map(atOf)
    trace.push(`${world.time.monotonic()} committed ${JSON.stringify(committed)}`)
    await world.time.advance(TICK_MS)
  }
  await world.drain({ runMs: 10_000 }, 120_000)
  for (const { record, attempts: times, reason, failedAtMs } of await world.allLetters()) {
    trace.push(`letter ${nameOf(record)} ${reason} after ${times} at ${failedAtMs}`)
    attempts.judgeLetter(world, record, times, reason)
  }
  return { ...(await world.judge()), trace }
}

/** A record that throws is handled at some attempt, or never. */
function fateAt(fate: Fate, { offset }: ConsumerRecord<unknown>, attempt: number): Fate {
  return fate === 'throws' && attempt > offset % (MAX_ATTEMPTS + 2) ? 'good' : fate
}

function fatesOf(world: World): Fate[] {
  return Array.from({ length: 3 }, () => (['good', 'throws', 'throws', 'rejects'] as const)[world.below(4)] ?? 'good')
}

/** What attempts a record had, and until when it was to wait, as whoever watches its handler sees it. */
class Attempts {
  invocation = 0
  readonly #seen = new Map<string, { times: number; invocation: number; dueAtMs: number }>()

  begin(world: World, record: ConsumerRecord<unknown>, { attempt }: HandlerContext): void {
    const before = this.#seen.get(nameOf(record)) ?? { times: 0, invocation: this.invocation, dueAtMs: 0 }
    const { times, invocation, dueAtMs } = before
    if (attempt !== times + 1)
      world.witness.complain(`${nameOf(record)} had ${times} attempts, and then its ${attempt}.`)
    if (world.time.now() < dueAtMs) world.witness.complain(`${nameOf(record)} was tried before its wait was over`)
    if (times > 0 && invocation !== this.invocation) {
      world.count('attempts counted on by a later invocation')
      if (dueAtMs > 0) world.count('waits kept by a later invocation')
    }
    this.#seen.set(nameOf(record), { times: attempt, invocation: this.invocation, dueAtMs: 0 })
  }

  failed(world: World, record: ConsumerRecord<unknown>, waitMs: number): void {
    const seen = this.#seen.get(nameOf(record))
    if (seen !== undefined && waitMs > 0) seen.dueAtMs = world.time.now() + waitMs
  }

  judgeLetter(world: World, record: ConsumerRecord, times: number, reason: string): void {
    const seen = this.#seen.get(nameOf(record))?.times ?? 0
    const isRight = times === seen && (reason !== 'exhausted' || times === MAX_ATTEMPTS)
    if (!isRight) world.witness.complain(`the letter of ${nameOf(record)} says ${times} attempts, and it had ${seen}`)
  }
}

/** What is at one moment has no order. */
function differences(keptTrace: readonly string[], anewTrace: readonly string[]): string[] {
  const [kept, anew] = [keptTrace.toSorted(), anewTrace.toSorted()]
  const at = kept.findIndex((line, index) => line !== anew[index])
  if (at === -1 && kept.length === anew.length) return []
  const where = at === -1 ? kept.length : at
  return [`in a process that goes on: ${kept[where] ?? 'nothing'}; in fresh ones: ${anew[where] ?? 'nothing'}`]
}
