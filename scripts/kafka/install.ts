/** Apache Kafka's jars, fetched once by the machine's Maven into `.cache/kafka/`. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const pom = fileURLToPath(new URL('pom.xml', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url))

/** The version that is fetched. */
export function kafkaVersion(): string {
  const version = /<version>(\d+\.\d+\.\d+)<\/version>/.exec(readFileSync(pom, 'utf8'))?.[1]
  if (version === undefined) throw new Error(`${pom} names no version of Kafka.`)
  return version
}

/**
 * Fetches Kafka where it is not there yet, and gives the class path of its programs.
 * @throws {Error} that says what is missing: Java, Maven, or what Maven could not fetch
 */
export async function installKafka(onProgress: (line: string) => void = () => {}): Promise<string> {
  const version = kafkaVersion()
  const folder = join(root, '.cache/kafka', version)
  if (!existsSync(folder)) {
    onProgress(`Fetching Apache Kafka ${version} with Maven ...`)
    const partial = `${folder}.${process.pid}`
    await run('java', ['-version'], 'Install Java 17 or newer.')
    await run(
      'mvn',
      ['-q', '-B', '-f', pom, 'dependency:copy-dependencies', `-DoutputDirectory=${partial}`],
      'Install Maven 3.8 or newer.',
    )
    // Another process may have fetched it meanwhile: the first one stays.
    if (existsSync(folder)) rmSync(partial, { recursive: true })
    else renameSync(partial, folder)
  }
  return join(folder, '*')
}

async function run(command: string, args: readonly string[], advice: string): Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text))
  const [status] = await once(child, 'close').catch((cause: unknown) => {
    throw new Error(`Cannot fetch Kafka: ${command} does not start. ${advice}`, { cause })
  })
  if (status !== 0) throw new Error(`Cannot fetch Kafka: ${command} ended with status ${status}.\n${output}`)
}
