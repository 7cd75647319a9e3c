/**
 * Batch routes over batches, poison and interruptions that chance has made: every good record is handled, each bad one becomes
 * one dead letter, the order is kept, and no commit passes what is open. A failure prints its seed and path.
 */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodeProgress } from '../../src/consumer/progress.ts'
import { BatchError, DeadLetterError, SkipError } from '../../src/handler-errors.ts'
import type { BatchFailure } from '../../src/handler-errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { BatchHandler, Ordering } from '../../src/router.ts'
import { openBench, TOPIC, withCalls } from '../support/consumer.ts'

const PARTITIONS = 2
/** So many runs are enough for every case: each that is not interrupted settles something. */
const MAX_RUNS = 200

/** What a handler makes of a record each time, `once` only the first time that it is called alone or named. */
type Nature = 'good' | 'throws' | 'once' | 'rejected' | 'skipped'

interface Case {
  readonly records: readonly { readonly key: string | null; readonly partition: number; readonly nature: Nature }[]
  readonly ordering: Ordering
  readonly maxBatchRecords: number
  readonly concurrency: number
  readonly maxAttempts: number
  readonly probes: number | null
  /** Whether the handler names the records that failed, call by call, over and over. */
  readonly names: readonly boolean[]
  /** Whether it takes a while. */
  readonly waits: readonly boolean[]
  /** Runs that are stopped at their nth call. */
  readonly stops: readonly number[]
}

const cases: fc.Arbitrary<Case> = fc.record({
  records: fc.array(
    fc.record({
      key: fc.constantFrom('a', 'b', 'c', null),
      partition: fc.nat({ max: PARTITIONS - 1 }),
      nature: fc.oneof(
        { weight: 6, arbitrary: fc.constant<Nature>('good') },
        { weight: 2, arbitrary: fc.constantFrom<Nature>('throws', 'once', 'rejected', 'skipped') },
      ),
    }),
    { minLength: 1, maxLength: 40 },
  ),
  ordering: fc.constantFrom('partition', 'key', 'none'),
  maxBatchRecords: fc.constantFrom(1, 2, 3, 7, 100),
  concurrency: fc.integer({ min: 1, max: 4 }),
  maxAttempts: fc.integer({ min: 2, max: 3 }),
  probes: fc.constantFrom(null, null, 2),
  names: fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
  waits: fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
  stops: fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 3 }),
})

const idOf = ({ partition, offset }: { readonly partition: number; readonly offset: number }): string =>
  `${partition}/${offset}`

/** Plays a case and gives what it broke. */
async function play(one: Case): Promise<string[]> {
  const broken: string[] = []
  const natures = new Map<string, Nature>()
  const scopes = new Map<string, string | undefined>()
  const settled = new Set<string>()
  const failedOnce = new Set<string>()
  const letters: string[] = []
  let calls = 0
  let active = 0
  let stopAt = Number.POSITIVE_INFINITY
  let stop = new AbortController()

  /** What the record waits for: everything before it in the same scope. */
  const scopeOf = ({ partition, key }: ConsumerRecord): string | undefined => {
    if (one.ordering === 'partition') return `${partition}`
    return one.ordering === 'key' && key !== null ? `${partition} ${textOf(key)}` : undefined
  }

  const checkCall = (records: readonly ConsumerRecord[]): void => {
    const [first] = records
    if (first === undefined || records.length > one.maxBatchRecords) broken.push(`a batch of ${records.length}`)
    for (const [index, record] of records.entries()) {
      const id = idOf(record)
      if (record.partition !== first?.partition) broken.push(`${id} came in a batch of another partition`)
      if (index > 0 && record.offset <= (records[index - 1]?.offset ?? 0)) broken.push(`${id} came out of order`)
      if (settled.has(id)) broken.push(`${id} was called again after it was settled`)
      const scope = scopeOf(record)
      if (scope === undefined) continue
      const ahead = new Set(records.slice(0, index).map(idOf))
      for (let offset = 0; offset < record.offset; offset++) {
        const before = idOf({ partition: record.partition, offset })
        if (scopes.get(before) === scope && !settled.has(before) && !ahead.has(before)) {
          broken.push(`${id} was called before ${before} was settled`)
        }
      }
    }
  }

  const errorOf = (record: ConsumerRecord, isFound: boolean): Error | undefined => {
    const id = idOf(record)
    const nature = natures.get(id)
    if (nature === 'throws') return new RangeError(`no ${id}`)
    if (nature === 'rejected') return new DeadLetterError(`never ${id}`)
    if (nature === 'skipped') return new SkipError(`not ${id}`)
    if (nature !== 'once' || failedOnce.has(id)) return undefined
    if (isFound) failedOnce.add(id)
    return new Error(`not yet ${id}`)
  }

  const handler: BatchHandler = async (records) => {
    checkCall(records)
    const call = calls++
    active += 1
    if (active > one.concurrency) broken.push(`${active} calls at once`)
    if (calls >= stopAt) stop.abort()
    try {
      if (one.waits[call % one.waits.length] === true)
        await new Promise<void>((done) => void bench.clock.after(20, done))
      const isNaming = one.names[call % one.names.length] === true
      const isFound = isNaming || records.length === 1
      const failures = records.flatMap((record): BatchFailure[] => {
        const error = errorOf(record, isFound)
        return error === undefined ? [] : [{ record, error }]
      })
      const failed = new Set(failures.map(({ record }) => record))
      if (failures.length === 0 || isNaming) {
        for (const record of records) if (!failed.has(record)) settled.add(idOf(record))
      }
      for (const { record, error } of isFound ? failures : []) {
        if (error instanceof SkipError && typeof record === 'object') settled.add(idOf(record))
      }
      if (failures.length > 0) throw isNaming ? new BatchError(failures) : failures[0]?.error
    } finally {
      active -= 1
    }
  }

  const bench = await openBench({
    partitions: PARTITIONS,
    app: {
      router: createRouter().onBatch({ topic: TOPIC }, handler, {
        ordering: one.ordering,
        concurrency: one.concurrency,
        maxBatchRecords: one.maxBatchRecords,
        retry: { maxAttempts: one.maxAttempts },
        breaker: one.probes === null ? null : { probes: one.probes },
      }),
    },
    wrap: (broker) =>
      withCalls(broker, {
        async commit(group, offsets, options, call) {
          for (const { partition, offset, metadata } of offsets === 'polled' ? [] : offsets) {
            const progress = decodeProgress(offset, metadata ?? null) ?? { settledTo: offset, open: [] }
            const open = new Set(progress.open.map((entry) => entry.offset))
            for (let at = 0; at < progress.settledTo; at++) {
              const id = idOf({ partition, offset: at })
              if (!open.has(at) && !settled.has(id)) broken.push(`a commit of ${offset} passed ${id}`)
            }
          }
          await broker.commit(group, offsets, options, call)
        },
      }),
    wrapLetters: (store) => ({
      ...store,
      async put(letter, call) {
        await store.put(letter, call)
        letters.push(`${idOf(letter.record)} ${letter.reason}`)
        settled.add(idOf(letter.record))
      },
    }),
  })
  const ends = Array.from({ length: PARTITIONS }, () => 0)
  for (const { key, partition, nature } of one.records) {
    const offset = ends[partition] ?? 0
    ends[partition] = offset + 1
    natures.set(idOf({ partition, offset }), nature)
    const value = bytesOf(nature)
    const record = { topic: TOPIC, partition, offset, timestampMs: 0, key: key === null ? null : bytesOf(key), value }
    scopes.set(idOf(record), scopeOf({ ...record, headers: [] }))
    await bench.broker.produce([{ topic: TOPIC, partition, key: record.key, value }])
  }

  let runs = 0
  for (; runs < MAX_RUNS && settled.size < one.records.length; runs++) {
    stop = new AbortController()
    stopAt = runs < one.stops.length ? calls + (one.stops[runs] ?? 0) : Number.POSITIVE_INFINITY
    await bench.drain({ signal: stop.signal })
    // A retry may have been put off for the next run.
    await bench.clock.advance(1_000)
  }
  await bench.drain()

  const committed = await bench.committed()
  for (const [partition, end] of ends.entries()) {
    if (end > 0 && committed[partition] !== end) broken.push(`${committed[partition]} of ${end} committed`)
  }
  const expected = [...natures].flatMap(([id, nature]) => {
    if (nature === 'throws') return [`${id} exhausted`]
    return nature === 'rejected' ? [`${id} rejected`] : []
  })
  if (letters.toSorted().join() !== expected.toSorted().join())
    broken.push(`letters ${letters.join()} for ${expected.join()}`)
  return broken
}

describe('batches', () => {
  test('lose nothing, keep their order and find each bad record once', { timeout: 300_000 }, async () => {
    const runs = Number(process.env['TEST_WORLDS'] ?? 150)
    await fc.assert(
      fc.asyncProperty(cases, async (one) => {
        expect(await play(one)).toEqual([])
      }),
      { numRuns: runs },
    )
  })
})
