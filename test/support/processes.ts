/** Programs of the tests in processes of their own, started by the Node that runs the tests. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { until } from './until.ts'

export interface SpawnedProgram extends AsyncDisposable {
  readonly pid: number
  /** Whole lines printed so far. */
  printed(): string[]
  /** Resolves when a line holds the text. */
  line(text: string): Promise<void>
  /** Resolves when so many lines were printed. */
  lines(count: number): Promise<void>
  /** Sends a signal and resolves when the process has ended. */
  kill(signal: NodeJS.Signals): Promise<void>
}

/** Runs a program with Node, its output gathered; killed at the end of the scope. */
export function spawnNode(file: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): SpawnedProgram {
  const child = spawn(process.execPath, [file, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  const ended = once(child, 'exit')
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  const printed = (): string[] => output.split('\n').slice(0, -1)
  const wait = (condition: () => boolean): Promise<void> =>
    until(() => {
      if (condition()) return true
      if (child.exitCode !== null) throw new Error(`${file} ended with status ${child.exitCode}: ${errors || output}`)
      return false
    })
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
    await ended
  }
  return {
    pid: child.pid ?? 0,
    printed,
    line: (text) => wait(() => printed().some((line) => line.includes(text))),
    lines: (count) => wait(() => printed().length >= count),
    kill,
    [Symbol.asyncDispose]: () => kill('SIGKILL'),
  }
}
