/**
 * G3, G4-kafka, G5: what the gateway over a real broker makes of single records and of batches, and the time it adds, against
 * the Kafka client library by itself. All of them are idempotent with acks=all; the broker keeps its default, D1.
 *
 * The counted records are those that were acknowledged; after each run the topic's offsets must say the same number.
 */
import { type Child, startChild } from './child.ts'
import { type BenchGateway, ask, startGateway } from './gateway.ts'
import { goalResult } from './goals.ts'
import { postRequest, runLoad, runOpenLoad } from './http-load.ts'
import { type BenchBroker, startBroker } from './kafka.ts'
import { SUBJECT_CORE } from './machine.ts'
import type { Latencies } from './open-loop.ts'
import { jsonValue } from './payload.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Comparison, type Contenders, type Sample, type Spread, compare, inRounds, spread } from './rounds.ts'
import type { OpenProducerRun, ProducerRun } from './workers/kafka-producer.ts'

const CONNECTIONS = 64
const PARTITIONS = 4
const BATCH_RECORDS = 1000
const BATCH_CONNECTIONS = 4
const VALUE_BYTES = 1024
/** Of the open loop. */
const PER_SECOND = 1000
/** A broker of Java needs more than one round to warm up. */
const WARM_UP_ROUNDS = 2

/** What the contenders share. */
interface Stage {
  readonly broker: BenchBroker
  readonly gateway: BenchGateway
  readonly options: BenchOptions
}

export async function kafkaProduce(options: BenchOptions): Promise<BenchResult> {
  await using broker = await startBroker()
  await using gateway = await startGateway({ bootstrapServers: broker.bootstrapServers })
  const stage = { broker, gateway, options }
  const single = await compareSingle(stage)
  const batch = await compareBatch(stage)
  const latency = await compareLatency(stage)

  printSingle(single)
  printBatch(batch)
  printLatency(latency)
  const added = (of: keyof Latencies): number => addedMs(latency, of).median
  return {
    goals: {
      G3: goalResult('G3', single.ratio('gateway', 'naive').median),
      'G3-coalesced': goalResult('G3-coalesced', single.ratio('gateway', 'coalesced').median),
      'G4-kafka': goalResult('G4-kafka', batch.ratio('gateway', 'client').median),
      G5: goalResult('G5', added('p50')),
      'G5-p99': goalResult('G5-p99', added('p99')),
    },
  }
}

/** One record a request, 64 keep-alive connections; one record a caller, 64 callers. */
async function compareSingle(stage: Stage): Promise<Comparison> {
  const { gateway, options } = stage
  const body = JSON.stringify({ value: jsonValue(VALUE_BYTES) })
  await using bare = await startChild('bare-server', SUBJECT_CORE)
  await using naive = await startChild('kafka-producer', SUBJECT_CORE)
  await using coalesced = await startChild('kafka-producer', SUBJECT_CORE)
  const barePort = await bare.call<number>('start', await answerTo(gateway, body))
  const toBare = async (runMs: number): Promise<Sample> => {
    const cpuBefore = await bare.cpuUs()
    const requests = [postRequest(barePort, '/produce/bench-0', body)]
    const { answered, elapsedMs } = await runLoad({ port: barePort, connections: CONNECTIONS, runMs, requests })
    return { records: answered, elapsedMs, cpuUs: (await bare.cpuUs()) - cpuBefore }
  }
  const contenders = (runMs: number): Contenders => ({
    bare: () => toBare(runMs),
    naive: () => clientRun(stage, naive, 'naive', CONNECTIONS, runMs),
    coalesced: () => clientRun(stage, coalesced, 'coalesced', CONNECTIONS, runMs),
    gateway: () => gatewayRun(stage, body, 1, CONNECTIONS, runMs),
  })
  await compare(contenders(options.warmUpMs), WARM_UP_ROUNDS)
  // Awaited here: the processes end with this function.
  return await compare(contenders(options.runMs), options.rounds)
}

async function compareBatch(stage: Stage): Promise<Comparison> {
  const { options } = stage
  const value = jsonValue(VALUE_BYTES)
  const body = JSON.stringify(Array.from({ length: BATCH_RECORDS }, () => ({ value })))
  await using client = await startChild('kafka-producer', SUBJECT_CORE)
  const contenders = (runMs: number): Contenders => ({
    client: () => clientRun(stage, client, 'batch', BATCH_CONNECTIONS, runMs),
    gateway: () => gatewayRun(stage, body, BATCH_RECORDS, BATCH_CONNECTIONS, runMs),
  })
  await compare(contenders(options.warmUpMs), WARM_UP_ROUNDS)
  return await compare(contenders(options.runMs), options.rounds)
}

/** So few records that nobody is busy: what is measured is the way, not the work. */
async function compareLatency({ broker, gateway, options }: Stage): Promise<Map<string, Latencies[]>> {
  const body = JSON.stringify({ value: jsonValue(VALUE_BYTES) })
  await using client = await startChild('kafka-producer', SUBJECT_CORE)
  const topic = await newTopic(gateway)
  const requests = [postRequest(gateway.port, `/produce/${topic}`, body)]
  const { bootstrapServers } = broker
  const contenders = (runMs: number): Record<string, () => Promise<Latencies>> => ({
    client: () =>
      client.call<Latencies>('openLoop', {
        bootstrapServers,
        topic,
        partitions: PARTITIONS,
        runMs,
        bytes: VALUE_BYTES,
        callers: 0,
        perSecond: PER_SECOND,
      } satisfies OpenProducerRun),
    gateway: () => runOpenLoad({ port: gateway.port, connections: CONNECTIONS, runMs, requests }, PER_SECOND),
  })
  const warmUp = await inRounds(contenders(options.warmUpMs), WARM_UP_ROUNDS)
  const latencies = await inRounds(contenders(options.runMs), options.rounds)
  const sent = [...warmUp.values(), ...latencies.values()].flat().reduce((sum, { requests }) => sum + requests, 0)
  await requireStored(gateway, topic, sent)
  return latencies
}

let runs = 0

async function newTopic(gateway: BenchGateway): Promise<string> {
  runs += 1
  const topic = `bench-${runs}`
  await gateway.createTopic(topic, PARTITIONS)
  return topic
}

async function clientRun(
  { broker, gateway }: Stage,
  client: Child,
  loop: 'naive' | 'coalesced' | 'batch',
  callers: number,
  runMs: number,
): Promise<Sample> {
  const topic = await newTopic(gateway)
  const { bootstrapServers } = broker
  const settings = {
    bootstrapServers,
    topic,
    partitions: PARTITIONS,
    runMs,
    bytes: VALUE_BYTES,
    callers,
  } satisfies ProducerRun
  const primed = await client.call<number>('prime', settings)
  const brokerBefore = broker.cpuUs()
  const sample = await client.call<Sample>(loop, settings)
  const brokerCpuUs = broker.cpuUs() - brokerBefore
  await requireStored(gateway, topic, primed + sample.records)
  await gateway.deleteTopic(topic)
  return { ...sample, brokerCpuUs }
}

async function gatewayRun(
  { broker, gateway }: Stage,
  body: string,
  recordsPerRequest: number,
  connections: number,
  runMs: number,
): Promise<Sample> {
  const topic = await newTopic(gateway)
  await ask(`${gateway.url}/produce/${topic}`, 'POST', { value: 'primed, as the client is' })
  const requests = [postRequest(gateway.port, `/produce/${topic}`, body)]
  const brokerBefore = broker.cpuUs()
  const cpuBefore = await gateway.child.cpuUs()
  const { answered, elapsedMs } = await runLoad({ port: gateway.port, connections, runMs, requests })
  const cpuUs = (await gateway.child.cpuUs()) - cpuBefore
  const brokerCpuUs = broker.cpuUs() - brokerBefore
  const records = answered * recordsPerRequest
  await requireStored(gateway, topic, records + 1)
  await gateway.deleteTopic(topic)
  return { records, elapsedMs, cpuUs, brokerCpuUs }
}

async function requireStored(gateway: BenchGateway, topic: string, acknowledged: number): Promise<void> {
  const stored = await gateway.count(topic)
  if (stored !== acknowledged) {
    throw new Error(`${topic}: ${acknowledged} records were acknowledged and ${stored} are stored`)
  }
}

/** What the gateway answers to a produce, for the bare server to answer as much. */
async function answerTo(gateway: BenchGateway, body: string): Promise<string> {
  const topic = await newTopic(gateway)
  const answer = JSON.stringify(await ask(`${gateway.url}/produce/${topic}`, 'POST', JSON.parse(body)))
  await gateway.deleteTopic(topic)
  return answer
}

/** Of each round: what the gateway's latency is above the client's. */
function addedMs(latencies: ReadonlyMap<string, Latencies[]>, of: keyof Latencies): Spread {
  const client = latencies.get('client') ?? []
  const gateway = latencies.get('gateway') ?? []
  return spread(gateway.map((one, round) => one[of] - (client[round]?.[of] ?? Number.NaN)))
}

function printSingle(comparison: Comparison): void {
  console.log(`One record of 1 KiB a request, ${CONNECTIONS} connections or callers, acks=all, idempotent, D1:\n`)
  printTable(
    ['system', 'records/s', '/ naive', '/ coalesced', '/ bare', 'CPU us/record', 'broker us/record', 'core busy'],
    [
      ['bare', 'bare node:http, nothing stored'],
      ['naive', 'Kafka client, a send each'],
      ['coalesced', 'Kafka client, shared sends'],
      ['gateway', 'gateway over Kafka'],
    ].map(([name = '', title = '']) => [
      title,
      whole(comparison.rates.get(name)),
      ratio(comparison.ratio(name, 'naive')),
      ratio(comparison.ratio(name, 'coalesced')),
      ratio(comparison.ratio(name, 'bare')),
      ratio(comparison.cpu.get(name), 1),
      name === 'bare' ? '' : ratio(comparison.brokerCpu.get(name), 1),
      ratio(comparison.busy.get(name)),
    ]),
  )
}

function printBatch(comparison: Comparison): void {
  console.log(`${BATCH_RECORDS} records of 1 KiB a request, ${BATCH_CONNECTIONS} connections or callers, D1:\n`)
  printTable(
    ['system', 'records/s', '/ client', 'CPU us/record', 'broker us/record', 'core busy'],
    [
      ['client', 'Kafka client, 1,000 a send'],
      ['gateway', 'gateway over Kafka'],
    ].map(([name = '', title = '']) => [
      title,
      whole(comparison.rates.get(name)),
      ratio(comparison.ratio(name, 'client')),
      ratio(comparison.cpu.get(name), 2),
      ratio(comparison.brokerCpu.get(name), 2),
      ratio(comparison.busy.get(name)),
    ]),
  )
}

function printLatency(latencies: ReadonlyMap<string, Latencies[]>): void {
  console.log(`${PER_SECOND} records of 1 KiB a second, each sent when it is due, milliseconds to its answer, D1:\n`)
  const figures = (name: string, of: keyof Latencies): string =>
    ratio(spread((latencies.get(name) ?? []).map((one) => one[of])))
  printTable(
    ['system', 'p50', 'p99'],
    [
      ['Kafka client, shared sends', figures('client', 'p50'), figures('client', 'p99')],
      ['gateway over Kafka', figures('gateway', 'p50'), figures('gateway', 'p99')],
      ['added', ratio(addedMs(latencies, 'p50')), ratio(addedMs(latencies, 'p99'))],
    ],
  )
}
