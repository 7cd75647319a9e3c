/**
 * G10: a topic of 1 KiB records read to its end through the gateway, by a consumer run and by a loop of fetch, JSON.parse,
 * for and commit. Both poll and commit alike, and both must have handled every record.
 */
import type { DrainRun } from './workers/drain.ts'
import { startChild } from './child.ts'
import { type BenchGateway, startGateway } from './gateway.ts'
import { goalResult } from './goals.ts'
import { postRequest, runLoad } from './http-load.ts'
import { LOAD_CORE } from './machine.ts'
import { jsonValue } from './payload.ts'
import { type BenchOptions, type BenchResult, printTable, ratio, whole } from './report.ts'
import { type Contenders, type Sample, compare } from './rounds.ts'

const PARTITIONS = 4
const MAX_RECORDS = 1000
const MAX_BYTES = 4_194_304
/** What a drain gets through in a millisecond, about; a run is as many records as fill its time. */
const RECORDS_PER_MS = 40

export async function drain(options: BenchOptions): Promise<BenchResult> {
  await using gateway = await startGateway('memory')
  await using run = await startChild('drain', LOAD_CORE)
  await using loop = await startChild('drain', LOAD_CORE)
  let groups = 0
  const contenders = (topic: string, records: number): Contenders => {
    const settings = (): DrainRun => {
      groups += 1
      return {
        url: gateway.url,
        topic,
        group: `group-${groups}`,
        records,
        maxRecords: MAX_RECORDS,
        maxBytes: MAX_BYTES,
      }
    }
    return {
      loop: () => loop.call<Sample>('loop', settings()),
      run: () => run.call<Sample>('run', settings()),
    }
  }
  await compare(contenders('warm-up', await fill(gateway, 'warm-up', options.warmUpMs * RECORDS_PER_MS)), 2)
  const records = await fill(gateway, 'bench', options.runMs * RECORDS_PER_MS)
  const comparison = await compare(contenders('bench', records), options.rounds)

  console.log(`${records} records of 1 KiB over HTTP, ${MAX_RECORDS} a poll, commit after each, D0:\n`)
  printTable(
    ['consumer', 'records/s', '/ loop', 'CPU us/record', 'core busy'],
    [
      ['loop', 'fetch, JSON.parse, for, commit'],
      ['run', 'consumer run'],
    ].map(([name = '', title = '']) => [
      title,
      whole(comparison.rates.get(name)),
      ratio(comparison.ratio(name, 'loop')),
      ratio(comparison.cpu.get(name), 2),
      ratio(comparison.busy.get(name)),
    ]),
  )
  return { goals: { G10: goalResult('G10', comparison.ratio('run', 'loop').median) } }
}

/** Makes a topic of at least so many records and gives their number. */
async function fill(gateway: BenchGateway, topic: string, records: number): Promise<number> {
  await gateway.createTopic(topic, PARTITIONS)
  const value = jsonValue(1024)
  const body = JSON.stringify(Array.from({ length: MAX_RECORDS }, () => ({ value })))
  const requests = [postRequest(gateway.port, `/produce/${topic}`, body)]
  let stored = 0
  while (stored < records) {
    await runLoad({ port: gateway.port, connections: 1, runMs: 0, requests })
    stored += MAX_RECORDS
  }
  return gateway.count(topic)
}
