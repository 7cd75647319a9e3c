import { describe, expect, test } from 'vitest'

import {
  EffectivelyOnce,
  type EffectivelyOnceOptions,
  type OnceOutcome,
  idempotencyKeyOf,
} from '../../src/consumer/effectively-once.ts'
import { BrokerError, IdempotencyError } from '../../src/errors.ts'
import type { IdempotencyStore } from '../../src/idempotency.ts'
import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import type { LogEvent } from '../../src/logger.ts'
import { bytesOf } from '../../src/record.ts'
import { FakeClock, START_MS } from '../support/clock.ts'
import { type StoreMethod, attemptWith, interceptedStore, recordAt } from '../support/idempotency.ts'

const KEY = 'shop/orders/0/0'

interface Setting {
  readonly clock: FakeClock
  readonly store: IdempotencyStore
  readonly lines: LogEvent[]
  readonly once: (options?: Partial<EffectivelyOnceOptions>) => EffectivelyOnce
}

function setting(): Setting {
  const clock = new FakeClock()
  const store = memoryIdempotency({ clock })
  const lines: LogEvent[] = []
  return {
    clock,
    store,
    lines,
    once: (options) =>
      new EffectivelyOnce({ store, clock, random: () => 0.5, log: (line) => lines.push(line), ...options }),
  }
}

const unavailable = (retryAfterMs?: number): IdempotencyError =>
  new IdempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE', 'down', retryAfterMs === undefined ? {} : { retryAfterMs })

/** A store whose given method fails so many times, before or after it did its work. */
function failing(
  store: IdempotencyStore,
  method: StoreMethod,
  times: number,
  when: 'before' | 'after' = 'before',
  error: unknown = unavailable(),
): IdempotencyStore & { readonly calls: StoreMethod[] } {
  const calls: StoreMethod[] = []
  let left = times
  const intercepted = interceptedStore(store, {
    [when]: async (called: StoreMethod) => {
      calls.push(called)
      if (called !== method || left <= 0) return
      left -= 1
      throw error
    },
  })
  return { ...intercepted, calls }
}

/** Lets an attempt go through its waits. */
async function through(clock: FakeClock, outcome: Promise<OnceOutcome>): Promise<OnceOutcome> {
  await clock.advance(5_000)
  return await outcome
}

describe('a record', () => {
  test('is handled under its lock, which is an outcome afterwards', async () => {
    const { once, store } = setting()
    const during: string[] = []

    const outcome = await once().run(
      attemptWith(async () => {
        during.push((await store.begin(KEY, { owner: 'other', lockMs: 1 })).kind)
      }),
    )

    expect(outcome).toEqual({ kind: 'handled', isRecorded: true })
    expect(during).toEqual(['in-progress'])
    expect((await store.begin(KEY, { owner: 'other', lockMs: 1 })).kind).toBe('done')
  })

  test('that was handled is not handled again: it is logged as a duplicate, with when that was', async () => {
    const { once, clock, lines } = setting()
    let calls = 0
    await once().run(attemptWith(() => (calls += 1)))
    await clock.advance(60_000)

    const outcome = await once().run(attemptWith(() => (calls += 1)))

    expect(outcome).toEqual({ kind: 'duplicate', handledAtMs: START_MS })
    expect(calls).toBe(1)
    expect(lines).toEqual([
      {
        level: 'info',
        event: 'duplicate',
        topic: 'orders',
        partition: 0,
        offset: 0,
        handledAtMs: START_MS,
      },
    ])
  })

  test('is handled again when its outcome is no longer kept', async () => {
    const { once, clock } = setting()
    let calls = 0
    const handler = attemptWith(() => (calls += 1))
    await once({ keepMs: 1_000 }).run(handler)
    await clock.advance(1_000)

    await once({ keepMs: 1_000 }).run(handler)

    expect(calls).toBe(2)
  })

  test('with an outcome that somebody else stored is a duplicate of unknown time', async () => {
    const { once, store } = setting()
    await store.begin(KEY, { owner: 'other', lockMs: 1_000 })
    await store.complete(KEY, 'other', bytesOf('{"done":tr'), { keepMs: 1_000 })

    expect(await once().run(attemptWith(() => {}))).toEqual({ kind: 'duplicate', handledAtMs: undefined })
  })

  test('whose handler throws, now or later, is failed with what it threw, and free for the next attempt', async () => {
    const { once } = setting()
    const error = new Error('no stock')
    const now = (): void => {
      throw error
    }
    const later = async (): Promise<void> => {
      await Promise.resolve()
      throw error
    }

    const outcomes = [await once().run(attemptWith(now)), await once().run(attemptWith(later))]

    expect(outcomes).toEqual([
      { kind: 'failed', error },
      { kind: 'failed', error },
    ])
    expect((await once().run(attemptWith(() => {}))).kind).toBe('handled')
  })

  test('in progress elsewhere is blocked for as long as is left, or until the next look', async () => {
    const { once, store, clock, lines } = setting()
    let calls = 0
    await store.begin(KEY, { owner: 'other', lockMs: 10_000 })

    const far = await once().run(attemptWith(() => (calls += 1)))
    await clock.advance(9_600)
    const near = await once().run(attemptWith(() => (calls += 1)))
    await clock.advance(400)
    const after = await once().run(attemptWith(() => (calls += 1)))

    expect(far).toMatchObject({ kind: 'blocked', retryAfterMs: 1_000, error: { code: 'RECORD_IN_PROGRESS' } })
    expect(near).toMatchObject({ kind: 'blocked', retryAfterMs: 400, error: { retriable: true } })
    expect([after.kind, calls]).toEqual(['handled', 1])
    expect(lines.map(({ level, event }) => `${level} ${event}`)).toEqual(['info in progress', 'info in progress'])
  })
})

describe('the lock', () => {
  test('lasts longer than the attempt by the margin', async () => {
    const { once, store, clock } = setting()
    const { promise: never } = Promise.withResolvers<void>()
    void once({ marginMs: 2_000 }).run(attemptWith(() => never, { timeoutMs: 10_000.5 }))
    await clock.advance(0)

    const found = await store.begin(KEY, { owner: 'other', lockMs: 1 })

    expect(found).toEqual({ kind: 'in-progress', retryAfterMs: 12_001 })
  })

  test('has an owner of its own for each attempt', async () => {
    const { once, store } = setting()
    const owners: string[] = []
    const seeing: IdempotencyStore = {
      ...store,
      begin(key, options, call) {
        owners.push(options.owner)
        return store.begin(key, options, call)
      },
    }

    for (const offset of [1, 2]) {
      await once({ store: seeing }).run(attemptWith(() => {}, { record: recordAt(offset) }))
    }

    expect(new Set(owners).size).toBe(2)
  })

  test('that lapsed before the store answered is none: no handler is called', async () => {
    const { once, store, clock } = setting()
    let calls = 0
    const late = interceptedStore(store, {
      after: async (method) => {
        if (method === 'begin') await clock.advance(45_000)
      },
    })

    const outcome = await once({ store: late }).run(attemptWith(() => (calls += 1)))

    expect(outcome).toMatchObject({ kind: 'blocked', error: { code: 'LOCK_LOST', retriable: true } })
    expect(calls).toBe(0)
  })

  test('that was lost meanwhile fails the attempt, so that the next look sees what the other one stored', async () => {
    const { once, store, clock, lines } = setting()
    let calls = 0

    const outcome = await once().run(
      attemptWith(async () => {
        calls += 1
        await clock.advance(45_000)
        await store.begin(KEY, { owner: 'other', lockMs: 10_000 })
      }),
    )

    expect(outcome).toMatchObject({ kind: 'blocked', error: { code: 'LOCK_LOST', retriable: true } })
    expect(lines).toMatchObject([{ level: 'warn', code: 'LOCK_LOST' }])
    expect((await once().run(attemptWith(() => (calls += 1)))).kind).toBe('blocked')
    await store.complete(KEY, 'other', bytesOf('x'), { keepMs: 60_000 })
    expect((await once().run(attemptWith(() => (calls += 1)))).kind).toBe('duplicate')
    expect(calls).toBe(1)
  })
})

describe('an attempt that is given up', () => {
  test('before it began calls neither store nor handler', async () => {
    const { once, store } = setting()
    const seen = failing(store, 'begin', 0)
    let calls = 0

    const outcome = await once({ store: seen }).run(
      attemptWith(() => (calls += 1), { signal: AbortSignal.abort(new Error('over')) }),
    )

    expect([outcome, calls]).toEqual([{ kind: 'given-up' }, 0])
    expect(seen.calls).not.toContain('begin')
  })

  test('while it begins frees the lock that it may have taken', async () => {
    const { once, store, clock } = setting()
    const controller = new AbortController()
    const slow = interceptedStore(store, {
      after: async (method) => {
        if (method === 'begin') controller.abort(new Error('over'))
      },
    })
    let calls = 0

    const outcome = await once({ store: slow }).run(attemptWith(() => (calls += 1), { signal: controller.signal }))
    await clock.advance(0)

    expect([outcome, calls]).toEqual([{ kind: 'given-up' }, 0])
    expect((await store.begin(KEY, { owner: 'next', lockMs: 1 })).kind).toBe('started')
  })

  test('while its handler is at work ends at once and keeps the lock; a late return is an outcome', async () => {
    const { once, store, clock } = setting()
    const controller = new AbortController()
    const { promise: work, resolve } = Promise.withResolvers<void>()

    const running = once().run(attemptWith(() => work, { signal: controller.signal }))
    await clock.advance(0)
    controller.abort(new Error('over'))
    const outcome = await running
    const meanwhile = await once().run(attemptWith(() => {}))
    resolve()
    await clock.advance(0)

    expect([outcome.kind, meanwhile.kind]).toEqual(['given-up', 'blocked'])
    expect((await store.begin(KEY, { owner: 'next', lockMs: 1 })).kind).toBe('done')
  })

  test('while its handler is at work keeps the lock until a late failure frees it', async () => {
    const { once, store, clock } = setting()
    const controller = new AbortController()
    const { promise: work, reject } = Promise.withResolvers<void>()

    const running = once().run(attemptWith(() => work, { signal: controller.signal }))
    await clock.advance(0)
    controller.abort(new Error('over'))
    await running
    const before = (await store.begin(KEY, { owner: 'next', lockMs: 1 })).kind
    reject(new Error('late'))
    await clock.advance(0)

    expect([before, (await store.begin(KEY, { owner: 'next', lockMs: 1 })).kind]).toEqual(['in-progress', 'started'])
  })

  test('by the first lines of its handler ends at once, though the handler never does', async () => {
    const { once } = setting()
    const controller = new AbortController()

    const outcome = await once().run(
      attemptWith(
        () => {
          controller.abort(new Error('over'))
          return new Promise(() => {})
        },
        { signal: controller.signal },
      ),
    )

    expect(outcome.kind).toBe('given-up')
  })

  test('after its handler returned still stores the outcome', async () => {
    const { once, store, clock } = setting()
    const controller = new AbortController()

    const outcome = await once().run(
      attemptWith(() => controller.abort(new Error('over')), { signal: controller.signal }),
    )
    await clock.advance(0)

    expect(outcome.kind).toBe('given-up')
    expect((await store.begin(KEY, { owner: 'next', lockMs: 1 })).kind).toBe('done')
  })
})

describe('a store that fails', () => {
  test('for a moment is asked again, under the same owner', async () => {
    const { once, store, clock } = setting()
    let calls = 0

    // The second begin finds the lock that the first one took, for only its answer was lost.
    const begun = await through(
      clock,
      once({ store: failing(store, 'begin', 2, 'after') }).run(attemptWith(() => (calls += 1))),
    )
    const completed = await through(
      clock,
      once({ store: failing(store, 'complete', 2, 'after') }).run(
        attemptWith(() => (calls += 1), { record: recordAt(1) }),
      ),
    )

    expect([begun, completed, calls]).toEqual([
      { kind: 'handled', isRecorded: true },
      { kind: 'handled', isRecorded: true },
      2,
    ])
  })

  test('at the begin blocks the record: no handler is called without a lock', async () => {
    const { once, store, clock, lines } = setting()
    let calls = 0
    const down = failing(store, 'begin', 99)

    const outcome = await through(clock, once({ store: down }).run(attemptWith(() => (calls += 1))))

    expect(outcome).toMatchObject({
      kind: 'blocked',
      retryAfterMs: 1_000,
      error: { code: 'IDEMPOTENCY_STORE_UNAVAILABLE', retriable: true },
    })
    expect(calls).toBe(0)
    expect(down.calls.filter((method) => method === 'begin')).toHaveLength(3)
    expect(lines).toMatchObject([{ level: 'warn', offset: 0, code: 'IDEMPOTENCY_STORE_UNAVAILABLE' }])
  })

  test('at the begin whose answers were lost leaves no lock behind', async () => {
    const { once, store, clock } = setting()

    await through(clock, once({ store: failing(store, 'begin', 3, 'after') }).run(attemptWith(() => {})))

    expect((await store.begin(KEY, { owner: 'next', lockMs: 1 })).kind).toBe('started')
  })

  test('for a reason that waiting does not mend is asked once', async () => {
    const { once, store } = setting()
    const wrong = failing(store, 'begin', 99, 'before', new IdempotencyError('INVALID_CONFIG', 'no table'))

    const outcome = await once({ store: wrong }).run(attemptWith(() => {}))

    expect(outcome).toMatchObject({ kind: 'blocked', error: { code: 'INVALID_CONFIG', retriable: false } })
    expect(wrong.calls).toEqual(['begin'])
  })

  test('with something that is no error of ours is not asked again', async () => {
    const { once, store } = setting()

    const outcome = await once({ store: failing(store, 'begin', 99, 'before', new TypeError('bug')) }).run(
      attemptWith(() => {}),
    )

    expect(outcome).toMatchObject({ kind: 'blocked', error: { name: 'IdempotencyError', retriable: false } })
  })

  test('and asks for more time than a lock has is not waited for', async () => {
    const { once, store } = setting()
    const busy = failing(store, 'begin', 1, 'before', unavailable(60_000))

    const outcome = await once({ store: busy }).run(attemptWith(() => {}))

    expect(outcome).toMatchObject({ kind: 'blocked', retryAfterMs: 60_000 })
  })

  test('at the complete leaves the record handled and unrecorded, and says so', async () => {
    const { once, store, clock, lines } = setting()
    let calls = 0

    const outcome = await through(
      clock,
      once({ store: failing(store, 'complete', 99) }).run(attemptWith(() => (calls += 1))),
    )

    expect([outcome, calls]).toEqual([{ kind: 'handled', isRecorded: false }, 1])
    expect(lines).toMatchObject([{ level: 'error', event: 'outcome not stored', offset: 0 }])
  })

  test('at the abandon does not hide what the handler threw', async () => {
    const { once, store, lines } = setting()
    const error = new Error('no stock')

    const outcome = await once({ store: failing(store, 'abandon', 99) }).run(
      attemptWith(() => {
        throw error
      }),
    )

    expect(outcome).toEqual({ kind: 'failed', error })
    expect(lines).toMatchObject([{ level: 'warn', event: 'lock not freed' }])
  })

  test('and a log that fails cost no record', async () => {
    const { once, store } = setting()
    const log = (): void => {
      throw new Error('disk full')
    }
    await once({ log }).run(attemptWith(() => {}))

    expect((await once({ log }).run(attemptWith(() => {}))).kind).toBe('duplicate')
    expect(
      (await once({ log, store: failing(store, 'begin', 99, 'before', new Error('x')) }).run(attemptWith(() => {})))
        .kind,
    ).toBe('blocked')
  })
})

describe('calls to the store', () => {
  test('go through the run that counts and bounds them: begin under the signal, complete and abandon without', async () => {
    const { once } = setting()
    const limits: boolean[] = []
    const counted = once({
      makeCall(run, { signal }) {
        limits.push(signal !== undefined)
        return run({ timeoutMs: 1_000 })
      },
    })

    await counted.run(attemptWith(() => {}))
    await counted.run(
      attemptWith(
        () => {
          throw new Error('no')
        },
        { record: recordAt(1) },
      ),
    )

    expect(limits).toEqual([true, false, true, false])
  })

  test('that a run no longer allows block the record', async () => {
    const { once } = setting()
    const spent = once({
      makeCall: async () => {
        throw new BrokerError('LIMIT_EXCEEDED', 'no calls left')
      },
    })

    expect(await spent.run(attemptWith(() => {}))).toMatchObject({ kind: 'blocked', error: { code: 'LIMIT_EXCEEDED' } })
  })
})

describe('the key', () => {
  test('is the place of the record in its group, each part percent-encoded', () => {
    const record = { ...recordAt(7), topic: 'a/b', partition: 3 }

    expect(idempotencyKeyOf('gr oup/1', record)).toBe('gr%20oup%2F1/a%2Fb/3/7')
  })

  test('of a business counts within its group and topic, and is never one of a place', () => {
    const record = recordAt(7)

    expect(idempotencyKeyOf('shop', record, () => '0/7')).toBe('shop/orders/0%2F7')
    expect(idempotencyKeyOf('shop', record, () => '0/7')).not.toBe(idempotencyKeyOf('shop', record))
  })

  test('of a business is made of the record as the handler gets it, and joins records that ask for one effect', async () => {
    const { once } = setting()
    const run = once({ key: ({ value }) => (value as { readonly id: string }).id })
    let calls = 0
    const typed = (offset: number, id: string): Parameters<typeof attemptWith>[1] => ({
      record: recordAt(offset),
      typed: { ...recordAt(offset), value: { id } },
    })

    const outcomes = []
    for (const [offset, id] of [
      [0, 'a'],
      [1, 'b'],
      [2, 'a'],
    ] as const) {
      outcomes.push((await run.run(attemptWith(() => (calls += 1), typed(offset, id)))).kind)
    }

    expect([outcomes, calls]).toEqual([['handled', 'handled', 'duplicate'], 2])
  })

  test.each([
    ['is empty', () => ''],
    ['is no text', () => undefined as unknown as string],
    ['is not well-formed', () => '\udc00'],
    ['is too long', () => 'k'.repeat(4_096)],
  ])('of a business that %s fails the record without its value, and calls nothing', async (_name, key) => {
    const { once, store } = setting()
    const seen = failing(store, 'begin', 0)
    let calls = 0

    const outcome = await once({ key, store: seen }).run(attemptWith(() => (calls += 1)))

    expect(outcome).toMatchObject({ kind: 'failed', error: { name: 'RecordError', code: 'INVALID_RECORD' } })
    expect([calls, seen.calls]).toEqual([0, []])
    expect(String((outcome as { error: unknown }).error)).not.toContain('kkkk')
  })

  test('whose function throws fails the record with what it threw', async () => {
    const { once } = setting()
    const error = new TypeError('no id')
    const key = (): string => {
      throw error
    }

    expect(await once({ key }).run(attemptWith(() => {}))).toEqual({ kind: 'failed', error })
  })
})

describe('settings', () => {
  test.each([{ keepMs: 0 }, { keepMs: 1.5 }, { marginMs: -1 }, { marginMs: 3_600_001 }, { lookAgainMs: 0 }])(
    'refuses %j',
    (options) => {
      expect(() => setting().once(options)).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    },
  )

  test('refuses a store that is not linearizable, unless that is allowed', () => {
    const { store, once } = setting()
    const weak: IdempotencyStore = { ...store, features: { ...store.features, linearizable: false } }

    expect(() => once({ store: weak })).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
    expect(once({ store: weak, allowNonLinearizable: true })).toBeInstanceOf(EffectivelyOnce)
  })
})
