import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { deadLetterFingerprint, type FingerprintParts } from '../../src/dead-letter-fingerprint.ts'

const parts = (message: string, other: Partial<FingerprintParts> = {}): FingerprintParts => ({
  record: { topic: 'orders' },
  route: 'ship',
  reason: 'exhausted',
  cause: { name: 'TypeError', message },
  ...other,
})
const of = (message: string): string => deadLetterFingerprint(parts(message))

describe('equal failures have one fingerprint, whatever differs in', () => {
  test.each([
    ['a number', 'order 17 is unknown', 'order 471100000 is unknown'],
    ['a sign, a fraction, an exponent', 'total is -1.50', 'total is 2e10'],
    ['a number inside a word or a path', 'cannot read orders[2].item9', 'cannot read orders[117].item42'],
    ['a number with separators', 'limit of 1,000,000 bytes', 'limit of 64 bytes'],
    [
      'a UUID',
      'no user 0b0a6c5e-1f8e-4a53-9d0a-0e3f6c1d2b3a',
      'no user FFFFFFFF-1f8e-4a53-9d0a-0e3f6c1d2b3b here'.slice(0, -5),
    ],
    ['a hexadecimal id', 'object 5f2b8c0d9e7a is gone', 'object 0123456789 is gone'],
    ['a hexadecimal number', 'at 0xDEAD', 'at 0x0'],
    ['a text in double quotes', 'no field "name"', 'no field "a much longer one, with \'quotes\'"'],
    ['a text in single quotes', "can't find 'a'", "can't find 'something else'"],
    ['a text in backticks or typographic quotes', 'no `a` in “b”', 'no `xyz` in “q r s”'],
    ['a timestamp', 'late since 2026-11-27T05:20:40.123Z', 'late since 2025-01-01 00:00:00+01:00'],
    ['a day', 'closed on 2026-11-27', 'closed on 1999-01-01'],
    ['a time of day', 'at 05:20:40 it failed', 'at 23:59 it failed'],
    ['a date of HTTP', 'until Fri, 27 Nov 2026 05:20:40 GMT', 'until Sun, 1 Feb 2026 00:00:00 GMT'],
    ['white space', 'it  failed\n  at last', ' it failed at last '],
  ])('%s', (_what, one, other) => {
    expect(of(one)).toBe(of(other))
    expect(of(one)).toMatch(/^[0-9a-f]{16}$/)
  })
})

describe('other failures have another, where what differs is', () => {
  const given = deadLetterFingerprint(parts('it failed'))

  test.each([
    ['the words', parts('it broke')],
    ['the topic', parts('it failed', { record: { topic: 'bills' } })],
    ['the route', parts('it failed', { route: 'bill' })],
    ['that there is a route', parts('it failed', { route: null })],
    ['the reason', parts('it failed', { reason: 'timeout' })],
    ['the name of the cause', parts('', { cause: { name: 'RangeError', message: 'it failed' } })],
    ['the code of the cause', parts('', { cause: { name: 'TypeError', message: 'it failed', code: 'E1' } })],
  ])('%s', (_what, other) => {
    expect(deadLetterFingerprint(other)).not.toBe(given)
  })

  test('an apostrophe, which quotes nothing', () => {
    expect(of("it can't start and won't stop")).not.toBe(of("it can't go on and won't stop"))
  })

  test('where one part ends and the next begins', () => {
    const one = parts('x', { record: { topic: 'a' }, route: 'b","c' })
    const other = parts('x', { record: { topic: 'a","b' }, route: 'c' })
    expect(deadLetterFingerprint(one)).not.toBe(deadLetterFingerprint(other))
  })
})

test('the stack is no part of it, for it names lines of one version', () => {
  const cause = { name: 'TypeError', message: 'it failed' }
  expect(deadLetterFingerprint(parts('', { cause: { ...cause, stack: 'at a' } }))).toBe(
    deadLetterFingerprint(parts('', { cause: { ...cause, stack: 'at b' } })),
  )
})

test('stays what it was: stored letters keep theirs', () => {
  expect(of('order 17 is unknown')).toBe('40b7b23c954d59ab')
  expect(deadLetterFingerprint(parts('naïve "x"', { route: null, reason: 'invalid' }))).toBe('7fde9c206f302a80')
})

test('is made of any message in no time, however it is built', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => of(text).length === 16))
  for (const part of ['"', "'", "'a", '1', '1:', '1,', 'a1', '0-', 'mon 1 ', ' +', '2026-11-27 ', '\n "']) {
    const before = process.cpuUsage()
    of(part.repeat(100_000))
    // What is quadratic takes minutes. Processor time, for the machine may be busy with other things.
    expect(process.cpuUsage(before).user, JSON.stringify(part)).toBeLessThan(2_000_000)
  }
})
