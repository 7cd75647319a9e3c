import { expect, test } from 'vitest'

import type { DeadLetter, DeadLetterQuery, DeadLetterStore } from '../../../src/dead-letter.ts'
import type { Subject } from './index.ts'
import { letter, letterAt } from './letters.ts'

const offsetsOf = (letters: readonly DeadLetter[]): number[] => letters.map(({ record }) => record.offset)

/** Reads pages to the last one; `between` runs after each. */
async function pages(
  store: DeadLetterStore,
  query: DeadLetterQuery,
  between: () => Promise<void> = async () => {},
): Promise<DeadLetter[][]> {
  const read: DeadLetter[][] = []
  let cursor: string | undefined
  do {
    const page = await store.list(cursor === undefined ? query : { ...query, cursor })
    read.push([...page.items])
    cursor = page.cursor
    await between()
  } while (cursor !== undefined)
  return read
}

export function listCases(subject: Subject): void {
  /** A case for stores that list; the others must refuse the same call. */
  const listing = (name: string, run: (store: DeadLetterStore) => Promise<void>): void => {
    test(`${name}, or refuses to list`, async () => {
      const { store } = subject()
      if (store.features.list) await run(store)
      else await expect(store.list()).rejects.toMatchObject({ code: 'UNSUPPORTED', retriable: false })
    })
  }

  listing('is empty without a letter', async (store) => {
    expect(await store.list()).toEqual({ items: [] })
  })

  listing('gives the letters back, oldest put first', async (store) => {
    for (const offset of [2, 0, 1]) await store.put(letterAt(offset))

    expect(offsetsOf((await store.list()).items)).toEqual([2, 0, 1])
  })

  listing('pages with a cursor, each letter once', async (store) => {
    for (let offset = 0; offset < 7; offset += 1) await store.put(letterAt(offset))

    const read = await pages(store, { limit: 3 })

    expect(read.map(offsetsOf)).toEqual([[0, 1, 2], [3, 4, 5], [6]])
  })

  listing('keeps its cursor while letters are put', async (store) => {
    for (let offset = 0; offset < 4; offset += 1) await store.put(letterAt(offset))
    let next = 4

    const read = await pages(store, { limit: 2 }, async () => {
      if (next < 8) await store.put(letterAt(next))
      next += 1
    })

    expect(offsetsOf(read.flat())).toEqual([...new Set(offsetsOf(read.flat()))].sort((a, b) => a - b))
    expect(offsetsOf(read.flat()).slice(0, 4)).toEqual([0, 1, 2, 3])
  })

  listing('keeps its cursor while letters are deleted, where it deletes', async (store) => {
    if (!store.features.delete) return
    const given = Array.from({ length: 6 }, (_, offset) => letterAt(offset))
    for (const one of given) await store.put(one)
    const first = await store.list({ limit: 2 })

    for (const { id } of given.slice(0, 3)) await store.delete(id)

    const rest = await store.list(first.cursor === undefined ? {} : { cursor: first.cursor })
    expect(offsetsOf(rest.items)).toEqual([3, 4, 5])
  })

  listing('filters by topic, group, reason and time', async (store) => {
    await store.put(letterAt(0, { record: { topic: 'orders' }, groupId: 'shop', reason: 'invalid' }))
    await store.put(letterAt(1, { record: { topic: 'bills' }, groupId: 'shop', reason: 'timeout' }))
    await store.put(letterAt(2, { record: { topic: 'orders' }, groupId: 'audit', reason: 'timeout' }))
    const { failedAtMs } = letterAt(1)
    const offsets = async (query: DeadLetterQuery): Promise<number[]> =>
      offsetsOf((await pages(store, query)).flat()).sort((a, b) => a - b)

    expect(await offsets({ topic: 'orders' })).toEqual([0, 2])
    expect(await offsets({ groupId: 'shop' })).toEqual([0, 1])
    expect(await offsets({ topic: 'orders', groupId: 'audit' })).toEqual([2])
    expect(await offsets({ reason: 'timeout' })).toEqual([1, 2])
    expect(await offsets({ fromMs: failedAtMs })).toEqual([1, 2])
    expect(await offsets({ untilMs: failedAtMs })).toEqual([0])
    expect(await offsets({ topic: 'none' })).toEqual([])
  })

  listing('refuses a limit outside 1 to 1000 and a cursor that it did not make', async (store) => {
    for (const query of [{ limit: 0 }, { limit: 1001 }, { limit: 1.5 }, { cursor: 'no cursor; of ours' }]) {
      await store.put(letter())
      await expect(store.list(query)).rejects.toMatchObject({ code: 'INVALID_REQUEST', retriable: false })
    }
  })
}
