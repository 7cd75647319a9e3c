import * as fc from 'fast-check'
import { expect, test } from 'vitest'

import { type DeadLetter, deadLetterReasons } from '../../../src/dead-letter.ts'
import { bytesOf } from '../../../src/record.ts'
import type { Subject } from './index.ts'
import { allBytes, inListOrder, invalidUtf8, letter, letterAt, plain } from './letters.ts'

const empty = new Uint8Array(0)

const exactly: readonly (readonly [string, DeadLetter])[] = [
  ['every byte in key, value and header', letter({ record: withBytes(allBytes) })],
  ['bytes that are not UTF-8', letter({ record: withBytes(invalidUtf8) })],
  ['null key, value and header', letter({ record: withBytes(null) })],
  ['empty key, value and header', letter({ record: withBytes(empty) })],
  ['the text null', letter({ record: withBytes(bytesOf('null')) })],
  [
    'headers in order, with duplicates, an empty name and names beyond ASCII',
    letter({
      record: {
        headers: [
          { key: 'b', value: bytesOf('1') },
          { key: 'a', value: null },
          { key: 'b', value: empty },
          { key: '', value: bytesOf('nameless') },
          { key: 'ключ-鍵', value: allBytes },
        ],
      },
    }),
  ],
  ['coordinates at their limits', letter({ record: { partition: 2 ** 31 - 1, offset: Number.MAX_SAFE_INTEGER } })],
  ['a timestamp before every clock and no attempt', letter({ attempts: 0, record: { timestampMs: 0 } })],
  ['no route', letter({ route: null, reason: 'unroutable' })],
  ['an empty route', letter({ route: '' })],
  ['the fingerprint it has, whatever its parts would give', letter({ fingerprint: '0123456789abcdef' })],
  ['how often it was redriven', letter({ redriveCount: 3 })],
  ['a group that is no topic name', letter({ groupId: 'einkauf/größe 50%, "x"\n' })],
  [
    'a cause with all its parts, in any characters',
    letter({
      cause: {
        name: 'TypeError',
        message: 'naïve \u0000 \uffff \ud800 🜲 "quoted"',
        code: 'E_X',
        stack: 'at a\n\tat b',
      },
    }),
  ],
]

function withBytes(bytes: Uint8Array | null): Partial<DeadLetter['record']> {
  return { key: bytes, value: bytes, headers: [{ key: 'h', value: bytes }] }
}

const anyBytes = fc.option(fc.uint8Array({ maxLength: 64 }), { nil: null })
const anyText = fc.string({ unit: 'grapheme', maxLength: 20 })
const anyLetter = fc.record({
  offset: fc.maxSafeNat(),
  key: anyBytes,
  value: anyBytes,
  headers: fc.array(fc.record({ key: anyText, value: anyBytes }), { maxLength: 5 }),
  reason: fc.constantFrom(...deadLetterReasons),
  message: fc.string({ unit: 'binary', maxLength: 40 }),
  attempts: fc.nat(100),
  route: fc.option(anyText, { nil: null }),
  redriveCount: fc.nat(10),
})

export function putCases(subject: Subject): void {
  test.each(exactly)('gives back exactly %s', async (_what, given) => {
    const { store, stored } = subject()

    await store.put(given)

    expect(plain(await stored())).toEqual(plain([given]))
  })

  test('gives back exactly any hundred letters', async () => {
    const { store, stored } = subject()
    const samples = fc.sample(anyLetter, { numRuns: 100, seed: 20_261_124 })
    const given = [...new Map(samples.map((sample) => [sample.offset, sample])).values()].map(
      ({ offset, key, value, headers, reason, message, attempts, route, redriveCount }) =>
        letterAt(offset % 1e12, {
          reason,
          attempts,
          route,
          redriveCount,
          cause: { name: 'Error', message },
          record: { key, value, headers },
        }),
    )

    for (const one of given) await store.put(one)

    expect(plain(inListOrder(store, await stored()))).toEqual(plain(inListOrder(store, given)))
  })

  test('keeps a letter of a letter apart from the letter inside', async () => {
    const { store, stored } = subject()
    const inner = letter({ record: { headers: [{ key: 'h', value: bytesOf('1') }] } })
    await store.put(inner)
    const outer = letter({
      groupId: 'repair',
      reason: 'rejected',
      record: {
        topic: 'orders.shop-dlt',
        offset: 7,
        headers: [
          ...inner.record.headers,
          { key: 'kafka_dlt-original-topic', value: bytesOf('orders') },
          { key: 'kedge-dead-letter-id', value: bytesOf(inner.id) },
          { key: 'kedge-dead-letter-reason', value: bytesOf('exhausted') },
        ],
      },
    })

    await store.put(outer)

    expect(plain((await stored()).filter(({ id }) => id === outer.id))).toEqual(plain([outer]))
  })

  test('stores a letter of a record of 512 KiB whole, or of half its limit where that is less', async () => {
    const { store, stored } = subject()
    const bytes = Math.min(524_288, (store.features.maxLetterBytes ?? Infinity) / 2)
    const given = letter({ record: { value: new Uint8Array(bytes).map((_, at) => (at * 31) % 256) } })

    await store.put(given)

    expect(plain(await stored())).toEqual(plain([given]))
  })

  test('stores a letter of a record of 1 MiB whole, or refuses one over its limit by name and stores nothing', async () => {
    const { store, stored } = subject()
    const bytes = store.features.maxLetterBytes ?? 1_048_570
    const given = letter({ record: { value: new Uint8Array(bytes).map((_, at) => (at * 31) % 256) } })

    if (store.features.maxLetterBytes === null) {
      await store.put(given)
      expect(plain(await stored())).toEqual(plain([given]))
    } else {
      await expect(store.put(given)).rejects.toMatchObject({
        name: 'DeadLetterStoreError',
        code: 'DEAD_LETTER_TOO_LARGE',
        retriable: false,
      })
      expect(await stored()).toEqual([])
    }
  })

  test('stores a letter that is put twice once, where it says so', async () => {
    const { store, stored } = subject()
    const given = letter()

    await store.put(given)
    await store.put(given)

    expect(await stored()).toHaveLength(store.features.deduplicates ? 1 : 2)
  })

  test('keeps the first of two letters of one record, where it deduplicates', async () => {
    const { store, stored } = subject()
    const first = letter({ attempts: 3 })
    const second = letter({ attempts: 4, failedAtMs: first.failedAtMs + 60_000, cause: { name: 'E', message: 'else' } })

    await store.put(first)
    await store.put(second)

    const expected = store.features.deduplicates ? [first] : [first, second]
    expect(plain(await stored())).toEqual(plain(expected))
  })

  test('does not take a letter for that of another record at the same place, as of a topic that was made anew', async () => {
    const { store, stored } = subject()
    const before = letter({ record: { timestampMs: 1 } })
    const after = letter({ record: { timestampMs: 2, value: bytesOf('another') } })
    await store.put(before)

    const refusal = await store.put(after).then(
      () => undefined,
      (error: unknown) => error,
    )

    const kept = (await stored()).toSorted((a, b) => a.record.timestampMs - b.record.timestampMs)
    if (refusal === undefined) expect(plain(kept)).toEqual(plain([before, after]))
    else expect(refusal).toMatchObject({ code: 'DEAD_LETTER_ID_TAKEN', retriable: false })
    await store.put(before)
    if (refusal !== undefined) expect(plain(await stored())).toEqual(plain([before]))
  })

  test('keeps letters of one record in two groups apart', async () => {
    const { store, stored } = subject()

    await store.put(letter({ groupId: 'shop' }))
    await store.put(letter({ groupId: 'audit' }))

    expect((await stored()).map(({ groupId }) => groupId).sort()).toEqual(['audit', 'shop'])
  })

  test('keeps letters of one record apart that failed again after a redrive', async () => {
    const { store, stored } = subject()
    const given = [letter(), letter({ redriveCount: 1, attempts: 4 }), letter({ redriveCount: 12, attempts: 5 })]

    for (const one of given) await store.put(one)

    const byRedrives = (await stored()).toSorted((a, b) => a.redriveCount - b.redriveCount)
    expect(plain(byRedrives)).toEqual(plain(given))
  })

  test('loses none of 50 concurrent puts', async () => {
    const { store, stored } = subject()
    const given = Array.from({ length: 50 }, (_, offset) => letterAt(offset))

    await Promise.all(given.map((one) => store.put(one)))

    const offsets = (await stored()).map(({ record }) => record.offset).sort((a, b) => a - b)
    expect(offsets).toEqual(given.map(({ record }) => record.offset))
  })

  test('keeps nothing of what it was given', async () => {
    const { store, stored } = subject()
    const value = bytesOf('before')
    await store.put(letter({ record: { value } }))

    value.fill(0)

    expect(plain(await stored())).toEqual(plain([letter({ record: { value: bytesOf('before') } })]))
  })

  test('rejects with the reason of an aborted signal and stores nothing', async () => {
    const { store, stored } = subject()
    const reason = new Error('the run is over')

    await expect(store.put(letter(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)

    expect(await stored()).toEqual([])
  })
}
