import * as fc from 'fast-check'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { assignSticky } from '../../src/sticky-assignor.ts'
import { encodeBatch, recordBytes, visitBatch } from '../../src/log/batch.ts'
import type { ConsumerRecord, ProducerRecord } from '../../src/record.ts'
import { record, valuesOf } from '../support/records.ts'

const bytes = fc.option(fc.uint8Array({ maxLength: 50 }), { nil: null })
const header = fc.record({ key: fc.string({ unit: 'binary', maxLength: 8 }), value: bytes })
const anyRecord: fc.Arbitrary<ProducerRecord> = fc.record(
  {
    topic: fc.constant('t'),
    key: bytes,
    value: bytes,
    headers: fc.array(header, { maxLength: 4 }),
    timestampMs: fc.nat({ max: 2_000_000_000_000 }),
  },
  { requiredKeys: ['topic', 'key', 'value'] },
)

describe('a stored batch', () => {
  test('gives back every byte of what was framed, from any offset on', () => {
    fc.assert(
      fc.property(fc.array(anyRecord, { minLength: 1, maxLength: 8 }), fc.nat({ max: 8 }), (records, skip) => {
        const encoded = encodeBatch(records, 42)
        const batch = { baseOffset: 100, count: records.length, maxTimestampMs: 0, bytes: encoded }
        const read: ConsumerRecord[] = []

        visitBatch('t', 3, batch, 100 + skip, (next) => read.push(next) > 0)

        const expected = records.slice(skip).map((given, index) => ({
          topic: 't',
          partition: 3,
          offset: 100 + skip + index,
          timestampMs: given.timestampMs ?? 42,
          key: given.key,
          value: given.value,
          headers: given.headers ?? [],
        }))
        expect(read).toEqual(expected)
      }),
    )
  })

  test('is as long as its records say', () => {
    fc.assert(
      fc.property(fc.array(anyRecord, { maxLength: 8 }), (records) => {
        const framing = records.reduce((sum, next) => sum + 24 + 8 * (next.headers?.length ?? 0) + recordBytes(next), 0)

        expect(encodeBatch(records, 0)).toHaveLength(framing)
      }),
    )
  })
})

describe('the sticky assignor', () => {
  const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { minLength: 1 })

  test('gives every partition to one member, in balance, whatever the order of its input', () => {
    fc.assert(
      fc.property(
        names,
        fc.nat({ max: 20 }),
        fc.array(fc.option(fc.constantFrom('a', 'b', 'gone')), { minLength: 20, maxLength: 20 }),
        (ids, count, owners) => {
          const members = ids.map((id) => ({ id, topics: ['t'] }))
          const partitions = Array.from({ length: count }, (_, partition) => ({
            topic: 't',
            partition,
            owner: owners[partition] ?? undefined,
          }))

          const assigned = assignSticky(members, partitions)

          const loads = ids.map((id) => assigned.filter((slot) => slot.owner === id).length)
          expect(loads.reduce((sum, load) => sum + load, 0)).toBe(count)
          expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(1)
          expect(assignSticky(members.toReversed(), partitions.toReversed())).toEqual(assigned)
        },
      ),
    )
  })

  test('moves nothing when nothing changed, and no more than one share when a member joins', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.nat({ max: 30 }), (count, total) => {
        const members = Array.from({ length: count }, (_, index) => ({ id: `m${index}`, topics: ['t'] }))
        const partitions = Array.from({ length: total }, (_, partition) => ({
          topic: 't',
          partition,
          owner: undefined,
        }))
        const before = assignSticky(members, partitions)

        const again = assignSticky(members, before)
        const joined = assignSticky([...members, { id: 'new', topics: ['t'] }], before)

        expect(again).toEqual(before)
        const moved = joined.filter((slot, index) => slot.owner !== before[index]?.owner)
        expect(moved.every((slot) => slot.owner === 'new')).toBe(true)
        expect(moved.length).toBeLessThanOrEqual(Math.ceil(total / (count + 1)))
      }),
    )
  })

  test('gives nobody a topic that it does not subscribe to', () => {
    const members = [
      { id: 'a', topics: ['x'] },
      { id: 'b', topics: ['x', 'y'] },
    ]
    const partitions = ['x', 'y', 'z'].flatMap((topic) => [0, 1].map((partition) => ({ topic, partition, owner: 'a' })))

    const assigned = assignSticky(members, partitions)

    expect(assigned.filter((slot) => slot.topic === 'y').map((slot) => slot.owner)).toEqual(['b', 'b'])
    expect(assigned.filter((slot) => slot.topic === 'z').map((slot) => slot.owner)).toEqual([undefined, undefined])
  })
})

/** The log as a model: a list of values per partition, and what the group has committed. */
interface Model {
  readonly partitions: string[][]
  readonly committed: Map<number, number>
}

type Step =
  | { readonly do: 'produce'; readonly partition: number; readonly count: number }
  | { readonly do: 'fetch'; readonly partition: number; readonly from: number }
  | { readonly do: 'commit'; readonly partition: number; readonly offset: number }
  | { readonly do: 'run' }
  | { readonly do: 'reopen' }

const PARTITIONS = 3
const partition = fc.nat({ max: PARTITIONS - 1 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('produce' as const), partition, count: fc.integer({ min: 1, max: 5 }) }),
  fc.record({ do: fc.constant('fetch' as const), partition, from: fc.nat({ max: 10 }) }),
  fc.record({ do: fc.constant('commit' as const), partition, offset: fc.nat({ max: 10 }) }),
  fc.record({ do: fc.constant('run' as const) }),
  fc.record({ do: fc.constant('reopen' as const) }),
)

const group = { groupId: 'g', groupInstanceId: 'i' }
const limits = { maxWaitMs: 0, maxRecords: 1000, maxBytes: 1_000_000 }

/** Does one step to the broker and to the model and compares what they say. */
async function check(broker: Broker, model: Model, todo: Step, at: number): Promise<void> {
  if (todo.do === 'produce') {
    const values = Array.from({ length: todo.count }, (_, n) => `${at}.${n}`)
    const list = model.partitions[todo.partition] ?? []
    const stored = await broker.produce(values.map((value) => record('t', value, { partition: todo.partition })))
    expect(stored).toEqual(
      values.map((_, n) => expect.objectContaining({ partition: todo.partition, offset: list.length + n })),
    )
    list.push(...values)
  }
  if (todo.do === 'fetch') {
    const list = model.partitions[todo.partition] ?? []
    const fetched = broker.fetch([{ topic: 't', partition: todo.partition, offset: todo.from }], limits)
    if (todo.from > list.length) await expect(fetched).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' })
    else expect(valuesOf(await fetched)).toEqual(list.slice(todo.from))
  }
  if (todo.do === 'commit') {
    await broker.commit(group, [{ topic: 't', partition: todo.partition, offset: todo.offset }])
    model.committed.set(todo.partition, todo.offset)
  }
  if (todo.do === 'run') {
    const runId = `run-${at}`
    const polled = await broker.poll({ group, topics: ['t'], autoOffsetReset: 'earliest', run: { runId }, ...limits })
    await broker.release(group, runId)
    for (const [index, list] of model.partitions.entries()) {
      const committed = model.committed.get(index) ?? 0
      // A committed offset past the end falls back to the reset policy, here the log start.
      const from = committed > list.length ? 0 : committed
      expect(valuesOf(polled.records.filter((read) => read.partition === index))).toEqual(list.slice(from))
    }
  }
}

async function checkAll(
  broker: Broker,
  steps: readonly Step[],
  reopen: (broker: Broker) => Promise<Broker>,
): Promise<void> {
  const model: Model = { partitions: Array.from({ length: PARTITIONS }, () => []), committed: new Map() }
  let open = broker
  await open.createTopic({ topic: 't', partitions: PARTITIONS, retentionMs: null })
  try {
    for (const [at, todo] of steps.entries()) {
      if (todo.do === 'reopen') open = await reopen(open)
      else await check(open, model, todo, at)
    }
  } finally {
    await open.close()
  }
}

describe('the log against a model of plain arrays', () => {
  const steps = fc.array(step, { maxLength: 40 })

  test('agrees in memory', async () => {
    const agrees = fc.asyncProperty(steps, (todo) => checkAll(memoryBroker(), todo, (open) => Promise.resolve(open)))

    await expect(fc.assert(agrees, { numRuns: 200 })).resolves.toBeUndefined()
  })

  test('agrees on disk, closed and opened again at any time', async () => {
    const agrees = fc.asyncProperty(steps, async (todo) => {
      const dir = mkdtempSync(join(tmpdir(), 'kedge-model-'))
      try {
        await checkAll(logBroker({ dir }), todo, async (open) => {
          await open.close()
          return logBroker({ dir })
        })
      } finally {
        rmSync(dir, { recursive: true, force: true })
      }
    })

    await expect(fc.assert(agrees, { numRuns: 25 })).resolves.toBeUndefined()
  })
})
