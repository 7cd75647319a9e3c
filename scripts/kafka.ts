/** `npm run kafka`: a real Apache Kafka on this machine, until Ctrl-C. */
import { parseArgs } from 'node:util'
import { startKafka } from './kafka/cluster.ts'
import { kafkaVersion } from './kafka/install.ts'
import { stopSignal } from '../src/runtimes/stop-signal.ts'

const help = `Usage: npm run kafka [-- --brokers 1 --port 9092]

Runs Apache Kafka ${kafkaVersion()} on loopback until Ctrl-C, its data in a temporary folder that goes with it. The first time it
is fetched from Maven Central (54 MB). Needs Java 17 and Maven 3.8, or newer.

  --brokers N   brokers of the cluster [1]
  --port N      port of the first broker [9092]
`

const stop = stopSignal()
try {
  const { values } = parseArgs({
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      brokers: { type: 'string', default: '1' },
      port: { type: 'string', default: '9092' },
    },
  })
  if (values.help) process.stdout.write(help)
  else await run(wholeNumber('--brokers', values.brokers, 9), wholeNumber('--port', values.port, 65_535))
} catch (failure) {
  console.error(failure instanceof Error ? failure.message : failure)
  process.exitCode = 1
}

async function run(brokers: number, port: number): Promise<void> {
  await using cluster = await startKafka({ brokers, port, onProgress: (line) => console.log(line) })
  console.log(`\nKafka runs. Ctrl-C ends it.\n\n  KEDGE_BROKER=kafka://${cluster.bootstrapServers}\n`)
  if (!stop.aborted) await new Promise((resolve) => stop.addEventListener('abort', resolve))
}

function wholeNumber(option: string, text: string, most: number): number {
  const number = Number(text)
  if (Number.isInteger(number) && number >= 1 && number <= most) return number
  throw new Error(`Cannot start: ${option} ${text} is not a whole number from 1 to ${most}.`)
}
