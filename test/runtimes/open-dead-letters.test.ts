import { expect, test } from 'vitest'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { openDeadLetters } from '../../src/runtimes/open-dead-letters.ts'

const store = memoryDeadLetters()
const drivers = { memory: () => store, topic: () => store }

test('the scheme chooses the driver, which gets the URL', async () => {
  const seen: URL[] = []

  const opened = await openDeadLetters('topic:dead.orders', { topic: (url) => (seen.push(url), store) })

  expect(opened).toBe(store)
  expect(seen.map(({ pathname }) => pathname)).toEqual(['dead.orders'])
})

test.each(['redis://user:hunter2@host', 'constructor:x', 'no url', ''])(
  '%j is refused, secrets kept',
  async (address) => {
    const failure: unknown = await openDeadLetters(address, drivers).catch((thrown: unknown) => thrown)

    expect(failure).toMatchObject({
      code: 'INVALID_CONFIG',
      message: expect.stringContaining('memory, topic') as string,
    })
    expect(String(failure)).not.toContain('hunter2')
  },
)
