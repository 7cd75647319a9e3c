/**
 * Instances join a group that works, one after the other up to five, and go again down to one, every other one by being killed;
 * now and then the gateway is restarted in between. Nothing is lost, no partition has two holders in a generation, and what
 * comes again where a partition moves is one batch at most.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cameAgain, judgeAgain } from './came-again.ts'
import type { Played, Scenario, Stage } from './scenario.ts'
import { type ProcessOptions, World } from './world.ts'

const PARTITIONS = 8
const MOST_INSTANCES = 5
const RECORDS_PER_SECOND = 500
const GATEWAY_DIES_EVERY = 12
const process: Omit<ProcessOptions, 'instance'> = { runMs: 2_000, workMs: 2, sessionTimeoutMs: 1_000, leaves: true }

/** A group whose members change. */
export const joinsAndLeaves: Scenario = {
  promise: 'Through joins and leaves nothing is lost, and little comes again.',
  strikes: { full: 100, quick: 4 },
  needs: ['joins', 'leaves', 'kills', 'generation', 'moves', 'acknowledged'],
  play,
}

async function play({ gateway, folder, strikes, random, stop }: Stage): Promise<Played> {
  const options = {
    gateway,
    journal: join(folder, 'joins'),
    topic: 'joins',
    partitions: PARTITIONS,
    recordsPerSecond: RECORDS_PER_SECOND,
    random,
  }
  await using world = await World.open(options)
  const startedAt = performance.now()
  // A short form has not the time for all of them.
  const most = Math.min(MOST_INSTANCES, 1 + strikes / 2)
  let isGrowing = true
  let named = 0
  const add = (): void => void world.start({ ...process, instance: `i${named++ % (2 * MOST_INSTANCES)}` })
  add()
  await world.settled()
  for (let strike = 1; strike <= strikes && !stop.aborted; strike++) {
    const { length } = world.processes
    if (length === 1) isGrowing = true
    if (length >= most) isGrowing = false
    if (isGrowing) {
      add()
      world.count('joins')
    } else await takeAway(world, strike, random)
    if (strike % GATEWAY_DIES_EVERY === 0) {
      await gateway.kill(random() < 0.5 ? 'SIGKILL' : 'SIGTERM')
      await gateway.start()
      world.count('gateway restarts')
    }
    // One in four changes comes while the group is still at the one before.
    if (random() < 0.75) await world.settled()
    await sleep(300 * random())
  }
  await world.settled()
  const seconds = (performance.now() - startedAt) / 1_000
  const { violations, figures } = await world.finish()
  const { violations: ofAgain, ...again } = judgeAgain(cameAgain(world.entries))
  return {
    violations: [
      ...world.complaints,
      ...violations.map(({ kind, detail }) => `${kind}: ${detail}`),
      ...ofAgain,
      ...(gateway.ended === undefined ? [] : [`the gateway ended by itself: ${gateway.ended}`]),
    ],
    figures: {
      ...world.counts,
      generation: figures.generation,
      acknowledged: figures.acknowledged,
      acknowledgedPerSecond: Math.round(figures.acknowledged / seconds),
      ...again,
    },
  }
}

async function takeAway(world: World, strike: number, random: () => number): Promise<void> {
  const { processes } = world
  const one = processes[Math.floor(random() * processes.length)]
  if (strike % 2 === 0) {
    await one?.end('SIGKILL')
    world.count('kills')
  } else {
    await one?.end('SIGTERM')
    world.count('leaves')
  }
}
