import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ownErrors } from '../../src/errors.ts'
import { statusOfCode } from '../../src/gateway/errors.ts'
import { kafkaErrors } from '../../src/kafka-errors.ts'
import { protocolDocument } from '../../scripts/write-protocol.ts'

test('the tables of PROTOCOL.md are what the code says (npm run docs writes them)', () => {
  expect(readFileSync(new URL('../../PROTOCOL.md', import.meta.url), 'utf8')).toBe(protocolDocument())
})

test('every code has a status', () => {
  expect(Object.keys(statusOfCode).toSorted()).toEqual(
    [...Object.keys(ownErrors), ...Object.keys(kafkaErrors)].toSorted(),
  )
})
