/** The D1 store in real workerd, over a D1 database of its own. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import { MAX_D1_ROW_BYTES } from '../../src/dead-letters/d1.ts'
import { insertOf, rowBytesOf } from '../../src/dead-letters/sql.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, letterAt, plain } from '../conformance/dead-letter-store/letters.ts'
import { type LettersWorker, startLettersWorker } from '../support/letters-worker.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let worker: LettersWorker
beforeAll(async () => {
  worker = await startLettersWorker()
})
afterAll(() => worker.close())

describeDeadLetterStore('d1', {
  async open() {
    const store = await worker.open('d1')
    return { store, stored: async () => (await store.list({ limit: 1000 })).items, close: () => store.close() }
  },
})

describe('the database', () => {
  test('can be asked with plain SQL', async () => {
    const store = await worker.open('d1')
    await store.put(letterAt(0, { reason: 'invalid' }))
    await store.put(letterAt(1))
    await store.put(letterAt(2))

    expect(
      await worker.ask('/sql', 'SELECT reason, count(*) AS letters FROM kedge_dead_letters GROUP BY reason'),
    ).toEqual([
      { reason: 'exhausted', letters: 2 },
      { reason: 'invalid', letters: 1 },
    ])
  })

  test('keeps its letters for the next Worker', async () => {
    const first = await worker.open('d1')
    await first.put(letter())
    await first.close()

    const second = await worker.open('d1-again')

    expect(plain((await second.list()).items)).toEqual(plain([letter()]))
  })

  test('of a newer version is refused by name', async () => {
    const first = await worker.open('d1')
    await first.put(letter())
    await worker.ask('/sql', 'UPDATE kedge_dead_letter_schema SET version = 99')
    const store = await worker.open('d1-again')

    const put = store.put(letterAt(1))

    await expect(put).rejects.toThrow(/ConfigError: .*schema version 99/)
  })

  test('takes a row to its last byte and refuses one byte more', async () => {
    const store = await worker.open('d1')
    const filled = (route: number): ReturnType<typeof letter> =>
      letter({ cause: { name: 'E', message: '', stack: 's'.repeat(route) } })
    const room = MAX_D1_ROW_BYTES - rowBytesOf(insertOf(filled(0)))

    await store.put(filled(room))
    const refused = store.put(filled(room + 1))

    await expect(refused).rejects.toMatchObject({ code: 'DEAD_LETTER_TOO_LARGE', limit: 'maxLetterBytes' })
    expect((await store.list()).items).toHaveLength(1)
  })
})
