/**
 * Several runs work on one record, in every order that fast-check's scheduler comes up with: calls to the store arrive and
 * are answered in any order, answers get lost, handlers fail, runs die between the effect and the stored outcome, and time
 * passes. A failure prints its seed and path.
 */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { EffectivelyOnce, type OnceOutcome } from '../../src/consumer/effectively-once.ts'
import { IdempotencyError } from '../../src/errors.ts'
import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import { FakeClock } from '../support/clock.ts'
import { attemptWith, interceptedStore } from '../support/idempotency.ts'

const TIMEOUT_MS = 1_000
const MARGIN_MS = 500

/** What a run comes to, attempt by attempt. */
const attempts = fc.array(
  fc.record({
    handler: fc.constantFrom('returns', 'returns', 'throws', 'dies'),
    /** Calls of the store whose answers get lost. */
    lostAnswers: fc.integer({ min: 0, max: 2 }),
  }),
  { minLength: 1, maxLength: 3 },
)

/** What happened to the record. */
interface Course {
  /** Handlers that returned, and handlers at work now. */
  effects: number
  atWork: number
  mostAtWork: number
  deaths: number
  /** Handlers that were called although an outcome had been stored. */
  afterDone: number
  readonly outcomes: OnceOutcome[]
  stored: boolean
}

async function courseOf(
  scheduler: fc.Scheduler,
  runs: readonly { handler: string; lostAnswers: number }[][],
  { timePasses }: { readonly timePasses: boolean },
): Promise<Course> {
  const clock = new FakeClock()
  await using store = memoryIdempotency({ clock })
  const course: Course = { effects: 0, atWork: 0, mostAtWork: 0, deaths: 0, afterDone: 0, outcomes: [], stored: false }
  const step = async (label: string): Promise<void> => {
    await scheduler.schedule(Promise.resolve(), label)
  }

  const runOne = async (attempts: readonly { handler: string; lostAnswers: number }[], run: number): Promise<void> => {
    for (const { handler, lostAnswers } of attempts) {
      let isDead = false
      let answersToLose = lostAnswers
      const remote = interceptedStore(store, {
        async before(method) {
          await step(`run ${run} asks ${method}`)
          // Nothing more comes of a process that died.
          if (isDead) await new Promise<never>(() => {})
        },
        async after(method) {
          course.stored ||= method === 'complete'
          await step(`run ${run} is answered ${method}`)
          if (answersToLose <= 0) return
          answersToLose -= 1
          throw new IdempotencyError('TIMEOUT', 'lost')
        },
      })
      const died = Promise.withResolvers<'died'>()
      // A wait of 0 ms between tries: the scheduler is what orders them.
      const once = new EffectivelyOnce({ store: remote, clock, marginMs: MARGIN_MS, random: () => 0 })
      const outcome = once.run(
        attemptWith(
          async () => {
            if (course.stored) course.afterDone += 1
            course.atWork += 1
            course.mostAtWork = Math.max(course.mostAtWork, course.atWork)
            try {
              await step(`run ${run} works: ${handler}`)
              if (handler === 'throws') throw new Error('no')
              course.effects += 1
            } finally {
              course.atWork -= 1
            }
            if (handler !== 'dies') return
            isDead = true
            course.deaths += 1
            died.resolve('died')
          },
          { timeoutMs: TIMEOUT_MS },
        ),
      )
      const result = await Promise.race([outcome, died.promise])
      if (result === 'died') return
      course.outcomes.push(result)
      if (result.kind === 'handled' || result.kind === 'duplicate') return
    }
  }

  const all = Promise.all(runs.map((attempts, run) => runOne(attempts, run)))
  if (timePasses) {
    void scheduler.scheduleSequence(
      Array.from({ length: 6 }, (_, n) => ({
        label: `time passes ${n}`,
        builder: () => clock.advance((TIMEOUT_MS + MARGIN_MS) / 2),
      })),
    )
  }
  // Tries wait on the clock, so it has to move for them, by less than a lock lasts.
  const moving = (async () => {
    for (let n = 0; n < 400; n += 1) await clock.advance(0)
  })()
  await scheduler.waitFor(all)
  await moving
  return course
}

describe('runs that overlap on one record', () => {
  test('while no lock lapses: never two at work, and one effect in all, unless a run died after its own', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.array(attempts, { minLength: 2, maxLength: 4 }), async (scheduler, runs) => {
        const course = await courseOf(scheduler, runs, { timePasses: false })

        expect(course.mostAtWork).toBeLessThanOrEqual(1)
        expect(course.afterDone).toBe(0)
        // A dead run's lock never lapses here, so nobody comes after it.
        expect(course.effects).toBeLessThanOrEqual(1)
      }),
      { numRuns: 150 },
    )
  })

  test('whoever is told that the record is handled can rely on it: an effect happened', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.array(attempts, { minLength: 2, maxLength: 4 }), async (scheduler, runs) => {
        const course = await courseOf(scheduler, runs, { timePasses: false })

        const handled = course.outcomes.filter(({ kind }) => kind === 'handled' || kind === 'duplicate')
        const recorded = course.outcomes.filter((outcome) => outcome.kind === 'handled' && outcome.isRecorded)
        // Two answers at most get lost in an attempt, so its third try is heard and every outcome is recorded.
        expect(recorded).toHaveLength(handled.length > 0 ? 1 : 0)
        expect(course.effects).toBeGreaterThanOrEqual(recorded.length)
      }),
      { numRuns: 150 },
    )
  })

  test('while locks lapse: nobody begins on a stored outcome, and only deaths and lapsed locks repeat an effect', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.array(attempts, { minLength: 2, maxLength: 4 }), async (scheduler, runs) => {
        const course = await courseOf(scheduler, runs, { timePasses: true })

        expect(course.afterDone).toBe(0)
        const lost = course.outcomes.filter(
          (outcome) => outcome.kind === 'blocked' && outcome.error.code === 'LOCK_LOST',
        )
        expect(course.effects).toBeLessThanOrEqual(1 + course.deaths + lost.length)
      }),
      { numRuns: 150 },
    )
  })
})
