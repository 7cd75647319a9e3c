/** Clients of Kafka that are not ours: Java's tools and classes, and librdkafka by kcat. */
import { fileURLToPath } from 'node:url'
import { installKafka } from '../../scripts/kafka/install.ts'
import { runProgram, smallHeap } from '../../scripts/kafka/programs.ts'
import { spawnProgram, type SpawnedProgram } from '../support/processes.ts'
import { bootstrapServers } from './admin.ts'

/** Java takes its time to start, on two cores that are busy. */
const LIMIT_MS = 40_000

/** Runs one of Kafka's tools, or a source file of `test/kafka/java/`, to its end, and gives what it printed. */
export async function runJava(program: string, args: readonly string[], input?: string): Promise<Buffer> {
  return await runProgram('java', await javaArguments(program, args), input)
}

/** Starts one of them. */
export async function startJava(program: string, args: readonly string[] = []): Promise<SpawnedProgram> {
  return spawnProgram('java', await javaArguments(program, args), { limitMs: LIMIT_MS })
}

/** Runs kcat over the cluster of the tests to its end, and gives what it printed. */
export async function runKcat(args: readonly string[], input?: Uint8Array): Promise<Buffer> {
  return await runProgram('kcat', ['-q', '-b', bootstrapServers(), ...args], input)
}

/** Starts it. */
export function startKcat(args: readonly string[]): SpawnedProgram {
  return spawnProgram('kcat', ['-b', bootstrapServers(), ...args], { limitMs: LIMIT_MS })
}

/** A program that answers each line with a line, both JSON. */
export interface Oracle extends AsyncDisposable {
  ask<Answer>(question: unknown): Promise<Answer>
}

/** Starts `test/kafka/java/Rules.java`. */
export async function startRules(): Promise<Oracle> {
  const program = await startJava('Rules.java')
  let asked = 0
  return {
    async ask<Answer>(question: unknown): Promise<Answer> {
      program.send(`${JSON.stringify(question)}\n`)
      const at = asked++
      await program.lines(asked)
      // Each rule answers in one shape, which its caller names.
      return JSON.parse(program.printed()[at] ?? '') as Answer
    },
    async [Symbol.asyncDispose]() {
      await program.end()
    },
  }
}

async function javaArguments(program: string, args: readonly string[]): Promise<string[]> {
  const main = program.endsWith('.java') ? fileURLToPath(new URL(`java/${program}`, import.meta.url)) : program
  return [...smallHeap, '-cp', await installKafka(), main, ...args]
}
