/**
 * G9-kafka: a topic of 1 KiB records on a real broker read to its end, through the gateway by polls of 1,000 and by a consumer
 * run, and by the Kafka client library alone. All commit once for every thousand, and all must have handled every record.
 */
import { startChild } from './child.ts'
import { type BenchGateway, startGateway } from './gateway.ts'
import { goalResult } from './goals.ts'
import { postRequest, runLoad } from './http-load.ts'
import { startBroker } from './kafka.ts'
import { LOAD_CORE, SUBJECT_CORE } from './machine.ts'
import { jsonValue } from './payload.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Contenders, type Sample, compare } from './rounds.ts'
import type { DrainRun } from './workers/drain.ts'
import type { ConsumerRun } from './workers/kafka-consumer.ts'

const PARTITIONS = 4
const MAX_RECORDS = 1000
const MAX_BYTES = 4_194_304
/** What the driver asks a broker for at first, of each partition. */
const FETCH_BYTES = 1_048_576
/** What a drain gets through in a millisecond, about; a run is as many records as fill its time. */
const RECORDS_PER_MS = 40

export async function kafkaDrain(options: BenchOptions): Promise<BenchResult> {
  await using broker = await startBroker()
  const { bootstrapServers } = broker
  await using gateway = await startGateway({ bootstrapServers })
  await using client = await startChild('kafka-consumer', SUBJECT_CORE)
  await using run = await startChild('drain', LOAD_CORE)
  await using loop = await startChild('drain', LOAD_CORE)
  let groups = 0
  const measured = async (drain: () => Promise<Sample>): Promise<Sample> => {
    const before = broker.cpuUs()
    const sample = await drain()
    return { ...sample, brokerCpuUs: broker.cpuUs() - before }
  }
  /** The gateway's processor time, and not that of its client, which is whoever it serves. */
  const throughGateway = (drain: () => Promise<Sample>): Promise<Sample> =>
    measured(async () => {
      const before = await gateway.child.cpuUs()
      const sample = await drain()
      return { ...sample, cpuUs: (await gateway.child.cpuUs()) - before }
    })
  const contenders = (topic: string, records: number): Contenders => {
    const group = (): string => {
      groups += 1
      return `group-${groups}`
    }
    const fromBroker = (): ConsumerRun => ({
      bootstrapServers,
      topic,
      group: group(),
      records,
      commitEvery: MAX_RECORDS,
      fetchBytes: FETCH_BYTES,
    })
    const fromGateway = (): DrainRun => ({
      url: gateway.url,
      topic,
      group: group(),
      records,
      maxRecords: MAX_RECORDS,
      maxBytes: MAX_BYTES,
    })
    return {
      client: () => measured(() => client.call<Sample>('stream', fromBroker())),
      loop: () => throughGateway(() => loop.call<Sample>('loop', fromGateway())),
      run: () => throughGateway(() => run.call<Sample>('run', fromGateway())),
    }
  }
  await compare(contenders('warm-up', await fill(gateway, 'warm-up', options.warmUpMs * RECORDS_PER_MS)), 2)
  const records = await fill(gateway, 'bench', options.runMs * RECORDS_PER_MS)
  const comparison = await compare(contenders('bench', records), options.rounds)

  console.log(`${records} records of 1 KiB, ${MAX_RECORDS} a poll, commit after each, D1:\n`)
  printTable(
    ['system', 'records/s', '/ client', 'CPU us/record', 'broker us/record', 'core busy'],
    [
      ['client', 'Kafka client, stream'],
      ['loop', 'gateway, polled by fetch, JSON.parse, for, commit'],
      ['run', 'gateway, polled by a consumer run'],
    ].map(([name = '', title = '']) => [
      title,
      whole(comparison.rates.get(name)),
      ratio(comparison.ratio(name, 'client')),
      ratio(comparison.cpu.get(name), 2),
      ratio(comparison.brokerCpu.get(name), 2),
      ratio(comparison.busy.get(name)),
    ]),
  )
  const worst = Math.min(...['loop', 'run'].map((name) => comparison.ratio(name, 'client').median))
  return { goals: { 'G9-kafka': goalResult('G9-kafka', worst) } }
}

/** Makes a topic of at least so many records and gives their number. */
async function fill(gateway: BenchGateway, topic: string, records: number): Promise<number> {
  await gateway.createTopic(topic, PARTITIONS)
  const value = jsonValue(1024)
  const body = JSON.stringify(Array.from({ length: MAX_RECORDS }, () => ({ value })))
  const requests = [postRequest(gateway.port, `/produce/${topic}`, body)]
  for (let stored = 0; stored < records; stored += MAX_RECORDS) {
    await runLoad({ port: gateway.port, connections: 1, runMs: 0, requests })
  }
  return gateway.count(topic)
}
