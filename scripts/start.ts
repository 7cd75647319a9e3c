/**
 * `npm start`: everything on this machine. The gateway over the embedded log, the Worker in real workerd, and a cron that
 * ticks it, until Ctrl-C.
 */
import { hostname } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { App } from '../src/app.ts'
import type { Broker } from '../src/broker.ts'
import { type ConfigByPart, readConfig } from '../src/config.ts'
import { ConfigError, KedgeError } from '../src/errors.ts'
import { openGateway, whereRecordsAre } from '../src/runtimes/gateway-process.ts'
import { isPortFree, type LocalWorker, openLocalWorker } from './local-worker.ts'
import { stopSignal } from '../src/runtimes/stop-signal.ts'

type StartConfig = ConfigByPart['start']

const help = `Usage: npm start [-- --help]

Runs Kedge on this machine until Ctrl-C, without an account and without the network:
  the gateway over the embedded log in .kedge/, or a Kafka cluster (KEDGE_BROKER=kafka://host:port), on http://127.0.0.1:8790
  the Worker (functions/worker.ts) in workerd, on http://127.0.0.1:8787; edits of functions/app.ts are taken over
  a cron that ticks it all the time, so that records are handled within a second

Settings are environment variables (docs/configuration.md), among them:
  KEDGE_GATEWAY_PORT  KEDGE_WORKER_PORT  KEDGE_DATA  KEDGE_BROKER  KEDGE_TOPICS  KEDGE_USERNAME  KEDGE_PASSWORD

A cluster may be shared: this session then consumes as a group instance of its own, start-<host name>, unless
KEDGE_GROUP_INSTANCE names another, and leaves the group at its end. The topics of functions/app.ts are created there where they
are missing, and stay.
`

/** A run waits for records nearly this long, then the next tick comes: short, so that an edit is soon taken over. */
const DEV_RUN_MS = 5000
/** Between two ticks at least: a run that fails ends at once. */
const LEAST_TICK_MS = 1000

/** Leaving a group may take so long. */
const LEAVE_MS = 3000

/** Counts the edits of the app, so that each is imported anew. */
let appVersion = 0

/** The app as it was last taken over. */
let currentApp: App | undefined

const stop = stopSignal()
try {
  await main()
} catch (failure) {
  // What fails because everything is being ended is no failure.
  if (!stop.aborted) {
    console.error(failure instanceof KedgeError ? failure.message : failure)
    process.exitCode = 1
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { help: { type: 'boolean', short: 'h', default: false } } })
  if (values.help) {
    process.stdout.write(help)
    return
  }
  const config = readConfig('start', process.env)
  // The functions' settings, read as the Worker will read them, so that a mistake is reported before anything runs.
  const functions = readConfig('functions', workerVars(config, `http://${config.host}:${config.port}`))
  await requireFreePorts(config)

  await using gateway = await openGateway(config, { loadApp: async () => currentApp ?? (await readApp()) })
  await using cleanUp = new AsyncDisposableStack()
  const session = { broker: gateway.broker, instance: functions.groupInstanceId }
  const { groupId } = await takeOverApp(session)
  if (config.broker.kind === 'kafka') cleanUp.defer(() => leave(session, groupId))
  await using worker = await openLocalWorker({
    port: config.workerPort,
    vars: workerVars(config, gateway.url),
    signal: stop,
    onLine: (line) => console.log(line),
    onReload: () => {
      console.log('functions changed: reloaded')
      takeOverApp(session).catch((failure: unknown) => console.error(failure))
    },
  })

  console.log(banner(gateway.url, worker.url, config))
  await Promise.race([tickUntilStopped(worker, session), worker.ended])
  if (!stop.aborted) throw new Error('The Worker ended by itself; what it wrote last is above.')
}

interface Session {
  readonly broker: Broker
  /** The group instance that the Worker consumes as. */
  readonly instance: string
}

async function requireFreePorts(config: StartConfig): Promise<void> {
  const wanted = { KEDGE_GATEWAY_PORT: config.port, KEDGE_WORKER_PORT: config.workerPort }
  const problems: string[] = []
  for (const [name, port] of Object.entries(wanted)) {
    if (port !== 0 && !(await isPortFree(port))) {
      problems.push(`  port ${port} is in use: end what listens there, or set ${name} to another port`)
    }
  }
  if (config.port !== 0 && config.port === config.workerPort) {
    problems.push(`  KEDGE_GATEWAY_PORT and KEDGE_WORKER_PORT are both ${config.port}: set one to another port`)
  }
  if (problems.length > 0) throw new ConfigError(`Cannot start:\n${problems.join('\n')}`)
}

/**
 * Reads functions/app.ts as it is now, creates its topics where they are missing, and frees what a run left that died:
 * with the last session, or when its Worker was replaced. Nobody else can hold the claim of this session's instance.
 */
async function takeOverApp({ broker, instance }: Session): Promise<App> {
  const app = await readApp()
  const existing = new Set((await broker.topics()).map(({ topic }) => topic))
  for (const topic of app.subscription) {
    if (!existing.has(topic)) await broker.createTopic({ topic })
  }
  for (const { groupId, members } of await broker.groups()) {
    const runId = members.find(({ groupInstanceId }) => groupInstanceId === instance)?.runId
    if (groupId === app.groupId && typeof runId === 'string') {
      await broker.release({ groupId, groupInstanceId: instance }, runId)
    }
  }
  return app
}

async function readApp(): Promise<App> {
  appVersion += 1
  const { app } = (await import(`../functions/app.ts?${appVersion}`)) as { app: App }
  currentApp = app
  return app
}

/** Lets the other members of the group have the partitions now, and not when the session has lapsed. */
async function leave({ broker, instance }: Session, groupId: string): Promise<void> {
  try {
    await broker.leave({ groupId, groupInstanceId: instance }, { timeoutMs: LEAVE_MS })
  } catch (failure) {
    const isNoMember = failure instanceof KedgeError && failure.code === 'UNKNOWN_MEMBER_ID'
    if (!isNoMember) console.error(failure instanceof KedgeError ? failure.message : failure)
  }
}

/** What the Worker is told: the functions' settings of this shell, and what makes sense on one machine for the rest. */
function workerVars(config: StartConfig, gatewayUrl: string): Record<string, string> {
  const passedOn = /^(KEDGE_(PRODUCE|GROUP|SESSION|DEAD|RUN)_|UPSTASH_KAFKA_REST_(USERNAME|PASSWORD)$)/
  const ours = Object.entries(process.env).filter(
    (entry): entry is [string, string] => passedOn.test(entry[0]) && entry[1] !== undefined,
  )
  const { credentials, broker } = config
  return {
    ...(broker.kind === 'kafka' ? { KEDGE_GROUP_INSTANCE: `start-${hostname()}` } : {}),
    // Nobody but this machine reaches the Worker, unless the shell says whom it may serve.
    ...(process.env['KEDGE_PRODUCE_USERNAME'] === undefined ? { KEDGE_PRODUCE_AUTH: 'none' } : {}),
    KEDGE_RUN_MS: String(DEV_RUN_MS),
    KEDGE_RUN_SUBREQUESTS: '100000',
    ...Object.fromEntries(ours),
    UPSTASH_KAFKA_REST_URL: gatewayUrl,
    ...(credentials === undefined
      ? {}
      : {
          UPSTASH_KAFKA_REST_USERNAME: credentials.username,
          UPSTASH_KAFKA_REST_PASSWORD: credentials.password.reveal(),
        }),
  }
}

async function tickUntilStopped(worker: LocalWorker, session: Session): Promise<void> {
  while (!stop.aborted) {
    const tickedAt = performance.now()
    const isOk = await worker.tick(stop).catch(() => false)
    if (stop.aborted) return
    if (!isOk) await takeOverApp(session)
    const restMs = LEAST_TICK_MS - (performance.now() - tickedAt)
    if (restMs > 0) await wait(restMs, undefined, { signal: stop }).catch(() => undefined)
  }
}

function banner(gatewayUrl: string, workerUrl: string, config: StartConfig): string {
  const signIn = (name: string): string =>
    process.env[`${name}_USERNAME`] === undefined ? '' : ` -u "$${name}_USERNAME:$${name}_PASSWORD"`
  return `
Kedge runs. Ctrl-C ends it.

  gateway  ${gatewayUrl}  (its API: ${gatewayUrl}/docs)
  worker   ${workerUrl}  (edit functions/app.ts: it reloads)
  records  ${whereRecordsAre(config.broker)}

Produce a record, from another terminal; it is handled within a second:
  curl ${workerUrl}/produce/orders${signIn('KEDGE_PRODUCE')} -d '{"value":{"id":"a1","total":9.5}}'
One past the schema check of the produce function; it becomes a dead letter:
  curl ${gatewayUrl}/produce/orders${signIn('KEDGE')} -d '{"value":"no order"}'
`
}
