import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import { type D1Binding, d1Idempotency } from '../../src/idempotency/d1.ts'
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

describeIdempotencyStore('d1', {
  async open() {
    const clock = new FakeClock()
    const open = (): ReturnType<typeof d1Idempotency> => d1Idempotency({ database: workerd.d1, clock })
    const store = open()
    return { store, other: open, advance: (ms) => clock.advance(ms), close: () => store.close() }
  },
})

describe('the database', () => {
  const run = async (sql: string): Promise<readonly unknown[]> => {
    const [result] = await workerd.d1.batch([workerd.d1.prepare(sql)])
    return result?.results ?? []
  }

  test('loses rows that expired over an hour ago, a few at a time, and no others', async () => {
    await run('DELETE FROM kedge_idempotency')
    const clock = new FakeClock()
    await using store = d1Idempotency({ database: workerd.d1, clock })
    await store.begin('old', { owner: 'a', lockMs: 1_000 })
    await store.begin('older lock, still its owner', { owner: 'a', lockMs: 60_000 })
    await clock.advance(3_600_000 + 1_000)

    await store.begin('new', { owner: 'a', lockMs: 1_000 })

    expect(await run('SELECT key FROM kedge_idempotency ORDER BY key')).toEqual([
      { key: 'new' },
      { key: 'older lock, still its owner' },
    ])
  })

  test('of a newer schema is refused and left as it is', async () => {
    await run('UPDATE kedge_idempotency_schema SET version = 99')
    await using store = d1Idempotency({ database: workerd.d1 })

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({ code: 'INVALID_CONFIG' })

    expect(await run('SELECT version FROM kedge_idempotency_schema')).toEqual([{ version: 99 }])
    await run('UPDATE kedge_idempotency_schema SET version = 1')
    expect((await store.begin('k', { owner: 'a', lockMs: 1 })).kind).toBe('started')
  })

  test('with another table of that name is a wrong setting', async () => {
    await run('ALTER TABLE kedge_idempotency RENAME COLUMN owner TO holder')
    await using store = d1Idempotency({ database: workerd.d1 })

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code: 'INVALID_CONFIG',
      retriable: false,
    })
    await run('ALTER TABLE kedge_idempotency RENAME COLUMN holder TO owner')
  })
})

describe('a database that fails', () => {
  const failing = (batch: D1Binding['batch']): D1Binding => ({ prepare: (sql) => workerd.d1.prepare(sql), batch })

  test('is unavailable, and works again when it does', async () => {
    let isDown = true
    const database = failing(async (statements) => {
      if (isDown) throw new Error('D1_ERROR: Network connection lost.')
      return await workerd.d1.batch(statements)
    })
    await using store = d1Idempotency({ database })

    await expect(store.begin('failing', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code: 'IDEMPOTENCY_STORE_UNAVAILABLE',
      retriable: true,
    })
    isDown = false

    expect((await store.begin('failing', { owner: 'a', lockMs: 1 })).kind).toBe('started')
  })

  test('that never answers ends with TIMEOUT, or with the reason of the abort', async () => {
    await using store = d1Idempotency({ database: failing(() => new Promise(() => {})), timeoutMs: 20 })
    const reason = new Error('the run is over')
    const controller = new AbortController()

    const waiting = store.begin('k', { owner: 'a', lockMs: 1 }, { signal: controller.signal, timeoutMs: 60_000 })
    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      retriable: true,
    })
    controller.abort(reason)

    await expect(waiting).rejects.toBe(reason)
  })
})
