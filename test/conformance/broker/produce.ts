/** Appending: what is answered, where records go, that every byte comes back, and all or nothing. */
import { expect } from 'vitest'
import { BrokerError } from '../../../src/errors.ts'
import { contentOf, numbersOf, record, series, valuesOf } from '../../support/records.ts'
import { START_MS } from '../../support/clock.ts'
import type { AddCase } from './harness.ts'
import { refusal, stored, unusedName } from './harness.ts'

const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, byte) => byte)
/** Not UTF-8: a lone continuation byte, an overlong slash, both halves of a surrogate pair, and a cut sequence. */
const NOT_UTF8 = Uint8Array.of(0x80, 0xc0, 0xaf, 0xed, 0xa0, 0x80, 0xed, 0xb0, 0x80, 0xe2, 0x82)
const EMPTY = new Uint8Array(0)
const BYTE_ORDER_MARK = Uint8Array.of(0xef, 0xbb, 0xbf, 0x61)

export function produce(it: AddCase): void {
  it('answers topic, partition, offset and timestampMs for each record in the order given', async (t) => {
    const one = await t.topicForEver(2)
    const two = await t.topicForEver(1)

    const metadata = await t.produce(
      record(one, 'a', { partition: 1, timestampMs: 1_000 }),
      record(two, 'b', { partition: 0, timestampMs: 2_000 }),
      record(one, 'c', { partition: 0, timestampMs: 3_000 }),
      record(one, 'd', { partition: 1, timestampMs: 4_000 }),
    )

    expect(metadata).toEqual([
      { topic: one, partition: 1, offset: 0, timestampMs: 1_000 },
      { topic: two, partition: 0, offset: 0, timestampMs: 2_000 },
      { topic: one, partition: 0, offset: 0, timestampMs: 3_000 },
      { topic: one, partition: 1, offset: 1, timestampMs: 4_000 },
    ])
  })

  it('gives dense offsets from 0 in each partition, over calls and restarts', async (t) => {
    const topic = await t.topic(2)

    const offsets: number[] = []
    for (let call = 0; call < 4; call++) {
      const metadata = await t.produce(...series(topic, 0, 3), record(topic, 'other', { partition: 1 }))
      offsets.push(...metadata.filter(({ partition }) => partition === 0).map(({ offset }) => offset))
      await t.reopen()
    }

    expect(offsets).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    expect(await t.ends(topic, 2)).toEqual([12, 4])
  })

  it('resolves an empty list to an empty list', async (t) => {
    expect(await t.broker.produce([])).toEqual([])
  })

  it('has stored what it answers: it is there at once and after a restart', async (t) => {
    const topic = await t.topic()

    await t.produce(record(topic, 'kept', { key: 'k', headers: [['h', 'v']] }))
    const atOnce = await t.read(topic)
    await t.reopen()
    const afterwards = await t.read(topic)

    expect(valuesOf(atOnce)).toEqual(['kept'])
    expect(afterwards).toEqual(atOnce)
  })

  it('brings back every byte of key, value and headers', async (t) => {
    const topic = await t.topic()
    const data = [ALL_BYTES, NOT_UTF8, BYTE_ORDER_MARK, Uint8Array.of(0), EMPTY, null]
    const sent = data.flatMap((key, n) => [
      record(topic, data[(n + 1) % data.length] ?? null, { key, headers: [['bytes', key]], partition: 0 }),
    ])

    await t.produce(...sent)
    await t.reopen()
    const read = await t.read(topic)

    expect(read.map(contentOf)).toEqual(
      sent.map(({ key, value, headers = [] }) => ({
        key: numbersOf(key),
        value: numbersOf(value),
        headers: headers.map((header) => [header.key, numbersOf(header.value)]),
      })),
    )
  })

  it('keeps null and zero bytes apart, in keys, values and header values', async (t) => {
    const topic = await t.topic()

    await t.produce(
      record(topic, null, { key: EMPTY, partition: 0, headers: [['h', null]] }),
      record(topic, EMPTY, { key: null, partition: 0, headers: [['h', EMPTY]] }),
    )
    await t.reopen()

    expect((await t.read(topic)).map(contentOf)).toEqual([
      { key: [], value: null, headers: [['h', null]] },
      { key: null, value: [], headers: [['h', []]] },
    ])
  })

  it('keeps headers in order, with duplicates, empty and non-ASCII names', async (t) => {
    const topic = await t.topic()
    const headers = [
      ['b', '1'],
      ['a', '2'],
      ['b', '3'],
      ['', 'empty name'],
      ['Größe\u{1F980}', 'not ASCII'],
      ['__proto__', 'of hostile name'],
    ] as const

    await t.produce(record(topic, 'v', { headers }), record(topic, 'no headers'))
    await t.reopen()
    const [first, second] = await t.read(topic)

    expect(first && contentOf(first).headers).toEqual(headers.map(([key, value]) => [key, [...Buffer.from(value)]]))
    expect(second?.headers).toEqual([])
  })

  it('keeps the timestamp it is given, the epoch included, and stamps records without one', async (t) => {
    const topic = await t.topicForEver()
    const before = t.clock?.now() ?? Date.now() - 60_000

    const metadata = await t.produce(
      record(topic, 'epoch', { timestampMs: 0 }),
      record(topic, 'given', { timestampMs: START_MS - 1 }),
      record(topic, 'stamped'),
    )
    const read = await t.read(topic)

    expect(metadata.slice(0, 2).map(({ timestampMs }) => timestampMs)).toEqual([0, START_MS - 1])
    expect(metadata[2]?.timestampMs).toBeGreaterThanOrEqual(before)
    expect(read.map(({ timestampMs }) => timestampMs)).toEqual(metadata.map(({ timestampMs }) => timestampMs))
  })

  it('sends records of one key to one partition, over calls and restarts', async (t) => {
    const topic = await t.topic(8)
    const keys = ['', 'a', 'b', 'App\\Http\\Controllers\\ReportsController', 'ключ', '\u0000']

    const first = await t.produce(...keys.map((key) => record(topic, 'v', { key })))
    await t.reopen()
    const again = await t.produce(...keys.toReversed().map((key) => record(topic, 'v', { key })))

    expect(again.map(({ partition }) => partition)).toEqual(first.map(({ partition }) => partition).toReversed())
  })

  it("places keys as Kafka's default partitioner does", async (t) => {
    const topic = await t.topic(10)

    // murmur2 of these keys: Kafka's own UtilsTest (testMurmur2), sign bit dropped, modulo 10.
    const hashes = [
      ['21', -973932308],
      ['foobar', -790332482],
      ['a-little-bit-long-string', -985981536],
      ['a-little-bit-longer-string', -1486304829],
      ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
      ['abc', 479470107],
    ] as const
    const metadata = await t.produce(...hashes.map(([key]) => record(topic, 'v', { key })))

    expect(metadata.map(({ partition }) => partition)).toEqual(hashes.map(([, hash]) => (hash & 0x7fffffff) % 10))
  })

  it('spreads records without a key over all partitions', async (t) => {
    const topic = await t.topic(4)

    for (let n = 0; n < 80; n++) await t.produce(record(topic, `v${n}`))

    for (const end of await t.ends(topic, 4)) expect(end).toBeGreaterThan(0)
  })

  it('puts a record where it is told, whatever its key', async (t) => {
    const topic = await t.topic(5)

    const metadata = await t.produce(
      ...[0, 1, 2, 3, 4].map((partition) => record(topic, 'v', { key: 'same', partition })),
    )

    expect(metadata.map(({ partition }) => partition)).toEqual([0, 1, 2, 3, 4])
  })

  it('stores the records of one call to one partition in the order given', async (t) => {
    const topic = await t.topic()
    const records = series(topic, 0, 500)

    await t.produce(...records)

    expect(valuesOf(await t.read(topic))).toEqual(records.map((_, n) => `v${n}`))
  })

  it('stores the calls of one caller in the order made, though none waits for the one before', async (t) => {
    const topic = await t.topic()

    await Promise.all(Array.from({ length: 30 }, (_, n) => t.produce(record(topic, `v${n}`))))

    expect(valuesOf(await t.read(topic))).toEqual(Array.from({ length: 30 }, (_, n) => `v${n}`))
  })

  it('does not keep the bytes and arrays it was given', async (t) => {
    const topic = await t.topic()
    const value = Uint8Array.of(1, 2, 3)
    const header = { key: 'h', value: Uint8Array.of(4) }
    const records = [{ topic, key: Uint8Array.of(5), value, headers: [header] }]

    await t.produce(...records)
    value.fill(9)
    header.value.fill(9)
    records[0]?.key.fill(9)
    records.length = 0

    expect((await t.read(topic)).map(contentOf)).toEqual([{ key: [5], value: [1, 2, 3], headers: [['h', [4]]] }])
  })

  it('takes a view into a larger buffer for what it shows', async (t) => {
    const topic = await t.topic()
    const buffer = Uint8Array.of(0, 1, 2, 3, 4)

    await t.produce(record(topic, buffer.subarray(1, 3), { key: buffer.subarray(3, 4) }))

    expect((await t.read(topic)).map(contentOf)).toEqual([{ key: [3], value: [1, 2], headers: [] }])
  })

  it('refuses an unknown topic and an unknown partition', async (t) => {
    const topic = await t.topic(2)

    await refusal(t.broker.produce([record(unusedName('topic'), 'v')]), 'UNKNOWN_TOPIC_OR_PARTITION')
    await refusal(t.broker.produce([record(topic, 'v', { partition: 2 })]), 'UNKNOWN_TOPIC_OR_PARTITION')
  })

  it('refuses a negative or unsafe timestamp with INVALID_TIMESTAMP', async (t) => {
    const topic = await t.topic()

    await refusal(t.broker.produce([record(topic, 'v', { timestampMs: -1 })]), 'INVALID_TIMESTAMP')
    for (const timestampMs of [1.5, 2 ** 53, Number.NaN]) {
      // What is no int64 may be refused before it is known to be a timestamp.
      await refusal(t.broker.produce([record(topic, 'v', { timestampMs })]), 'INVALID_TIMESTAMP', 'INVALID_REQUEST')
    }
    expect(await t.ends(topic)).toEqual([0])
  })

  it('writes nothing of a call in which one record cannot be taken', async (t) => {
    const topic = await t.topic(2)
    const good = [record(topic, 'a', { partition: 0 }), record(topic, 'b', { partition: 1 })]

    await refusal(
      t.broker.produce([...good, record(unusedName('topic'), 'bad'), ...good]),
      'UNKNOWN_TOPIC_OR_PARTITION',
    )
    await refusal(t.broker.produce([...good, record(topic, 'bad', { timestampMs: -1 })]), 'INVALID_TIMESTAMP')
    await t.reopen()

    if (t.features.atomicProduce) expect(await t.ends(topic, 2)).toEqual([0, 0])
  })

  it('takes each record for itself with atomic: false, and answers errors at their index', async (t) => {
    const topic = await t.topic(1, { maxRecordBytes: 10 })

    const results = await t.broker.produce(
      [
        record(topic, 'first'),
        record(unusedName('topic'), 'v'),
        record(topic, 'far too large'),
        record(topic, 'v', { partition: 7 }),
        record(topic, 'v', { timestampMs: -1 }),
        record(topic, 'last'),
      ],
      { atomic: false },
    )

    const shown = results.map((result) => (result instanceof BrokerError ? result.code : result.offset))
    expect(shown).toEqual([
      0,
      'UNKNOWN_TOPIC_OR_PARTITION',
      'MESSAGE_TOO_LARGE',
      'UNKNOWN_TOPIC_OR_PARTITION',
      'INVALID_TIMESTAMP',
      1,
    ])
    expect(valuesOf(await t.read(topic))).toEqual(['first', 'last'])
  })

  it('resolves with atomic: false where no record or every record is taken', async (t) => {
    const topic = await t.topic()
    const unknown = unusedName('topic')

    const none = await t.broker.produce([record(unknown, 'a'), record(unknown, 'b')], { atomic: false })
    const all = await t.broker.produce([record(topic, 'a'), record(topic, 'b')], { atomic: false })

    expect(none.map((result) => result instanceof BrokerError && result.code)).toEqual([
      'UNKNOWN_TOPIC_OR_PARTITION',
      'UNKNOWN_TOPIC_OR_PARTITION',
    ])
    expect(stored(all).map(({ offset }) => offset)).toEqual([0, 1])
  })
}
