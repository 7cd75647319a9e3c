/** Old records go, young ones stay, and offsets never move. */
import { expect } from 'vitest'
import { record, series, valuesOf } from '../../support/records.ts'
import { until } from '../../support/until.ts'
import type { AddCase, BrokerCase } from './harness.ts'
import { newGroup, refusal, unusedName } from './harness.ts'

const HOUR_MS = 3_600_000

export function retention(add: AddCase): void {
  /** Adds a case that, without the feature, asserts only the refusal. */
  const it: AddCase = (title, run) =>
    add(title, async (t) => {
      if (t.features.retention) await run(t)
      else await refusesRetention(t)
    })

  it('deletes records that are older than retentionMs, and keeps offsets', async (t) => {
    const topic = await withDeletedHour(t)

    const start = await t.start(topic)
    const metadata = await t.produce(record(topic, 'next'))

    expect(start).toBe(3)
    expect(metadata[0]?.offset).toBe(5)
    expect(valuesOf(await t.read(topic, 0, start))).toEqual(['new0', 'new1', 'next'])
  })

  it('refuses fetches below the log start with OFFSET_OUT_OF_RANGE', async (t) => {
    const topic = await withDeletedHour(t)
    await t.reopen()

    await refusal(t.fetch([{ topic, partition: 0, offset: 2 }]), 'OFFSET_OUT_OF_RANGE')
    expect(valuesOf(await t.fetch([{ topic, partition: 0, offset: 3 }]))).toEqual(['new0', 'new1'])
  })

  it('finds by time only what is left', async (t) => {
    const topic = await withDeletedHour(t)

    expect(await t.broker.offsets([{ topic, partition: 0 }], 0)).toEqual([{ topic, partition: 0, offset: 3 }])
  })

  it('starts a member whose committed offset is gone where its reset says', async (t) => {
    const topic = await withDeletedHour(t)
    const group = newGroup()
    await t.broker.commit(group, [{ topic, partition: 0, offset: 1 }])

    const { records } = await t.poll({ group, topics: [topic], autoOffsetReset: 'earliest' })

    expect(valuesOf(records)).toEqual(['new0', 'new1'])
  })

  it('deletes the oldest records of a partition that is over retentionBytes', async (t) => {
    const topic = await t.topic(1, { retentionMs: null, retentionBytes: 10_000 })
    const large = 'x'.repeat(2_000)

    for (let n = 0; n < 20; n++) {
      await t.produce(record(topic, `${n} ${large}`))
      // A log may delete by the file, and begin a new one by time.
      await t.pass(20)
    }
    await untilDeleted(t, topic, 1)
    const start = await t.start(topic)
    const left = await t.read(topic, 0, start)

    expect(await t.ends(topic)).toEqual([20])
    expect(left.at(-1)?.offset).toBe(19)
    // What is over the size goes; what fits into it stays.
    expect(left.length).toBeGreaterThanOrEqual(4)
    expect(left.length).toBeLessThan(20)
  })

  it('keeps everything for ever with null', async (t) => {
    const topic = await t.topic(1, { retentionMs: null, retentionBytes: null })
    await t.produce(record(topic, 'kept', { timestampMs: 1 }))

    await t.pass(t.clock === undefined ? 100 : 3_650 * 24 * HOUR_MS)
    await t.produce(record(topic, 'later'))
    await t.reopen()

    expect(valuesOf(await t.read(topic))).toEqual(['kept', 'later'])
  })

  it('keeps what is younger than retentionMs', async (t) => {
    const topic = await t.topic(1, { retentionMs: HOUR_MS })
    await t.produce(...series(topic, 0, 3))

    await t.pass(t.clock === undefined ? 100 : HOUR_MS / 2)
    await t.produce(record(topic, 'later'))

    expect(await t.read(topic)).toHaveLength(4)
  })
}

/** A topic whose records 0 to 2 were kept for their time and are gone, and whose records 3 and 4 are young. */
async function withDeletedHour(t: BrokerCase): Promise<string> {
  // In real time the young ones have to stay for as long as the case takes.
  const retentionMs = t.clock === undefined ? 2_000 : HOUR_MS
  const topic = await t.topic(1, { retentionMs })
  await t.produce(...series(topic, 0, 3, 'old'))
  await t.pass(retentionMs + 1_000)
  await t.produce(...series(topic, 0, 2, 'new'))
  await untilDeleted(t, topic, 3)
  return topic
}

/** Deleting is the broker's own business; this gives it the time it may take: minutes, but seconds of real ones. */
async function untilDeleted(t: BrokerCase, topic: string, start: number): Promise<void> {
  await until(
    async () => {
      if ((await t.start(topic)) >= start) return true
      await t.pass(t.clock === undefined ? 50 : 60_000)
      return false
    },
    { what: `records below ${start} to be deleted`, timeoutMs: 15_000 },
  )
}

async function refusesRetention(t: BrokerCase): Promise<void> {
  await refusal(t.broker.createTopic({ topic: unusedName('topic'), retentionMs: HOUR_MS }), 'UNSUPPORTED')
  await refusal(t.broker.createTopic({ topic: unusedName('topic'), retentionBytes: 10_000 }), 'UNSUPPORTED')
}
