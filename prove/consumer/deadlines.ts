/**
 * A platform ends runs at their deadline, or before it when their processor time is spent. Nothing is lost, nothing unfinished is
 * committed, at most one batch (and what is in handlers) comes again, and no handler begins in the margin before the deadline.
 */
import type { Scenario } from './scenario.ts'
import { Mortal, nameOf, type Running, World } from './world.ts'

const KILLED = 500
const CONCURRENCY = 2
const KILLS_PER_WORLD = 3
const RUN_MS = 3_000
const CLAIM_TTL_MS = 1_000

/** Runs that are ended by their platform. */
export const deadlines: Scenario = {
  promise: 'A run that its platform ends loses nothing, and takes no work in the margin before its deadline.',
  plays: { full: 300, quick: 12 },
  needs: { 'killed at work': KILLED, 'ended by itself': 50, 'handlers begun': KILLED },
  async play(seed, index, bugs) {
    const marginMs = [300, 600, 1_000][index % 3] ?? 300
    const batch = [4, 10, 25][Math.floor(index / 3) % 3] ?? 4
    const takeUntil = new Map<Mortal, number>()
    const world = new World({
      seed,
      partitions: 2,
      ordering: (['partition', 'key', 'none'] as const)[index % 3] ?? 'partition',
      workMs: () => [0, 10, 50, 300, 900][world.below(5)] ?? 0,
      // Slow enough that calls are on their way when the run ends.
      weather: { lostRequests: 0, lostAnswers: 0, lateRequests: 0, refusals: 0, mostDelayMs: 80 },
      app: { attemptTimeoutMs: 600 },
      consumer: { concurrency: CONCURRENCY, maxPollRecords: batch, maxPollWaitMs: 100, claimTtlMs: CLAIM_TTL_MS },
      onHandler: (process) => {
        world.count('handlers begun')
        if (process.monotonic() > (takeUntil.get(process) ?? Number.POSITIVE_INFINITY)) {
          world.witness.complain(`a handler began within ${marginMs} ms of the deadline`)
        }
      },
      bugs,
    })
    await world.open()
    const killed: Running[] = []
    for (let tick = 0; tick < KILLS_PER_WORLD; tick++) {
      await world.produce(Array.from({ length: 60 }, () => 'good'))
      const process = new Mortal(world.clock)
      takeUntil.set(process, process.monotonic() + RUN_MS - marginMs)
      const running = world.start({ process, runMs: RUN_MS, run: { budget: { marginMs } } })
      // One in four is let come to its deadline; the others die on the way, most of them late.
      const isEarly = world.below(4) > 0
      await world.time.advance(isEarly ? RUN_MS - world.below(marginMs * 2) : RUN_MS + 2)
      if (running.isOver) world.count('ended by itself')
      else {
        world.count('killed at work')
        process.kill()
      }
      killed.push(running)
      await world.time.advance(CLAIM_TTL_MS)
    }
    await world.drain({ runMs: 20_000, run: { budget: {} } })
    judgeAgain(world, killed, batch)
    return await world.judge()
  },
}

/** What a run handled, and a later one again, because the run was killed before it was committed, is a batch at most. */
function judgeAgain(world: World, runs: readonly Running[], batch: number): void {
  const names = new Map(world.started.map(({ process }) => [process, new Set(process.done.map(nameOf))]))
  for (const { process, runId } of runs) {
    const later = [...names].slice([...names.keys()].indexOf(process) + 1).map(([, handled]) => handled)
    const again = process.done.filter((record) => later.some((handled) => handled.has(nameOf(record))))
    world.count('came again', again.length)
    // And what was in its handlers when the commit left that did not come to an end.
    if (again.length > batch + CONCURRENCY)
      world.witness.complain(`${again.length} records of ${runId} came again, and a batch is ${batch}`)
  }
}
