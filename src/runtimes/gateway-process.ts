/** The gateway as a process: settings in, a broker opened and served, signals obeyed, an exit status out. */
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import type { Broker, NewTopic } from '../broker.ts'
import { logBroker } from '../brokers/log.ts'
import { memoryBroker } from '../brokers/memory.ts'
import { readConfig, settingDescriptions, type GatewayConfig } from '../config.ts'
import { BrokerError, ConfigError, KedgeError } from '../errors.ts'
import { credentialFor, parseCredentials, type Credential } from '../gateway/credentials.ts'
import { pathOf } from '../gateway/path.ts'
import { verbs, type Scope, type Verb } from '../gateway/principal.ts'
import { brokerDrivers } from './broker-drivers.ts'
import { refuseExposure, serveGateway, type GatewayServer } from './node-gateway.ts'
import { openBroker } from './open-broker.ts'
import { openOperator, type Operator, type OperatorOptions } from './operator.ts'

/** How long the cluster may take to answer the gateway's first call. */
const FIRST_CALL_MS = 15_000

/** A gateway with the broker it serves; `close` ends both. */
export interface OpenGateway extends AsyncDisposable {
  readonly url: string
  readonly broker: Broker
  close(): Promise<void>
}

/** What a gateway has beside its settings. */
export type GatewayExtras = Pick<OperatorOptions, 'loadApp'>

/**
 * Opens the broker that the settings name, creates the topics that are missing, and serves it.
 * @throws {ConfigError} INVALID_CONFIG
 * @throws {BrokerError} what a Kafka cluster refuses, or that it does not answer
 * @throws the listening error (EADDRINUSE, EACCES)
 */
export async function openGateway(config: GatewayConfig, { loadApp }: GatewayExtras = {}): Promise<OpenGateway> {
  const credentials = await credentialsOf(config)
  // Before the log is opened: a refusal should leave no folder behind.
  refuseExposure(config.host, credentials)
  const broker = await openOwnBroker(config.broker)
  try {
    // Wrong addresses and credentials are better told now than to every caller.
    if (config.broker.kind === 'kafka') await broker.topics({ timeoutMs: FIRST_CALL_MS })
    await createTopics(broker, config.topics)
    const operator = openOperator({ broker, deadLetters: config.deadLetters, loadApp })
    const server = await serveGateway({
      broker,
      operatorRoutes: operator.routes,
      host: config.host,
      port: config.port,
      credentials,
      corsOrigins: config.corsOrigins,
      // Never the query: a webhook's holds its password.
      onError: (error, request) => console.error(`${request.method} ${pathOf(request.target)} failed:`, error),
    })
    return opened(broker, server, operator)
  } catch (error) {
    await broker.close()
    throw error
  }
}

/** Where the records are, to be read after "records". */
export function whereRecordsAre(broker: GatewayConfig['broker']): string {
  if (broker.kind === 'memory') return 'in memory: nothing survives a restart'
  if (broker.kind === 'log') return `in ${broker.dir}`
  const { bootstrapServers, tls, sasl } = broker
  const how = [
    ...(tls === undefined ? [] : ['TLS']),
    ...(sasl === undefined ? [] : [`${sasl.mechanism} as ${sasl.username}`]),
  ]
  return `in Kafka at ${bootstrapServers.join(',')}${how.length === 0 ? '' : ` (${how.join(', ')})`}`
}

async function openOwnBroker(config: GatewayConfig['broker']): Promise<Broker> {
  if (config.kind === 'log') return logBroker({ dir: config.dir })
  // With setImmediate the requests of one turn share a batch, as they do in the log.
  if (config.kind === 'memory') return memoryBroker({ defer: setImmediate })
  return await openBroker(config, brokerDrivers)
}

function opened(broker: Broker, server: GatewayServer, operator: Operator): OpenGateway {
  const close = async (): Promise<void> => {
    await server.close()
    await operator.close()
    await broker.close()
  }
  return { url: server.url, broker, close, [Symbol.asyncDispose]: close }
}

async function credentialsOf(config: GatewayConfig): Promise<readonly Credential[] | undefined> {
  const { credentials, credentialsFile } = config
  const fromFile = credentialsFile === undefined ? [] : parseCredentials(await textOf(credentialsFile), credentialsFile)
  if (credentials === undefined) return credentialsFile === undefined ? undefined : fromFile
  if (fromFile.some(({ username }) => username === credentials.username)) {
    throw new ConfigError(`Cannot start: KEDGE_USERNAME=${credentials.username} is also in ${credentialsFile}.`)
  }
  const everything: Scope = { verbs, topics: ['*'], groups: ['*'] }
  return [await credentialFor(credentials.username, credentials.password.reveal(), [everything]), ...fromFile]
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new ConfigError(`Cannot read the credentials file ${file}. Is KEDGE_CREDENTIALS right?`, { cause })
  }
}

async function createTopics(broker: Broker, topics: readonly NewTopic[]): Promise<void> {
  for (const topic of topics) {
    try {
      await broker.createTopic(topic)
    } catch (error) {
      if (!(error instanceof BrokerError) || error.code !== 'TOPIC_ALREADY_EXISTS') throw error
    }
  }
}

/**
 * Runs until SIGTERM or SIGINT, then answers what is in flight. Resolves to the exit status: 0, or 1 with the reason on
 * standard error.
 */
export async function runGateway(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  extras: GatewayExtras = {},
): Promise<number> {
  try {
    const options = readArgs(args)
    if (options.help) console.log(helpText())
    else if (options.newCredential === undefined) await serveUntilSignal(readConfig('gateway', env), extras)
    else console.log(await newCredential(options.newCredential, options.scope))
    return 0
  } catch (error) {
    console.error(reasonOf(error))
    return 1
  }
}

async function serveUntilSignal(config: GatewayConfig, extras: GatewayExtras): Promise<void> {
  const signal = firstSignal()
  const gateway = await openGateway(config, extras)
  console.log(
    `Kedge gateway on ${gateway.url}, records ${whereRecordsAre(config.broker)}. Contract: ${gateway.url}/docs`,
  )
  const name = await signal
  console.log(`${name}: answering what is in flight, then ending.`)
  await gateway.close()
}

function firstSignal(): Promise<string> {
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name))
  })
}

// --- the command line ------------------------------------------------------------------------------------------------------

/** `operate` has to be asked for: it acts on what groups could not handle. */
const DEFAULT_VERBS = verbs.filter((verb) => verb !== 'operate').join()

interface Args {
  readonly help: boolean
  readonly newCredential: string | undefined
  readonly scope: Scope
}

function readArgs(args: readonly string[]): Args {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        help: { type: 'boolean', short: 'h', default: false },
        'new-credential': { type: 'string' },
        verbs: { type: 'string', default: DEFAULT_VERBS },
        topics: { type: 'string', default: '' },
        groups: { type: 'string', default: '' },
      },
    })
    return {
      help: values.help,
      newCredential: values['new-credential'],
      // Checked with the whole entry, by the schema that reads the file.
      scope: { verbs: list(values.verbs) as Verb[], topics: list(values.topics), groups: list(values.groups) },
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ConfigError(`Cannot read the command line: ${reason} --help lists what there is.`, { cause })
  }
}

function list(text: string): string[] {
  return text.split(',').filter((name) => name !== '')
}

const SECRET_BYTES = 32

/** A new credential with a generated password, as text to read and to paste. */
async function newCredential(username: string, scope: Scope): Promise<string> {
  const password = randomBytes(SECRET_BYTES).toString('base64url')
  const entry = await credentialFor(username, password, [scope])
  const [checked] = parseCredentials(JSON.stringify({ credentials: [entry] }), 'of the new entry')
  return [
    `Password of ${username}, shown only now: ${password}`,
    'Add to "credentials" in the file that KEDGE_CREDENTIALS names ({"credentials":[...]}):',
    JSON.stringify(checked),
  ].join('\n')
}

function helpText(): string {
  const settings = settingDescriptions
    .filter(({ part }) => part === 'gateway')
    .map(
      ({ name, description, legal, default: absent }) => `  ${name} (${legal}; default: ${absent})\n    ${description}`,
    )
  return [
    'Usage: npm run gateway -- [--help]',
    '       npm run gateway -- --new-credential NAME [--verbs produce,consume,admin,operate] [--topics a,users.*] [--groups g,*]',
    '',
    'Serves a log or a Kafka cluster over REST until SIGTERM or SIGINT. The second form prints a new credential and its password.',
    '',
    'Settings, by environment:',
    ...settings,
  ].join('\n')
}

function reasonOf(error: unknown): unknown {
  if (error instanceof KedgeError) return error.message
  if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') {
    return `Cannot listen: ${error.message}. Set KEDGE_GATEWAY_PORT to a free port.`
  }
  return error
}
