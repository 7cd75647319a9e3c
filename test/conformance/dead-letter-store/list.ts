import { expect, test } from 'vitest'

import type { DeadLetter, DeadLetterQuery, DeadLetterStore } from '../../../src/dead-letter.ts'
import { type Header, bytesOf, textOf } from '../../../src/record.ts'
import type { Subject } from './index.ts'
import { inListOrder, invalidUtf8, letter, letterAt, plain } from './letters.ts'

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

  listing('gives the letters back in the order that it names', async (store) => {
    const given = [2, 10, 0, 1].map((offset) => letterAt(offset))
    for (const one of given) await store.put(one)

    const { items } = await store.list()

    expect(offsetsOf(items).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 10])
    if (store.features.listOrder !== 'none') expect(plain(items)).toEqual(plain(inListOrder(store, given)))
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

  listing('filters by fingerprint', async (store) => {
    await store.put(letterAt(0, { cause: { name: 'Error', message: 'order 17 is unknown' } }))
    await store.put(letterAt(1, { cause: { name: 'Error', message: 'order 4711 is unknown' } }))
    await store.put(letterAt(2, { cause: { name: 'Error', message: 'the shop is closed' } }))
    const { fingerprint } = letterAt(0, { cause: { name: 'Error', message: 'order 1 is unknown' } })

    expect(offsetsOf((await pages(store, { fingerprint })).flat())).toEqual([0, 1])
    expect((await pages(store, { fingerprint: '0000000000000000' })).flat()).toEqual([])
  })

  listing('filters by key, as exact text', async (store) => {
    const long = 'k'.repeat(2_000)
    const keys = [
      bytesOf('größe'),
      bytesOf('größe '),
      null,
      bytesOf(''),
      invalidUtf8,
      bytesOf(`${long}1`),
      bytesOf('a\0b'),
    ]
    for (const [offset, key] of keys.entries()) await store.put(letterAt(offset, { record: { key } }))
    const offsets = async (key: string): Promise<number[]> => offsetsOf((await pages(store, { key })).flat())

    expect(await offsets('größe')).toEqual([0])
    expect(await offsets('')).toEqual([3])
    expect(await offsets(`${long}1`)).toEqual([5])
    expect(await offsets(`${long}2`)).toEqual([])
    expect(await offsets('a\0b')).toEqual([6])
    expect(await offsets('a')).toEqual([])
    expect(await offsets(textOf(invalidUtf8))).toEqual([])
  })

  listing('filters by a header with its value, wherever it stands and however often it is there', async (store) => {
    const header = (key: string, value: string | null): Header => ({
      key,
      value: value === null ? null : bytesOf(value),
    })
    await store.put(letterAt(0, { record: { headers: [header('tenant', 'a'), header('tenant', 'ключ')] } }))
    await store.put(letterAt(1, { record: { headers: [header('tenant', 'b'), header('other', 'a')] } }))
    await store.put(letterAt(2, { record: { headers: [header('tenant', null), header('', '')] } }))
    const offsets = async (key: string, value: string): Promise<number[]> =>
      offsetsOf((await pages(store, { header: { key, value } })).flat())

    expect(await offsets('tenant', 'a')).toEqual([0])
    expect(await offsets('tenant', 'ключ')).toEqual([0])
    expect(await offsets('tenant', 'b')).toEqual([1])
    expect(await offsets('tenant', '')).toEqual([])
    expect(await offsets('', '')).toEqual([2])
  })

  listing('filters by several conditions at once, page by page', async (store) => {
    for (let offset = 0; offset < 12; offset += 1) {
      await store.put(
        letterAt(offset, { record: { key: bytesOf(offset % 2 === 0 ? 'even' : 'odd') }, reason: 'timeout' }),
      )
    }

    const read = await pages(store, { key: 'even', reason: 'timeout', topic: 'orders', limit: 2 })

    expect(offsetsOf(read.flat())).toEqual([0, 2, 4, 6, 8, 10])
    expect(read.every((page) => page.length <= 2)).toBe(true)
  })

  listing('refuses a limit outside 1 to 1000 and a cursor that it did not make', async (store) => {
    for (const query of [{ limit: 0 }, { limit: 1001 }, { limit: 1.5 }, { cursor: 'no cursor; of ours' }]) {
      await store.put(letter())
      await expect(store.list(query)).rejects.toMatchObject({ code: 'INVALID_REQUEST', retriable: false })
    }
  })
}
