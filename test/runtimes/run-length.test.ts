import { expect, test } from 'vitest'
import { type App, defineApp } from '../../src/app.ts'
import { budgetOf } from '../../src/consumer/budget.ts'
import { Plans } from '../../src/consumer/plan.ts'
import { createRouter } from '../../src/router.ts'
import { processRun } from '../../src/runtimes/run-length.ts'
import { FakeClock } from '../support/clock.ts'

const HOUR_MS = 3_600_000

function appOf(attemptTimeoutMs: number): App {
  const router = createRouter()
    .on({ topic: 'orders' }, () => undefined, { attemptTimeoutMs })
    .on({ topic: 'mails' }, () => undefined)
  return defineApp({ groupId: 'shop', router })
}

test('a run has a minute where nobody asks for more', () => {
  expect(processRun(appOf(30_000), 10_000).runMs).toBe(60_000)
})

test.each([0, 1_000, 10_000, 120_000, 600_000])('a run has room to drain for %d ms', (drainMs) => {
  const { deadline, handleUntil } = budgetOf(processRun(appOf(30_000), drainMs), new FakeClock())

  expect(deadline - handleUntil).toBe(drainMs)
})

test.each([60_000, HOUR_MS, 23 * HOUR_MS])('a run has room for an attempt of %d ms', (attemptTimeoutMs) => {
  const app = appOf(attemptTimeoutMs)
  const { startedAt, handleUntil } = budgetOf(processRun(app, 10_000), new FakeClock())

  expect((handleUntil - startedAt) * 0.9).toBeGreaterThanOrEqual(attemptTimeoutMs)
})

test('a batch has twice the room, for it is split when half of the run is over', () => {
  const options = { attemptTimeoutMs: HOUR_MS }
  const app = defineApp({ groupId: 'shop', router: createRouter().onBatch({ topic: 'orders' }, () => 1, options) })
  const { startedAt, handleUntil } = budgetOf(processRun(app, 10_000), new FakeClock())
  const plans = new Plans(app, (handleUntil - startedAt) * 0.9, () => {
    throw new Error('no route is effectively-once')
  })

  expect(plans.all.map(({ timeoutMs, isCut }) => ({ timeoutMs, isCut }))).toEqual([
    { timeoutMs: 30_000, isCut: false },
    { timeoutMs: HOUR_MS, isCut: false },
  ])
})
