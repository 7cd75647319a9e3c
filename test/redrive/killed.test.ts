import { describe, expect, test } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import type { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import { finish } from '../support/consumer.ts'
import { openRedriveBench, REDRIVE_TOPIC, systems } from './bench.ts'
import type { RedriveBench } from './bench.ts'

const actor = 'test'
const values = ['a', 'b', 'c', 'd']

/** What becomes of the call at which the redrive dies, and of all after it. */
const deaths = [
  { how: 'before a call was made', isMade: false, isHeard: false },
  { how: 'before it heard the answer', isMade: true, isHeard: false },
  { how: 'by a call that fails', isMade: false, isHeard: true },
  { how: 'by a call that succeeds and says it failed', isMade: true, isHeard: true },
]

/** Counts the calls of a redrive to its broker and store; from the fatal one on nothing is answered any more. */
class Killer {
  calls = 0
  readonly #fatal: number
  readonly #death: (typeof deaths)[number]

  constructor(fatal: number, death: (typeof deaths)[number]) {
    this.#fatal = fatal
    this.#death = death
  }

  get hasKilled(): boolean {
    return this.calls >= this.#fatal
  }

  watch<T extends Broker | DeadLetterStore>(target: T, features: object = {}): T {
    return new Proxy(target, {
      get: (_, name) => {
        const value = Reflect.get(target, name) as unknown
        if (name === 'features') return { ...target.features, ...features }
        if (typeof value !== 'function') return value
        return async (...args: unknown[]) => await this.#call(() => Reflect.apply(value, target, args) as unknown)
      },
    })
  }

  async #call(make: () => unknown): Promise<unknown> {
    this.calls += 1
    if (this.calls < this.#fatal) return await make()
    if (this.calls === this.#fatal && this.#death.isMade) await make()
    if (this.#death.isHeard) throw new Error('killed')
    return await new Promise(() => undefined)
  }
}

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
