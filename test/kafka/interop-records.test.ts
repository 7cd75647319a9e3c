/** Records between Kedge and clients that are not ours, byte for byte, by every compression that all of them know. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { kafkaBroker, type KafkaBrokerOptions } from '../../src/brokers/kafka.ts'
import { bytesOf, type ConsumerRecord } from '../../src/record.ts'
import { unusedName } from '../conformance/broker/harness.ts'
import { contentOf, type Data, numbersOf, record, textKeyOf, valuesOf } from '../support/records.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'
import { runJava, runKcat } from './clients.ts'

const compressions = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const
const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, byte) => byte)

/** A record as it is compared. */
interface Content {
  readonly timestampMs: number
  readonly key: Data
  readonly value: Data
  readonly headers: readonly (readonly [string, Data])[]
}

/** What a client may get wrong: nothing, empty and null; bytes that are no text; duplicates and their order; times. */
const NOW_MS = Date.now()
const hard: readonly Content[] = [
  { timestampMs: NOW_MS, key: 'k', value: 'plain', headers: [] },
  { timestampMs: NOW_MS - 1, key: null, value: 'no key', headers: [['h', 'v']] },
  { timestampMs: NOW_MS + 1, key: 'tombstone', value: null, headers: [] },
  { timestampMs: NOW_MS - 86_400_000, key: '', value: '', headers: [] },
  // Further from the first one than 32 bits hold.
  { timestampMs: 0, key: 'epoch', value: 'long ago', headers: [] },
  { timestampMs: NOW_MS, key: ALL_BYTES, value: ALL_BYTES.toReversed(), headers: [['bytes', ALL_BYTES]] },
  {
    timestampMs: NOW_MS + 499,
    key: 'App\\Http\\Controllers\\ReportsController',
    value: '{"ü":"漢字😀","n":1}',
    headers: [
      ['b', '1'],
      ['a', '2'],
      ['b', '3'],
      ['b', '1'],
      ['empty', ''],
      ['null', null],
      ['größe', '漢'],
    ],
  },
  { timestampMs: NOW_MS, key: 'long', value: 'all alike '.repeat(10_000), headers: [] },
]

let admin: KafkaAdmin
let broker: Broker

beforeAll(async () => {
  admin = await kafkaAdmin()
  await admin.wipe()
  broker = open()
})

afterAll(async () => {
  await broker.close()
  await admin[Symbol.asyncDispose]()
})

describe('what the Java client wrote, by every compression,', () => {
  const topics = new Map<string, string>()

  beforeAll(async () => {
    for (const compression of compressions) topics.set(compression, await newTopic())
    const targets = Array.from(topics, ([compression, topic]) => `${topic}=${compression}`)
    const input = hard.map((one) => `${JSON.stringify(written(one))}\n`).join('')
    await runJava('Records.java', ['write', bootstrapServers(), ...targets], input)
  })

  it.each(compressions)('comes as it was, any bytes: %s', async (compression) => {
    expect((await read(topics.get(compression) ?? '')).map(shown)).toEqual(hard.map(comparable))
  })
})

describe.each(compressions)('what others wrote, by %s,', (compression) => {
  let topic: string

  beforeEach(async () => {
    topic = await newTopic()
  })

  it("comes from Java's console producer as it was", async () => {
    const input = 'h1:a,h2:b,h1:c\tkey\tvalue\nh:ü\t漢\t😀\nh:x\tgone\tNULL\n'
    const properties = ['parse.key=true', 'parse.headers=true', 'null.marker=NULL'].flatMap((property) => [
      '--reader-property',
      property,
    ])
    const settings = ['--bootstrap-server', bootstrapServers(), '--topic', topic, '--compression-codec', compression]
    await runJava('org.apache.kafka.tools.ConsoleProducer', [...settings, ...properties], input)

    const records = await read(topic)

    expect(records.map(textKeyOf)).toEqual(['key', '漢', 'gone'])
    expect(records.map(({ value }) => numbersOf(value))).toEqual([numbers('value'), numbers('😀'), null])
    expect(records.map(({ headers }) => headers.map(({ key, value }) => [key, numbersOf(value)]))).toEqual([
      [
        ['h1', numbers('a')],
        ['h2', numbers('b')],
        ['h1', numbers('c')],
      ],
      [['h', numbers('ü')]],
      [['h', numbers('x')]],
    ])
  })

  it('comes from kcat as it was', async () => {
    const headers = ['-H', 'h1=a', '-H', 'h2=b', '-H', 'h1=c', '-H', 'empty=', '-H', 'null']
    // Keys end with a byte, records with another, so that neither is one of text.
    const input = Buffer.from('key\x01value\x02漢\x01😀\x02gone\x01\x02')
    const settings = ['-P', '-t', topic, '-p', '0', '-z', compression, '-Z', '-K', '\x01', '-D', '\x02']
    await runKcat([...settings, ...headers], input)

    const records = await read(topic)

    expect(records.map(textKeyOf)).toEqual(['key', '漢', 'gone'])
    expect(records.map(({ value }) => numbersOf(value))).toEqual([numbers('value'), numbers('😀'), null])
    for (const record of records) {
      expect(record.headers.map(({ key, value }) => [key, numbersOf(value)])).toEqual([
        ['h1', numbers('a')],
        ['h2', numbers('b')],
        ['h1', numbers('c')],
        ['empty', []],
        ['null', null],
      ])
    }
  })

  it('comes from kcat in bulk, each record once and in order', async () => {
    const lines = Array.from({ length: 5_000 }, (_, n) => `${n} ${'x'.repeat(n % 300)}`)
    await runKcat(['-P', '-t', topic, '-p', '0', '-z', compression], bytesOf(`${lines.join('\n')}\n`))

    expect(valuesOf(await read(topic))).toEqual(lines)
  })
})

describe('what Kedge wrote, by every compression,', () => {
  let topic: string
  const sent = compressions.flatMap(() => hard)

  beforeAll(async () => {
    topic = await newTopic()
    for (const compression of compressions) {
      await using writer = open({ compression })
      await writer.produce(hard.map(({ key, value, ...rest }) => record(topic, value, { key, partition: 0, ...rest })))
    }
  })

  it('is read by Kedge as it was', async () => {
    expect((await read(topic)).map(shown)).toEqual(sent.map(comparable))
  })

  it('is read by the Java client as it was, any bytes', async () => {
    const output = await runJava('Records.java', ['read', bootstrapServers(), topic, String(sent.length)])

    const lines = output.toString().trim().split('\n')
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(
      sent.map((one, offset) => ({ offset, ...written(one) })),
    )
  })

  it("is read by Java's console consumer as it was", async () => {
    const shows = ['print.key=true', 'print.headers=true', 'print.offset=true', 'null.literal=NULL'].flatMap((show) => [
      '--formatter-property',
      show,
    ])
    const settings = [
      '--bootstrap-server',
      bootstrapServers(),
      '--topic',
      topic,
      '--partition',
      '0',
      '--from-beginning',
    ]
    const count = ['--max-messages', String(sent.length), '--timeout-ms', '30000']
    const output = await runJava('org.apache.kafka.tools.consumer.ConsoleConsumer', [...settings, ...count, ...shows])

    const lines = sent.map(({ key, value, headers }, offset) => {
      const texts = headers.map(([name, data]) => Buffer.concat([bytesOf(`${name}:`), printed(data)]))
      const list =
        texts.length === 0
          ? [bytesOf('NO_HEADERS')]
          : texts.flatMap((text, n) => (n === 0 ? [text] : [bytesOf(','), text]))
      return Buffer.concat([
        bytesOf(`Offset:${offset}\t`),
        ...list,
        bytesOf('\t'),
        printed(key),
        bytesOf('\t'),
        printed(value),
        bytesOf('\n'),
      ])
    })
    expect(output.equals(Buffer.concat(lines)), output.subarray(0, 2_000).toString()).toBe(true)
  })

  it('is read by kcat as it was', async () => {
    // A header's bytes cannot be told from the comma behind them: they are compared in Java.
    const format = '%o %T %K %S %k%s\n'
    const output = await runKcat(['-C', '-t', topic, '-p', '0', '-o', 'beginning', '-e', '-f', format])

    const lines = sent.map(({ timestampMs, key, value }, offset) => {
      const [keyLength, valueLength] = [key, value].map((data) => (data === null ? -1 : bytes(data).length))
      const head = `${offset} ${timestampMs} ${keyLength} ${valueLength} `
      return Buffer.concat([
        bytesOf(head),
        key === null ? bytes('') : bytes(key),
        value === null ? bytes('') : bytes(value),
        bytesOf('\n'),
      ])
    })
    expect(output.equals(Buffer.concat(lines)), output.subarray(0, 2_000).toString()).toBe(true)
  })

  it('is read by kcat with its headers', async () => {
    const output = await runKcat(['-C', '-t', topic, '-p', '0', '-o', '6', '-c', '1', '-f', '%h'])

    expect(output.toString()).toBe('b=1,a=2,b=3,b=1,empty=,null=NULL,größe=漢')
  })
})

describe('a key', () => {
  it('goes where kcat, told to place as Java does, sends it', async () => {
    const ours = await newTopic(7)
    const theirs = await newTopic(7)
    const keys = Array.from({ length: 300 }, (_, n) => `key-${n}-${'ü'.repeat(n % 5)}`)

    const placed = await broker.produce(keys.map((key) => record(ours, 'v', { key })))
    const input = bytesOf(keys.map((key) => `${key}\tv\n`).join(''))
    await runKcat(['-P', '-t', theirs, '-K', '\t', '-X', 'topic.partitioner=murmur2_random'], input)
    const output = await runKcat(['-C', '-t', theirs, '-o', 'beginning', '-e', '-f', '%k\t%p\n'])

    const byKcat = new Map(
      output
        .toString()
        .trim()
        .split('\n')
        .map((line) => line.split('\t') as [string, string]),
    )
    expect(byKcat.size).toBe(keys.length)
    expect(placed.map((result) => 'partition' in result && String(result.partition))).toEqual(
      keys.map((key) => byKcat.get(key)),
    )
  })
})

function open(options: Omit<KafkaBrokerOptions, 'bootstrapServers'> = {}): Broker {
  return kafkaBroker({ bootstrapServers: bootstrapServers().split(','), ...options })
}

async function newTopic(partitions = 1): Promise<string> {
  const topic = unusedName('topic')
  await broker.createTopic({ topic, partitions })
  return topic
}

/** All records of partition 0, by several fetches. */
async function read(topic: string): Promise<ConsumerRecord[]> {
  const [end] = await broker.offsets([{ topic, partition: 0 }], 'latest')
  const records: ConsumerRecord[] = []
  const limits = { maxWaitMs: 5_000, maxRecords: 1_000, maxBytes: 1_000_000 }
  while (records.length < (end?.offset ?? 0)) {
    records.push(...(await broker.fetch([{ topic, partition: 0, offset: records.length }], limits)))
  }
  return records
}

function shown(record: ConsumerRecord): unknown {
  return { timestampMs: record.timestampMs, ...contentOf(record) }
}

function comparable({ timestampMs, key, value, headers }: Content): unknown {
  const numbersOrNull = (data: Data): number[] | null => (data === null ? null : numbers(data))
  return {
    timestampMs,
    key: numbersOrNull(key),
    value: numbersOrNull(value),
    headers: headers.map(([name, data]) => [name, numbersOrNull(data)]),
  }
}

/** As `Records.java` reads and writes it. */
function written({ timestampMs, key, value, headers }: Content): Record<string, unknown> {
  const hex = (data: Data): string | null => (data === null ? null : Buffer.from(bytes(data)).toString('hex'))
  return { timestampMs, key: hex(key), value: hex(value), headers: headers.map(([name, data]) => [name, hex(data)]) }
}

/** As the console consumer shows it. */
function printed(data: Data): Uint8Array {
  return bytes(data ?? 'NULL')
}

function bytes(data: string | Uint8Array): Uint8Array {
  return typeof data === 'string' ? bytesOf(data) : data
}

function numbers(data: string | Uint8Array): number[] {
  return [...bytes(data)]
}
