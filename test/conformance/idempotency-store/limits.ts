import { expect, test } from 'vitest'

import { MAX_KEY_BYTES } from '../../../src/idempotency.ts'
import { type Subject, freshKey } from './subject.ts'

const LOCK_MS = 30_000
const refused = { name: 'IdempotencyError', code: 'INVALID_REQUEST', retriable: false }

export function limitCases(subject: Subject): void {
  test('takes an outcome of the largest size and refuses one byte more by name', async () => {
    const { store } = subject()
    const key = freshKey()
    const largest = new Uint8Array(store.features.maxOutcomeBytes).fill(7)
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })

    await expect(
      store.complete(key, 'a', new Uint8Array(largest.length + 1), { keepMs: 60_000 }),
    ).rejects.toMatchObject({
      name: 'IdempotencyError',
      code: 'LIMIT_EXCEEDED',
      limit: 'outcome-bytes',
      retriable: false,
    })
    await store.complete(key, 'a', largest, { keepMs: 60_000 })

    const found = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
    expect(found.kind === 'done' && Buffer.compare(found.outcome, largest)).toBe(0)
  })

  test('takes the longest keys, and tells two apart that differ in their last character', async () => {
    const { store } = subject()
    const long = freshKey().padEnd(MAX_KEY_BYTES - 1, 'k')

    const kinds = []
    for (const [key, owner] of [
      [`${long}1`, 'a'],
      [`${long}2`, 'b'],
      [`${long}1`, 'c'],
    ] as const) {
      kinds.push((await store.begin(key, { owner, lockMs: LOCK_MS })).kind)
    }

    expect(kinds).toEqual(['started', 'started', 'in-progress'])
    await expect(store.begin(`${long}12`, { owner: 'a', lockMs: LOCK_MS })).rejects.toMatchObject({
      ...refused,
      limit: 'key-bytes',
    })
  })

  test.each(['', '\ud800', 'é'.repeat(MAX_KEY_BYTES / 2 + 1)])(
    'refuses a bad key, and does not show it',
    async (key) => {
      const { store } = subject()

      const begin = store.begin(key, { owner: 'a', lockMs: LOCK_MS })

      await expect(begin).rejects.toMatchObject({ ...refused, limit: 'key-bytes' })
      await expect(begin).rejects.not.toThrow(/é/)
      await expect(store.abandon(key, 'a')).rejects.toMatchObject(refused)
      await expect(store.complete(key, 'a', new Uint8Array(1), { keepMs: 1 })).rejects.toMatchObject(refused)
    },
  )

  test.each(['', 'o'.repeat(129)])('refuses a bad owner', async (owner) => {
    await expect(subject().store.begin(freshKey(), { owner, lockMs: LOCK_MS })).rejects.toMatchObject({
      ...refused,
      limit: 'owner-bytes',
    })
  })

  test.each([0, -1, 0.5, Number.NaN, 86_400_001])('refuses a lock of %s ms', async (lockMs) => {
    await expect(subject().store.begin(freshKey(), { owner: 'a', lockMs })).rejects.toMatchObject(refused)
  })

  test.each([0, 1.5, 31_622_400_001])('refuses to keep an outcome for %s ms', async (keepMs) => {
    const { store } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })

    await expect(store.complete(key, 'a', new Uint8Array(1), { keepMs })).rejects.toMatchObject(refused)
  })

  test('keeps an outcome for the longest time', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: 86_400_000 })
    await store.complete(key, 'a', new Uint8Array(1), { keepMs: 31_622_400_000 })
    await advance(3_600_000)

    expect((await store.begin(key, { owner: 'b', lockMs: LOCK_MS })).kind).toBe('done')
  })
}
