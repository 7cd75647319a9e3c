import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { DueQueue } from '../../../src/consumer/due-queue.ts'
import { FakeClock } from '../../support/clock.ts'

test('gives everything when it is due, the earliest first', async () => {
  const waits = fc.array(fc.tuple(fc.nat(1_000), fc.nat(200)), { maxLength: 200 })
  await fc.assert(
    fc.asyncProperty(waits, async (plan) => {
      const clock = new FakeClock()
      const given: { dueAt: number; at: number }[] = []
      const queue = new DueQueue<{ dueAt: number }>(clock, ({ dueAt }) => given.push({ dueAt, at: clock.monotonic() }))

      for (const [waitMs, pauseMs] of plan) {
        queue.add({ dueAt: clock.monotonic() + waitMs })
        await clock.advance(pauseMs)
      }
      await clock.advance(2_000)

      expect(given).toHaveLength(plan.length)
      expect(given.every(({ dueAt, at }) => dueAt === at)).toBe(true)
      expect(queue.nextDueAt).toBeUndefined()
    }),
  )
})

test('gives nothing after it was closed, and leaves no timer', async () => {
  const clock = new FakeClock()
  const given: unknown[] = []
  const queue = new DueQueue<{ dueAt: number }>(clock, (one) => given.push(one))
  queue.add({ dueAt: clock.monotonic() + 10 })

  queue.close()
  await clock.advance(100)

  expect(given).toEqual([])
  expect(queue.nextDueAt).toBeUndefined()
})
