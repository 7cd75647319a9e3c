/**
 * Two processes run for one instance at the same time, as ticks that overlap; of two instances of a group at once. They are killed
 * at any moment, or stand still for longer than their claim lives. One of them works and the other is refused at once; nothing is
 * lost, a kill brings back one batch at most, and nothing is accepted of a run that another has taken over from.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cameAgain, judgeAgain } from './came-again.ts'
import { judgeClaims } from './claim-judge.ts'
import { CLAIM_TTL_MS, POLL_WAIT_MS } from './instance.ts'
import type { Played, Scenario, Stage } from './scenario.ts'
import { type InstanceProcess, type ProcessOptions, World } from './world.ts'

const PARTITIONS = 4
const INSTANCES = ['a', 'b']
const RECORDS_PER_SECOND = 100
const process: Omit<ProcessOptions, 'instance'> = { runMs: 4_000, workMs: 2, sessionTimeoutMs: 60_000, leaves: false }

/** Instances with two processes. */
export const overlaps: Scenario = {
  promise: 'Of two runs of one instance one works; what a fenced one commits is refused.',
  strikes: { full: 200, quick: 2 },
  needs: ['kills', 'stops', 'refusals', 'handovers', 'lapses', 'fencedCommits', 'acknowledged'],
  play,
}

async function play({ gateway, folder, strikes, random, stop }: Stage): Promise<Played> {
  const options = {
    gateway,
    journal: join(folder, 'overlaps'),
    topic: 'overlaps',
    partitions: PARTITIONS,
    recordsPerSecond: RECORDS_PER_SECOND,
    random,
  }
  await using world = await World.open(options)
  for (const instance of [...INSTANCES, ...INSTANCES]) world.start({ ...process, instance })
  await world.settled()
  for (let strike = 0; strike < strikes && !stop.aborted; strike += INSTANCES.length) {
    await Promise.all(INSTANCES.map((instance, index) => strikeAt(world, instance, strike + 2 * index, random)))
  }
  await sleep(CLAIM_TTL_MS)
  const { violations, figures } = await world.finish()
  const { violations: ofClaims, ...claims } = judgeClaims(world.entries, CLAIM_TTL_MS, POLL_WAIT_MS)
  const { violations: ofAgain, ...again } = judgeAgain(cameAgain(world.entries))
  return {
    violations: [
      ...world.complaints,
      ...violations.map(({ kind, detail }) => `${kind}: ${detail}`),
      ...ofClaims,
      ...ofAgain,
    ],
    figures: {
      ...world.counts,
      ...claims,
      acknowledged: figures.acknowledged,
      ...again,
    },
  }
}

/** The process that works, or now and then the other one, is killed and comes back, or stands still for a while. */
async function strikeAt(world: World, instance: string, strike: number, random: () => number): Promise<void> {
  const working = await workingOne(world, instance)
  await sleep(600 * random())
  if (strike % 4 < 2) {
    const other = world.processes.find((one) => one.instance === instance && one !== working)
    await (random() < 0.2 ? other : working)?.end('SIGKILL')
    world.start({ ...process, instance })
    world.count('kills')
  } else {
    working.signal('SIGSTOP')
    // Its poll is served for a while yet, and then its claim lapses.
    await world.until(`another process takes ${instance} over`, () => {
      const newest = world.entries.findLast(({ event }) => event.type === 'polled' && event.instance === instance)
      return newest?.by !== working.name
    })
    await sleep(300 * random())
    working.signal('SIGCONT')
    world.count('stops')
  }
}

/** The process that committed newest for the instance, as soon as it is one that is there, in a run that goes on. */
async function workingOne(world: World, instance: string): Promise<InstanceProcess> {
  for (;;) {
    let found: InstanceProcess | undefined
    await world.until(`a process of ${instance} works`, () => {
      const newest = world.entries.findLast(
        ({ event }) => (event.type === 'committed' || event.type === 'releasing') && event.instance === instance,
      )
      found = newest?.event.type === 'committed' ? world.processes.find(({ name }) => name === newest.by) : undefined
      return found !== undefined
    })
    if (found !== undefined) return found
  }
}
