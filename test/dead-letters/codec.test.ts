import { expect, test } from 'vitest'

import { deadLetterFingerprint } from '../../src/dead-letter-fingerprint.ts'
import { decodeDeadLetter, encodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { headersOfLetter, letterOfRecord } from '../../src/dead-letters/topic-headers.ts'
import { letter, plain } from '../conformance/dead-letter-store/letters.ts'

test('a letter that was stored before letters had a fingerprint and a redrive count gets both on reading', () => {
  const given = letter({ cause: { name: 'E', message: 'order 17' } })
  const { fingerprint, redriveCount, ...old } = JSON.parse(encodeDeadLetter(given)) as Record<string, unknown>
  expect([fingerprint, redriveCount]).toEqual([given.fingerprint, 0])

  const read = decodeDeadLetter(JSON.stringify(old))

  expect(plain([read])).toEqual(plain([given]))
  expect(read.fingerprint).toBe(deadLetterFingerprint(given))
})

test('and so does one that is a record of a topic', () => {
  const given = letter({ redriveCount: 5, fingerprint: '0123456789abcdef' })
  const headers = headersOfLetter(given, 'spring').filter(({ key }) => !/fingerprint|redrive/.test(key))

  const read = letterOfRecord({ ...given.record, topic: 'orders.shop-dlt', headers })

  expect(read).toMatchObject({ redriveCount: 0, fingerprint: deadLetterFingerprint(given), id: given.id })
})

test.each([
  ['a fingerprint that is no text', { fingerprint: 5 }],
  ['a redrive count that is no whole number', { redriveCount: 1.5 }],
  ['another format', { format: 'kedge-dead-letter/2' }],
])('%s is not a letter of ours', (_what, wrong) => {
  const text = JSON.stringify({ ...(JSON.parse(encodeDeadLetter(letter())) as object), ...wrong })

  expect(() => decodeDeadLetter(text)).toThrow(expect.objectContaining({ code: 'BAD_RESPONSE' }))
})
