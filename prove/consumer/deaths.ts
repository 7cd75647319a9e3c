/**
 * A run is killed at each of its steps: before and after each request, in its handlers, between two attempts. Nothing is lost,
 * and no offset is committed that passes an unhandled record.
 */
import type { Scenario } from './scenario.ts'
import { GROUP, Mortal, type Step, steps, World } from './world.ts'

const DEATHS_PER_WORLD = 4
const MOST_TICKS = 8
/** These come once in a run, or seldom. */
const once: ReadonlySet<Step> = new Set(['release asked', 'release served', 'claim asked', 'claim served'])
const DEATHS = 1_000

/** Deaths at each step. */
export const deaths: Scenario = {
  promise: 'A run that is killed at any step loses nothing and has committed nothing that is not handled.',
  plays: { full: 12_600, quick: 72 },
  needs: Object.fromEntries(steps.map((step) => [`killed: ${step}`, DEATHS])),
  async play(seed, index, bugs) {
    const step = steps[index % steps.length] ?? 'poll asked'
    const round = Math.floor(index / steps.length)
    // What a run knows of records settled out of order is asked for only where the order is not that of the partition; and only
    // long handlers without room for another poll make a run renew its claim by itself.
    const ordering = step.startsWith('progress') ? 'key' : ((['key', 'partition', 'none'] as const)[round % 3] ?? 'key')
    const isSlow = step.startsWith('claim') || (round % 2 === 0 && !step.startsWith('release'))
    const isTogether = step === 'record of a batch is done' || round % 4 === 1
    const claimTtlMs = 1_500
    const world = new World({
      seed,
      partitions: 2,
      ordering,
      batchRecords: isTogether ? 3 : undefined,
      workMs: () => (isSlow ? 700 : world.below(3) * 10),
      app: { attemptTimeoutMs: 800, retry: { maxAttempts: 2, initialMs: 20, maxMs: 50 } },
      consumer: {
        concurrency: isSlow ? 1 : 3,
        maxPollRecords: isSlow ? 2 : 4,
        claimTtlMs,
        commitIntervalMs: isSlow ? 5_000 : 100,
        maxPollWaitMs: 200,
      },
      bugs,
    })
    await world.open()
    await world.produce(['good', 'throws', 'good', 'good', 'rejects', 'good', 'tombstone', 'good', 'good', 'good'])
    for (let tick = 0, deaths = 0; tick < MOST_TICKS && deaths < DEATHS_PER_WORLD; tick++) {
      if (tick > 0) await world.produce(['good', 'throws', 'good', 'rejects', 'good'])
      const nth = once.has(step) ? 1 : 1 + world.below(2)
      const running = world.start({ process: new Mortal(world.clock, { step, nth }), runMs: 4_000 })
      await world.finish(running)
      if (!running.process.isDead) continue
      deaths += 1
      world.count(`killed: ${step}`)
      // The next tick may come before the claim of the dead has lapsed, and after.
      await world.time.advance(world.below(2) === 0 ? 10 : claimTtlMs)
    }
    await world.time.advance(claimTtlMs)
    await world.drain({ runMs: 20_000 })
    for (const { offset, ...at } of await world.broker.committed(GROUP)) {
      if (offset > 0) world.count('partitions settled')
      else world.witness.complain(`nothing is committed of ${at.topic}/${at.partition}`)
    }
    return await world.judge()
  },
}
