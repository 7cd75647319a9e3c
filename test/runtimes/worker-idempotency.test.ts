/** Effectively-once handling inside real workerd, over the bindings of the worker. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'

import { workerIdempotencyDrivers } from '../../src/runtimes/worker-idempotency-drivers.ts'
import { openIdempotency } from '../../src/runtimes/open-idempotency.ts'
import type { HandleQuestion } from '../idempotency/in-worker.ts'
import { type Workerd, startWorkerd } from '../support/workerd.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let workerd: Workerd
beforeAll(async () => {
  workerd = await startWorkerd()
})
afterAll(() => workerd.close())

const handle = async (question: HandleQuestion): Promise<{ kind: string; effects: number; code?: string }> => {
  const { json } = await workerd.ask('/handle', question)
  return json as { kind: string; effects: number; code?: string }
}

test.each(['do:LOCKS', 'd1:DB'])('%s: ticks that come at once and later have the effect once', async (address) => {
  const before = (await handle({ address, offset: 0 })).effects

  const together = await Promise.all([1, 2, 3].map(() => handle({ address, offset: 1 })))
  const later = await handle({ address, offset: 1 })

  expect(together.map(({ kind }) => kind).sort()).toEqual(['blocked', 'blocked', 'handled'])
  expect(later).toEqual({ kind: 'duplicate', effects: before + 1 })
})

test('kv: is refused, and where it is allowed knows a repeat that comes later', async () => {
  const question = { address: 'kv:KV', offset: 1 }

  expect(await handle(question)).toMatchObject({ code: 'INVALID_CONFIG' })
  expect((await handle({ ...question, allowNonLinearizable: true })).kind).toBe('handled')
  expect((await handle({ ...question, allowNonLinearizable: true })).kind).toBe('duplicate')
})

test.each(['do:MISSING', 'do:DB', 'd1:KV', 'kv:LOCKS', 'kv:', 'd1:toString'])(
  '%s names no such binding and is refused',
  async (address) => {
    expect(await handle({ address, offset: 1 })).toMatchObject({ code: 'INVALID_CONFIG' })
  },
)

test('a variable is no binding', async () => {
  const drivers = workerIdempotencyDrivers({ DB: 'a text', LOCKS: null })

  await expect(openIdempotency('d1:DB', drivers)).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
  await expect(openIdempotency('do:LOCKS', drivers)).rejects.toMatchObject({ code: 'INVALID_CONFIG' })
})
