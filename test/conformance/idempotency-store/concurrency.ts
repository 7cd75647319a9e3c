import { expect, test } from 'vitest'

import type { IdempotencyStore } from '../../../src/idempotency.ts'
import { bytesOf } from '../../../src/record.ts'
import { type Subject, freshKey } from './subject.ts'

const LOCK_MS = 30_000
const MANY = 12

export function concurrencyCases(subject: Subject): void {
  const beginAll = async (stores: readonly IdempotencyStore[], key: string): Promise<string[]> => {
    const results = await Promise.all(
      Array.from({ length: MANY }, (_, n) => {
        const store = stores[n % stores.length] ?? subject().store
        return store.begin(key, { owner: `owner ${n}`, lockMs: LOCK_MS })
      }),
    )
    return results.map(({ kind }) => kind).sort()
  }
  const oneOf = [...Array.from({ length: MANY - 1 }, () => 'in-progress'), 'started']

  test('one of many begins starts, from one store or several over the same system', async () => {
    const { store, other } = subject()
    await using second = other?.() ?? store

    const kinds = await beginAll([store, second], freshKey())

    if (store.features.linearizable) expect(kinds).toEqual(oneOf)
    // The documented weakness: more than one may start. That one does is all that is left.
    else expect(kinds).toContain('started')
  })

  test('one of many begins takes over an expired lock', async () => {
    const { store, advance } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'dead', lockMs: 1_000 })
    await advance(1_000)

    const kinds = await beginAll([store], key)

    if (store.features.linearizable) expect(kinds).toEqual(oneOf)
    else expect(kinds).toContain('started')
  })

  test('a store that another process opens sees locks and outcomes, where there is another', async () => {
    const { store, other } = subject()
    const key = freshKey()
    await store.begin(key, { owner: 'a', lockMs: LOCK_MS })

    expect(other === undefined).toBe(!store.features.durable)
    await using second = other?.() ?? store

    expect((await second.begin(key, { owner: 'b', lockMs: LOCK_MS })).kind).toBe('in-progress')
    await store.complete(key, 'a', bytesOf('x'), { keepMs: 60_000 })
    expect((await second.begin(key, { owner: 'b', lockMs: LOCK_MS })).kind).toBe('done')
  })

  test('different keys do not wait for each other', async () => {
    const { store } = subject()

    const results = await Promise.all(
      Array.from({ length: MANY }, async () => {
        const key = freshKey()
        await store.begin(key, { owner: 'a', lockMs: LOCK_MS })
        await store.complete(key, 'a', bytesOf(key), { keepMs: 60_000 })
        const found = await store.begin(key, { owner: 'b', lockMs: LOCK_MS })
        return found.kind
      }),
    )

    expect(results).toEqual(results.map(() => 'done'))
  })
}
