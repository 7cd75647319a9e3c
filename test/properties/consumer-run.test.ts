/**
 * Runs of a consumer keep their promises in worlds that chance has made. More worlds: `TEST_WORLDS=5000 npx vitest run
 * test/properties/consumer-run.test.ts`; the one that failed again: `TEST_SEED=<its seed>` beside it.
 */
import { describe, expect, test, vi } from 'vitest'
import { Lanes } from '../../src/consumer/lanes.ts'
import { World } from '../support/consumer-world.ts'

const worlds = Number(process.env['TEST_WORLDS'] ?? 100)
const first = Number(process.env['TEST_SEED'] ?? 1)
const count = process.env['TEST_SEED'] === undefined ? worlds : 1

describe('runs of a consumer', () => {
  test(
    `keep their promises whatever happens (${count} worlds from seed ${first})`,
    { timeout: 3_600_000 },
    async () => {
      let world: World | undefined
      const take = Reflect.get(Lanes.prototype, 'take') as (...args: unknown[]) => void
      const spy = vi.spyOn(Lanes.prototype, 'take').mockImplementation(function (this: Lanes, ...args) {
        world?.onLanes(this)
        take.apply(this, args)
      })
      for (let seed = first; seed < first + count; seed++) {
        world = new World(seed)
        await world.live()
        expect(world.broken, `seed ${seed}\n${world.describe()}`).toEqual([])
      }
      spy.mockRestore()
    },
  )
})
