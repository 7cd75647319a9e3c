/**
 * Attempts fail as a plan made by chance says, over retries and runs. Handlers of one key begin in the order of their offsets, a
 * record only when what it waits for is settled; and where nothing waits, no commit passes a gap.
 */
import type { HandlerContext, Ordering } from '../../src/router.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import type { Fate } from '../run-sim/records.ts'
import type { Scenario } from './scenario.ts'
import { World } from './world.ts'

const PLANS = 10_000
const orderings: readonly Ordering[] = ['key', 'partition', 'key', 'none']
const failures: readonly Fate[] = ['throws', 'throws', 'hangs', 'overflows', 'rejects']

/** Order across retries. */
export const failurePlans: Scenario = {
  promise:
    'Handlers of one key begin in the order of offsets, across retries and runs; without an order no commit passes a gap.',
  plays: { full: PLANS, quick: 150 },
  needs: {
    plans: PLANS,
    retried: PLANS,
    'handlers begun': PLANS,
    'batches of several': PLANS,
    'batches that failed': PLANS / 10,
    'batches with names': PLANS / 10,
  },
  async play(seed, index, bugs) {
    /** What each attempt of a record comes to; good after that. */
    const plan = new Map<number, readonly Fate[]>()
    const world = new World({
      seed,
      ordering: orderings[index % orderings.length] ?? 'key',
      // One in three gets records together.
      batchRecords: index % 3 === 0 ? 2 + (index % 5) : undefined,
      workMs: () => world.below(2) * 30,
      fateOf: ({ offset }: ConsumerRecord<unknown>, { attempt }: HandlerContext) =>
        plan.get(offset)?.[attempt - 1] ?? 'good',
      onHandler: () => world.count('handlers begun'),
      app: { attemptTimeoutMs: 100, retry: { maxAttempts: 3, initialMs: 20, maxMs: 150 } },
      consumer: { concurrency: 1 + (index % 5), maxPollRecords: 5, maxPollWaitMs: 50, claimTtlMs: 1_000 },
      bugs,
    })
    await world.open()
    const records = 8 + world.below(6)
    for (let offset = 0; offset < records; offset++) {
      if (world.random() < 0.4) continue
      const bad = Array.from({ length: 1 + world.below(3) }, () => failures[world.below(failures.length)] ?? 'throws')
      plan.set(offset, bad)
    }
    await world.produce(Array.from({ length: records }, () => 'good'))
    world.count('plans')
    // Short runs, so that what was put off in one comes again in another.
    for (let tick = 0; tick < 2; tick++) {
      await world.finish(world.start({ runMs: 200 + world.below(600) }))
      await world.time.advance(50)
    }
    await world.drain({ runMs: 10_000 })
    return await world.judge()
  },
}
