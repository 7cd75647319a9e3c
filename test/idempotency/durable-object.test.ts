import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import {
  type DurableObjectBinding,
  type DurableObjectState,
  KedgeIdempotency,
  durableObjectIdempotency,
} from '../../src/idempotency/durable-object.ts'
import type { Clock } from '../../src/clock.ts'
import { bytesOf } from '../../src/record.ts'
import { describeIdempotencyStore } from '../conformance/idempotency-store/index.ts'
import { FakeClock } from '../support/clock.ts'
import { until } from '../support/until.ts'
import { type Workerd, startWorkerd } from '../support/workerd.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let workerd: Workerd
beforeAll(async () => {
  workerd = await startWorkerd()
})
afterAll(() => workerd.close())

describeIdempotencyStore('durable objects', {
  async open() {
    const open = (): ReturnType<typeof durableObjectIdempotency> =>
      durableObjectIdempotency({ namespace: workerd.durableObjects, timeoutMs: 30_000 })
    const store = open()
    return {
      store,
      other: open,
      async advance(ms) {
        await workerd.ask('/advance', ms)
      },
      close: () => store.close(),
    }
  },
})

/** An object over a plain map, for what workerd would take days to come to. */
function objectOver(clock: Clock): { object: KedgeIdempotency; stored: Map<string, string>; alarms: number[] } {
  const stored = new Map<string, string>()
  const alarms: number[] = []
  const state: DurableObjectState = {
    storage: {
      get: async (key) => stored.get(key),
      async put(key, value) {
        stored.set(key, value)
      },
      async deleteAll() {
        stored.clear()
      },
      async setAlarm(atMs) {
        alarms.push(atMs)
      },
    },
  }
  class Clocked extends KedgeIdempotency {
    protected override readonly clock = clock
  }
  return { object: new Clocked(state), stored, alarms }
}

const post = (verb: string, body: unknown): Request =>
  new Request(`https://object/${verb}`, { method: 'POST', body: JSON.stringify(body) })

describe('the object', () => {
  test('deletes an outcome when its time is over, by the alarm of the platform', async () => {
    await using store = durableObjectIdempotency({ namespace: workerd.durableObjects })
    await store.begin('short', { owner: 'a', lockMs: 30_000 })
    await store.complete('short', 'a', bytesOf('x'), { keepMs: 50 })

    const outcomes = new Set<string>()
    await until(
      async () => {
        // The lock is given back at once, so that only a forgotten key starts.
        const { kind } = await store.begin('short', { owner: 'b', lockMs: 1 })
        await store.abandon('short', 'b')
        outcomes.add(kind)
        return kind === 'started'
      },
      { timeoutMs: 20_000 },
    )

    expect(outcomes).not.toContain('in-progress')
  })

  test('forgets a lock an hour after it expired, not before, and an outcome at its end', async () => {
    const clock = new FakeClock()
    const { object, stored, alarms } = objectOver(clock)
    await object.fetch(post('begin', { owner: 'a', lockMs: 1_000 }))
    await clock.advance(3_600_000)
    await object.alarm()
    const lockedLater = stored.size
    await clock.advance(1_000)
    await object.alarm()
    const lockedAfter = stored.size
    await object.fetch(post('begin', { owner: 'a', lockMs: 1_000 }))
    await object.fetch(post('complete', { owner: 'a', keepMs: 5_000, outcome: '' }))
    await clock.advance(5_000)
    await object.alarm()

    expect([lockedLater, lockedAfter, stored.size]).toEqual([1, 0, 0])
    expect(alarms.at(-1)).toBe(clock.now())
  })

  test('refuses an entry of a newer version, and leaves it as it is', async () => {
    const { object, stored } = objectOver(new FakeClock())
    stored.set('entry', '{"version":2}')

    await expect(object.fetch(post('begin', { owner: 'a', lockMs: 1 }))).rejects.toMatchObject({ code: 'BAD_RESPONSE' })

    expect(stored.get('entry')).toBe('{"version":2}')
  })

  test('knows no other calls', async () => {
    const { object } = objectOver(new FakeClock())

    expect((await object.fetch(post('steal', { owner: 'a' }))).status).toBe(404)
  })
})

describe('a namespace that fails', () => {
  const answering = (fetch: () => Promise<Response>): DurableObjectBinding => ({
    idFromName: (name) => name,
    get: () => ({ fetch }),
  })

  test.each([
    ['throws', () => Promise.reject(new Error('Network connection lost.')), 'IDEMPOTENCY_STORE_UNAVAILABLE', true],
    ['answers 404', async () => new Response('no', { status: 404 }), 'BAD_RESPONSE', false],
    ['answers with something else', async () => Response.json({ kind: 'maybe' }), 'BAD_RESPONSE', false],
    ['answers with no JSON', async () => new Response('<html>'), 'IDEMPOTENCY_STORE_UNAVAILABLE', true],
  ])('and %s is said by name', async (_name, fetch, code, retriable) => {
    await using store = durableObjectIdempotency({ namespace: answering(fetch) })

    await expect(store.begin('k', { owner: 'a', lockMs: 1 })).rejects.toMatchObject({
      name: 'IdempotencyError',
      code,
      retriable,
    })
  })

  test('and never answers ends with TIMEOUT', async () => {
    await using store = durableObjectIdempotency({ namespace: answering(() => new Promise(() => {})) })

    await expect(store.begin('k', { owner: 'a', lockMs: 1 }, { timeoutMs: 20 })).rejects.toMatchObject({
      code: 'TIMEOUT',
    })
  })
})
