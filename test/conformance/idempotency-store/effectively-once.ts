import { expect, test } from 'vitest'

import { EffectivelyOnce, type OnceOutcome } from '../../../src/consumer/effectively-once.ts'
import type { IdempotencyStore } from '../../../src/idempotency.ts'
import type { ConsumerRecord } from '../../../src/record.ts'
import { type Subject, freshKey } from './subject.ts'

export function effectivelyOnceCases(subject: Subject): void {
  const runOf = (store: IdempotencyStore): EffectivelyOnce => new EffectivelyOnce({ store, allowNonLinearizable: true })
  const attemptAt = (record: ConsumerRecord, call: () => unknown): Parameters<EffectivelyOnce['run']>[0] => ({
    groupId: 'shop',
    record,
    timeoutMs: 30_000,
    signal: new AbortController().signal,
    call,
  })

  test('two runs that overlap on one record have its effect once, and the later one learns that it is done', async () => {
    const { store, other } = subject()
    await using second = other?.() ?? store
    const record = freshRecord()
    const { promise: effect, resolve: finish } = Promise.withResolvers<void>()
    let effects = 0
    let finishedBlocked: OnceOutcome | undefined
    const handler = async (): Promise<void> => {
      await effect
      effects += 1
    }

    // Whichever gets the lock, the other one ends first and lets it go on.
    const [first, later] = [runOf(store), runOf(second)].map(async (run) => {
      const outcome = await run.run(attemptAt(record, handler))
      if (outcome.kind === 'blocked') finishedBlocked = outcome
      return outcome
    })
    if (!store.features.linearizable) finish()
    else void Promise.race([first, later]).then(() => finish())
    const outcomes = (await Promise.all([first, later])).map((outcome) => String(outcome?.kind)).sort()

    if (store.features.linearizable) {
      expect(outcomes).toEqual(['blocked', 'handled'])
      expect(finishedBlocked).toMatchObject({ error: { code: 'RECORD_IN_PROGRESS', retriable: true } })
      expect(effects).toBe(1)
    } else expect(effects).toBeGreaterThan(0)
    const before = effects
    expect(await runOf(store).run(attemptAt(record, handler))).toMatchObject({ kind: 'duplicate' })
    expect(effects).toBe(before)
  })

  test('a handler that failed is called again at once, and one that returned is not', async () => {
    const { store } = subject()
    const run = runOf(store)
    const record = freshRecord()
    const calls: string[] = []
    const failing = (): void => {
      calls.push('fails')
      throw new Error('no stock')
    }

    const failed = await run.run(attemptAt(record, failing))
    const handled = await run.run(attemptAt(record, () => calls.push('works')))
    const repeated = await run.run(attemptAt(record, () => calls.push('works')))

    expect([failed.kind, handled, repeated.kind]).toEqual([
      'failed',
      { kind: 'handled', isRecorded: true },
      'duplicate',
    ])
    expect(calls).toEqual(['fails', 'works'])
  })
}

function freshRecord(): ConsumerRecord {
  return { topic: freshKey(), partition: 0, offset: 7, timestampMs: 0, key: null, value: null, headers: [] }
}
