/** What the numbers were measured on, and the cost of its disk's flush, without which durable figures say nothing. */
import { spawnSync } from 'node:child_process'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'

/** The core of the system under test and of what it is compared with. */
export const SUBJECT_CORE = 0
/** The core of the load generator. */
export const LOAD_CORE = 1

const cores = cpus().length
const canPin = cores > 1 && spawnSync('taskset', ['-V']).status === 0

/** The words to put before a command so that it runs on one core; none where that cannot be done. */
export function pinnedTo(core: number): string[] {
  return canPin ? ['taskset', '-c', String(core)] : []
}

/** Moves this process to one core. */
export function pinSelf(core: number): void {
  if (canPin) spawnSync('taskset', ['-a', '-c', '-p', String(core), String(process.pid)])
}

/** Processor, cores, kernel, Node, and whether processes are pinned. */
export function machine(): string {
  const pinning = canPin ? `subject on core ${SUBJECT_CORE}, load on core ${LOAD_CORE}` : 'not pinned'
  return `${cpus()[0]?.model ?? 'unknown'}, ${cores} cores, Linux ${release()}, Node ${process.version}, ${pinning}`
}

/** A new folder on the disk that the project is on; the system's own temporary folder may be memory. */
export function scratchFolder(): string {
  return mkdtempSync(join(import.meta.dirname, '..', '.kedge-bench-'))
}

/** F0: the median time of appending 1 KiB and flushing it, microseconds. */
export function flushUs(samples = 200): number {
  const dir = scratchFolder()
  const file = openSync(join(dir, 'flush'), 'a')
  const block = Buffer.alloc(1024, 1)
  const times = Array.from({ length: samples }, () => {
    const start = performance.now()
    writeSync(file, block)
    fdatasyncSync(file)
    return (performance.now() - start) * 1000
  })
  closeSync(file)
  rmSync(dir, { recursive: true })
  return times.sort((a, b) => a - b)[samples >> 1] ?? 0
}

/** Processor time that the host took from this machine since it booted, and all time, in ticks. */
export function stolenTicks(): { stolen: number; all: number } {
  const line = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0] ?? ''
  const ticks = line.trim().split(/\s+/).slice(1).map(Number)
  return { stolen: ticks[7] ?? 0, all: ticks.reduce((sum, tick) => sum + tick, 0) }
}
