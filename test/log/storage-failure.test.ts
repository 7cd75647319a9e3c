import { describe, expect, test } from 'vitest'
import { embeddedBroker } from '../../src/log/engine.ts'
import { memoryStore } from '../../src/log/memory-store.ts'
import type { LogStore } from '../../src/log/store.ts'
import { record, valuesOf } from '../support/records.ts'

const limits = { maxWaitMs: 0, maxRecords: 100, maxBytes: 1_000_000 }

/** A store whose transactions fail from when `breakDown` is called, after their writes, as a failing sync does. */
function failingStore(): { store: LogStore; breakDown: () => void } {
  const store = memoryStore()
  let broken = false
  return {
    breakDown: () => (broken = true),
    store: {
      ...store,
      transaction(work) {
        if (broken) throw new Error('EIO: i/o error, fdatasync')
        store.transaction(work)
      },
    },
  }
}

describe('a log whose disk fails', () => {
  test('acknowledges nothing, refuses every later write, and goes on reading', async () => {
    const { store, breakDown } = failingStore()
    await using broker = embeddedBroker(store)
    await broker.createTopic({ topic: 'blue' })
    await broker.produce([record('blue', 'before')])
    breakDown()

    const together = await Promise.allSettled([
      broker.produce([record('blue', 'a')]),
      broker.produce([record('blue', 'b')]),
    ])
    const later = broker.produce([record('blue', 'c')])

    const refused = { code: 'KAFKA_STORAGE_ERROR', retriable: true }
    for (const outcome of together) expect(outcome).toMatchObject({ status: 'rejected', reason: refused })
    await expect(later).rejects.toMatchObject(refused)
    const group = { groupId: 'g', groupInstanceId: 'i' }
    await expect(broker.commit(group, [{ topic: 'blue', partition: 0, offset: 1 }])).rejects.toMatchObject(refused)
    await expect(broker.createTopic({ topic: 'red' })).rejects.toMatchObject(refused)
    const readable = await broker.fetch([{ topic: 'blue', partition: 0, offset: 0 }], limits)
    expect(valuesOf(readable)).toEqual(['before'])
    expect(await broker.committed('g')).toEqual([])
  })

  test('leaves an idempotency key free for the next try', async () => {
    const { store, breakDown } = failingStore()
    await using broker = embeddedBroker(store)
    await broker.createTopic({ topic: 'blue' })
    breakDown()

    const options = { idempotencyKey: 'k' }
    for (let attempt = 0; attempt < 2; attempt++) {
      await expect(broker.produce([record('blue', 'a')], options)).rejects.toMatchObject({
        code: 'KAFKA_STORAGE_ERROR',
      })
    }
  })

  test('shares one transaction among all writes of a turn', async () => {
    const store = memoryStore()
    let transactions = 0
    const counted: LogStore = {
      ...store,
      transaction(work) {
        transactions += 1
        store.transaction(work)
      },
    }
    await using broker = embeddedBroker(counted, { defer: setImmediate })
    await broker.createTopic({ topic: 'blue', partitions: 3 })
    await broker.produce([record('blue', 'first')])
    transactions = 0

    const stored = await Promise.all(Array.from({ length: 64 }, (_, n) => broker.produce([record('blue', `v${n}`)])))

    expect(stored).toHaveLength(64)
    expect(transactions).toBe(1)
  })
})
