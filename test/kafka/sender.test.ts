/**
 * What the sender makes of answers that brokers give seldom: each case lets a real broker store records or not, and scripts what
 * the driver hears of it. What counts is what is in the log afterwards, which is read past the proxy.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startKafka } from '../../scripts/kafka/cluster.ts'
import type { Broker, ProduceResult } from '../../src/broker.ts'
import { type KafkaBrokerOptions, kafkaBroker } from '../../src/brokers/kafka.ts'
import { BrokerError } from '../../src/errors.ts'
import { textOf } from '../../src/record.ts'
import type { ProducerRecord } from '../../src/record.ts'
import { refusal, stored, unusedName } from '../conformance/broker/harness.ts'
import {
  type Fate,
  loses,
  type ProduceProxy,
  refuses,
  startProduceProxy,
  storesAndAnswers,
  storesAndCuts,
  waits,
} from '../support/produce-proxy.ts'
import { record, series, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'
import { type KafkaAdmin, kafkaAdmin } from './admin.ts'

const PLENTY = { maxWaitMs: 1_000, maxRecords: 1_000, maxBytes: 1 << 24 }

/** Answers after which nobody knows whether the records are stored. They are. */
const openAnswers: [string, Fate][] = [
  ['REQUEST_TIMED_OUT', storesAndAnswers('REQUEST_TIMED_OUT')],
  ['NOT_ENOUGH_REPLICAS_AFTER_APPEND', storesAndAnswers('NOT_ENOUGH_REPLICAS_AFTER_APPEND')],
  ['the end of the connection', storesAndCuts],
]

let proxy: ProduceProxy
let bootstrapServer: string
/** Goes past the proxy. */
let direct: Broker
let admin: KafkaAdmin
let stack: AsyncDisposableStack

beforeAll(async () => {
  await using opened = new AsyncDisposableStack()
  proxy = opened.use(await startProduceProxy())
  const cluster = opened.use(await startKafka({ advertisedPorts: [proxy.port] }))
  const [node] = cluster.nodes
  proxy.forwardTo(node?.port ?? 0)
  bootstrapServer = cluster.bootstrapServers
  // Whoever comes to this listener is told of no other.
  const past = `127.0.0.1:${node?.ports['BROKER']}`
  direct = opened.use(kafkaBroker({ bootstrapServers: [past] }))
  admin = opened.use(await kafkaAdmin(past))
  stack = opened.move()
})
afterAll(() => stack.disposeAsync())
afterEach(() => {
  if (proxy.left > 0) throw new Error(`No request met ${proxy.left} of the fates.`)
})

describe.each(openAnswers)('after %s for what is stored', (_name, open) => {
  it('and a refusal of the second try, later records are stored, not taken for the first', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    proxy.next(open, refuses('TOPIC_AUTHORIZATION_FAILED'))
    await refusal(broker.produce(series(topic, 0, 3, 'open')), 'TOPIC_AUTHORIZATION_FAILED')

    const after = await broker.produce(series(topic, 0, 3, 'after'))

    expect(offsetsOf(after)).toEqual([3, 4, 5])
    expect(await logOf(topic)).toEqual([...names('open', 3), ...names('after', 3)])
  })

  it('and a refusal of the second try, the records behind are stored, in order', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1, 'before'))
    const gate = Promise.withResolvers<void>()
    proxy.next(waits(gate.promise, open), refuses('TOPIC_AUTHORIZATION_FAILED'))

    const refused = refusal(inFlight(broker, topic, 'open'), 'TOPIC_AUTHORIZATION_FAILED')
    await untilArrived()
    const behind = ['x', 'y', 'z'].map((prefix) => broker.produce(series(topic, 0, 3, prefix)))
    gate.resolve()
    await refused
    const results = (await Promise.all(behind)).flat()

    expect(offsetsOf(results)).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12])
    expect(await logOf(topic)).toEqual(['before0', ...['open', 'x', 'y', 'z'].flatMap((prefix) => names(prefix, 3))])
  })

  it('the second try is acknowledged where the first is, and stored once', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1, 'before'))
    const gate = Promise.withResolvers<void>()
    proxy.next(waits(gate.promise, open))

    const first = inFlight(broker, topic, 'open')
    await untilArrived()
    const behind = broker.produce(series(topic, 0, 3, 'behind'))
    gate.resolve()

    expect(offsetsOf(await first)).toEqual([1, 2, 3])
    expect(offsetsOf(await behind)).toEqual([4, 5, 6])
    expect(await logOf(topic)).toEqual(['before0', ...names('open', 3), ...names('behind', 3)])
  })

  it('and DUPLICATE_SEQUENCE_NUMBER for the second try, nothing is stored twice and what is behind is kept', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    const gate = Promise.withResolvers<void>()
    proxy.next(waits(gate.promise, open), refuses('DUPLICATE_SEQUENCE_NUMBER'))

    const first = Promise.allSettled([inFlight(broker, topic, 'open')])
    await untilArrived()
    const behind = broker.produce(series(topic, 0, 3, 'behind'))
    gate.resolve()
    await first

    expect(offsetsOf(await behind)).toEqual([3, 4, 5])
    expect(await logOf(topic)).toEqual([...names('open', 3), ...names('behind', 3)])
  })
})

describe('a request that the network keeps back', () => {
  it('until its records were sent again stores nothing a second time', async () => {
    await using broker = openBroker({ requestTimeoutMs: 300 })
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1, 'before'))
    const gate = Promise.withResolvers<void>()
    proxy.next(waits(gate.promise))

    const first = await broker.produce(series(topic, 0, 3, 'late'))
    const behind = await broker.produce(series(topic, 0, 3, 'behind'))
    const { stored } = proxy
    gate.resolve()
    await until(() => proxy.stored > stored, { what: 'the broker to get the request' })

    expect(offsetsOf(first)).toEqual([1, 2, 3])
    expect(offsetsOf(behind)).toEqual([4, 5, 6])
    expect(await logOf(topic)).toEqual(['before0', ...names('late', 3), ...names('behind', 3)])
  })
})

describe('a batch that is too large for the topic, which took more a moment ago', () => {
  it('is sent in parts: what does not fit alone fails alone, all else is stored once and in order', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1))
    await admin.configureTopic(topic, { 'max.message.bytes': '10000' })
    const large = 5
    const values = names('v', 12).map((name, n) => name.padEnd(n === large ? 20_000 : 2_000, '.'))

    const outcomes = await Promise.all(
      values.map((value) => broker.produce([record(topic, value, { partition: 0 })], { atomic: false })),
    )

    const codes = outcomes.flat().map((result) => (result instanceof BrokerError ? result.code : 'stored'))
    expect(codes).toEqual(values.map((_, n) => (n === large ? 'MESSAGE_TOO_LARGE' : 'stored')))
    expect(await logOf(topic)).toEqual(['v0', ...values.filter((_, n) => n !== large)])
  })

  it.each(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'])('is sent in parts after %s', async (error) => {
    await using broker = openBroker()
    const topic = await newTopic()
    proxy.next(refuses(error))

    const results = await broker.produce(series(topic, 0, 4))

    expect(offsetsOf(results)).toEqual([0, 1, 2, 3])
    expect(await logOf(topic)).toEqual(names('v', 4))
  })

  it('is not sent in parts when it may be stored already', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    proxy.next(storesAndAnswers('REQUEST_TIMED_OUT'), refuses('MESSAGE_TOO_LARGE'))

    await refusal(broker.produce(series(topic, 0, 4)), 'MESSAGE_TOO_LARGE')
    await broker.produce(series(topic, 0, 4, 'after'))

    expect(await logOf(topic)).toEqual([...names('v', 4), ...names('after', 4)])
  })

  it('does not bring back what was given up meanwhile', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1, 'before'))
    const gate = Promise.withResolvers<void>()
    proxy.next(waits(gate.promise, refuses('MESSAGE_TOO_LARGE')))
    const giveUp = new AbortController()
    const reason = new Error('nobody waits any more')

    const kept = inFlight(broker, topic, 'kept')
    const givenUp = broker.produce(series(topic, 0, 3, 'gone'), {}, { signal: giveUp.signal })
    await untilArrived()
    giveUp.abort(reason)
    await expect(givenUp).rejects.toBe(reason)
    gate.resolve()
    await kept

    expect(await logOf(topic)).toEqual(['before0', ...names('kept', 3)])
  })
})

describe('batches for which the broker ends every connection', () => {
  const MARKER = 'this ends connections'

  it('are given up after some, and harm no other partition and nothing behind them', async () => {
    // Whatever fails at once is tried again at once.
    await using broker = openBroker({ random: () => 0.5 })
    const harmed = [0, 1, 2, 3]
    const others = [4, 5, 6, 7]
    const topic = await newTopic(8)
    await broker.produce([...harmed, ...others].map((partition) => record(topic, 'before', { partition })))
    proxy.cutAt(MARKER)

    const harmful = harmed.map((partition) =>
      refusal(broker.produce([record(topic, MARKER, { partition })]), 'NETWORK'),
    )
    const beside = others.map((partition) => broker.produce(series(topic, partition, 3)))
    await untilArrived()
    const behind = harmed.map((partition) => broker.produce(series(topic, partition, 3)))
    const results = await Promise.all([...beside, ...behind])
    await Promise.all(harmful)

    expect(results.map(offsetsOf)).toEqual(results.map(() => [1, 2, 3]))
    for (const partition of [...harmed, ...others]) {
      expect(await logOf(topic, partition)).toEqual(['before', ...names('v', 3)])
    }
    // Trying for as long as a record may take would be thirty times each.
    expect(proxy.cuts).toBeLessThanOrEqual(6 * harmed.length)
  })
})

describe('a caller that gives up', () => {
  it('takes back what is queued, and no record of others', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1, 'before'))
    const gate = Promise.withResolvers<void>()
    proxy.next(waits(gate.promise))
    const giveUp = new AbortController()
    const call = { signal: giveUp.signal }
    const reason = new Error('nobody waits any more')

    const sent = broker.produce(series(topic, 0, 3, 'sent'), {}, call)
    await untilArrived()
    const queued = broker.produce(series(topic, 0, 3, 'queued'), {}, call)
    const other = broker.produce(series(topic, 0, 3, 'other'))
    giveUp.abort(reason)
    await Promise.all([sent, queued].map((call) => expect(call).rejects.toBe(reason)))
    gate.resolve()
    const results = await other
    await broker.produce(series(topic, 0, 1, 'after'))

    // What was on its way went on.
    expect(offsetsOf(results)).toEqual([4, 5, 6])
    expect(await logOf(topic)).toEqual(['before0', ...names('sent', 3), ...names('other', 3), 'after0'])
  })
})

describe('a broker that lost what it acknowledged', () => {
  it('takes no more of the same sequence, and takes what comes after that is given up', async () => {
    await using broker = openBroker()
    const topic = await newTopic()
    await broker.produce(series(topic, 0, 1, 'before'))
    proxy.next(loses)
    await broker.produce(series(topic, 0, 3, 'lost'))

    const [outcome] = await Promise.allSettled([broker.produce(series(topic, 0, 3, 'broken'))])
    const results = await broker.produce(series(topic, 0, 3, 'after'))

    const again = outcome.status === 'fulfilled' ? names('broken', 3) : []
    const log = await logOf(topic)
    expect(log).toEqual(['before0', ...again, ...names('after', 3)])
    expect(offsetsOf(results).map((offset) => log[offset])).toEqual(names('after', 3))
  })
})

describe.each(['OUT_OF_ORDER_SEQUENCE_NUMBER', 'UNKNOWN_PRODUCER_ID', 'INVALID_PRODUCER_EPOCH'])(
  'a sequence that the broker does not take (%s)',
  (name) => {
    it('leaves nothing that is acknowledged and missing, or stored twice', async () => {
      await using broker = openBroker()
      const topic = await newTopic()
      await broker.produce(series(topic, 0, 1, 'before'))
      const gate = Promise.withResolvers<void>()
      proxy.next(waits(gate.promise, refuses(name)))

      const broken = Promise.allSettled([inFlight(broker, topic, 'broken')])
      await untilArrived()
      const behind = broker.produce(series(topic, 0, 3, 'behind'))
      gate.resolve()
      const [outcome] = await broken
      const results = await behind
      await broker.produce(series(topic, 0, 3, 'after'))

      const again = outcome.status === 'fulfilled' ? names('broken', 3) : []
      const log = await logOf(topic)
      expect(log).toEqual(['before0', ...again, ...names('behind', 3), ...names('after', 3)])
      expect(offsetsOf(results).map((offset) => log[offset])).toEqual(names('behind', 3))
    })
  },
)

function openBroker(options: Partial<KafkaBrokerOptions> = {}): Broker {
  return kafkaBroker({ bootstrapServers: [bootstrapServer], ...options })
}

async function newTopic(partitions = 1): Promise<string> {
  const topic = unusedName('topic')
  await direct.createTopic({ topic, partitions })
  return topic
}

/** Produces three records whose request the next `untilArrived` waits for. */
function inFlight(broker: Broker, topic: string, prefix: string): Promise<ProduceResult[]> {
  return broker.produce(series(topic, 0, 3, prefix))
}

/** Resolves when a request that was made in this turn is in the proxy. */
async function untilArrived(): Promise<void> {
  const { arrived } = proxy
  await until(() => proxy.arrived > arrived, { what: 'a produce request' })
}

function offsetsOf(results: readonly ProduceResult[]): number[] {
  return stored([...results]).map(({ offset }) => offset)
}

/** `prefix0`, `prefix1`, ... */
function names(prefix: string, count: number): string[] {
  return series('', 0, count, prefix).map(({ value }: ProducerRecord) => textOf(value))
}

async function logOf(topic: string, partition = 0): Promise<string[]> {
  const [end] = await direct.offsets([{ topic, partition }], 'latest')
  const records: string[] = []
  while (records.length < (end?.offset ?? 0)) {
    records.push(...valuesOf(await direct.fetch([{ topic, partition, offset: records.length }], PLENTY)))
  }
  return records
}
