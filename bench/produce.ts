/**
 * G1, G2, G4-log: what the gateway adds to a bare HTTP server, and to a bare durable append.
 *
 * The counted records are those that were acknowledged; after each run the topic's offsets must say the same number.
 */
import { rmSync } from 'node:fs'

import type { AppendRun } from './workers/append.ts'
import { type Child, startChild } from './child.ts'
import { type BenchGateway, ask, startGateway } from './gateway.ts'
import { goalResult } from './goals.ts'
import { type LoadResult, postRequest, runLoad } from './http-load.ts'
import { SUBJECT_CORE, scratchFolder } from './machine.ts'
import { jsonValue } from './payload.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Comparison, type Contenders, type Sample, compare } from './rounds.ts'

const CONNECTIONS = 64
const PARTITIONS = 4
const BATCH_RECORDS = 1000
const BATCH_CONNECTIONS = 4
const SIZES = [100, 1024] as const

export async function produce(options: BenchOptions): Promise<BenchResult> {
  await using memory = await startGateway('memory')
  await using log = await startGateway('log')
  const single: Comparison[] = []
  for (const bytes of SIZES) single.push(await compareSingle(memory, log, bytes, options))
  const batch = await compareBatch(log, options)

  printSingle(single)
  printBatch(batch)
  const worst = (contender: string): number =>
    Math.min(
      ...single.flatMap((comparison) => [
        comparison.ratio(contender, 'bare').median,
        comparison.cpuRatio(contender, 'bare').median,
      ]),
    )
  return {
    goals: {
      G1: goalResult('G1', worst('memory')),
      G2: goalResult('G2', worst('log')),
      'G4-log': goalResult('G4-log', batch.ratio('gateway', 'append').median),
    },
  }
}

/** One record a request, 64 keep-alive connections, no pipelining. */
async function compareSingle(
  memory: BenchGateway,
  log: BenchGateway,
  bytes: number,
  options: BenchOptions,
): Promise<Comparison> {
  const body = JSON.stringify({ value: jsonValue(bytes) })
  await using bare = await startChild('bare-server', SUBJECT_CORE)
  const barePort = await bare.call<number>('start', await answerTo(memory, body))
  const toBare = (runMs: number): Promise<Sample> =>
    sampleOf(bare, () =>
      runLoad({
        port: barePort,
        connections: CONNECTIONS,
        runMs,
        requests: [postRequest(barePort, '/produce/bench-0', body)],
      }),
    )
  const contenders = (runMs: number): Contenders => ({
    bare: () => toBare(runMs),
    memory: () => produceRun(memory, body, 1, CONNECTIONS, runMs),
    log: () => produceRun(log, body, 1, CONNECTIONS, runMs),
  })
  await compare(contenders(options.warmUpMs), 1)
  // Awaited here: the processes end with this function.
  return await compare(contenders(options.runMs), options.rounds)
}

/** A thousand records a request, in one flush, against an append of as many bytes. */
async function compareBatch(log: BenchGateway, options: BenchOptions): Promise<Comparison> {
  const value = jsonValue(1024)
  const body = JSON.stringify(Array.from({ length: BATCH_RECORDS }, () => ({ value })))
  const dir = scratchFolder()
  await using append = await startChild('append', SUBJECT_CORE)
  const settings = { dir, recordBytes: 1024, group: BATCH_RECORDS }
  const contenders = (runMs: number): Contenders => ({
    append: () => append.call<Sample>('run', { ...settings, runMs } satisfies AppendRun),
    gateway: () => produceRun(log, body, BATCH_RECORDS, BATCH_CONNECTIONS, runMs),
  })
  await compare(contenders(options.warmUpMs), 1)
  const comparison = await compare(contenders(options.runMs), options.rounds)
  rmSync(dir, { recursive: true })
  return comparison
}

let runs = 0

async function produceRun(
  gateway: BenchGateway,
  body: string,
  recordsPerRequest: number,
  connections: number,
  runMs: number,
): Promise<Sample> {
  runs += 1
  const topic = `bench-${runs}`
  await gateway.createTopic(topic, PARTITIONS)
  const requests = [postRequest(gateway.port, `/produce/${topic}`, body)]
  const sample = await sampleOf(
    gateway.child,
    () => runLoad({ port: gateway.port, connections, runMs, requests }),
    recordsPerRequest,
  )
  const stored = await gateway.count(topic)
  if (stored !== sample.records) {
    throw new Error(`${topic}: ${sample.records} records were acknowledged and ${stored} are stored`)
  }
  await gateway.deleteTopic(topic)
  return sample
}

async function sampleOf(server: Child, load: () => Promise<LoadResult>, recordsPerRequest = 1): Promise<Sample> {
  const cpuBefore = await server.cpuUs()
  const { answered, elapsedMs } = await load()
  return { records: answered * recordsPerRequest, elapsedMs, cpuUs: (await server.cpuUs()) - cpuBefore }
}

/** What the gateway answers to a produce, for the bare server to answer as much. */
async function answerTo(gateway: BenchGateway, body: string): Promise<string> {
  await gateway.createTopic('bench-0', PARTITIONS)
  const answer = JSON.stringify(await ask(`${gateway.url}/produce/bench-0`, 'POST', JSON.parse(body)))
  await gateway.deleteTopic('bench-0')
  return answer
}

function printSingle(comparisons: readonly Comparison[]): void {
  console.log(`One record a request, ${CONNECTIONS} keep-alive connections:\n`)
  const systems = [
    ['bare', 'bare node:http', '-'],
    ['memory', 'gateway over memory', 'D0'],
    ['log', 'gateway over the log', 'D2, flushed before the answer'],
  ] as const
  printTable(
    ['value, system', 'durability', 'records/s', '/ bare', 'CPU us/record', 'bare CPU / CPU', 'core busy'],
    comparisons.flatMap((comparison, index) =>
      systems.map(([name, title, durability]) => [
        `${SIZES[index]} B, ${title}`,
        durability,
        whole(comparison.rates.get(name)),
        ratio(comparison.ratio(name, 'bare')),
        ratio(comparison.cpu.get(name), 1),
        ratio(comparison.cpuRatio(name, 'bare')),
        ratio(comparison.busy.get(name)),
      ]),
    ),
  )
}

function printBatch(comparison: Comparison): void {
  console.log(`${BATCH_RECORDS} records of 1 KiB a request, ${BATCH_CONNECTIONS} connections:\n`)
  printTable(
    ['system', 'durability', 'records/s', '/ append', 'CPU us/record', 'core busy'],
    [
      ['append', 'append + fdatasync of as many bytes'],
      ['gateway', 'gateway over the log'],
    ].map(([name = '', title = '']) => [
      title,
      'D2',
      whole(comparison.rates.get(name)),
      ratio(comparison.ratio(name, 'append')),
      ratio(comparison.cpu.get(name), 2),
      ratio(comparison.busy.get(name)),
    ]),
  )
}
