/** What a disk may hold after a loss of power, from what was done to its files. */
import { describe, expect, test } from 'vitest'
import { imageAfter } from '../../prove/log-power-loss/image.ts'
import type { Deed } from '../../prove/log-power-loss/recording.ts'
import { seeded } from '../support/chaos.ts'

const create = (name: string, file: number): Deed => ({ what: 'create', name, file })
const write = (file: number, offset: number, text: string): Deed => ({
  what: 'write',
  file,
  offset,
  bytes: Buffer.from(text),
})
const sync = (file: number): Deed => ({ what: 'sync', file })
const folder: Deed = { what: 'sync folder' }

const nothing = { random: seeded(1), kept: 0, torn: 0 }
const everything = { random: seeded(1), kept: 1, torn: 0 }

function textsOf(deeds: readonly Deed[], fate = nothing, count = deeds.length): Record<string, string> {
  return Object.fromEntries([...imageAfter(deeds, count, fate)].map(([name, content]) => [name, content.toString()]))
}

describe('a disk after a loss of power', () => {
  const deeds = [create('a', 1), folder, write(1, 0, 'one'), sync(1), write(1, 3, 'two')]

  test('has what was synced, whatever else is gone', () => {
    expect(textsOf(deeds)).toEqual({ a: 'one' })
  })

  test('may have what was not synced', () => {
    expect(textsOf(deeds, everything)).toEqual({ a: 'onetwo' })
  })

  test('has nothing of what came after', () => {
    expect(textsOf(deeds, everything, 4)).toEqual({ a: 'one' })
  })

  test('may not have a synced file whose folder was not synced', () => {
    expect(textsOf([create('a', 1), write(1, 0, 'one'), sync(1)])).toEqual({})
  })

  test('may have a removed file again', () => {
    expect(textsOf([...deeds, { what: 'remove', name: 'a' }])).toEqual({ a: 'one' })
    expect(textsOf([...deeds, { what: 'remove', name: 'a' }, folder])).toEqual({})
  })

  test('may lose a truncation, and keeps one that was synced', () => {
    const cut: Deed = { what: 'truncate', file: 1, length: 1 }

    expect(textsOf([...deeds.slice(0, 4), cut])).toEqual({ a: 'one' })
    expect(textsOf([...deeds.slice(0, 4), cut, sync(1)])).toEqual({ a: 'o' })
  })

  test('has zeros where a write is missing before one that is there', () => {
    const later = [create('a', 1), folder, write(1, 4, 'x'), sync(1)]

    expect(textsOf(later)).toEqual({ a: '\0\0\0\0x' })
  })

  test('may have a write in some of its sectors', () => {
    const long = 'x'.repeat(2_048)
    const images = Array.from({ length: 50 }, (_, seed) =>
      textsOf([create('a', 1), folder, write(1, 0, long)], { random: seeded(seed), kept: 1, torn: 1 }),
    )
    const sectors = images.map(({ a = '' }) => [0, 512, 1_024, 1_536].map((at) => a.slice(at, at + 512)))

    expect(sectors.flat().every((sector) => sector === 'x'.repeat(512) || sector === '\0'.repeat(512))).toBe(true)
    expect(new Set(sectors.map((each) => each.map((sector) => sector[0]).join())).size).toBeGreaterThan(8)
  })
})
