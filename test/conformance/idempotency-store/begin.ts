import { expect, test } from 'vitest'

import { bytesOf } from '../../../src/record.ts'
import { type Subject, freshKey } from './subject.ts'

const LOCK_MS = 30_000

export function beginCases(subject: Subject): void {
  test('starts a key that nobody has', async () => {
    const { store } = subject()

    expect(await store.begin(freshKey(), { owner: 'a', lockMs: LOCK_MS })).toEqual({ kind: 'started' })
  })

  test('finds a live lock of another owner in progress, and says how long it has left at most', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(10_000)

    const found = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })

    expect(found.kind).toBe('in-progress')
    const { retryAfterMs } = found as { retryAfterMs: number }
    expect(retryAfterMs).toBeLessThanOrEqual(LOCK_MS - 10_000)
    expect(retryAfterMs).toBeGreaterThan(LOCK_MS - 20_000)
  })

  test('takes over a lock that expired, and not a moment earlier than it says', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(LOCK_MS - 5_000)
    const early = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
    await advance(5_000)

    const late = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })

    expect([early.kind, late.kind]).toEqual(['in-progress', 'started'])
    expect((await store.begin(key, { owner: 'a', lockMs: LOCK_MS })).kind).toBe('in-progress')
  })

  test('gives the owner its own lock again, counted from now, as for an answer that was lost', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(20_000)

    expect(await store.begin(key, { owner: 'a', lockMs: LOCK_MS })).toEqual({ kind: 'started' })

    await advance(20_000)
    expect((await store.begin(key, { owner: 'b', lockMs: LOCK_MS })).kind).toBe('in-progress')
  })

  test('gives a stored outcome to everybody, byte for byte', async () => {
    const { store } = subject()
    const key = freshKey()
    const outcome = Uint8Array.from({ length: 256 }, (_, byte) => byte)
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await store.complete(key, 'a', outcome, { keepMs: 60_000 })

    for (const owner of ['a', 'b']) {
      const found = await store.begin(key, { owner, lockMs: LOCK_MS })
      expect(found.kind === 'done' ? [...found.outcome] : found).toEqual([...outcome])
    }
  })

  test('keeps an outcome after its lock would have expired, until its own time is over', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: 10_000 })
    await store.complete(key, 'a', bytesOf('x'), { keepMs: 120_000 })
    await advance(60_000)
    const kept = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
    await advance(60_000)

    const after = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })

    expect([kept.kind, after.kind]).toEqual(['done', 'started'])
  })

  test('tells keys apart that are alike', async () => {
    const { store } = subject()
    const base = freshKey()
    const keys = [base, `${base} `, `${base}/`, `${base}%2F`, base.toUpperCase(), `${base}é`, `${base}e\u0301`]

    for (const key of keys) {
      expect((await store.begin(key, { owner: `of ${key.length}`, lockMs: LOCK_MS })).kind).toBe('started')
    }
  })
}
