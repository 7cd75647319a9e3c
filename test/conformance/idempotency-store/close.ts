import { expect, test } from 'vitest'

import { type Subject, freshKey } from './subject.ts'

export function closeCases(subject: Subject): void {
  test('refuses every call after close with CLOSED, and close twice is fine', async () => {
    const { store } = subject()

    await store.close()
    await store.close()

    const refusal = { name: 'IdempotencyError', code: 'CLOSED', retriable: false }
    await expect(store.begin(freshKey(), { owner: 'a', lockMs: 1 })).rejects.toMatchObject(refusal)
    await expect(store.complete(freshKey(), 'a', new Uint8Array(0), { keepMs: 1 })).rejects.toMatchObject(refusal)
    await expect(store.abandon(freshKey(), 'a')).rejects.toMatchObject(refusal)
  })

  test('closes at the end of its scope', async () => {
    const { store } = subject()

    await store[Symbol.asyncDispose]()

    await expect(store.abandon(freshKey(), 'a')).rejects.toMatchObject({ code: 'CLOSED' })
  })

  test('rejects with the reason of an aborted signal, and takes no lock', async () => {
    const { store } = subject()
    const key = freshKey()
    const reason = new Error('the run is over')

    const begin = store.begin(key, { owner: 'a', lockMs: 30_000 }, { signal: AbortSignal.abort(reason) })

    await expect(begin).rejects.toBe(reason)
    expect((await store.begin(key, { owner: 'b', lockMs: 30_000 })).kind).toBe('started')
  })
}
