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

/** What the gateway's process needs. */
export interface GatewayConfig {
  readonly host: string
  readonly port: number
  readonly broker: 'log' | 'memory'
  readonly dataDir: string
  readonly topics: readonly NewTopic[]
  readonly credentials: Credentials | undefined
  readonly credentialsFile: string | undefined
  readonly corsOrigins: readonly string[]
}

/** What a function needs to reach the gateway, to answer produce calls, and to run. */
export interface FunctionsConfig {
  /** Base URL of the gateway, without a trailing slash. */
  readonly gatewayUrl: string
  readonly gatewayCredentials: Credentials | undefined
  /** `unset` refuses every call and says which setting to set. */
  readonly produceAuth: 'basic' | 'none' | 'unset'
  readonly produceCredentials: Credentials | undefined
  /** Topics without a schema that the produce function takes as they come; `*` means all. */
  readonly produceRawTopics: readonly string[]
  readonly groupInstanceId: string
  /** URL of the dead-letter store. */
  readonly deadLetters: string
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
const MAX_PARTITIONS = 1000
/** The longest a Lambda function, and a Worker's cron run of an hour's schedule, may take: 15 minutes. */
const MAX_RUN_MS = 900_000

const text = z.string()
const port = wholeNumber(0, MAX_PORT)
const names = z.string().transform((list) => splitList(list))
const secret = z.string().transform((value) => new Secret(value))
const httpUrl = z
  .url({ protocol: /^https?$/, error: 'must be an http or https URL' })
  .refine((url) => !/^https?:\/\/[^/]*@/.test(url), 'must not hold credentials: they have settings of their own')
  .transform((url) => url.replace(/\/+$/, ''))
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
  KEDGE_BROKER: setting(z.enum(['log', 'memory'], { error: brokerError }).default('log'), {
    part: 'gateway',
    legal: '`log` or `memory`',
    default: 'log',
    description:
      'What the gateway serves: the embedded log on disk, which survives restarts, or one in memory, which does not.',
  }),
  KEDGE_DATA: setting(text.default('.kedge'), {
    part: 'gateway',
    legal: 'a path',
    default: '.kedge',
    description: 'The folder of the embedded log, made where it is missing. One process at a time may open it.',
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
    default: 'required',
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
  KEDGE_DEAD_LETTERS: setting(text.default('topic:'), {
    part: 'functions',
    legal: "`topic:`, `topic:NAME`, or `sqs+https://...` followed by the queue's address (Lambda and Node)",
    default: 'topic:',
    description:
      'Where records go that cannot be handled. `topic:` alone is a topic of the gateway for each source topic and group, made where it is missing; with a name, that topic.',
  }),
  KEDGE_RUN_MS: setting(wholeNumber(1000, MAX_RUN_MS).optional(), {
    part: 'functions',
    legal: `1000 to ${MAX_RUN_MS} milliseconds`,
    default: "55000 on Workers; on Lambda what is left of the function's timeout",
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

const environmentSchema = z
  .strictObject({
    ...shapeOf(settings),
  })
  .superRefine((env, context) => {
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

type Environment = z.output<typeof environmentSchema>

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
  if (part === 'functions' && given['UPSTASH_KAFKA_REST_URL'] === undefined) {
    problems.push('UPSTASH_KAFKA_REST_URL is not set: give the address of the gateway')
  }
  if (!parsed.success || problems.length > 0) {
    const count = problems.length === 1 ? 'a setting is wrong' : `${problems.length} settings are wrong`
    throw new ConfigError(`Cannot start: ${count}:\n${problems.map((problem) => `  ${problem}`).join('\n')}`)
  }
  return builders[part](parsed.data)
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
    broker: env.KEDGE_BROKER,
    dataDir: env.KEDGE_DATA,
    topics: env.KEDGE_TOPICS,
    credentials: credentialsOf(env.KEDGE_USERNAME, env.KEDGE_PASSWORD),
    credentialsFile: env.KEDGE_CREDENTIALS,
    corsOrigins: env.KEDGE_CORS_ORIGINS,
  }
}

function functionsConfig(env: Environment): FunctionsConfig {
  const produceCredentials = credentialsOf(env.KEDGE_PRODUCE_USERNAME, env.KEDGE_PRODUCE_PASSWORD)
  const isOpen = env.KEDGE_PRODUCE_AUTH === 'none'
  return {
    gatewayUrl: env.UPSTASH_KAFKA_REST_URL ?? '',
    gatewayCredentials: credentialsOf(env.UPSTASH_KAFKA_REST_USERNAME, env.UPSTASH_KAFKA_REST_PASSWORD),
    produceAuth: isOpen ? 'none' : produceCredentials === undefined ? 'unset' : 'basic',
    produceCredentials,
    produceRawTopics: env.KEDGE_PRODUCE_RAW_TOPICS,
    groupInstanceId: env.KEDGE_GROUP_INSTANCE,
    deadLetters: env.KEDGE_DEAD_LETTERS,
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
  return [`${name}${value === undefined ? '' : `=${isSecret ? '[secret]' : JSON.stringify(value)}`}: ${issue.message}`]
}

function brokerError({ input }: { readonly input?: unknown }): string {
  return String(input).startsWith('kafka:')
    ? 'this build has no Kafka driver: must be log or memory'
    : 'must be log or memory'
}

/** The nearest name, where one is near enough to be what was meant. */
function suggestionFor(name: string): string {
  const nearest = Object.keys(settings)
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
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
