import { describe, expect, test } from 'vitest'
import { memoryIdempotency } from '../../src/idempotency/memory.ts'
import { defineApp } from '../../src/app.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { BrokerError, IdempotencyError } from '../../src/errors.ts'
import type { IdempotencyStore } from '../../src/idempotency.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { RouteOptions } from '../../src/router.ts'
import { openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench, BenchOptions } from '../support/consumer.ts'

async function openOnce(
  handle: (value: string, attempt: number) => unknown,
  more: RouteOptions = {},
  options: Partial<BenchOptions> & { readonly store?: (real: IdempotencyStore) => IdempotencyStore } = {},
): Promise<Bench> {
  const { store = (real) => real, consumer, ...bench } = options
  const router = createRouter().on({ topic: TOPIC }, ({ value }, { attempt }) => handle(textOf(value), attempt), {
    delivery: 'effectively-once',
    ...more,
  })
  // One clock for all: it is made by the bench, and handed on by the store that is made with it.
  const idempotency = store(memoryIdempotency())
  return await openBench({ app: { router }, consumer: { idempotency, ...consumer }, ...bench })
}

describe('effectively once', () => {
  test('does not call a handler again whose record comes again', async () => {
    const seen: string[] = []
    let isRefusing = true
    const bench = await openOnce(
      (value) => void seen.push(value),
      {},
      {
        wrap: (broker) =>
          withCalls(broker, {
            commit: async (...args) => {
              if (isRefusing) throw new BrokerError('KAFKA_STORAGE_ERROR', 'no disk')
              await broker.commit(...args)
            },
          }),
      },
    )
    await bench.produce(['a', 'b'])

    const first = await bench.drain({ budget: { runMs: 5_000 } })
    isRefusing = false
    const second = await bench.drain()

    expect(seen).toEqual(['a', 'b'])
    expect(first).toMatchObject({ handled: 2, committed: [] })
    expect(second).toMatchObject({ handled: 2, committed: [{ offset: 2 }] })
  })

  test('goes by the business key where there is one', async () => {
    const seen: string[] = []
    const bench = await openOnce((value) => void seen.push(value), {
      once: { key: ({ value }) => textOf(value as Uint8Array).slice(0, 1) },
    })
    await bench.produce(['a1', 'b1', 'a2'])

    expect(await bench.drain()).toMatchObject({ handled: 3 })
    expect(seen).toEqual(['a1', 'b1'])
  })

  test('tries a handler that failed again', async () => {
    const attempts: number[] = []
    const bench = await openOnce((_value, attempt) => {
      attempts.push(attempt)
      if (attempt < 3) throw new Error('again')
    })
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ handled: 1, retried: 2 })
    expect(attempts).toEqual([1, 2, 3])
  })

  test('puts records off while the store is away, without counting attempts', async () => {
    let failures = 10
    const attempts: number[] = []
    const bench = await openOnce(
      (_value, attempt) => void attempts.push(attempt),
      {},
      {
        store: (real) => ({
          features: real.features,
          begin: async (...args) => {
            if (failures-- > 0) throw new IdempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE', 'away')
            return await real.begin(...args)
          },
          complete: (...args) => real.complete(...args),
          abandon: (...args) => real.abandon(...args),
          close: () => real.close(),
          [Symbol.asyncDispose]: () => real.close(),
        }),
      },
    )
    await bench.produce(['a'])

    expect(await bench.drain()).toMatchObject({ handled: 1, deadLettered: {} })
    expect(attempts).toEqual([1])
  })

  test('is refused without a store, and with one that cannot promise it', () => {
    const router = createRouter().on({ topic: TOPIC }, () => undefined, { delivery: 'effectively-once' })
    const app = defineApp({ groupId: 'g', router })
    const options = { broker: memoryBroker(), deadLetters: memoryDeadLetters(), groupInstanceId: 'i' }
    const weak = { ...memoryIdempotency(), features: { linearizable: false, durable: true, maxOutcomeBytes: 1 } }

    expect(() => createConsumer(app, options)).toThrow(/KEDGE_IDEMPOTENCY/)
    expect(() => createConsumer(app, { ...options, idempotency: weak })).toThrow(/linearizable/)
  })

  test('is what once is for', () => {
    const router = createRouter().on({ topic: TOPIC }, () => undefined, { once: { keepMs: 0 } })
    expect(() => defineApp({ groupId: 'g', router })).toThrow(/once says[^]*once\.keepMs is 0/)
  })
})
