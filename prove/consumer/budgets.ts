/**
 * A platform that allows fifty requests an invocation, each hop of a redirect among them. A backlog of a thousand records is
 * worked off tick by tick over the rest driver and a gateway; no request is one too many, and what was handled is committed.
 */
import { restBroker } from '../../src/brokers/rest.ts'
import { topicDeadLetters } from '../../src/dead-letters/topic.ts'
import type { Fate } from '../run-sim/records.ts'
import { product } from './product.ts'
import type { Scenario } from './scenario.ts'
import { Mortal, type Running, World } from './world.ts'
import { GATEWAY_URL, Wire } from './wire.ts'

const PLAYS = 60
const RECORDS = 1_000
const MOST_REQUESTS = 50
const MOST_TICKS = 80
const REDIRECTED = 0.01
const poison: readonly Fate[] = ['throws', 'rejects', 'not JSON', 'no route']

/** Backlogs under a budget of requests. */
export const budgets: Scenario = {
  promise:
    'A backlog is worked off within the requests that each invocation may make, and what was handled is committed.',
  plays: { full: PLAYS, quick: 2 },
  needs: {
    'backlogs of a thousand': PLAYS,
    'runs that spent their calls': PLAYS,
    'requests redirected': PLAYS,
    'letter topics made': PLAYS,
    letters: PLAYS * 5,
  },
  async play(seed, index, bugs) {
    const wires = new Map<Mortal, Wire>()
    const world: World = new World({
      seed,
      partitions: 4,
      ordering: (['partition', 'key', 'none'] as const)[index % 3] ?? 'partition',
      batchRecords: index % 4 === 3 ? 20 : undefined,
      workMs: () => world.below(4) * 5,
      app: { retry: { maxAttempts: 2, initialMs: 20, maxMs: 200 } },
      consumer: {
        maxPollRecords: [5, 20, 50][Math.floor(index / 3) % 3] ?? 20,
        maxPollWaitMs: 200,
        commitIntervalMs: 200,
        claimTtlMs: 5_000,
      },
      openLetters: (broker) => topicDeadLetters({ broker }),
      load: (reached, process) => {
        const wire = new Wire(reached, { most: MOST_REQUESTS, redirects: () => world.random() < REDIRECTED })
        wires.set(process, wire)
        const fetch = bugs?.fetch?.(wire.fetch) ?? wire.fetch
        const broker = restBroker({ url: GATEWAY_URL, fetch, clock: process })
        return { product, broker, letters: topicDeadLetters({ broker }) }
      },
      bugs,
    })
    await world.open()
    await world.produce(
      Array.from({ length: RECORDS }, () =>
        world.below(100) < 2 ? (poison[world.below(poison.length)] ?? 'throws') : 'good',
      ),
    )
    world.count('backlogs of a thousand')
    for (let tick = 0; tick < MOST_TICKS && !(await world.isDone()); tick++) {
      const process = new Mortal(world.clock)
      const budget = { maxCalls: MOST_REQUESTS }
      const running = world.start({ process, runMs: 20_000, run: { stopWhenEmpty: true, budget } })
      await world.finish(running)
      judgeTick(world, running, wires.get(process))
      await world.time.advance(1_000)
    }
    if (!(await world.isDone())) world.witness.complain(`in ${MOST_TICKS} ticks the work was not done`)
    const topics = await world.broker.topics()
    if (topics.length > 1) world.count('letter topics made')
    return await world.judge()
  },
}

function judgeTick(world: World, { runId, report }: Running, wire: Wire | undefined): void {
  if (wire === undefined || report === undefined) throw new Error('A run of a living process ends with a report.')
  const { calls, ended, uncommitted } = report
  const say = (what: string): void => world.witness.complain(`${runId} ended ${ended}: ${what}`)
  world.count('requests', wire.requests)
  world.count('requests redirected', wire.redirected)
  if (ended === 'calls') world.count('runs that spent their calls')
  if (wire.refused > 0) say(`${wire.refused} requests were more than ${MOST_REQUESTS}`)
  if (wire.requests !== calls) say(`it made ${wire.requests} requests and says ${calls}`)
  // One that is sent elsewhere fails for good: what it was to commit comes again.
  if (wire.redirected === 0 && uncommitted.length > 0) say(`it left ${JSON.stringify(uncommitted)} uncommitted`)
}
