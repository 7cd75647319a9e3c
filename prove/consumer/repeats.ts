/**
 * One schedule is delivered twice: at once, while the first run stands still, and later, when the first has died with its commit.
 * Handlers are called effectively once: each record has its effect once, and none is lost.
 *
 * No process dies between an effect and its note: that is what no store can be safe from (decision 0011).
 */
import type { IdempotencyStore } from '../../src/idempotency.ts'
import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import type { LogEvent } from '../../src/logger.ts'
import type { Ordering } from '../../src/router.ts'
import type { Fate } from '../run-sim/records.ts'
import type { Scenario } from './scenario.ts'
import { Mortal, nameOf, type Running, World } from './world.ts'

const REPEATS = 300
const RECORDS = 40
const CLAIM_TTL_MS = 1_000
const RUN_MS = 6_000
const kinds = ['at once', 'while the first stands still', 'later'] as const
const orderings: readonly Ordering[] = ['partition', 'key', 'none']

/** Schedules that are delivered twice. */
export const repeats: Scenario = {
  promise: 'A schedule that is delivered twice has each effect once, and loses no record.',
  plays: { full: kinds.length * REPEATS, quick: kinds.length * 3 },
  needs: {
    ...Object.fromEntries(kinds.map((kind) => [`delivered twice: ${kind}`, REPEATS])),
    'found to be done': REPEATS,
    'found to be in progress': REPEATS / 3,
    effects: kinds.length * REPEATS * (RECORDS - 5),
  },
  async play(seed, index, bugs) {
    const kind = kinds[index % kinds.length] ?? 'later'
    const world = new World({
      seed,
      partitions: 2,
      ordering: orderings[Math.floor(index / kinds.length) % orderings.length] ?? 'partition',
      workMs: () => world.below(3) * 30,
      route: { delivery: 'effectively-once' },
      app: { attemptTimeoutMs: 3_000, retry: { maxAttempts: 2, initialMs: 20, maxMs: 200 } },
      openIdempotency: (clock): IdempotencyStore => memoryIdempotency({ clock }),
      consumer: {
        concurrency: 2,
        maxPollRecords: 4,
        maxPollWaitMs: 100,
        claimTtlMs: CLAIM_TTL_MS,
        commitIntervalMs: 300,
        log: ({ event }: LogEvent) => {
          if (event === 'duplicate') world.count('found to be done')
          if (event === 'in progress') world.count('found to be in progress')
        },
      },
      bugs,
    })
    await world.open()
    await world.produce(fatesOf(world))
    for (const running of await deliverTwice(world, kind)) await world.finish(running)
    world.count(`delivered twice: ${kind}`)
    await world.time.advance(CLAIM_TTL_MS)
    await world.drain({ runMs: 20_000 })
    judgeEffects(world)
    return await world.judge()
  },
}

function fatesOf(world: World): Fate[] {
  const fates: Fate[] = Array.from({ length: RECORDS }, () => 'good')
  for (const fate of ['throws', 'rejects'] as const) fates[world.below(RECORDS)] = fate
  return fates
}

async function deliverTwice(world: World, kind: (typeof kinds)[number]): Promise<readonly Running[]> {
  if (kind === 'at once') return [world.start({ runMs: RUN_MS }), world.start({ runMs: RUN_MS })]
  if (kind === 'later') {
    const process = new Mortal(world.clock, { step: 'commit asked', nth: 1 + world.below(2) })
    const first = world.start({ process, runMs: RUN_MS })
    await world.finish(first)
    await world.time.advance(CLAIM_TTL_MS + world.below(20_000))
    return [first, world.start({ runMs: RUN_MS })]
  }
  const first = world.start({ runMs: RUN_MS })
  await world.time.advance(world.below(250))
  first.process.freeze(CLAIM_TTL_MS + 800)
  await world.time.advance(CLAIM_TTL_MS + 100)
  return [first, world.start({ runMs: RUN_MS })]
}

/** Each good record had its effect, in whatever run, and no record had it twice. */
function judgeEffects(world: World): void {
  const effects = new Map<string, number>()
  for (const record of world.started.flatMap(({ process }) => process.done)) {
    effects.set(nameOf(record), (effects.get(nameOf(record)) ?? 0) + 1)
  }
  for (const [name, times] of effects) if (times > 1) world.witness.complain(`${name} had its effect ${times} times`)
  world.count('effects', effects.size)
}
