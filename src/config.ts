/**
 * Every setting Kedge reads from its environment: one table, from which the parser, its messages and
 * `docs/configuration.md` all come.
 *
 * Parsed once, at start. All problems are reported together, names that begin with `KEDGE_` and are not in the table are
 * refused (a misspelt setting must not be a silently missing one), an empty value counts as not set, and secrets print as
 * `[secret]` wherever they end up.
 */
import * as z from 'zod'
import { ConfigError } from './errors.ts'
import type { NewTopic } from './broker.ts'
import { bootstrapServersOf, KAFKA_SCHEME } from './runtimes/kafka-address.ts'

/** A process that reads settings. A name is documented with the first process that needs it. */
export type ConfigPart = 'gateway' | 'functions' | 'start'

/** A value that must not be shown: printing, logging or serialising it gives `[secret]`. */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  /** The value itself, for the one place that needs it. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }
}

/** A name and password, together or not at all. */
export interface Credentials {
  readonly username: string
  readonly password: Secret
}

/** The embedded log, in its folder. */
export interface LogConfig {
  readonly kind: 'log'
  readonly dir: string
}

/** The log in memory. */
export interface MemoryConfig {
  readonly kind: 'memory'
}

/** A broker behind a gateway. */
export interface RestConfig {
  readonly kind: 'rest'
  /** Base URL of the gateway, without a trailing slash. */
  readonly url: string
  readonly credentials: Credentials | undefined
}

/** A Kafka cluster. What is undefined is the driver's default. */
export interface KafkaConfig {
  readonly kind: 'kafka'
  /** `host:port` of each broker named; an IPv6 address is in brackets. */
  readonly bootstrapServers: readonly string[]
  readonly sasl: ({ readonly mechanism: SaslMechanism } & Credentials) | undefined
  readonly tls: KafkaTlsFiles | undefined
  readonly compression: Compression
  readonly replicationFactor: number | undefined
}

/** Names of PEM files. Undefined: the platform's certificate authorities; no certificate of our own. */
export interface KafkaTlsFiles {
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly key: string | undefined
}

/** How Kafka is told who calls. */
export type SaslMechanism = 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
/** How batches for Kafka are compressed. */
export type Compression = (typeof compressions)[number]

/** What the gateway's process needs. */
export interface GatewayConfig {
  readonly host: string
  readonly port: number
  readonly broker: LogConfig | MemoryConfig | KafkaConfig
  readonly topics: readonly NewTopic[]
  readonly credentials: Credentials | undefined
  readonly credentialsFile: string | undefined
  readonly corsOrigins: readonly string[]
  /** URLs of dead-letter stores for the calls of operators, as the functions have them. */
  readonly deadLetters: string
}

/** What a function needs to reach its broker, to answer produce calls, and to run. */
export interface FunctionsConfig {
  readonly broker: RestConfig | KafkaConfig
  /** `unset` refuses every call and says which setting to set. */
  readonly produceAuth: 'basic' | 'none' | 'unset'
  readonly produceCredentials: Credentials | undefined
  /** Topics without a schema that the produce function takes as they come; `*` means all. */
  readonly produceRawTopics: readonly string[]
  readonly groupInstanceId: string
  /** How long the instance stays a member between two runs, milliseconds; absent means the consumer's own default. */
  readonly sessionTimeoutMs: number | undefined
  /** URLs of dead-letter stores, in the order in which they are tried, blanks or commas between them. */
  readonly deadLetters: string
  /** URL of the idempotency store; absent where there is none. */
  readonly idempotency: string | undefined
  /** Longest run, milliseconds; absent means the runtime's own default. */
  readonly runMs: number | undefined
  readonly runSubrequests: number | undefined
}

/** What `npm start` needs beside the gateway's settings. */
export interface StartConfig {
  readonly workerPort: number
}

/** What each part gets. */
export interface ConfigByPart {
  readonly gateway: GatewayConfig
  readonly functions: FunctionsConfig
  readonly start: GatewayConfig & StartConfig
}

/** One row of `docs/configuration.md`. */
export interface SettingDescription {
  readonly name: string
  readonly part: ConfigPart
  readonly description: string
  /** What may be written, in words. */
  readonly legal: string
  /** The default as a person would write it, or what its absence means. */
  readonly default: string
  readonly isSecret: boolean
}

interface Setting<Schema extends z.ZodType> extends Omit<SettingDescription, 'name'> {
  readonly schema: Schema
}

const MAX_PORT = 65_535
const MAX_REPLICATION_FACTOR = 32_767
const MAX_PARTITIONS = 1000
/** The longest a Lambda function, and a Worker's cron run of an hour's schedule, may take: 15 minutes. */
const MAX_RUN_MS = 900_000

const compressions = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const
const mechanisms = {
  plain: 'PLAIN',
  'scram-sha-256': 'SCRAM-SHA-256',
  'scram-sha-512': 'SCRAM-SHA-512',
} as const satisfies Record<string, SaslMechanism>
const mechanismNames = ['plain', 'scram-sha-256', 'scram-sha-512'] as const satisfies (keyof typeof mechanisms)[]

/** Kafka's `group.max.session.timeout.ms`: 30 minutes. */
const MAX_SESSION_TIMEOUT_MS = 1_800_000

const text = z.string()
const flag = z.enum(['true', 'false'], { error: 'must be true or false' }).transform((value) => value === 'true')
const port = wholeNumber(0, MAX_PORT)
const names = z.string().transform((list) => splitList(list))
const secret = z.string().transform((value) => new Secret(value))
const httpUrl = z
  .url({ protocol: /^https?$/, error: 'must be an http or https URL' })
  .refine((url) => !/^https?:\/\/[^/]*@/.test(url), 'must not hold credentials: they have settings of their own')
  .transform((url) => url.replace(/\/+$/, ''))
const brokerName = z.string().transform((value, context): 'log' | 'memory' | readonly string[] => {
  if (value === 'log' || value === 'memory') return value
  const { servers, problem } = bootstrapServersOf(value)
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
  return servers
})
const topics = z.string().transform((list, context) => splitList(list).map((entry) => topicOf(entry, context)))

const settings = {
  KEDGE_GATEWAY_HOST: setting(text.default('127.0.0.1'), {
    part: 'gateway',
    legal: 'an IP address or host name',
    default: '127.0.0.1',
    description:
      'The address the gateway listens on. Without credentials it refuses every address that is not loopback.',
  }),
  KEDGE_GATEWAY_PORT: setting(port.default(8790), {
    part: 'gateway',
    legal: `0 to ${MAX_PORT}; 0 takes a free one`,
    default: '8790',
    description: 'The port the gateway listens on.',
  }),
  KEDGE_BROKER: setting(brokerName.default('log'), {
    part: 'gateway',
    legal:
      '`log`, `memory` or `kafka://host:port,host:port`; an IPv6 address in brackets, the port 9092 where none is given',
    default: 'log',
    description:
      'What the gateway serves: the embedded log on disk, which survives restarts, one in memory, which does not, or a Kafka cluster by one or more of its brokers. Functions on Lambda and Node that are given a cluster use it without a gateway.',
  }),
  KEDGE_DATA: setting(text.default('.kedge'), {
    part: 'gateway',
    legal: 'a path',
    default: '.kedge',
    description: 'The folder of the embedded log, made where it is missing. One process at a time may open it.',
  }),
  KEDGE_KAFKA_SASL_MECHANISM: setting(
    z
      .enum(mechanismNames, { error: `must be one of ${mechanismNames.join(', ')}` })
      .transform((name) => mechanisms[name])
      .optional(),
    {
      part: 'gateway',
      legal: mechanismNames.map((name) => `\`${name}\``).join(', '),
      default: 'none: Kafka is not told',
      description: 'How Kafka is told who calls. Needs KEDGE_KAFKA_USERNAME and KEDGE_KAFKA_PASSWORD.',
    },
  ),
  KEDGE_KAFKA_USERNAME: setting(text.optional(), {
    part: 'gateway',
    legal: 'any text',
    default: 'none',
    description: 'User name for Kafka.',
  }),
  KEDGE_KAFKA_PASSWORD: setting(secret.optional(), {
    part: 'gateway',
    legal: 'any text',
    default: 'none',
    description: 'Its password. With `plain` and without TLS it crosses the network as it is.',
    isSecret: true,
  }),
  KEDGE_KAFKA_TLS: setting(flag.optional(), {
    part: 'gateway',
    legal: '`true` or `false`',
    default: 'false',
    description: 'Whether the connections to Kafka are encrypted.',
  }),
  KEDGE_KAFKA_CA: setting(text.optional(), {
    part: 'gateway',
    legal: 'a path',
    default: "the platform's certificate authorities",
    description:
      'A PEM file with the certificate authorities that may vouch for the brokers. Needs KEDGE_KAFKA_TLS=true.',
  }),
  KEDGE_KAFKA_CERT: setting(text.optional(), {
    part: 'gateway',
    legal: 'a path',
    default: 'no certificate is shown',
    description:
      'A PEM file with the certificate that Kafka is shown (mutual TLS). Needs KEDGE_KAFKA_KEY and KEDGE_KAFKA_TLS=true.',
  }),
  KEDGE_KAFKA_KEY: setting(text.optional(), {
    part: 'gateway',
    legal: 'a path',
    default: 'none',
    description: 'A PEM file with its private key.',
  }),
  KEDGE_KAFKA_COMPRESSION: setting(
    z.enum(compressions, { error: `must be one of ${compressions.join(', ')}` }).optional(),
    {
      part: 'gateway',
      legal: compressions.map((name) => `\`${name}\``).join(', '),
      default: 'none',
      description: 'How batches are compressed that are produced to Kafka.',
    },
  ),
  KEDGE_KAFKA_REPLICATION_FACTOR: setting(wholeNumber(1, MAX_REPLICATION_FACTOR).optional(), {
    part: 'gateway',
    legal: `1 to ${MAX_REPLICATION_FACTOR}`,
    default: "the cluster's `default.replication.factor`",
    description: 'Copies of each topic that is created through Kedge.',
  }),
  KEDGE_TOPICS: setting(topics.default([]), {
    part: 'gateway',
    legal: '`name` or `name:partitions`, separated by commas',
    default: 'none',
    description: `Topics that are created at start where they are missing, such as \`blue:3,red:1\`. Partitions: 1 to ${MAX_PARTITIONS}, 1 where none are given.`,
  }),
  KEDGE_USERNAME: setting(text.optional(), {
    part: 'gateway',
    legal: 'any text without a colon',
    default: 'no credentials, loopback only',
    description: 'User name of the one credential that may do everything at the gateway. Needs KEDGE_PASSWORD.',
  }),
  KEDGE_PASSWORD: setting(secret.optional(), {
    part: 'gateway',
    legal: 'any text',
    default: 'none',
    description: 'Its password.',
    isSecret: true,
  }),
  KEDGE_CREDENTIALS: setting(text.optional(), {
    part: 'gateway',
    legal: 'a path',
    default: 'none',
    description: 'A file of further credentials, each with its topics, groups and verbs.',
  }),
  KEDGE_CORS_ORIGINS: setting(names.default([]), {
    part: 'gateway',
    legal: 'origins such as `https://app.example`, separated by commas',
    default: 'none: CORS is off',
    description: 'Pages of these origins may call the gateway from a browser.',
  }),
  UPSTASH_KAFKA_REST_URL: setting(httpUrl.optional(), {
    part: 'functions',
    legal: 'an http or https URL',
    default: 'required, unless KEDGE_BROKER names a Kafka cluster',
    description: 'Where the gateway is. The name is the one that callers of Upstash Kafka have already.',
  }),
  UPSTASH_KAFKA_REST_USERNAME: setting(text.optional(), {
    part: 'functions',
    legal: 'any text without a colon',
    default: 'no credentials are sent',
    description: "User name for the gateway: the gateway's KEDGE_USERNAME or one of its credentials file.",
  }),
  UPSTASH_KAFKA_REST_PASSWORD: setting(secret.optional(), {
    part: 'functions',
    legal: 'any text',
    default: 'none',
    description: 'Its password.',
    isSecret: true,
  }),
  KEDGE_PRODUCE_USERNAME: setting(text.optional(), {
    part: 'functions',
    legal: 'any text without a colon',
    default: 'every produce call is refused with 401',
    description: 'User name that callers of the produce function send with Basic authentication.',
  }),
  KEDGE_PRODUCE_PASSWORD: setting(secret.optional(), {
    part: 'functions',
    legal: 'any text',
    default: 'none',
    description: 'Its password.',
    isSecret: true,
  }),
  KEDGE_PRODUCE_AUTH: setting(z.enum(['basic', 'none'], { error: 'must be basic or none' }).default('basic'), {
    part: 'functions',
    legal: '`basic` or `none`',
    default: 'basic',
    description:
      '`none` lets anybody who reaches the produce function produce. Only for a function that is not public.',
  }),
  KEDGE_PRODUCE_RAW_TOPICS: setting(names.default([]), {
    part: 'functions',
    legal: 'topic names separated by commas, or `*` for all',
    default: 'none',
    description:
      'Topics that the app has no schema for and that the produce function takes nevertheless, value as it comes. Other topics are answered with 404.',
  }),
  KEDGE_GROUP_INSTANCE: setting(text.default('cron-1'), {
    part: 'functions',
    legal: 'any text of 1 to 249 characters',
    default: 'cron-1',
    description:
      'The group instance that the scheduled function consumes as. Two deployments that share the work need one each.',
  }),
  KEDGE_SESSION_TIMEOUT_MS: setting(wholeNumber(1000, MAX_SESSION_TIMEOUT_MS).optional(), {
    part: 'functions',
    legal: `1000 to ${MAX_SESSION_TIMEOUT_MS} milliseconds; over Kafka within what the cluster allows, 6000 and more unless it is set`,
    default: '120000',
    description:
      'How long the instance keeps its partitions when nothing runs. Set it longer than the gap between two runs, for an instance that is away for longer joins its group anew; not much longer, for the partitions of a deployment that is gone go to others only then.',
  }),
  KEDGE_DEAD_LETTERS: setting(text.default('topic:'), {
    part: 'functions',
    legal:
      "one or more of `topic:`, `topic:NAME`; on Lambda and Node `sqs+https://...` followed by the queue's address, `s3://bucket/prefix`, `sqlite:path`; on Workers `d1:BINDING`, `r2:BINDING/prefix`, `queue:BINDING`; blanks or commas between them",
    default: 'topic:',
    description:
      'Where records go that cannot be handled. `topic:` alone is a topic of the gateway for each source topic and group, made where it is missing; with a name, that topic. Of several stores each letter goes to the first that takes it: the next is tried where one is down, too slow, or too small for the letter. The gateway looks there for what its operators ask for.',
  }),
  KEDGE_IDEMPOTENCY: setting(text.optional(), {
    part: 'functions',
    legal:
      '`memory:`; on Workers also `do:BINDING`, `d1:BINDING` or `kv:BINDING`; on Lambda and Node also `sqlite:PATH` or `dynamodb://TABLE`',
    default: 'none',
    description:
      'Where the outcomes of records are kept that are handled effectively once, so that a repeat is recognised.',
  }),
  KEDGE_RUN_MS: setting(wholeNumber(1000, MAX_RUN_MS).optional(), {
    part: 'functions',
    legal: `1000 to ${MAX_RUN_MS} milliseconds`,
    default:
      "55000 on Workers; on Lambda what is left of the function's timeout; on Node 60000, or what the longest attempt asks for",
    description:
      'How long one scheduled run may take. It waits for records until then, so a run a little shorter than the schedule leaves no gap.',
  }),
  KEDGE_RUN_SUBREQUESTS: setting(wholeNumber(5, 10_000_000).optional(), {
    part: 'functions',
    legal: '5 or more',
    default: '50 on Workers (the limit of the free plan); none on Lambda',
    description:
      "How many calls to the gateway and the dead-letter store one run may make. A handler's own calls are not counted: leave room for them.",
  }),
  KEDGE_WORKER_PORT: setting(port.default(8787), {
    part: 'start',
    legal: `0 to ${MAX_PORT}; 0 takes a free one`,
    default: '8787',
    description: 'The port on which `npm start` runs the Worker.',
  }),
}

type SettingName = keyof typeof settings

/** Every setting, in the order in which they are documented. */
export const settingDescriptions: readonly SettingDescription[] = Object.entries(settings).map(
  ([name, { part, description, legal, default: absent, isSecret }]) => ({
    name,
    part,
    description,
    legal,
    default: absent,
    isSecret,
  }),
)

const shape = shapeOf(settings)
type Environment = z.output<z.ZodObject<typeof shape>>

const environmentSchema = z.strictObject(shape).superRefine((env, context) => {
  checkKafka(env, context)
  together(context, 'KEDGE_USERNAME', env.KEDGE_USERNAME, 'KEDGE_PASSWORD', env.KEDGE_PASSWORD)
  together(
    context,
    'UPSTASH_KAFKA_REST_USERNAME',
    env.UPSTASH_KAFKA_REST_USERNAME,
    'UPSTASH_KAFKA_REST_PASSWORD',
    env.UPSTASH_KAFKA_REST_PASSWORD,
  )
  together(
    context,
    'KEDGE_PRODUCE_USERNAME',
    env.KEDGE_PRODUCE_USERNAME,
    'KEDGE_PRODUCE_PASSWORD',
    env.KEDGE_PRODUCE_PASSWORD,
  )
})

type KafkaSetting = Extract<SettingName, `KEDGE_KAFKA_${string}`>
const kafkaSettings = Object.keys(settings).filter((name): name is KafkaSetting => name.startsWith('KEDGE_KAFKA_'))

/**
 * Reads the settings of one part from an environment: `process.env`, or the bindings of a Worker (whose other bindings
 * are passed over).
 * @throws {ConfigError} INVALID_CONFIG naming every problem, never a secret.
 */
export function readConfig<Part extends ConfigPart>(
  part: Part,
  env: Readonly<Record<string, unknown>>,
): ConfigByPart[Part] {
  const given = ownSettings(env)
  const parsed = environmentSchema.safeParse(given)
  const problems = parsed.success ? [] : parsed.error.issues.flatMap((issue) => problemsOf(issue, given))
  if (part === 'functions') problems.push(...brokerProblems(given))
  if (!parsed.success || problems.length > 0) {
    const count = problems.length === 1 ? 'a setting is wrong' : `${problems.length} settings are wrong`
    throw new ConfigError(`Cannot start: ${count}:\n${problems.map((problem) => `  ${problem}`).join('\n')}`)
  }
  return builders[part](parsed.data)
}

/** A function has one broker: a gateway's, or a cluster. */
function brokerProblems(given: Readonly<Record<string, string>>): string[] {
  const hasGateway = given['UPSTASH_KAFKA_REST_URL'] !== undefined
  const hasCluster = given['KEDGE_BROKER']?.startsWith(KAFKA_SCHEME) === true
  if (hasGateway !== hasCluster) return []
  return hasGateway
    ? ['UPSTASH_KAFKA_REST_URL: is set, and KEDGE_BROKER names a Kafka cluster: set the one that is to be used']
    : ['UPSTASH_KAFKA_REST_URL is not set: give the address of the gateway']
}

const builders: { [Part in ConfigPart]: (env: Environment) => ConfigByPart[Part] } = {
  gateway: gatewayConfig,
  functions: functionsConfig,
  start: (env) => ({ ...gatewayConfig(env), workerPort: env.KEDGE_WORKER_PORT }),
}

function gatewayConfig(env: Environment): GatewayConfig {
  return {
    host: env.KEDGE_GATEWAY_HOST,
    port: env.KEDGE_GATEWAY_PORT,
    broker: gatewayBrokerOf(env),
    topics: env.KEDGE_TOPICS,
    credentials: credentialsOf(env.KEDGE_USERNAME, env.KEDGE_PASSWORD),
    credentialsFile: env.KEDGE_CREDENTIALS,
    corsOrigins: env.KEDGE_CORS_ORIGINS,
    deadLetters: env.KEDGE_DEAD_LETTERS,
  }
}

function gatewayBrokerOf(env: Environment): GatewayConfig['broker'] {
  if (env.KEDGE_BROKER === 'memory') return { kind: 'memory' }
  return env.KEDGE_BROKER === 'log' ? { kind: 'log', dir: env.KEDGE_DATA } : kafkaConfig(env, env.KEDGE_BROKER)
}

function functionsBrokerOf(env: Environment): FunctionsConfig['broker'] {
  if (typeof env.KEDGE_BROKER !== 'string') return kafkaConfig(env, env.KEDGE_BROKER)
  return {
    kind: 'rest',
    url: env.UPSTASH_KAFKA_REST_URL ?? '',
    credentials: credentialsOf(env.UPSTASH_KAFKA_REST_USERNAME, env.UPSTASH_KAFKA_REST_PASSWORD),
  }
}

function kafkaConfig(env: Environment, bootstrapServers: readonly string[]): KafkaConfig {
  const mechanism = env.KEDGE_KAFKA_SASL_MECHANISM
  const credentials = credentialsOf(env.KEDGE_KAFKA_USERNAME, env.KEDGE_KAFKA_PASSWORD)
  return {
    kind: 'kafka',
    bootstrapServers,
    sasl: mechanism === undefined || credentials === undefined ? undefined : { mechanism, ...credentials },
    tls:
      env.KEDGE_KAFKA_TLS === true
        ? { ca: env.KEDGE_KAFKA_CA, cert: env.KEDGE_KAFKA_CERT, key: env.KEDGE_KAFKA_KEY }
        : undefined,
    compression: env.KEDGE_KAFKA_COMPRESSION ?? 'none',
    replicationFactor: env.KEDGE_KAFKA_REPLICATION_FACTOR,
  }
}

function functionsConfig(env: Environment): FunctionsConfig {
  const produceCredentials = credentialsOf(env.KEDGE_PRODUCE_USERNAME, env.KEDGE_PRODUCE_PASSWORD)
  const isOpen = env.KEDGE_PRODUCE_AUTH === 'none'
  return {
    broker: functionsBrokerOf(env),
    produceAuth: isOpen ? 'none' : produceCredentials === undefined ? 'unset' : 'basic',
    produceCredentials,
    produceRawTopics: env.KEDGE_PRODUCE_RAW_TOPICS,
    groupInstanceId: env.KEDGE_GROUP_INSTANCE,
    sessionTimeoutMs: env.KEDGE_SESSION_TIMEOUT_MS,
    deadLetters: env.KEDGE_DEAD_LETTERS,
    idempotency: env.KEDGE_IDEMPOTENCY,
    runMs: env.KEDGE_RUN_MS,
    runSubrequests: env.KEDGE_RUN_SUBREQUESTS,
  }
}

function credentialsOf(username: string | undefined, password: Secret | undefined): Credentials | undefined {
  return username === undefined || password === undefined ? undefined : { username, password }
}

/** What of an environment is ours: the names of the table and everything that looks like one of them. */
function ownSettings(env: Readonly<Record<string, unknown>>): Record<string, string> {
  const own = Object.entries(env).filter(([name]) => name.startsWith('KEDGE_') || Object.hasOwn(settings, name))
  return Object.fromEntries(
    own.filter((entry): entry is [string, string] => typeof entry[1] === 'string' && entry[1] !== ''),
  )
}

function problemsOf(issue: z.core.$ZodIssue, given: Readonly<Record<string, string>>): string[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((name) => `${name}: there is no such setting${suggestionFor(name)}`)
  }
  const name = String(issue.path[0])
  const value = given[name]
  const isSecret = Object.hasOwn(settings, name) && settings[name as SettingName].isSecret
  const shown = isSecret ? '[secret]' : JSON.stringify(withoutUserInfo(value ?? ''))
  return [`${name}${value === undefined ? '' : `=${shown}`}: ${issue.message}`]
}

/** An address without the credentials that somebody may have put into it. */
function withoutUserInfo(value: string): string {
  return value.replace(/\/\/.*@/s, '//[secret]@')
}

/** Settings of Kafka are of use with Kafka only, and some only together. */
function checkKafka(env: Environment, context: z.RefinementCtx): void {
  const refuse = (path: KafkaSetting, message: string): void => {
    context.addIssue({ code: 'custom', path: [path], message })
  }
  const given = kafkaSettings.filter((name) => env[name] !== undefined)
  if (typeof env.KEDGE_BROKER === 'string') {
    for (const name of given) refuse(name, 'is set, but KEDGE_BROKER names no Kafka cluster: set both or neither')
    return
  }
  const who = ['KEDGE_KAFKA_SASL_MECHANISM', 'KEDGE_KAFKA_USERNAME', 'KEDGE_KAFKA_PASSWORD'] as const
  const [one] = who.filter((name) => given.includes(name))
  for (const name of one === undefined ? [] : who) {
    if (!given.includes(name)) refuse(name, `is not set, but ${one} is: set all of ${who.join(', ')} or none`)
  }
  together(context, 'KEDGE_KAFKA_CERT', env.KEDGE_KAFKA_CERT, 'KEDGE_KAFKA_KEY', env.KEDGE_KAFKA_KEY)
  if (env.KEDGE_KAFKA_TLS === true) return
  for (const name of ['KEDGE_KAFKA_CA', 'KEDGE_KAFKA_CERT', 'KEDGE_KAFKA_KEY'] as const) {
    if (given.includes(name)) refuse(name, 'is set, but the connection is not encrypted: set KEDGE_KAFKA_TLS=true')
  }
}

/** The nearest name, where one is near enough to be what was meant. */
function suggestionFor(name: string): string {
  const nearest = Object.keys(settings)
    .map((candidate) => ({ candidate, distance: candidate.startsWith(name) ? 0 : editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance)[0]
  return nearest !== undefined && nearest.distance <= 4 ? `; did you mean ${nearest.candidate}?` : ''
}

function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (const [i, letter] of from.split('').entries()) {
    const next = [i + 1]
    for (const [j, other] of to.split('').entries()) {
      const substituted = (row[j] ?? 0) + (letter === other ? 0 : 1)
      next.push(Math.min(substituted, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}

function together(context: z.RefinementCtx, first: string, a: unknown, second: string, b: unknown): void {
  if ((a === undefined) === (b === undefined)) return
  const [given, missing] = a === undefined ? [second, first] : [first, second]
  context.addIssue({ code: 'custom', path: [missing], message: `is not set, but ${given} is: set both or neither` })
}

function topicOf(entry: string, context: z.RefinementCtx): NewTopic {
  const [topic = '', partitions = '1', ...rest] = entry.split(':')
  const count = Number(partitions)
  const isLegal = topic !== '' && rest.length === 0 && Number.isInteger(count) && count >= 1 && count <= MAX_PARTITIONS
  if (!isLegal) {
    context.addIssue({
      code: 'custom',
      message: `write each topic as name or name:partitions (1 to ${MAX_PARTITIONS})`,
    })
  }
  return { topic, partitions: count }
}

function splitList(list: string): string[] {
  return list
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')
}

function wholeNumber(least: number, most: number): z.ZodType<number, string> {
  const error = `must be a whole number from ${least} to ${most}`
  return z
    .string()
    .regex(/^\d{1,15}$/, { error, abort: true })
    .transform(Number)
    .refine((value) => value >= least && value <= most, error)
}

function setting<Schema extends z.ZodType>(
  schema: Schema,
  description: Omit<SettingDescription, 'name' | 'isSecret'> & { readonly isSecret?: boolean },
): Setting<Schema> {
  return { isSecret: false, ...description, schema }
}

function shapeOf<Table extends Record<string, Setting<z.ZodType>>>(
  table: Table,
): { [Name in keyof Table]: Table[Name]['schema'] } {
  // Object.fromEntries forgets which name had which schema.
  return Object.fromEntries(Object.entries(table).map(([name, { schema }]) => [name, schema])) as {
    [Name in keyof Table]: Table[Name]['schema']
  }
}
