import { expect, test } from 'vitest'

import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import { bytesOf } from '../../src/record.ts'
import { describeIdempotencyStore } from '../conformance/idempotency-store/index.ts'
import { FakeClock } from '../support/clock.ts'

describeIdempotencyStore('memory', {
  async open() {
    const clock = new FakeClock()
    const store = memoryIdempotency({ clock })
    return { store, other: undefined, advance: (ms) => clock.advance(ms), close: () => store.close() }
  },
})

test('a full store refuses another key by name, serves those it has, and takes new ones when outcomes have expired', async () => {
  const clock = new FakeClock()
  await using store = memoryIdempotency({ clock, maxKeys: 2 })
  await store.begin('a', { owner: 'o', lockMs: 1_000 })
  await store.begin('b', { owner: 'o', lockMs: 5_000 })

  const refused = store.begin('c', { owner: 'o', lockMs: 1_000 })

  await expect(refused).rejects.toMatchObject({
    code: 'IDEMPOTENCY_STORE_UNAVAILABLE',
    retriable: true,
    limit: 'maxKeys',
  })
  await store.complete('a', 'o', bytesOf('x'), { keepMs: 1_000 })
  expect((await store.begin('a', { owner: 'p', lockMs: 1 })).kind).toBe('done')
  await clock.advance(1_000)
  expect((await store.begin('c', { owner: 'o', lockMs: 1_000 })).kind).toBe('started')
  expect((await store.begin('b', { owner: 'p', lockMs: 1_000 })).kind).toBe('in-progress')
})

test('a full store keeps an expired lock for its owner, for an hour', async () => {
  const clock = new FakeClock()
  await using store = memoryIdempotency({ clock, maxKeys: 1 })
  await store.begin('a', { owner: 'o', lockMs: 1_000 })
  await clock.advance(3_600_000)

  await expect(store.begin('b', { owner: 'o', lockMs: 1_000 })).rejects.toMatchObject({ limit: 'maxKeys' })
  await clock.advance(1_000)

  expect((await store.begin('b', { owner: 'o', lockMs: 1_000 })).kind).toBe('started')
})
