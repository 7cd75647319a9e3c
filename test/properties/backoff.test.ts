import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { backoffCeilingMs, backoffMs } from '../../src/backoff.ts'

const backoffs = fc.record({
  initialMs: fc.nat(5_000),
  maxMs: fc.integer({ min: 5_000, max: 86_400_000 }),
  factor: fc.double({ min: 1, max: 100, noNaN: true }),
})
const chances = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

test('a wait lies between zero and its ceiling, and the ceiling never falls', () => {
  fc.assert(
    fc.property(backoffs, fc.integer({ min: 1, max: 1_000 }), chances, (backoff, retry, chance) => {
      const ceiling = backoffCeilingMs(backoff, retry)
      const wait = backoffMs(backoff, retry, () => chance)

      expect(wait).toBeGreaterThanOrEqual(0)
      expect(wait).toBeLessThanOrEqual(ceiling)
      expect(Number.isInteger(wait)).toBe(true)
      expect(backoffCeilingMs(backoff, retry + 1)).toBeGreaterThanOrEqual(ceiling)
      expect(ceiling).toBeLessThanOrEqual(backoff.maxMs)
    }),
  )
})
