/** Programs of the tests in processes of their own, started by the Node that runs the tests. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { until } from './until.ts'

export interface SpawnedProgram extends AsyncDisposable {
  readonly pid: number
  /** Whether it has ended, however. */
  hasEnded(): boolean
  /** Whole lines printed so far. */
  printed(): string[]
  /** Resolves when a line holds the text. */
  line(text: string): Promise<void>
  /** Resolves when so many lines were printed. */
  lines(count: number): Promise<void>
  /** Writes to its input. */
  send(text: string): void
  /** Ends its input and resolves with its exit status when it has ended. */
  end(): Promise<number | null>
  /** Sends a signal and resolves when the process has ended. */
  kill(signal: NodeJS.Signals): Promise<void>
}

/** Runs a program with Node, its output gathered; killed at the end of the scope. */
export function spawnNode(file: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): SpawnedProgram {
  return spawnProgram(process.execPath, [file, ...args], { env })
}

export interface ProgramOptions {
  readonly env?: NodeJS.ProcessEnv
  /** Longest wait for output, milliseconds. @default 5000 */
  readonly limitMs?: number
}

/** Runs any program, its output gathered and its input open; killed at the end of the scope. */
export function spawnProgram(
  command: string,
  args: readonly string[],
  { env = {}, limitMs = 5_000 }: ProgramOptions = {},
): SpawnedProgram {
  const child = spawn(command, args, { env: { ...process.env, ...env } })
  const ended = once(child, 'exit')
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  // A program that has ended reads no more; how it ended is seen by its status.
  child.stdin.on('error', () => {})
  const printed = (): string[] => output.split('\n').slice(0, -1)
  const wait = (condition: () => boolean, what: string): Promise<void> =>
    until(
      () => {
        if (condition()) return true
        if (child.exitCode !== null) {
          throw new Error(`${[command, ...args].join(' ')} ended with status ${child.exitCode}: ${errors || output}`)
        }
        return false
      },
      { what, timeoutMs: limitMs },
    )
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
    await ended
  }
  return {
    pid: child.pid ?? 0,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    printed,
    line: (text) => wait(() => printed().some((line) => line.includes(text)), `the line ${text}`),
    lines: (count) => wait(() => printed().length >= count, `${count} lines`),
    send: (text) => void child.stdin.write(text),
    async end() {
      child.stdin.end()
      const [status] = (await ended) as [number | null]
      return status
    },
    kill,
    [Symbol.asyncDispose]: () => kill('SIGKILL'),
  }
}

/** What a command said, and its exit status; -1 where a signal ended it. */
export interface CommandAnswer {
  readonly status: number
  readonly output: string
  readonly errors: string
}

/** Runs a script with Node to its end. */
export function runScript(script: string, env: NodeJS.ProcessEnv, args: readonly string[]): Promise<CommandAnswer> {
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...args], { env }, (failure, output, errors) => {
      const status = typeof failure?.code === 'number' ? failure.code : failure === null ? 0 : -1
      resolve({ status, output, errors })
    })
  })
}
