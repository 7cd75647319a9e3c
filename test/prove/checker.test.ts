/** The small product by which the checker of histories is proved: right without a bug, and harmed by each of them. */
import { describe, expect, test } from 'vitest'
import { bugs, type Bug } from '../../prove/checker/bugs.ts'
import { live } from '../../prove/checker/product.ts'
import { check } from '../../prove/history/check.ts'
import { seeded } from '../support/chaos.ts'

const seeds = [1, 2, 3]

function kindsOf(seed: number, bug?: Bug): readonly string[] {
  const { history, remains } = live({ random: seeded(seed), steps: 400, ...(bug === undefined ? {} : { bug }) })
  return check(history, remains, { mostOverMs: 0 }).violations.map(({ kind }) => kind)
}

describe('the checker', () => {
  test.each(seeds)('has no complaint about a product that is right, seed %i', (seed) => {
    expect(kindsOf(seed)).toEqual([])
  })

  test('says the same of a seed each time', () => {
    expect(kindsOf(5, 'wrong bytes')).toEqual(kindsOf(5, 'wrong bytes'))
  })

  test.each(Object.entries(bugs))('finds: %s', (bug, expected) => {
    const found = seeds.flatMap((seed) => kindsOf(seed, bug as Bug))

    expect(expected.some((kind) => found.includes(kind))).toBe(true)
  })
})
