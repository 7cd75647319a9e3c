import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import { EffectivelyOnce } from '../../src/consumer/effectively-once.ts'
import { type KvBinding, kvIdempotency } from '../../src/idempotency/kv.ts'
import { bytesOf } from '../../src/record.ts'
import { describeIdempotencyStore } from '../conformance/idempotency-store/index.ts'
import { FakeClock } from '../support/clock.ts'
import { type Workerd, startWorkerd } from '../support/workerd.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let workerd: Workerd
beforeAll(async () => {
  workerd = await startWorkerd()
})
afterAll(() => workerd.close())

describeIdempotencyStore('kv', {
  async open() {
    const clock = new FakeClock()
    const open = (): ReturnType<typeof kvIdempotency> => kvIdempotency({ namespace: workerd.kv, clock })
    const store = open()
    return { store, other: open, advance: (ms) => clock.advance(ms), close: () => store.close() }
  },
})

describe('what KV cannot do', () => {
  test('is refused where effects must not happen twice, unless that is allowed', async () => {
    await using store = kvIdempotency({ namespace: workerd.kv })

    expect(store.features.linearizable).toBe(false)
    expect(() => new EffectivelyOnce({ store })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    expect(new EffectivelyOnce({ store, allowNonLinearizable: true })).toBeInstanceOf(EffectivelyOnce)
  })

  test('shows: two begins start when a write is not visible yet', async () => {
    // As a second location would see it: what was written there arrives later.
    const behind: KvBinding = {
      get: async () => null,
      put: (key, value, options) => workerd.kv.put(key, value, options),
      delete: (key) => workerd.kv.delete(key),
    }
    await using here = kvIdempotency({ namespace: workerd.kv })
    await using there = kvIdempotency({ namespace: behind })

    const first = await here.begin('seen later', { owner: 'a', lockMs: 30_000 })
    const second = await there.begin('seen later', { owner: 'b', lockMs: 30_000 })

    expect([first.kind, second.kind]).toEqual(['started', 'started'])
    // Whose lock the namespace shows in the end is the last one's; the first one learns that it lost.
    await expect(here.complete('seen later', 'a', bytesOf('x'), { keepMs: 60_000 })).rejects.toMatchObject({
      code: 'LOCK_LOST',
    })
  })
})

describe('a namespace that refuses', () => {
  test.each([
    ['KV PUT failed: 429 Too Many Requests', 'IDEMPOTENCY_STORE_UNAVAILABLE', true, 1_000],
    ['KV PUT failed: 500 Internal Server Error', 'IDEMPOTENCY_STORE_UNAVAILABLE', true, undefined],
    ['Network connection lost.', 'IDEMPOTENCY_STORE_UNAVAILABLE', true, undefined],
    ['KV PUT failed: 413 Value length exceeds limit', 'INVALID_REQUEST', false, undefined],
  ])('with %j is said by name', async (message, code, retriable, retryAfterMs) => {
    const namespace: KvBinding = {
      get: async () => null,
      put: () => Promise.reject(new Error(message)),
      delete: () => Promise.reject(new Error(message)),
    }
    await using store = kvIdempotency({ namespace })

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code,
      retriable,
      retryAfterMs,
    })
  })

  test('with a value that is not ours is no reason to retry', async () => {
    await workerd.kv.put('theirs', 'hello', { expirationTtl: 60 })
    await using store = kvIdempotency({ namespace: workerd.kv })

    await expect(store.begin('theirs', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      code: 'BAD_RESPONSE',
      retriable: false,
    })
  })
})
