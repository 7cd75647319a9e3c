/** `npm run test:kafka`: the tests that need a real Kafka, over brokers of their own. Ends with the exit status of vitest. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startKafka } from './kafka/cluster.ts'
import { kafkaVersion } from './kafka/install.ts'
import { stopSignal } from '../src/runtimes/stop-signal.ts'

const help = `Usage: npm run test:kafka [-- FILTER and other arguments of vitest]

Runs test/kafka/ over Apache Kafka ${kafkaVersion()}, of which two clusters of one broker are started for it on
loopback and stopped afterwards: two files run at a time, each over its own. The first time Kafka is fetched from Maven
Central (54 MB). Needs Java 17 and Maven 3.8, or newer, and kcat (Debian's package).

  npm run test:kafka -- conformance     only files whose path has "conformance"
  npm run test:kafka -- -t 'unknown'    only tests whose name has "unknown"

KAFKA_BOOTSTRAP_SERVERS=host:port[,host:port] uses that cluster instead, or several with ; between them. It must be
empty, for its topics and groups are deleted again and again, and answer as quickly as ours:
group.initial.rebalance.delay.ms=0, group.min.session.timeout.ms=1000, log.retention.check.interval.ms=500,
auto.create.topics.enable=false.
`

const args = process.argv.slice(2)
const stop = stopSignal()
if (args.includes('--help') || args.includes('-h')) process.stdout.write(help)
else process.exitCode = await run()

async function run(): Promise<number> {
  const given = process.env['KAFKA_BOOTSTRAP_SERVERS']
  if (given !== undefined && given !== '') return await vitest(given)
  try {
    const onProgress = (line: string): void => console.log(line)
    // One after the other: the first may have to fetch Kafka.
    await using first = await startKafka({ onProgress })
    await using second = await startKafka({ onProgress })
    return await vitest(`${first.bootstrapServers};${second.bootstrapServers}`)
  } catch (failure) {
    console.error(failure instanceof Error ? failure.message : failure)
    return 1
  }
}

async function vitest(bootstrapServers: string): Promise<number> {
  if (stop.aborted) return 130
  const child = spawn(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest.kafka.config.ts', ...args],
    {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
      stdio: 'inherit',
      env: { ...process.env, KAFKA_BOOTSTRAP_SERVERS: bootstrapServers },
    },
  )
  const end = (): void => void child.kill('SIGTERM')
  stop.addEventListener('abort', end)
  const [status] = (await once(child, 'exit')) as [number | null]
  stop.removeEventListener('abort', end)
  return status ?? 1
}
