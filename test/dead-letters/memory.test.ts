import { expect, test } from 'vitest'

import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'

describeDeadLetterStore('memory', {
  async open() {
    const store = memoryDeadLetters()
    return { store, stored: async () => (await store.list({ limit: 1000 })).items, close: () => store.close() }
  },
})

test('a full store refuses one more by name and keeps what it has', async () => {
  const store = memoryDeadLetters({ maxLetters: 2 })
  await store.put(letterAt(0))
  await store.put(letterAt(1))

  await expect(store.put(letterAt(2))).rejects.toMatchObject({
    code: 'DEAD_LETTER_STORE_UNAVAILABLE',
    retriable: true,
    limit: 'maxLetters',
  })

  expect((await store.list()).items.map(({ record }) => record.offset)).toEqual([0, 1])
})

test('hands out copies', async () => {
  const store = memoryDeadLetters()
  const given = letter()
  await store.put(given)

  for (const { record } of (await store.list()).items) record.value?.fill(0)

  expect(plain((await store.list()).items)).toEqual(plain([given]))
})
