import { expect, test } from 'vitest'

import { bytesOf, textOf } from '../../../src/record.ts'
import { type Subject, freshKey } from './subject.ts'

const LOCK_MS = 30_000
const keep = { keepMs: 120_000 }
const lost = { name: 'IdempotencyError', code: 'LOCK_LOST', retriable: false }

export function completeCases(subject: Subject): void {
  const outcomeAt = async (key: string): Promise<string> => {
    const found = await subject().store.begin(key, { owner: 'looks', lockMs: 1 })
    return found.kind === 'done' ? textOf(found.outcome) : found.kind
  }

  test('stores nothing for an owner whose lock was taken over, and leaves the new one alone', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(LOCK_MS)
    await store.begin(key, { owner: 'b', lockMs: LOCK_MS })

    await expect(store.complete(key, 'a', bytesOf('late'), keep)).rejects.toMatchObject(lost)

    expect(await outcomeAt(key)).toBe('in-progress')
    await store.complete(key, 'b', bytesOf('b'), keep)
    expect(await outcomeAt(key)).toBe('b')
  })

  test('never goes over an outcome of another owner', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(LOCK_MS)
    await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
    await store.complete(key, 'b', bytesOf('b'), keep)

    await expect(store.complete(key, 'a', bytesOf('a'), keep)).rejects.toMatchObject(lost)

    expect(await outcomeAt(key)).toBe('b')
  })

  test('stores for an owner whose lock expired while nobody took it over', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await advance(LOCK_MS + 60_000)

    await store.complete(key, 'a', bytesOf('a'), keep)

    expect(await outcomeAt(key)).toBe('a')
  })

  test('keeps the first outcome when its owner repeats it, as for an answer that was lost', async () => {
    const { store } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await store.complete(key, 'a', bytesOf('first'), keep)

    await store.complete(key, 'a', bytesOf('second'), keep)

    expect(await outcomeAt(key)).toBe('first')
  })

  test('of a key that nobody has is lost; a store that is not linearizable cannot know and stores', async () => {
    const { store } = subject()
    const key = freshKey()

    const complete = store.complete(key, 'a', bytesOf('a'), keep)

    if (store.features.linearizable) {
      await expect(complete).rejects.toMatchObject(lost)
      expect(await outcomeAt(key)).toBe('started')
    } else {
      await complete
      expect(await outcomeAt(key)).toBe('a')
    }
  })

  test('tells an empty outcome from none', async () => {
    const { store } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })

    await store.complete(key, 'a', new Uint8Array(0), keep)

    const found = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
    expect(found.kind === 'done' ? [...found.outcome] : found).toEqual([])
  })

  test('neither keeps what it was given nor gives what it keeps', async () => {
    const { store } = subject()
    const key = freshKey()
    const given = bytesOf('as it was')
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
    await store.complete(key, 'a', given, keep)
    given.fill(0)
    const got = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
    if (got.kind === 'done') got.outcome.fill(0)

    expect(await outcomeAt(key)).toBe('as it was')
  })
}
