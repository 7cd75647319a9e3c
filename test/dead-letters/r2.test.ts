/** The R2 store in real workerd, over an R2 bucket of its own. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'

import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { type R2Binding, r2DeadLetters } from '../../src/dead-letters/r2.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { sleep } from '../../src/clock.ts'
import { FakeClock } from '../support/clock.ts'
import { finish } from '../support/consumer.ts'
import { type LettersWorker, startLettersWorker } from '../support/letters-worker.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let worker: LettersWorker
beforeAll(async () => {
  worker = await startLettersWorker()
})
afterAll(() => worker.close())

async function all(store: DeadLetterStore): Promise<DeadLetter[]> {
  const letters: DeadLetter[] = []
  let cursor: string | undefined
  do {
    const page = await store.list(cursor === undefined ? {} : { cursor })
    letters.push(...page.items)
    cursor = page.cursor
  } while (cursor !== undefined)
  return letters
}

describeDeadLetterStore('r2', {
  async open() {
    const store = await worker.open('r2')
    return { store, stored: () => all(store), close: () => store.close() }
  },
})

test('of puts of one record at the same time the first one stored is kept, whole', async () => {
  const store = await worker.open('r2')
  const given = Array.from({ length: 8 }, (_, attempts) => letter({ attempts }))

  await Promise.all(given.map((one) => store.put(one)))

  const kept = await all(store)
  expect(kept).toHaveLength(1)
  expect(given.map((one) => plain([one]))).toContainEqual(plain(kept))
})

test('a group whose name holds slashes, dots and any letters is listed alone', async () => {
  const store = await worker.open('r2')
  const given = letterAt(1, { groupId: '../ключ/' })
  await store.put(given)
  await store.put(letterAt(2, { groupId: '../ключ' }))

  expect(plain((await store.list({ groupId: '../ключ/' })).items)).toEqual(plain([given]))
})

test('whatever R2 fails with is unavailable, and retriable', async () => {
  const cause = new Error('put: We encountered an internal error. Please try again. (10001)')
  const fail = async (): Promise<never> => {
    throw cause
  }
  const failing: R2Binding = { put: fail, get: fail, head: fail, list: fail, delete: fail }
  const store = r2DeadLetters({ bucket: failing })

  for (const call of [
    () => store.put(letter()),
    () => store.list(),
    () => store.get(letter().id),
    () => store.delete(letter().id),
  ]) {
    await expect(call()).rejects.toMatchObject({ code: 'DEAD_LETTER_STORE_UNAVAILABLE', retriable: true, cause })
  }
})

test('a list of letters that take longer to read than a call may last ends its pages early, and gets to the end', async () => {
  const clock = new FakeClock()
  const texts = new Map<string, string>()
  const slow: R2Binding = {
    put: async (key, text) => texts.set(key, text),
    async get(key) {
      await sleep(clock, 400)
      const text = texts.get(key)
      return text === undefined ? null : { text: async () => text }
    },
    head: async (key) => texts.get(key) ?? null,
    async list({ prefix, limit, startAfter = '' }) {
      const keys = [...texts.keys()].filter((key) => key.startsWith(prefix) && key > startAfter).toSorted()
      return { objects: keys.slice(0, limit).map((key) => ({ key, size: 500 })), truncated: keys.length > limit }
    },
    delete: async (key) => void texts.delete(key),
  }
  const store = r2DeadLetters({ bucket: slow, clock })
  for (let offset = 0; offset < 300; offset += 1) await store.put(letterAt(offset))
  const wanted = letterAt(300, { reason: 'invalid' })
  await store.put(wanted)

  const found: DeadLetter[] = []
  let cursor: string | undefined
  do {
    const query = { reason: 'invalid', ...(cursor === undefined ? {} : { cursor }) } as const
    const page = await finish(clock, store.list(query, { timeoutMs: 10_000 }))
    found.push(...page.items)
    cursor = page.cursor
  } while (cursor !== undefined)

  expect(plain(found)).toEqual(plain([wanted]))
})
