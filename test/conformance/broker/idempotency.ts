/** Produces that are named, so that one whose answer was lost can be sent again. */
import { expect } from 'vitest'
import { BrokerError } from '../../../src/errors.ts'
import { record, valuesOf } from '../../support/records.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { refusal, unusedName } from './harness.ts'

const DAY_MS = 86_400_000

export function idempotency(add: AddCase): void {
  /** Adds a case that, without the feature, asserts only the refusal. */
  const it: AddCase = (title, run) =>
    add(title, async (t) => {
      if (t.features.idempotencyKeys) await run(t)
      else await refusesKeys(t)
    })

  it('writes a repeated produce once and answers it as the first time', async (t) => {
    const topic = await t.topic(3)
    const records = [
      record(topic, 'a', { key: 'k' }),
      record(topic, 'b'),
      record(topic, null, { headers: [['h', null]] }),
    ]

    const first = await t.broker.produce(records, { idempotencyKey: 'once' })
    const second = await t.broker.produce(records, { idempotencyKey: 'once' })
    await t.reopen()
    const third = await t.broker.produce(records, { idempotencyKey: 'once' })

    expect(second).toEqual(first)
    expect(third).toEqual(first)
    expect((await t.ends(topic, 3)).reduce((sum, end) => sum + end)).toBe(3)
  })

  it('refuses a key that was used with other records with IDEMPOTENCY_KEY_REUSED', async (t) => {
    const topic = await t.topicForEver(2)
    const a = record(topic, 'a', { key: 'k', partition: 0, timestampMs: 5, headers: [['h', 'v']] })
    const b = record(topic, 'b', { partition: 0 })
    await t.broker.produce([a, b], { idempotencyKey: 'key' })
    await t.reopen()

    const others = {
      'another order': [b, a],
      'one fewer': [a],
      'one more': [a, b, b],
      'another value': [{ ...a, value: Uint8Array.of(0x62) }, b],
      'null for bytes': [{ ...a, value: null }, b],
      'another key': [{ ...a, key: null }, b],
      'another partition': [{ ...a, partition: 1 }, b],
      'another timestamp': [{ ...a, timestampMs: 6 }, b],
      'no headers': [{ ...a, headers: [] }, b],
      'another header value': [{ ...a, headers: [{ key: 'h', value: null }] }, b],
      'bytes moved from key to value': [{ ...a, key: new Uint8Array(0), value: Uint8Array.of(0x6b, 0x61) }, b],
    }
    for (const [what, records] of Object.entries(others)) {
      const error = await refusal(t.broker.produce(records, { idempotencyKey: 'key' }), 'IDEMPOTENCY_KEY_REUSED')
      expect(error.retriable, what).toBe(false)
    }

    expect(await t.ends(topic, 2)).toEqual([2, 0])
  })

  it('writes once what is sent several times at once', async (t) => {
    const topic = await t.topic()
    const records = [record(topic, 'a'), record(topic, 'b')]

    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, () => t.broker.produce(records, { idempotencyKey: 'race' })),
    )

    const stored = outcomes.filter((outcome) => outcome.status === 'fulfilled').map(({ value }) => value)
    expect(stored.length).toBeGreaterThan(0)
    for (const results of stored) expect(results).toEqual(stored[0])
    for (const outcome of outcomes.filter((outcome) => outcome.status === 'rejected')) {
      const error = await refusal(Promise.reject(outcome.reason), 'IDEMPOTENCY_KEY_IN_FLIGHT')
      expect(error.retriable).toBe(true)
    }
    expect(valuesOf(await t.read(topic))).toEqual(['a', 'b'])
  })

  it('leaves the key free when the produce is refused whole', async (t) => {
    const topic = await t.topic()
    const bad = [record(topic, 'a'), record(unusedName('topic'), 'b')]

    await refusal(t.broker.produce(bad, { idempotencyKey: 'free' }), 'UNKNOWN_TOPIC_OR_PARTITION')
    await t.broker.produce([record(topic, 'other')], { idempotencyKey: 'free' })

    expect(valuesOf(await t.read(topic))).toEqual(['other'])
  })

  it('answers a repeated produce with atomic: false with the same results, errors included', async (t) => {
    const topic = await t.topic()
    const mixed = [record(topic, 'a'), record(unusedName('topic'), 'b'), record(topic, 'c')]
    const options = { atomic: false, idempotencyKey: 'mixed' }
    const shown = async (): Promise<(number | string)[]> =>
      (await t.broker.produce(mixed, options)).map((result) =>
        result instanceof BrokerError ? result.code : result.offset,
      )

    const first = await shown()
    await t.reopen()
    const second = await shown()

    expect(first).toEqual([0, 'UNKNOWN_TOPIC_OR_PARTITION', 1])
    expect(second).toEqual(first)
    expect(await t.ends(topic)).toEqual([2])
  })

  it('holds a key for 24 hours', async (t) => {
    // A day can only be waited for where the clock is the test's.
    if (t.clock === undefined) return
    const topic = await t.topic()
    const produce = (): Promise<unknown> => t.broker.produce([record(topic, 'a')], { idempotencyKey: 'daily' })

    await produce()
    await t.pass(DAY_MS - 60_000)
    await produce()
    const within = await t.ends(topic)
    await t.pass(120_000)
    await produce()

    expect(within).toEqual([1])
    expect(await t.ends(topic)).toEqual([2])
  })

  it('takes 1 to 255 visible ASCII characters as key, each of them for itself', async (t) => {
    const topic = await t.topic()
    const keys = ['a', 'A', 'x'.repeat(255), '"quoted"', 'quoted', 'back\\slash', 'a"b', 'a,b;c=d', '%41', '{}', '~!']

    for (const idempotencyKey of keys) await t.broker.produce([record(topic, 'v')], { idempotencyKey })
    const written = await t.ends(topic)
    for (const idempotencyKey of keys) await t.broker.produce([record(topic, 'v')], { idempotencyKey })

    expect(written).toEqual([keys.length])
    expect(await t.ends(topic)).toEqual([keys.length])
  })

  it('refuses any other key with INVALID_REQUEST', async (t) => {
    const topic = await t.topic()

    for (const idempotencyKey of ['', 'x'.repeat(256), 'a b', 'a\r\nb', 'ü', '\u0000']) {
      await refusal(t.broker.produce([record(topic, 'v')], { idempotencyKey }), 'INVALID_REQUEST')
    }
    expect(await t.ends(topic)).toEqual([0])
  })
}

async function refusesKeys(t: BrokerCase): Promise<void> {
  const topic = await t.topic()
  await refusal(t.broker.produce([record(topic, 'v')], { idempotencyKey: 'key' }), 'UNSUPPORTED')
  expect(await t.ends(topic)).toEqual([0])
}
