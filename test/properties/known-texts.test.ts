import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { KnownTexts } from '../../src/known-texts.ts'
import { bytesOf } from '../../src/record.ts'

function isText(text: string, bytes: Uint8Array): boolean {
  return text.isWellFormed() && Buffer.from(text).equals(bytes)
}

test('finds the UTF-8 bytes of every text it was given, and no others', () => {
  const texts = fc.array(fc.string({ unit: 'binary' }), { maxLength: 20 })

  fc.assert(
    fc.property(texts, texts, fc.uint8Array({ maxLength: 5 }), (given, others, bytes) => {
      const known = new KnownTexts(given)

      const found = (text: string): boolean => known.find(bytesOf(text)) === (given.includes(text) ? text : undefined)
      expect([...given, ...others].every(found)).toBe(true)
      expect(known.find(bytes)).toBe(given.find((text) => isText(text, bytes)))
    }),
  )
})

test('tells texts with the same hash apart', () => {
  // A well-known pair of 32-bit FNV-1a collisions.
  const known = new KnownTexts(['costarring'])

  expect(known.find(bytesOf('liquid'))).toBeUndefined()
  expect(new KnownTexts(['costarring', 'liquid']).find(bytesOf('liquid'))).toBe('liquid')
})

test('finds no bytes for text that has no UTF-8 form', () => {
  expect(new KnownTexts(['\uD800']).find(bytesOf('\uD800'))).toBeUndefined()
})
