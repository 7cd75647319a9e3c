/**
 * Ticks of one instance overlap. One run has the claim; the other is refused at once and told when to come again. A run that
 * stands still for longer than its claim lives, while another takes over, commits nothing more.
 */
import type { Scenario } from './scenario.ts'
import { Mortal, type Running, World } from './world.ts'

const OVERLAPS = 1_000
const REFUSED_WITHIN_MS = 100
const CLAIM_TTL_MS = 1_000
const RUN_MS = 6_000

/** Overlapping runs. */
export const overlaps: Scenario = {
  promise: 'Of two runs of one instance one works; the other is refused, and what a fenced one commits is not taken.',
  plays: { full: 1_000, quick: 40 },
  needs: { overlaps: OVERLAPS, 'refused, and told when to come': OVERLAPS, 'fenced runs that tried to commit': 300 },
  async play(seed, index, bugs) {
    const world = new World({
      seed,
      partitions: 2,
      workMs: () => 40,
      consumer: {
        concurrency: 2,
        maxPollRecords: 3,
        maxPollWaitMs: 100,
        claimTtlMs: CLAIM_TTL_MS,
        commitIntervalMs: 200,
      },
      bugs,
    })
    await world.open()
    await world.produce(Array.from({ length: 200 }, () => 'good'))
    const first = world.start({ runMs: RUN_MS })
    // In the same moment, before the first has asked, and at any time of its run.
    if (index % 3 > 0) await world.time.advance(world.below(3_000))
    const second = world.start({ runMs: RUN_MS })
    await world.time.advance(REFUSED_WITHIN_MS)
    world.count('overlaps')
    const winner = judgeOverlap(world, [first, second])
    if (index % 2 === 0) await fence(world, winner)
    await world.finish(first)
    await world.finish(second)
    await world.time.advance(CLAIM_TTL_MS)
    await world.drain({ runMs: 20_000 })
    return await world.judge()
  },
}

/** Says which of them has the claim. */
function judgeOverlap(world: World, runs: readonly [Running, Running]): Running {
  const refused = runs.filter(({ report }) => report?.ended === 'claim-held')
  const [loser] = refused
  if (loser?.report === undefined || refused.length !== 1) {
    world.witness.complain(`of two runs ${refused.length} were refused within ${REFUSED_WITHIN_MS} ms`)
    return runs[0]
  }
  const { polled, retryAfterMs = 0, calls } = loser.report
  if (retryAfterMs > 0 && polled === 0 && calls === 1) world.count('refused, and told when to come')
  else world.witness.complain(`a run was refused, and yet not: ${JSON.stringify(loser.report)}`)
  return loser === runs[0] ? runs[1] : runs[0]
}

/** The run that has the claim stands still; another takes over and is at work when it goes on. */
async function fence(world: World, winner: Running): Promise<void> {
  if (winner.isOver) return
  const before = winner.process.passed.get('commit asked') ?? 0
  winner.process.freeze(CLAIM_TTL_MS + 800)
  await world.time.advance(CLAIM_TTL_MS + 100)
  const next = world.start({ process: new Mortal(world.clock), runMs: RUN_MS })
  await world.finish(winner)
  const tried = (winner.process.passed.get('commit asked') ?? 0) > before
  if (tried) world.count('fenced runs that tried to commit')
  const ended = winner.report?.ended
  // One that wakes when its time is over and has nothing to commit does not learn of it.
  if (tried && ended !== 'claim-lost') world.witness.complain(`a fenced run ended ${ended}`)
  await world.finish(next)
}
