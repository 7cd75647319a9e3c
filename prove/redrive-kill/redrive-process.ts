/** `npm run redrive -- run` as a process of its own, which is killed. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'

/** One run of it. */
export interface RedriveProcess extends AsyncDisposable {
  /** Resolves true when it says that it has started, false when it has ended before. */
  readonly started: Promise<boolean>
  readonly ended: Promise<RedriveEnd>
  /** Whether it has not ended yet. */
  readonly isRunning: boolean
  /** Sends SIGKILL and resolves when it is gone. */
  kill(): Promise<void>
}

/** How it ended. */
export interface RedriveEnd {
  /** Null where it was killed. */
  readonly status: number | null
  /** What it said last. */
  readonly text: string
}

/** Where it finds everything, and how it goes about. */
export interface RedriveSettings {
  readonly url: string
  readonly deadLetters: string
  readonly perSecond: number
  readonly claimTtlMs: number
  readonly auditFile: string
}

const folder = import.meta.dirname
const program = join(folder, '..', '..', 'scripts', 'redrive.ts')
const KEPT = 4_000

/** Starts one. */
export function startRedrive(settings: RedriveSettings, actor: string): RedriveProcess {
  const { url, deadLetters, perSecond, claimTtlMs, auditFile } = settings
  const numbers = ['--per-second', String(perSecond), '--claim-ttl-ms', String(claimTtlMs), '--max', '100000']
  const files = ['--app', join(folder, 'app.ts'), '--audit', auditFile]
  const child = spawn(process.execPath, [program, 'run', ...numbers, ...files, '--actor', actor], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], UPSTASH_KAFKA_REST_URL: url, KEDGE_DEAD_LETTERS: deadLetters },
  })
  let text = ''
  const started = new Promise<boolean>((resolve) => {
    const read = (chunk: string): void => {
      text = (text + chunk).slice(-KEPT)
      if (text.includes('redrive started')) resolve(true)
    }
    child.stdout.setEncoding('utf8').on('data', read)
    child.stderr.setEncoding('utf8').on('data', read)
    child.once('close', () => resolve(false))
  })
  const ended = new Promise<RedriveEnd>((resolve) => {
    child.once('close', (status) => resolve({ status, text }))
  })
  const end = (): void => void child.kill('SIGKILL')
  process.once('exit', end)
  child.once('close', () => process.off('exit', end))
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  return {
    started,
    ended,
    get isRunning() {
      return child.exitCode === null && child.signalCode === null
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}
