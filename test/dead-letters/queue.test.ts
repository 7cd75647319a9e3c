/** The Queue store in real workerd, over a queue that the same Worker consumes. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import type { DeadLetter } from '../../src/dead-letter.ts'
import { decodeDeadLetter, encodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { MAX_QUEUE_MESSAGE_BYTES, queueDeadLetters } from '../../src/dead-letters/queue.ts'
import { describeDeadLetterStore } from '../conformance/dead-letter-store/index.ts'
import { letter, plain } from '../conformance/dead-letter-store/letters.ts'
import { FakeClock } from '../support/clock.ts'
import { type LettersWorker, startLettersWorker } from '../support/letters-worker.ts'
import { until } from '../support/until.ts'

// A busy machine may need long to start workerd.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let worker: LettersWorker
let tokens = 0
beforeAll(async () => {
  worker = await startLettersWorker()
})
afterAll(() => worker.close())

/** The bodies that the consumer received, once it has what was sent before this call: a message of its own says so. */
async function received(): Promise<string[]> {
  const token = `token ${(tokens += 1)}`
  await worker.ask('/send', token)
  let bodies: string[] = []
  await until(
    async () => {
      bodies = (await worker.ask('/received')) as string[]
      return bodies.includes(token)
    },
    { what: 'the queue to be consumed', timeoutMs: 20_000 },
  )
  return bodies.filter((body) => !body.startsWith('token '))
}

const lettersReceived = async (): Promise<DeadLetter[]> => (await received()).map(decodeDeadLetter)

async function emptied(): Promise<void> {
  await received()
  await worker.ask('/forget')
}

describeDeadLetterStore('queue', {
  async open() {
    await emptied()
    const store = await worker.open('queue')
    return { store, stored: lettersReceived, close: () => store.close() }
  },
})

describe('a message', () => {
  test('is the JSON of its letter, as text', async () => {
    await emptied()
    const store = await worker.open('queue')
    await store.put(letter())

    expect(await received()).toEqual([encodeDeadLetter(letter())])
  })

  test('is filled to its last byte, and a letter of one byte more is refused by name', async () => {
    await emptied()
    const store = await worker.open('queue')
    const filled = (route: number): DeadLetter => letter({ route: 'r'.repeat(route) })
    const room = MAX_QUEUE_MESSAGE_BYTES - encodeDeadLetter(filled(0)).length

    await store.put(filled(room))
    const refused = store.put(filled(room + 1))

    await expect(refused).rejects.toMatchObject({ code: 'DEAD_LETTER_TOO_LARGE', limit: 'maxLetterBytes' })
    expect(plain(await lettersReceived())).toEqual(plain([filled(room)]))
  })
})

describe('a send that fails', () => {
  test.each([
    ['Queue send failed: Too Many Requests (10250)', 'DEAD_LETTER_STORE_UNAVAILABLE', true],
    ['Queue sendBatch failed: Payload Too Large', 'DEAD_LETTER_TOO_LARGE', false],
  ])('with %j makes the put fail with %s', async (message, code, retriable) => {
    const cause = new Error(message)
    const store = queueDeadLetters({ queue: { send: () => Promise.reject(cause) } })

    await expect(store.put(letter())).rejects.toMatchObject({ name: 'DeadLetterStoreError', code, retriable, cause })
  })

  test('that never answers ends with TIMEOUT', async () => {
    const clock = new FakeClock()
    const store = queueDeadLetters({ queue: { send: () => new Promise(() => undefined) }, timeoutMs: 700, clock })

    const put = store.put(letter())

    await Promise.all([
      expect(put).rejects.toMatchObject({ code: 'TIMEOUT', retriable: true }),
      clock.untilWaiting(700).then(() => clock.advance(700)),
    ])
  })
})
