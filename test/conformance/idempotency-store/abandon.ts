import { expect, test } from 'vitest'

import { bytesOf } from '../../../src/record.ts'
import { type Subject, freshKey } from './subject.ts'

const LOCK_MS = 30_000

export function abandonCases(subject: Subject): void {
  const kindAt = async (key: string, owner: string): Promise<string> =>
    (await subject().store.begin(key, { owner, lockMs: LOCK_MS })).kind

  test('frees the key for the next owner at once, and twice is fine', async () => {
    const { store } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })

    await store.abandon(key, 'a')
    await store.abandon(key, 'a')

    expect(await kindAt(key, 'b')).toBe('started')
  })

  test('changes nothing for a lock of another owner, or a key that nobody has', async () => {
    const { store } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })

    await store.abandon(key, 'b')
    await store.abandon(freshKey(), 'b')

    expect(await kindAt(key, 'b')).toBe('in-progress')
  })

  test('never takes a stored outcome away', async () => {
    const { store } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await store.complete(key, 'a', bytesOf('x'), { keepMs: 60_000 })

    await store.abandon(key, 'a')

    expect(await kindAt(key, 'b')).toBe('done')
  })

  test('leaves the new lock when the old owner comes late', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(LOCK_MS)
    await store.begin(key, { owner: 'b', lockMs: LOCK_MS })

    await store.abandon(key, 'a')

    expect(await kindAt(key, 'c')).toBe('in-progress')
  })
}
