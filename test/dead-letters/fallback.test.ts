import { describe, expect, test } from 'vitest'

import type { Call } from '../../src/broker.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { fallbackDeadLetters } from '../../src/dead-letters/fallback.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { sqsDeadLetters } from '../../src/dead-letters/sqs.ts'
import { DeadLetterStoreError, type ErrorCode } from '../../src/errors.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { FakeClock } from '../support/clock.ts'
import { startSqs, testCredentials } from '../support/sqs.ts'

/** A store whose puts fail as told for as long as they are told to; `puts` counts them. */
interface Failing extends DeadLetterStore {
  puts: number
  failure: Error | undefined
}

function failing(failure: Error | undefined): Failing {
  const store: Failing = Object.assign(memoryDeadLetters(), { puts: 0, failure })
  const put = store.put.bind(store)
  store.put = async (letter, call) => {
    store.puts += 1
    if (store.failure !== undefined) throw store.failure
    await put(letter, call)
  }
  return store
}

const failureOf = (code: ErrorCode, details = {}): DeadLetterStoreError =>
  new DeadLetterStoreError(code, `as told: ${code}`, details)
const offsetsIn = async (store: DeadLetterStore): Promise<number[]> =>
  (await store.list()).items.map(({ record }) => record.offset)

for (const [name, stores] of [
  ['fallback of one', () => [memoryDeadLetters()]],
  ['fallback, both well', () => [memoryDeadLetters(), memoryDeadLetters()]],
  ['fallback, the first down', () => [failing(failureOf('DEAD_LETTER_STORE_UNAVAILABLE')), memoryDeadLetters()]],
  ['fallback, the last down', () => [memoryDeadLetters(), failing(failureOf('NETWORK'))]],
] as const satisfies readonly (readonly [string, () => readonly DeadLetterStore[]])[]) {
  describeDeadLetterStore(name, {
    async open() {
      const store = fallbackDeadLetters(stores())
      return { store, stored: async () => (await store.list({ limit: 1000 })).items, close: () => store.close() }
    },
  })
}

describe('a put', () => {
  test('tells each store that it asks who counts requests', async () => {
    const onRequest = (): void => undefined
    const counters: unknown[] = []
    const stores = [failing(failureOf('DEAD_LETTER_STORE_UNAVAILABLE')), failing(undefined)].map((store) => {
      const put = store.put.bind(store)
      store.put = async (one, call) => {
        counters.push(call?.onRequest)
        await put(one, call)
      }
      return store
    })

    await fallbackDeadLetters(stores).put(letter(), { onRequest })

    expect(counters).toEqual([onRequest, onRequest])
  })

  test('goes to the first store alone where that takes it', async () => {
    const [first, second] = [failing(undefined), failing(undefined)]

    await fallbackDeadLetters([first, second]).put(letter())

    expect([first.puts, second.puts]).toEqual([1, 0])
  })

  test.each([
    ['DEAD_LETTER_STORE_UNAVAILABLE'],
    ['TIMEOUT'],
    ['NETWORK'],
    ['DEAD_LETTER_TOO_LARGE'],
    ['CLUSTER_AUTHORIZATION_FAILED'],
    ['CLOSED'],
  ] as const)('goes to the next store where one fails with %s', async (code) => {
    const second = memoryDeadLetters()

    await fallbackDeadLetters([failing(failureOf(code)), second]).put(letter())

    expect(plain((await second.list()).items)).toEqual(plain([letter()]))
  })

  test('that no store takes rejects with what each of them said, once', async () => {
    const failures = [failureOf('DEAD_LETTER_TOO_LARGE'), failureOf('TIMEOUT'), failureOf('UNAUTHENTICATED')]
    const store = fallbackDeadLetters(failures.map(failing))

    const thrown: unknown = await store.put(letter()).catch((error: unknown) => error)

    expect(thrown).toMatchObject({
      name: 'DeadLetterStoreError',
      code: 'DEAD_LETTER_STORE_UNAVAILABLE',
      retriable: true,
    })
    const { cause, message } = thrown as Error
    expect(cause).toBeInstanceOf(AggregateError)
    expect((cause as AggregateError).errors).toEqual(failures)
    for (const { message: said } of failures) expect(message).toContain(said)
  })

  test('that no store will ever take is not retriable and says why in a code', async () => {
    const store = fallbackDeadLetters([
      failing(failureOf('DEAD_LETTER_TOO_LARGE', { limit: 'maxLetterBytes' })),
      failing(failureOf('DEAD_LETTER_TOO_LARGE')),
    ])

    await expect(store.put(letter())).rejects.toMatchObject({
      code: 'DEAD_LETTER_TOO_LARGE',
      retriable: false,
      limit: 'maxLetterBytes',
    })
  })

  test('waits as long as the store that asks for the least', async () => {
    const store = fallbackDeadLetters([
      failing(failureOf('OVERLOADED', { retryAfterMs: 900 })),
      failing(failureOf('OVERLOADED', { retryAfterMs: 200 })),
    ])

    await expect(store.put(letter())).rejects.toMatchObject({ retryAfterMs: 200 })
  })

  test('has a message of 4 KiB at most, however much the stores say', async () => {
    const long = new DeadLetterStoreError('NETWORK', 'x'.repeat(100_000))
    const store = fallbackDeadLetters([failing(long), failing(long), failing(long)])

    const thrown: unknown = await store.put(letter({ groupId: 'g'.repeat(9_000) })).catch((error: unknown) => error)

    expect((thrown as Error).message.length).toBeLessThanOrEqual(4_096)
  })

  test('is over with its reason when it is aborted, and no further store is asked', async () => {
    const second = failing(undefined)
    const controller = new AbortController()
    const reason = new Error('the run is over')
    const first = failing(undefined)
    first.put = async () => {
      controller.abort(reason)
      throw failureOf('NETWORK')
    }

    await expect(fallbackDeadLetters([first, second]).put(letter(), { signal: controller.signal })).rejects.toBe(reason)

    expect(second.puts).toBe(0)
  })
})

test('a letter whose id another record has is refused, for whoever deletes one of two would delete both', async () => {
  const [first, second] = [memoryDeadLetters(), memoryDeadLetters()]
  await using chain = fallbackDeadLetters([first, second])
  await chain.put(letter({ record: { timestampMs: 1 } }))

  await expect(chain.put(letter({ record: { timestampMs: 2 } }))).rejects.toMatchObject({
    code: 'DEAD_LETTER_ID_TAKEN',
    message: expect.stringContaining('Redrive or delete that one.') as unknown,
  })

  expect((await second.list()).items).toEqual([])
})

describe('a store that hangs', () => {
  const hanging = (): { readonly store: DeadLetterStore; readonly calls: Call[] } => {
    const calls: Call[] = []
    const put = (_letter: unknown, call: Call = {}): Promise<never> => {
      calls.push(call)
      return new Promise(() => undefined)
    }
    return { store: Object.assign(memoryDeadLetters(), { put }), calls }
  }

  test('has its share of the time, whether or not it keeps to it, and the next one has the letter', async () => {
    const clock = new FakeClock()
    const { store: first, calls } = hanging()
    const second = memoryDeadLetters()
    const put = fallbackDeadLetters([first, second], { clock }).put(letter(), { timeoutMs: 3_000 })

    await clock.advance(1_500)
    await put

    expect(calls[0]).toMatchObject({ timeoutMs: 1_500 })
    expect(calls[0]?.signal?.aborted).toBe(true)
    expect(await offsetsIn(second)).toEqual([0])
  })

  test('costs its time once and not for each letter, and is tried again after some seconds', async () => {
    const clock = new FakeClock()
    const { store: first, calls } = hanging()
    const second = memoryDeadLetters()
    const store = fallbackDeadLetters([first, second], { clock, unhealthyMs: 5_000 })
    const put = store.put(letterAt(0), { timeoutMs: 2_000 })
    await clock.advance(1_000)
    await put

    for (let offset = 1; offset < 20; offset += 1) await store.put(letterAt(offset), { timeoutMs: 2_000 })
    expect(calls).toHaveLength(1)
    expect(await offsetsIn(second)).toHaveLength(20)
    await clock.advance(5_000)
    const later = store.put(letterAt(20), { timeoutMs: 2_000 })
    await clock.advance(1_000)
    await later

    expect(calls).toHaveLength(2)
  })
})

describe('a store that was down', () => {
  test('is still asked when no other is left, and is the first again when it takes a letter', async () => {
    const clock = new FakeClock()
    const [first, second] = [failing(failureOf('NETWORK')), failing(undefined)]
    const store = fallbackDeadLetters([first, second], { clock })
    await store.put(letterAt(0))
    first.failure = undefined
    second.failure = failureOf('NETWORK')

    await store.put(letterAt(1))
    second.failure = undefined
    await store.put(letterAt(2))

    expect([await offsetsIn(first), await offsetsIn(second)]).toEqual([[1, 2], [0]])
  })

  test('for one letter, which was too large for it, is asked for the next', async () => {
    const [first, second] = [failing(failureOf('DEAD_LETTER_TOO_LARGE')), failing(undefined)]
    const store = fallbackDeadLetters([first, second], { clock: new FakeClock() })
    await store.put(letterAt(0))
    first.failure = undefined

    await store.put(letterAt(1))

    expect([await offsetsIn(first), await offsetsIn(second)]).toEqual([[1], [0]])
  })
})

describe('reading', () => {
  test('lists the letters of one store after the other, page by page', async () => {
    const stores = [memoryDeadLetters(), memoryDeadLetters(), memoryDeadLetters()]
    for (let offset = 0; offset < 7; offset += 1) await stores[offset % 2 === 0 ? 0 : 2]?.put(letterAt(offset))
    const store = fallbackDeadLetters(stores)
    const read: number[] = []
    let cursor: string | undefined
    do {
      const page = await store.list(cursor === undefined ? { limit: 2 } : { limit: 2, cursor })
      expect(page.items.length).toBeLessThanOrEqual(2)
      read.push(...page.items.map(({ record }) => record.offset))
      cursor = page.cursor
    } while (cursor !== undefined)

    expect(read).toEqual([0, 2, 4, 6, 1, 3, 5])
  })

  test('refuses a cursor of a store that is not there', async () => {
    const store = fallbackDeadLetters([memoryDeadLetters()])

    for (const cursor of ['1:', '0', 'x:1']) {
      await expect(store.list({ cursor })).rejects.toMatchObject({ code: 'INVALID_REQUEST' })
    }
  })

  test('finds and deletes a letter in whichever store has it', async () => {
    const stores = [memoryDeadLetters(), memoryDeadLetters()]
    await stores[1]?.put(letter())
    const store = fallbackDeadLetters(stores)

    expect(plain([(await store.get(letter().id)) ?? letterAt(9)])).toEqual(plain([letter()]))
    expect(await store.delete(letter().id)).toBe(true)
    expect(await store.get(letter().id)).toBeUndefined()
  })

  test('does not say that there is no letter when one store could not be asked', async () => {
    const failure = failureOf('NETWORK')
    const down = Object.assign(memoryDeadLetters(), {
      get: () => Promise.reject(failure),
      delete: () => Promise.reject(failure),
    })
    const well = memoryDeadLetters()
    await well.put(letterAt(1))
    const store = fallbackDeadLetters([down, well])

    await expect(store.get(letterAt(0).id)).rejects.toBe(failure)
    expect(await store.get(letterAt(1).id)).toBeDefined()
    await expect(store.delete(letterAt(0).id)).rejects.toBe(failure)
  })
})

test('a queue that goes away loses nothing: the letters are in the next store, and in the queue again when it is back', async () => {
  const clock = new FakeClock()
  const first = await startSqs()
  const queueUrl = await first.createQueue('letters')
  const queue = sqsDeadLetters({ queueUrl, region: 'us-east-1', credentials: testCredentials })
  const memory = memoryDeadLetters()
  await using store = fallbackDeadLetters([queue, memory], { clock, unhealthyMs: 5_000 })
  expect(store.features).toMatchObject({
    list: true,
    get: true,
    delete: true,
    deduplicates: false,
    maxLetterBytes: null,
  })
  await store.put(letterAt(0))
  const before = await first.receiveAll(queueUrl)
  await first.close()

  await store.put(letterAt(1))
  await store.put(letterAt(2))
  await using second = await startSqs(Number(new URL(queueUrl).port))
  await second.createQueue('letters')
  await clock.advance(5_000)
  await store.put(letterAt(3))

  expect([before.length, (await second.receiveAll(queueUrl)).length]).toEqual([1, 1])
  expect(await offsetsIn(store)).toEqual([1, 2])
})

test('a chain of queues refuses to read, and one of nothing is refused at once', async () => {
  await using server = await startSqs()
  const queueUrl = await server.createQueue('letters')
  await using store = fallbackDeadLetters([
    sqsDeadLetters({ queueUrl, region: 'us-east-1', credentials: testCredentials }),
  ])

  for (const call of [() => store.list(), () => store.get('x'), () => store.delete('x')]) {
    await expect(call()).rejects.toMatchObject({ code: 'UNSUPPORTED', retriable: false })
  }
  expect(() => fallbackDeadLetters([])).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
})
