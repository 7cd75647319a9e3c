/**
 * What must hold whatever fails: no committed offset ever passes a record that is neither handled nor dead-lettered, and
 * in the end every record was. Each case is a seed; a failure names it.
 */
import { describe, expect, test } from 'vitest'
import type { CommittedOffset } from '../../src/record.ts'
import { textOf } from '../../src/record.ts'
import type { HandlerContext } from '../../src/router.ts'
import { Chaos, seeded } from '../support/chaos.ts'
import type { Bench } from '../support/consumer.ts'
import { finish, openBench, withCalls } from '../support/consumer.ts'

const PARTITIONS = 3
const RECORDS = 12
/** Handled by nobody, so that dead letters are part of the game. */
const POISON = 5

interface World extends Bench {
  /** How often each record was handled, by partition and offset. */
  readonly handled: Map<string, number>
  /** The life that the next run begins. */
  life: Chaos
}

/** Records in every partition; a handler that takes a while, and may find its process dead before or after its effect. */
async function openWorld(seed: number): Promise<World> {
  const random = seeded(seed)
  const handled = new Map<string, number>()
  const state = { life: new Chaos({ random }) }
  const bench = await openBench({
    partitions: PARTITIONS,
    app: { attemptTimeoutMs: 2_000, retry: { maxAttempts: 2 } },
    consumer: { maxPollRecords: 5, claimTtlMs: 5_000, commitIntervalMs: 200, concurrency: 2, random },
    wrap: (broker) => state.life.broker(broker),
    wrapLetters: (store) => state.life.letters(store),
    handler: (record, context) => handle(state.life, `${record.partition}:${record.offset}`, record.offset, context),
  })

  async function handle(life: Chaos, at: string, offset: number, { signal }: HandlerContext): Promise<void> {
    await life.step()
    if (random() < 0.3)
      await new Promise<void>((resolve) => void bench.clock.after(Math.floor(random() * 400), resolve))
    if (life.isDead || signal.aborted) throw new Error('gone')
    if (offset === POISON) throw new Error('poison')
    handled.set(at, (handled.get(at) ?? 0) + 1)
    await life.step()
  }

  for (let partition = 0; partition < PARTITIONS; partition++) {
    await bench.produce(
      Array.from({ length: RECORDS }, (_, n) => `${n}`),
      partition,
    )
  }
  return {
    ...bench,
    handled,
    get life() {
      return state.life
    },
    set life(life) {
      state.life = life
    },
  }
}

/** The offset in each partition before which everything is handled or a dead letter. */
async function settledTo(world: World): Promise<number[]> {
  const { items } = await world.letters.list({ limit: 1000 })
  const dead = new Set(items.map(({ record }) => placeOf(record)))
  return Array.from({ length: PARTITIONS }, (_, partition) => {
    let offset = 0
    while (world.handled.has(`${partition}:${offset}`) || dead.has(`${partition}:${offset}`)) offset += 1
    return offset
  })
}

async function expectNothingPassed(world: World, seed: number): Promise<void> {
  const settled = await settledTo(world)
  for (const [partition, offset] of (await world.committed()).entries()) {
    expect(offset, `seed ${seed}, partition ${partition}`).toBeLessThanOrEqual(settled[partition] ?? 0)
  }
}

/** Lets healthy runs finish the work, and checks that it is all done. */
async function expectAllDone(world: World, seed: number): Promise<void> {
  world.life = new Chaos({ random: () => 1 })
  for (let run = 0; run < 20 && (await world.committed()).some((offset) => offset < RECORDS); run++) {
    await world.drain()
    await world.clock.advance(5_000)
  }
  expect(await world.committed(), `seed ${seed}`).toEqual([RECORDS, RECORDS, RECORDS])
  const letters = (await world.letters.list({ limit: 1000 })).items
  const places = letters.map(({ record }) => placeOf(record))
  expect(new Set(places).size, `seed ${seed}`).toBe(letters.length)
  expect(new Set([...world.handled.keys(), ...places]).size, `seed ${seed}`).toBe(PARTITIONS * RECORDS)
  // Processes die here for no fault of a record, and one that was in hand in two of these deaths is set aside.
  const others = letters.filter(({ reason }) => reason !== 'crashed')
  expect(others.length, `seed ${seed}`).toBeLessThanOrEqual(PARTITIONS)
  for (const { record } of others) expect(world.handled.has(placeOf(record)), `seed ${seed}`).toBe(false)
}

function placeOf({ partition, offset }: { readonly partition: number; readonly offset: number }): string {
  return `${partition}:${offset}`
}

describe('whatever fails', () => {
  test('a run that dies at any step loses nothing and commits nothing unfinished', async () => {
    for (let diesAt = 1; diesAt <= 150; diesAt++) {
      const world = await openWorld(diesAt)
      world.life = new Chaos({ random: seeded(diesAt), diesAt })
      // Left alone when its process dies, as the platform leaves it.
      void world.start({ budget: { runMs: 20_000 } }).catch(() => undefined)
      await world.clock.advance(4_000)
      await expectNothingPassed(world, diesAt)
      await world.clock.advance(30_000)
      await expectNothingPassed(world, diesAt)

      await expectAllDone(world, diesAt)
    }
  })

  test('lost requests and lost answers, deaths among them, lose nothing', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = seeded(seed)
      const world = await openWorld(seed)
      for (let run = 0; run < 4; run++) {
        const diesAt = random() < 0.5 ? 5 + Math.floor(random() * 120) : Number.POSITIVE_INFINITY
        world.life = new Chaos({ random, lostRequests: 0.15, lostAnswers: 0.15, diesAt })
        void world.start({ budget: { runMs: 10_000 } }).catch(() => undefined)
        await world.clock.advance(16_000)
        await expectNothingPassed(world, seed)
      }

      await expectAllDone(world, seed)
    }
  })

  test('a poll whose answer is lost skips nothing and repeats nothing', async () => {
    const seen: string[] = []
    const random = seeded(7)
    let lost = 0
    const bench = await openBench({
      handler: (record) => void seen.push(textOf(record.value)),
      consumer: { maxPollRecords: 3, callTimeoutMs: 1_000 },
      wrap: (broker) => {
        const life = new Chaos({ random, lostAnswers: 0.7 })
        const unreliable = life.broker(broker)
        return withCalls(broker, {
          poll: (...args) =>
            unreliable.poll(...args).catch((error: unknown) => {
              lost += 1
              throw error
            }),
        })
      },
    })
    const values = Array.from({ length: 300 }, (_, n) => `v${n}`)
    await bench.produce(values)

    const report = await finish(bench.clock, bench.start({ stopWhenEmpty: true, budget: { runMs: 3_000_000 } }))

    expect(lost).toBeGreaterThan(100)
    expect(seen).toEqual(values)
    expect(report).toMatchObject({ ended: 'drained', handled: 300 })
  })

  test('runs that overlap at random handle each record, and never together', async () => {
    const world = await openWorld(99)
    const random = seeded(99)
    const running: Promise<unknown>[] = []
    const ends: string[] = []
    for (let tick = 0; tick < 60; tick++) {
      running.push(world.start({ budget: { runMs: 2_000, maxRecords: 3 } }).then((report) => ends.push(report.ended)))
      await world.clock.advance(Math.floor(random() * 600))
      await expectNothingPassed(world, 99)
    }
    await finish(world.clock, Promise.all(running))

    expect(ends.filter((end) => end === 'claim-held').length).toBeGreaterThan(5)
    await expectAllDone(world, 99)
    expect([...world.handled.values()]).toEqual(Array.from({ length: world.handled.size }, () => 1))
  })

  test('a run that is killed at its deadline has finished by then, with its margin kept', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = seeded(seed)
      const started: number[] = []
      const bench = await openBench({
        partitions: 2,
        consumer: { maxPollRecords: 7 },
        handler: () => {
          started.push(bench.clock.monotonic())
          return new Promise<void>((resolve) => void bench.clock.after(Math.floor(random() * 900), resolve))
        },
        app: { retry: { maxAttempts: 1 } },
      })
      await bench.produce(
        Array.from({ length: 40 }, (_, n) => `${n}`),
        0,
      )
      await bench.produce(
        Array.from({ length: 40 }, (_, n) => `${n}`),
        1,
      )
      const from = bench.clock.monotonic()
      const deadlineMs = bench.clock.now() + 5_000

      const report = await finish(bench.clock, bench.start({ deadlineMs, budget: { marginMs: 1_000 } }))

      const committed = report.committed.reduce(
        (sum: number, { offset }: Pick<CommittedOffset, 'offset'>) => sum + offset,
        0,
      )
      expect(report, `seed ${seed}`).toMatchObject({ ended: 'deadline', uncommitted: [] })
      expect(report.durationMs, `seed ${seed}`).toBeLessThanOrEqual(5_000)
      expect(Math.max(...started) - from, `seed ${seed}`).toBeLessThanOrEqual(4_000)
      expect(committed, `seed ${seed}`).toBe(report.handled)
      expect(report.unfinished, `seed ${seed}`).toBe(report.polled - report.handled)
    }
  })

  test('members that come and go at random never move an offset back or past what is not handled', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = seeded(seed)
      const world = await openWorld(seed)
      const highest = [-1, -1, -1]
      const running: Promise<unknown>[] = []
      for (let tick = 0; tick < 25; tick++) {
        const chance = random()
        const groupInstanceId = `i${Math.floor(random() * 3)}`
        if (chance < 0.6) running.push(world.start({ budget: { runMs: 3_000 } }, { groupInstanceId }))
        else if (chance < 0.8) await world.broker.leave({ groupId: 'g', groupInstanceId }).catch(() => undefined)
        await world.clock.advance(Math.floor(random() * 1_200))
        await expectNothingPassed(world, seed)
        for (const [partition, offset] of (await world.committed()).entries()) {
          expect(offset, `seed ${seed}, partition ${partition}`).toBeGreaterThanOrEqual(highest[partition] ?? -1)
          highest[partition] = offset
        }
      }
      await finish(world.clock, Promise.all(running))
      for (const id of ['i0', 'i1', 'i2'])
        await world.broker.leave({ groupId: 'g', groupInstanceId: id }).catch(() => undefined)

      await expectAllDone(world, seed)
    }
  })
})
