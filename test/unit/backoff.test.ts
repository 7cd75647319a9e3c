import { describe, expect, test } from 'vitest'
import { backoffCeilingMs, backoffDefaults, backoffMs } from '../../src/backoff.ts'

describe('backoff', () => {
  test.each([
    { retry: 1, ceiling: 100 },
    { retry: 2, ceiling: 200 },
    { retry: 3, ceiling: 400 },
    { retry: 4, ceiling: 800 },
    { retry: 5, ceiling: 1_000 },
    { retry: 99, ceiling: 1_000 },
  ])('has a ceiling of $ceiling ms before retry $retry', ({ retry, ceiling }) => {
    expect(backoffCeilingMs(backoffDefaults, retry)).toBe(ceiling)
  })

  test.each([
    { random: 0, wait: 0 },
    { random: 0.5, wait: 200 },
    { random: 0.999, wait: 399 },
  ])('waits $wait ms where chance says $random', ({ random, wait }) => {
    expect(backoffMs(backoffDefaults, 3, () => random)).toBe(wait)
  })

  test('never waits less than the other side asked for', () => {
    expect(backoffMs(backoffDefaults, 1, () => 0.1, 2_500)).toBe(2_500)
  })
})
