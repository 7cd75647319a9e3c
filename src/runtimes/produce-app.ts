/**
 * The produce function: takes records over HTTP from apps that can only speak HTTP, checks them against their topic's
 * schema, and produces them through the gateway. It speaks Upstash's produce calls, so that callers written for it change
 * the URL and nothing else; what it refuses it refuses whole, as problem details.
 */
import { Hono } from 'hono'
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import type { FunctionsConfig } from '../config.ts'
import { BrokerError, GatewayError, RecordError } from '../errors.ts'
import { gather } from '../gateway/body.ts'
import { type Authenticator, authenticator, hexOf, webSha256 } from '../gateway/credentials.ts'
import { unquotedKey } from '../gateway/idempotency-key.ts'
import { gatewayLimits } from '../gateway/limits.ts'
import { matchPath, type PathPattern, pathOf, pathPattern, queryOf, queryPairs } from '../gateway/path.ts'
import { metadata, producerRecord } from '../gateway/records.ts'
import { recordHeaders } from '../gateway/routes/webhook.ts'
import { ProduceHeaders, TopicName } from '../gateway/schemas.ts'
import { bytesOf, type ProducerRecord } from '../record.ts'
import { problemResponse } from './problem.ts'
import { type ProduceTopics, recordOfValue, recordsOfBody } from './produce-records.ts'

/** What a deployment may add. */
export interface ProduceOptions {
  /**
   * Chooses the key of a webhook's record from its request, so that deliveries of one sender stay in order.
   * @default no key, as Upstash has it
   */
  readonly webhookKey?: (request: Request) => string | null
  /** Takes what went wrong on this side; the caller is told less. @default none */
  readonly onFailure?: (failure: unknown) => void
}

interface Call {
  readonly request: Request
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string>>
  readonly headers: ProduceHeaders
  readonly taken: ProduceTopics
  readonly options: ProduceOptions
}

/** A path, what it asks to be written, and whether Upstash answers it with one object instead of a list. */
interface ProducePath {
  readonly pattern: PathPattern
  readonly answersOne: boolean
  /** Credentials may stand in the query: who sends webhooks can seldom set a header. */
  readonly signsInByQuery: boolean
  records(call: Call): Promise<ProducerRecord[]>
}

const paths: readonly ProducePath[] = [
  {
    pattern: pathPattern('/produce'),
    answersOne: false,
    signsInByQuery: false,
    records: async ({ request, headers, taken }) =>
      await recordsOfBody(await bodyOf(request), undefined, headers['kedge-encoding'], taken),
  },
  {
    pattern: pathPattern('/produce/{topic}'),
    answersOne: false,
    signsInByQuery: false,
    records: async ({ request, params, headers, taken }) =>
      await recordsOfBody(await bodyOf(request), topicOf(params['topic']), headers['kedge-encoding'], taken),
  },
  {
    pattern: pathPattern('/produce/{topic}/{message+}'),
    answersOne: true,
    signsInByQuery: false,
    records: async ({ params, query, headers, taken }) => {
      const body = { value: params['message'] ?? '', key: query['key'] }
      const encoding = headers['kedge-encoding'] ?? 'text'
      return await recordOfValue(producerRecord(topicOf(params['topic']), body, encoding, 'the record'), taken)
    },
  },
  { pattern: pathPattern('/webhook'), answersOne: false, signsInByQuery: true, records: webhookRecords },
]

/** The produce function of an app, over a broker. */
export function produceApp(app: App, broker: Broker, config: FunctionsConfig, options: ProduceOptions = {}): Hono {
  const taken = { topics: app.topics, rawTopics: config.produceRawTopics }
  const guard = callerGuard(config)

  async function serve(request: Request): Promise<Response> {
    const target = request.url.slice(new URL(request.url).origin.length)
    const matched = matchOf(pathOf(target))
    if (matched === undefined) throw unknownRoute()
    if (request.method !== 'GET' && request.method !== 'POST') throw wrongMethod(request.method)
    const query = queryPairs(queryOf(target))
    await guard(request, matched.path.signsInByQuery ? query : {})
    const headers = headersOf(request)
    const records = await matched.path.records({ request, params: matched.params, query, headers, taken, options })
    const key = headers['idempotency-key']
    const results = await broker.produce(records, key === undefined ? {} : { idempotencyKey: unquotedKey(key) }, {
      signal: request.signal,
    })
    const written = results.map((result) => {
      if (result instanceof BrokerError) throw result
      return metadata(result)
    })
    return Response.json(matched.path.answersOne ? written[0] : written)
  }

  const hono = new Hono()
  hono.all('*', async (context) => {
    try {
      return await serve(context.req.raw)
    } catch (failure) {
      const response = problemResponse(failure, isWrongMethod(failure) ? { allow: 'GET, POST' } : {})
      if (response.status >= 500) options.onFailure?.(failure)
      return response
    }
  })
  return hono
}

function matchOf(path: string): { path: ProducePath; params: Readonly<Record<string, string>> } | undefined {
  for (const candidate of paths) {
    const params = matchPath(candidate.pattern, path)
    if (params !== undefined) return { path: candidate, params }
  }
  return undefined
}

/** Who may call. With nothing configured nobody may, and the refusal says which settings change that. */
function callerGuard(
  config: FunctionsConfig,
): (request: Request, query: Readonly<Record<string, string>>) => Promise<void> {
  const { produceAuth, produceCredentials } = config
  if (produceAuth === 'none') return async () => undefined
  if (produceAuth === 'unset' || produceCredentials === undefined) {
    return async () => {
      throw new GatewayError(
        'UNAUTHENTICATED',
        'Cannot produce: this function has no credentials to check callers by. Set KEDGE_PRODUCE_USERNAME and KEDGE_PRODUCE_PASSWORD, or KEDGE_PRODUCE_AUTH=none for a function that is not public.',
      )
    }
  }
  const { username, password } = produceCredentials
  let known: Promise<Authenticator> | undefined
  return async (request, query) => {
    known ??= webSha256(bytesOf(password.reveal())).then((digest) =>
      authenticator([{ username, passwordSha256: hexOf(digest), scopes: [] }]),
    )
    const header = request.headers.get('authorization') ?? undefined
    await (await known).authenticate(header, { user: query['user'], pass: query['pass'] })
  }
}

async function webhookRecords({ request, query, taken, options }: Call): Promise<ProducerRecord[]> {
  const key = options.webhookKey?.(request) ?? null
  const lines = Array.from(request.headers, ([name, value]) => ({ name, value: bytesOf(value) }))
  const record = {
    topic: topicOf(query['topic']),
    key: key === null ? null : bytesOf(key),
    value: await bodyOf(request),
    headers: recordHeaders(lines),
  }
  return await recordOfValue(record, taken)
}

function topicOf(name: string | undefined): string {
  const parsed = TopicName.safeParse(name)
  if (parsed.success) return parsed.data
  const given = name === undefined ? 'none is given' : JSON.stringify(name)
  throw new GatewayError(
    'INVALID_TOPIC_EXCEPTION',
    `Cannot produce: the topic: ${given}: ${parsed.error.issues[0]?.message ?? ''}.`,
  )
}

function headersOf(request: Request): ProduceHeaders {
  const given = Object.fromEntries(
    ['kedge-encoding', 'kedge-results', 'idempotency-key'].map((name) => [
      name,
      request.headers.get(name) ?? undefined,
    ]),
  )
  const parsed = ProduceHeaders.safeParse(given)
  if (!parsed.success) {
    const issues = parsed.error.issues.map(({ path, message }) => ({ path: path.map(String), message }))
    throw new RecordError(
      `Cannot produce: a header is wrong: ${issues[0]?.path.join('.')}: ${issues[0]?.message}.`,
      issues,
    )
  }
  if (parsed.data['kedge-results'] !== undefined) {
    throw new GatewayError(
      'UNSUPPORTED',
      'Cannot produce with Kedge-Results: this function writes all records of a call or none.',
    )
  }
  return parsed.data
}

async function bodyOf(request: Request): Promise<Uint8Array> {
  return request.body === null ? new Uint8Array() : await gather(request.body, gatewayLimits.bodyBytes)
}

function unknownRoute(): GatewayError {
  return new GatewayError(
    'UNKNOWN_ROUTE',
    'There is nothing at this address. This function serves /produce, /produce/{topic}, /produce/{topic}/{message} and /webhook?topic={topic}.',
  )
}

function wrongMethod(method: string): GatewayError {
  return new GatewayError('METHOD_NOT_ALLOWED', `Cannot produce with ${method}: use POST, or GET.`)
}

function isWrongMethod(failure: unknown): boolean {
  return failure instanceof GatewayError && failure.code === 'METHOD_NOT_ALLOWED'
}
