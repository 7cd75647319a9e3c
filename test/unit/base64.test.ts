import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { base64Of, base64Portably, bytesOfBase64, bytesPortably } from '../../src/base64.ts'

const alphabet = fc.constantFrom(...'ABab09+/=-_ \n\u00e9\uff21'.split(''))

describe('base64', () => {
  test('gives any bytes back, and the portable way makes the same text', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), (bytes) => {
        const text = base64Of(bytes)

        expect(text).toBe(base64Portably(bytes))
        expect(bytesOfBase64(text)).toStrictEqual(Uint8Array.from(bytes))
        expect(bytesPortably(text)).toStrictEqual(Uint8Array.from(bytes))
      }),
    )
  })

  test('takes bytes that are a view into others', () => {
    expect(base64Of(Uint8Array.of(9, 1, 2, 3, 9).subarray(1, 4))).toBe('AQID')
  })

  test('refuses the same texts both ways', () => {
    fc.assert(
      fc.property(fc.array(alphabet, { maxLength: 12 }), (parts) => {
        const text = parts.join('')

        expect(bytesOfBase64(text)).toStrictEqual(bytesPortably(text))
      }),
      { numRuns: 20_000 },
    )
  })

  test.each(['A', 'AA', 'AAA', 'AA=', '=', '====', 'AA==AAAA', 'A===', 'AAA=A', 'AA-_', ' AAA', 'AAAA\n', 'ＡＡＡＡ'])(
    'refuses %j',
    (text) => {
      expect(bytesOfBase64(text)).toBeUndefined()
      expect(bytesPortably(text)).toBeUndefined()
    },
  )
})
