import { expect, test } from 'vitest'

import type { Subject } from './index.ts'
import { letter, letterAt, plain } from './letters.ts'

export function abilityCases(subject: Subject): void {
  test('get gives the letter of an id, or is refused', async () => {
    const { store } = subject()
    const given = letterAt(1)
    await store.put(letterAt(0))
    await store.put(given)

    if (store.features.get) expect(plain([(await store.get(given.id)) ?? letter()])).toEqual(plain([given]))
    else await expect(store.get(given.id)).rejects.toMatchObject({ code: 'UNSUPPORTED', retriable: false })
  })

  test('get gives undefined for an id that is not there or is none, or is refused', async () => {
    const { store } = subject()
    await store.put(letterAt(0))

    for (const id of [letterAt(1).id, 'no id', '', '%/%/%/%', 'a/b/c/d/e']) {
      if (store.features.get) expect(await store.get(id)).toBeUndefined()
      else await expect(store.get(id)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    }
  })

  test('get and delete tell a record that was redriven from what it was before', async () => {
    const { store, stored } = subject()
    const redriven = letter({ redriveCount: 1, attempts: 9 })
    if (!store.features.get || !store.features.delete) {
      await expect(store.delete(redriven.id)).rejects.toMatchObject({ code: 'UNSUPPORTED' })
      return
    }
    await store.put(letter())
    await store.put(redriven)

    expect(plain([(await store.get(redriven.id)) ?? letter()])).toEqual(plain([redriven]))
    expect(await store.delete(letter().id)).toBe(true)
    expect(plain(await stored())).toEqual(plain([redriven]))
  })

  test('delete says true once and then false, or is refused', async () => {
    const { store, stored } = subject()
    const given = letter()
    await store.put(given)

    if (store.features.delete) {
      expect(await store.delete(given.id)).toBe(true)
      expect(await store.delete(given.id)).toBe(false)
      expect(await stored()).toEqual([])
    } else {
      await expect(store.delete(given.id)).rejects.toMatchObject({ code: 'UNSUPPORTED', retriable: false })
      expect(await stored()).toHaveLength(1)
    }
  })

  test('a letter that is put again after it was deleted is there, where it deletes', async () => {
    const { store, stored } = subject()
    if (!store.features.delete) {
      await expect(store.delete(letter().id)).rejects.toMatchObject({ code: 'UNSUPPORTED', retriable: false })
      return
    }
    const later = letter({ attempts: 4, failedAtMs: letter().failedAtMs + 60_000 })
    await store.put(letter())
    await store.delete(letter().id)

    await store.put(letter())
    expect(plain(await stored())).toEqual(plain([letter()]))
    expect(await store.delete(letter().id)).toBe(true)
    await store.put(later)

    expect(plain(await stored())).toEqual(plain([later]))
    expect(await store.delete(later.id)).toBe(true)
    expect(await stored()).toEqual([])
  })
}
