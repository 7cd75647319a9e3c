/** R4: append + fdatasync, nothing else: what the disk allows a log that groups so many bytes into one flush. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'

import type { Sample } from '../rounds.ts'
import { serve } from './serve.ts'

export interface AppendRun {
  readonly dir: string
  readonly recordBytes: number
  /** Records in one flush. */
  readonly group: number
  readonly runMs: number
}

serve({
  run({ dir, recordBytes, group, runMs }: AppendRun): Sample {
    const folder = mkdtempSync(join(dir, 'append-'))
    const file = openSync(join(folder, 'log'), 'a')
    const block = Buffer.alloc(recordBytes * group, 97)
    const cpu = process.cpuUsage()
    const start = performance.now()
    let records = 0
    do {
      writeSync(file, block)
      fdatasyncSync(file)
      records += group
    } while (performance.now() - start < runMs)
    const elapsedMs = performance.now() - start
    const { user, system } = process.cpuUsage(cpu)
    closeSync(file)
    rmSync(folder, { recursive: true })
    return { records, elapsedMs, cpuUs: user + system }
  },
})
