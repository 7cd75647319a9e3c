/** The embedded log called in process: produces of n records one after the other, or n callers of one record each. */
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'

import { logBroker } from '../../src/brokers/log.ts'
import { bytesOf } from '../../src/record.ts'
import { jsonValue } from '../payload.ts'
import type { Sample } from '../rounds.ts'
import { serve } from './serve.ts'

export interface LogRun {
  readonly dir: string
  readonly recordBytes: number
  /** Records of one produce. */
  readonly group: number
  readonly callers: number
  readonly runMs: number
}

serve({
  async run({ dir, recordBytes, group, callers, runMs }: LogRun): Promise<Sample> {
    const folder = await mkdtemp(join(dir, 'log-'))
    const broker = logBroker({ dir: folder })
    await broker.createTopic({ topic: 'bench' })
    const value = bytesOf(jsonValue(recordBytes))
    const records = Array.from({ length: group }, () => ({ topic: 'bench', partition: 0, key: null, value }))
    const cpu = process.cpuUsage()
    const start = performance.now()
    let acknowledged = 0
    const caller = async (): Promise<void> => {
      do {
        const results = await broker.produce(records)
        acknowledged += results.length
      } while (performance.now() - start < runMs)
    }
    await Promise.all(Array.from({ length: callers }, caller))
    const elapsedMs = performance.now() - start
    const { user, system } = process.cpuUsage(cpu)
    const [end] = await broker.offsets([{ topic: 'bench', partition: 0 }], 'latest')
    if (end?.offset !== acknowledged) {
      throw new Error(`${acknowledged} records were acknowledged and ${end?.offset} are stored`)
    }
    await broker.close()
    rmSync(folder, { recursive: true })
    return { records: acknowledged, elapsedMs, cpuUs: user + system }
  },
})
