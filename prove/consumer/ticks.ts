/**
 * Ticks of a minute's schedule do not come, come a quarter of an hour late, come out of order and twice. Each that finds the
 * instance free works as any other does, and a few on time drain what has piled up: nothing goes by the time that a tick was for.
 */
import type { Fate } from '../run-sim/records.ts'
import type { Scenario } from './scenario.ts'
import { type Running, World } from './world.ts'

const PLAYS = 200
const MINUTE_MS = 60_000
const MINUTES = 14
const SKIPPED = 5
const LATE_MINUTES = 15
const RUN_MS = 50_000
const RECORDS_PER_MINUTE = 6
/** On time, at the end: three attempts, half a minute between any two at most. */
const MOST_TICKS_TO_DRAIN = 3

/** A tick as it comes. */
interface Delivery {
  /** The minute that it is for, and the time at which it comes. */
  readonly minute: number
  readonly atMs: number
  readonly isLate: boolean
}

/** A schedule that is not kept. */
export const ticks: Scenario = {
  promise: 'Skipped, late and disordered ticks leave a backlog that is drained; none goes by the time it was for.',
  plays: { full: PLAYS, quick: 8 },
  needs: {
    'ticks skipped': PLAYS * SKIPPED,
    'ticks late by a quarter of an hour': PLAYS,
    'late ticks that worked': PLAYS / 2,
    'ticks before an earlier one': PLAYS,
    'ticks that came twice': PLAYS,
    'ticks that found a backlog': PLAYS * 5,
    'ticks to drain': PLAYS,
  },
  async play(seed, index, bugs) {
    const world = new World({
      seed,
      partitions: 2,
      ordering: (['partition', 'key', 'none'] as const)[index % 3] ?? 'partition',
      batchRecords: index % 4 === 3 ? 5 : undefined,
      workMs: () => world.below(3) * 500,
      app: { attemptTimeoutMs: 5_000, retry: { maxAttempts: 3, initialMs: 1_000, maxMs: 30_000 } },
      consumer: { concurrency: 2, maxPollRecords: 10, maxPollWaitMs: 5_000, claimTtlMs: 20_000 },
      bugs,
    })
    await world.open()
    const deliveries = scheduleOf(world)
    const startedAt = world.time.monotonic()
    const untilMs = Math.max(...deliveries.map(({ atMs }) => atMs))
    let produced = 0
    for (const { minute, atMs, isLate } of deliveries) {
      await world.time.advance(Math.max(0, startedAt + atMs - world.time.monotonic()))
      for (; produced * MINUTE_MS <= atMs; produced++) await world.produce(fatesOf(world))
      await tick(world, startedAt, minute, isLate)
    }
    await world.time.advance(startedAt + untilMs + 2 * MINUTE_MS - world.time.monotonic())
    for (let minute = 0; minute < SKIPPED; minute++) await world.produce(fatesOf(world))
    await drain(world)
    return await world.judge()
  },
}

/** When which tick comes, in that order. */
function scheduleOf(world: World): Delivery[] {
  const skippedFrom = 1 + world.below(4)
  const late = skippedFrom + SKIPPED + world.below(3)
  const swapped = late + 1 + world.below(2)
  const deliveries: Delivery[] = []
  for (let minute = 0; minute < MINUTES; minute++) {
    if (minute >= skippedFrom && minute < skippedFrom + SKIPPED) {
      world.count('ticks skipped')
      continue
    }
    const isLate = minute === late
    const jitterMs = world.below(20_000)
    const lateMinutes = isLate ? LATE_MINUTES : minute === swapped ? 1.5 : 0
    deliveries.push({ minute, isLate, atMs: (minute + lateMinutes) * MINUTE_MS + jitterMs })
    if (isLate) world.count('ticks late by a quarter of an hour')
  }
  const twice = deliveries[world.below(deliveries.length)]
  if (twice !== undefined) {
    world.count('ticks that came twice')
    deliveries.push({ ...twice, atMs: twice.atMs + world.below(2) * world.below(5 * MINUTE_MS) })
  }
  deliveries.sort((a, b) => a.atMs - b.atMs)
  for (const [index, { minute }] of deliveries.entries()) {
    if (deliveries.slice(0, index).some((before) => before.minute > minute)) world.count('ticks before an earlier one')
  }
  return deliveries
}

/** A tick, and who sees what became of it. */
async function tick(world: World, startedAt: number, minute: number, isLate: boolean): Promise<void> {
  const hasBacklog = !(await world.isDone())
  const sinceMs = world.time.monotonic() - startedAt
  const scheduledMs = world.time.now() - sinceMs + minute * MINUTE_MS
  const running = world.start({ runMs: RUN_MS, scheduledMs })
  if (!hasBacklog) return
  world.count('ticks that found a backlog')
  void judgeTick(world, running, minute, isLate)
}

async function judgeTick(world: World, running: Running, minute: number, isLate: boolean): Promise<void> {
  await running.ended
  const { report } = running
  if (report === undefined || report.ended === 'claim-held') return
  if (report.polled === 0) world.witness.complain(`the tick for minute ${minute} found a backlog and read nothing`)
  else if (isLate) world.count('late ticks that worked')
}

async function drain(world: World): Promise<void> {
  let ticks = 0
  for (; ticks < MOST_TICKS_TO_DRAIN && !(await world.isDone()); ticks++) {
    world.start({ runMs: RUN_MS })
    await world.time.advance(MINUTE_MS)
  }
  world.count('ticks to drain', ticks)
  if (!(await world.isDone())) world.witness.complain(`a backlog is left after ${ticks} ticks on time`)
}

function fatesOf(world: World): Fate[] {
  return Array.from({ length: RECORDS_PER_MINUTE }, () =>
    world.below(12) === 0 ? ((['throws', 'rejects', 'not JSON'] as const)[world.below(3)] ?? 'throws') : 'good',
  )
}
