import { describe, expect, test } from 'vitest'
import type { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import { finish } from '../support/consumer.ts'
import { deaths, Killer } from '../support/killer.ts'
import { openRedriveBench, REDRIVE_TOPIC, systems } from './bench.ts'
import type { RedriveBench } from './bench.ts'

const actor = 'test'
const values = ['a', 'b', 'c', 'd']

/** Redrives until the fatal call. False where the run was over before. */
async function redriveUntilKilled(bench: RedriveBench, killer: Killer, features: object): Promise<boolean> {
  const redrive = bench.redrive({
    broker: killer.watch(bench.broker, features),
    store: killer.watch(bench.letters),
  })
  const state = { isOver: false }
  const over = (): void => {
    state.isOver = true
  }
  redrive.run({ actor, perSecond: 10_000 }).then(over, over)
  while (!state.isOver && !killer.hasKilled) await bench.clock.advance(1)
  // What the fatal call itself does still happens.
  await bench.clock.advance(1)
  return killer.hasKilled
}

describe.each(systems)('a redrive that dies at any of its calls ($name)', (system) => {
  describe.each(deaths)('$how', (death) => {
    test.each([
      ['keys', {}, 0],
      ['no keys', { idempotencyKeys: false }, 1],
    ] as const)('loses nothing and hands back twice what it may (%s)', async (_name, features, maxTwice) => {
      let fatal = 1
      for (; ; fatal++) {
        const bench = await openRedriveBench(system)
        await bench.produce(values)
        await bench.drain()
        bench.isDown = false
        if (!(await redriveUntilKilled(bench, new Killer(fatal, death), features))) break
        // Its lock, where it has one, lapses by itself.
        await bench.clock.advance(60_000)

        const report = await finish(bench.clock, bench.redrive().run({ actor }))
        await bench.drain()

        expect(report.ended).toBe('done')
        expect(await bench.ids()).toEqual([])
        expect(new Set(bench.handled.map(({ record }) => textOf(record.value)))).toEqual(new Set(values))
        expect(bench.handled.length - values.length).toBeLessThanOrEqual(maxTwice)
      }
      // The group, the lock, the list, the topic, two calls for each letter, the lock again.
      expect(fatal).toBeGreaterThan(4 + 2 * values.length)
    })
  })
})

test('a redrive that dies while its lock is live keeps others out until it lapses, and no longer', async () => {
  const bench = await openRedriveBench()
  await bench.produce(values)
  await bench.drain()
  const [death] = deaths
  if (death === undefined) throw new Error('There is no way to die.')
  await redriveUntilKilled(bench, new Killer(9, death), {})

  const early = await bench
    .redrive()
    .run({ actor })
    .catch((error: unknown) => error)
  const { retryAfterMs = 0 } = early as BrokerError
  await bench.clock.advance(retryAfterMs)

  expect(early).toMatchObject({ code: 'CLAIM_HELD' })
  expect(await finish(bench.clock, bench.redrive().run({ actor }))).toMatchObject({ ended: 'done' })
  expect(await bench.count(REDRIVE_TOPIC)).toBe(values.length)
})
