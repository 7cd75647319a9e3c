import { expect, test } from 'vitest'

import type { Subject } from './index.ts'
import { letter } from './letters.ts'

export function closeCases(subject: Subject): void {
  test('refuses every call after close with CLOSED, and close twice is fine', async () => {
    const { store } = subject()

    await store.close()
    await store.close()

    const refusal = { name: 'DeadLetterStoreError', code: 'CLOSED', retriable: false }
    await expect(store.put(letter())).rejects.toMatchObject(refusal)
    await expect(store.list()).rejects.toMatchObject(refusal)
    await expect(store.get(letter().id)).rejects.toMatchObject(refusal)
    await expect(store.delete(letter().id)).rejects.toMatchObject(refusal)
  })

  test('closes at the end of its scope', async () => {
    const { store } = subject()

    await store[Symbol.asyncDispose]()

    await expect(store.put(letter())).rejects.toMatchObject({ code: 'CLOSED' })
  })
}
