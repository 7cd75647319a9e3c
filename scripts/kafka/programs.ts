/** Programs beside Kafka, run to their end: Java's tools and others. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** What lets Java start quickly and take little memory. */
export const smallHeap: readonly string[] = ['-Xms128m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']

/** Runs a program with an input and gives what it printed. @throws {Error} with its output, unless it ends with status 0 */
export async function runProgram(
  command: string,
  args: readonly string[],
  input: string | Uint8Array = '',
): Promise<Buffer> {
  const child = spawn(command, args)
  const output: Buffer[] = []
  const errors: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => output.push(bytes))
  child.stderr.on('data', (bytes: Buffer) => errors.push(bytes))
  // A program need not read all of its input.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  if (status === 0) return Buffer.concat(output)
  const printed = Buffer.concat([...errors, ...output])
  throw new Error(`${[command, ...args].join(' ')} ended with ${signal ?? `status ${status}`}: ${printed.toString()}`)
}
