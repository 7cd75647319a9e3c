/**
 * `npm run demo`: the main job on real input. Every example delivery of GitHub's webhooks goes through the produce
 * function into a topic, cron runs consume it, and what became of each one is read back and counted.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Broker } from '../src/broker.ts'
import { restBroker } from '../src/brokers/rest.ts'
import { readConfig } from '../src/config.ts'
import { topicDeadLetters } from '../src/dead-letters/topic.ts'
import { type ErrorCode, KedgeError } from '../src/errors.ts'
import { openGateway, whereRecordsAre } from '../src/runtimes/gateway-process.ts'
import type { TopicPartitionOffset } from '../src/record.ts'
import { allDeliveries, type Delivery } from './demo/deliveries.ts'
import { openLambdaPlatform, openWorkerPlatform, type Platform } from './demo/platform.ts'
import { allLetters, allRecords, lagOf } from './demo/read-back.ts'
import { judge, tableOf } from './demo/verdict.ts'
import { stopSignal } from '../src/runtimes/stop-signal.ts'

const help = `Usage: npm run demo [-- --runtime worker|lambda] [-- --help]
       KEDGE_BROKER=kafka://host:port npm run demo

Posts every example delivery of GitHub's webhooks (npm package @octokit/webhooks-examples) to the produce function of
examples/github-webhooks, consumes them by cron runs, and counts what became of each. Ends with status 1 if one is missing
or doubled. Everything runs on this machine and leaves nothing behind: over the embedded log, in a folder of its own; over a
Kafka cluster (with the settings KEDGE_KAFKA_...), under names of its own that are deleted at the end.

  --runtime worker   the functions run in workerd (default)
  --runtime lambda   the functions run as Lambda handlers, over Lambda's Runtime API
`

/** What the example calls its topic and group. */
const exampleNames = { topic: 'github', groupId: 'github-demo' }
/** What the functions consume as. */
const INSTANCE = 'demo'
const PARTITIONS = 3
/** Deliveries on their way at once. */
const CONCURRENCY = 6
/** All runs together may take this long after the last delivery. */
const DRAIN_MS = 45_000
/** Between two ticks at least. */
const LEAST_TICK_MS = 500
const PROGRESS_MS = 1000

const runtimes = { worker: openWorkerPlatform, lambda: openLambdaPlatform }

const stop = stopSignal()
try {
  process.exitCode = await main()
} catch (failure) {
  // What fails because it is being ended says nothing.
  if (!stop.aborted) console.error(failure instanceof KedgeError ? failure.message : failure)
  process.exitCode = 1
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { runtime: { type: 'string', default: 'worker' }, help: { type: 'boolean', short: 'h', default: false } },
  })
  if (values.help) {
    process.stdout.write(help)
    return 0
  }
  const openPlatform = runtimes[values.runtime as keyof typeof runtimes]
  if (!Object.hasOwn(runtimes, values.runtime)) {
    console.error(`There is no runtime ${values.runtime}: choose worker or lambda.`)
    return 1
  }
  const dataDir = mkdtempSync(join(tmpdir(), 'kedge-demo-'))
  try {
    return await run(values.runtime, openPlatform, dataDir)
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
}

async function run(runtime: string, openPlatform: typeof openWorkerPlatform, dataDir: string): Promise<number> {
  const startedAt = performance.now()
  const deliveries = allDeliveries()
  const cluster = clusterSettings()
  const names = cluster === undefined ? exampleNames : namesOfOurOwn()
  const { topic, groupId } = names
  const config = readConfig('gateway', {
    ...cluster,
    KEDGE_GATEWAY_PORT: '0',
    KEDGE_DATA: dataDir,
    KEDGE_TOPICS: `${topic}:${PARTITIONS}`,
    KEDGE_USERNAME: 'demo',
    KEDGE_PASSWORD: 'gateway-secret',
  })
  await using gateway = await openGateway(config)
  await using cleanUp = new AsyncDisposableStack()
  if (cluster !== undefined) cleanUp.defer(() => leaveNothing(gateway.broker, names))
  const handled: TopicPartitionOffset[] = []
  const others: string[] = []
  await using platform = await openPlatform({
    signal: stop,
    names: cluster === undefined ? undefined : names,
    env: {
      KEDGE_GROUP_INSTANCE: INSTANCE,
      UPSTASH_KAFKA_REST_URL: gateway.url,
      UPSTASH_KAFKA_REST_USERNAME: 'demo',
      UPSTASH_KAFKA_REST_PASSWORD: 'gateway-secret',
      KEDGE_PRODUCE_USERNAME: 'github',
      KEDGE_PRODUCE_PASSWORD: 'webhook-secret',
    },
    onLine: (line) => {
      const place = /^handled (\S+) partition (\d+) offset (\d+)/.exec(line)
      if (place === null) others.push(line)
      else handled.push({ topic: place[1] ?? '', partition: Number(place[2]), offset: Number(place[3]) })
    },
  })
  await using broker = restBroker({ url: gateway.url, username: 'demo', password: 'gateway-secret' })
  await using store = topicDeadLetters({ broker })
  console.log(
    `${deliveries.length} deliveries, ${runtime} functions, gateway on ${gateway.url}, records ${whereRecordsAre(config.broker)}`,
  )

  const acknowledged = new Map<string, TopicPartitionOffset>()
  const deadLetteredSoFar = (): number => others.filter((line) => line.startsWith('dead-lettered ')).length
  const progress = setInterval(
    () =>
      console.log(
        `  acknowledged ${acknowledged.size}  handled ${handled.length}  dead-lettered ${deadLetteredSoFar()}`,
      ),
    PROGRESS_MS,
  )
  const done = new AbortController()
  try {
    const ticking = tickUntil(AbortSignal.any([done.signal, stop]), platform)
    await postAll(topic, deliveries, platform, acknowledged)
    await until(async () => (await lagOf(broker, topic, groupId)) === 0, DRAIN_MS)
    done.abort()
    // The last run has committed everything; what it may still do is say so.
    await ticking
  } finally {
    done.abort()
    clearInterval(progress)
  }

  const { rows, problems } = judge({
    deliveries,
    acknowledged,
    records: await allRecords(broker, topic),
    handled,
    letters: await allLetters(store, groupId, topic),
    lag: await lagOf(broker, topic, groupId),
  })
  console.log(`\n${tableOf(rows)}\n`)
  for (const problem of problems) console.error(`WRONG: ${problem}`)
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  if (problems.length > 0) {
    console.error(
      `\n${problems.length} problems after ${seconds} s. The functions' last lines:\n${others.slice(-20).join('\n')}`,
    )
    return 1
  }
  console.log(`Every delivery is in the log once and was handled or dead-lettered once. ${seconds} s.`)
  return 0
}

/** The settings of the cluster that the demo is to run over, where one is named. */
function clusterSettings(): Record<string, string | undefined> | undefined {
  if (process.env['KEDGE_BROKER']?.startsWith('kafka:') !== true) return undefined
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => /^KEDGE_(BROKER$|KAFKA_)/.test(name)))
}

/** Names that nobody else has on a cluster that is shared. */
function namesOfOurOwn(): typeof exampleNames {
  const name = `kedge_demo_${randomBytes(6).toString('hex')}`
  return { topic: name, groupId: name }
}

/** Deletes what the demo made on a cluster: its topic, the topic of dead letters beside it, and the group with them. */
async function leaveNothing(broker: Broker, { topic, groupId }: typeof exampleNames): Promise<void> {
  await broker.leave({ groupId, groupInstanceId: INSTANCE }).catch(ignoreCode('UNKNOWN_MEMBER_ID'))
  const isOurs = (name: string): boolean => name === topic || name.startsWith(`${topic}.`)
  for (const found of await broker.topics()) if (isOurs(found.topic)) await broker.deleteTopic(found.topic)
}

function ignoreCode(code: ErrorCode): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof KedgeError) || error.code !== code) throw error
  }
}

async function postAll(
  topic: string,
  deliveries: readonly Delivery[],
  platform: Platform,
  acknowledged: Map<string, TopicPartitionOffset>,
): Promise<void> {
  const waiting = deliveries.values()
  const post = async (): Promise<void> => {
    for (const { id, headers, body } of waiting) {
      stop.throwIfAborted()
      // GitHub can be given a URL but no Authorization header, so its credentials stand in the query.
      const answer = await platform.post(`/webhook?topic=${topic}&user=github&pass=webhook-secret`, headers, body)
      if (answer.status !== 200) throw new Error(`${id} was refused with ${answer.status}: ${answer.body}`)
      const [metadata] = JSON.parse(answer.body) as TopicPartitionOffset[]
      if (metadata !== undefined) acknowledged.set(id, metadata)
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, post))
}

async function tickUntil(signal: AbortSignal, platform: Platform): Promise<void> {
  while (!signal.aborted) {
    const tickedAt = performance.now()
    // A tick that fails shows in what it did not handle.
    await platform.tick().catch(() => false)
    // A run that fails, or finds the claim taken, ends at once.
    await wait(Math.max(0, LEAST_TICK_MS - (performance.now() - tickedAt)))
  }
}

async function until(isTrue: () => Promise<boolean>, withinMs: number): Promise<void> {
  const givenUpAt = performance.now() + withinMs
  while (!(await isTrue())) {
    stop.throwIfAborted()
    if (performance.now() > givenUpAt) return
    await wait(100)
  }
}
