/**
 * One HTTP exchange with a gateway: one attempt, given up by signal, time or close, and every failure classified.
 *
 * It stands in for the `client` of the objects of `@upstash/kafka`, whose own retries every failure for 15 seconds.
 */
import type { Call } from '../../broker.ts'
import type { Clock } from '../../clock.ts'
import type { ErrorCode, ErrorDetails } from '../../errors.ts'
import { abortError, BrokerError, isErrorCode } from '../../errors.ts'

/** The part of `fetch` that is used. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>

/** One request to a gateway. */
export interface ExchangeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Path segments, not yet encoded. */
  readonly path: readonly string[]
  readonly query?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly body?: unknown
  /** What a 404 means where the server does not say. */
  readonly notFound: ErrorCode
  /** Added to the time the call may take when its caller names none, since the server may wait so long, milliseconds. */
  readonly maxWaitMs?: number
  /** Sent only when this has settled. */
  readonly after?: Promise<unknown>
}

/** A good answer of a gateway. */
export interface Answer {
  readonly headers: Headers
  readonly json: unknown
}

/** Where the gateway is and how it is reached. */
export interface TransportOptions {
  readonly baseUrl: string
  readonly headers: Readonly<Record<string, string>>
  readonly fetch: Fetch
  readonly timeoutMs: number
  readonly clock: Clock
}

/** The exchanges of one driver. */
export class Transport {
  readonly #options: TransportOptions
  readonly #inFlight = new Set<AbortController>()
  #isClosed = false

  constructor(options: TransportOptions) {
    this.#options = options
  }

  /**
   * Throws what a call must reject with before anything is sent.
   * @throws {BrokerError} CLOSED
   * @throws the signal's reason where it is aborted already
   */
  check(call: Call): void {
    if (this.#isClosed) throw closed()
    if (call.signal?.aborted === true) throw abortError(call.signal)
  }

  /** Sends one request, once, and gives the answer of a server that is content. */
  async send(request: ExchangeRequest, call: Call): Promise<Answer> {
    this.check(call)
    const url = urlOf(this.#options.baseUrl, request)
    const controller = new AbortController()
    const { signal } = controller
    const { clock, timeoutMs } = this.#options
    call.onRequest?.()
    const limitMs = call.timeoutMs ?? timeoutMs + (request.maxWaitMs ?? 0)
    const cancelTimer = clock.after(limitMs, () => controller.abort(timedOut(request, limitMs)))
    const onAbort = (): void => {
      if (call.signal !== undefined) controller.abort(abortError(call.signal))
    }
    call.signal?.addEventListener('abort', onAbort, { once: true })
    this.#inFlight.add(controller)
    // A `fetch` that is handed in may not end when it is aborted; the call does.
    const givenUp = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    try {
      return await Promise.race([this.#exchange(url, request, signal), givenUp])
    } finally {
      cancelTimer()
      call.signal?.removeEventListener('abort', onAbort)
      this.#inFlight.delete(controller)
    }
  }

  async #exchange(url: string, request: ExchangeRequest, signal: AbortSignal): Promise<Answer> {
    await request.after
    signal.throwIfAborted()
    const { headers, fetch, clock } = this.#options
    const hasBody = request.body !== undefined
    let response: Response
    let text: string
    try {
      response = await fetch(url, {
        method: request.method,
        headers: { ...headers, ...(hasBody ? { 'Content-Type': 'application/json' } : {}), ...request.headers },
        ...(hasBody ? { body: JSON.stringify(request.body) } : {}),
        // Credentials and records go where they were sent, or nowhere.
        redirect: 'manual',
        signal,
      })
      // Always read to the end: an unread body holds its connection.
      text = await response.text()
    } catch (cause) {
      throw new BrokerError('NETWORK', `${failed(request)}: the connection failed or was lost. Try again.`, { cause })
    }
    const json = jsonOf(text)
    if (response.ok && json !== undefined) return { headers: response.headers, json }
    throw refusalOf(request, response, json, clock)
  }

  /** Gives up every exchange in flight and refuses later ones with CLOSED. */
  close(): void {
    this.#isClosed = true
    for (const controller of this.#inFlight) controller.abort(closed())
  }
}

/** The error of an answer that is not the protocol's. */
export function badResponse(
  request: Pick<ExchangeRequest, 'path'>,
  problem: string,
  details?: ErrorDetails,
): BrokerError {
  return new BrokerError('BAD_RESPONSE', `${failed(request)}: ${problem}. Check the address of the gateway.`, details)
}

/** Codes of what a name in a path is: what is wrong with it is found before it is sent. */
function codeOfSegment(path: readonly string[], index: number): ErrorCode {
  if (path[0] === 'topics') return 'INVALID_TOPIC_EXCEPTION'
  return index === 1 ? 'INVALID_GROUP_ID' : 'INVALID_REQUEST'
}

function urlOf(baseUrl: string, request: ExchangeRequest): string {
  const { path, query } = request
  const segments = path.map((segment, index) => {
    // A URL swallows these, and an empty segment makes it another path; percent-encoding does not help.
    if (segment === '' || segment === '.' || segment === '..' || !segment.isWellFormed()) {
      const problem = `a name that cannot be part of an address: ${JSON.stringify(segment)}. Choose another`
      throw new BrokerError(codeOfSegment(path, index), `${failed(request)}: ${problem}.`)
    }
    return encodeURIComponent(segment)
  })
  return `${baseUrl}/${segments.join('/')}${query === undefined ? '' : `?${query}`}`
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    // Told apart from every JSON value; the caller says what it means.
    return undefined
  }
}

function failed({ path: [operation = '', ...names] }: Pick<ExchangeRequest, 'path'>): string {
  return `Cannot ${operation}${names.length === 0 ? '' : ` ${names.join('/')}`}`
}

function closed(): BrokerError {
  return new BrokerError('CLOSED', 'Cannot use the broker: it is closed. Open another.')
}

function timedOut(request: ExchangeRequest, limitMs: number): BrokerError {
  return new BrokerError('TIMEOUT', `${failed(request)}: no answer within ${limitMs} ms. The outcome is unknown.`)
}

/** HTTP's statuses in our codes, for servers and proxies that do not name one. */
const codeOfStatus: Readonly<Record<number, ErrorCode>> = {
  400: 'INVALID_REQUEST',
  401: 'UNAUTHENTICATED',
  403: 'CLUSTER_AUTHORIZATION_FAILED',
  405: 'UNSUPPORTED',
  408: 'TIMEOUT',
  413: 'MESSAGE_TOO_LARGE',
  425: 'OVERLOADED',
  429: 'OVERLOADED',
  431: 'LIMIT_EXCEEDED',
  501: 'UNSUPPORTED',
  502: 'NETWORK',
  503: 'OVERLOADED',
  504: 'TIMEOUT',
}

/** Statuses after which the same call may succeed. */
const retriableStatuses: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504])

function refusalOf(request: ExchangeRequest, { status, headers }: Response, json: unknown, clock: Clock): BrokerError {
  const named = headers.get('Kedge-Error')
  const retryAfterMs = retryAfter(headers, clock)
  const limit = headers.get('Kedge-Limit')
  const details = {
    retriable: isRetriable(headers.get('Kedge-Retriable'), status),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(limit === null ? {} : { limit }),
  }
  if (named !== null && isErrorCode(named)) {
    return new BrokerError(named, textOfError(json) ?? `${failed(request)}: refused with ${named}.`, details)
  }
  // Credentials are refused by whatever stands in front, often with a page.
  if (json === undefined && status !== 401 && status !== 403) {
    return badResponse(request, `the answer with status ${status} is not JSON`, details)
  }
  const code = (status === 404 ? request.notFound : codeOfStatus[status]) ?? codeOfClass(status)
  const text = textOfError(json) ?? 'no reason given'
  return new BrokerError(code, `${failed(request)}: the server answered ${status}: ${text}.`, details)
}

function codeOfClass(status: number): ErrorCode {
  if (status >= 500) return 'UNKNOWN_SERVER_ERROR'
  return status >= 400 ? 'INVALID_REQUEST' : 'BAD_RESPONSE'
}

function isRetriable(said: string | null, status: number): boolean {
  return said === null ? retriableStatuses.has(status) : said === 'true'
}

/** The dialect's `error` text, shortened: it comes from outside. */
function textOfError(json: unknown): string | undefined {
  if (typeof json !== 'object' || json === null || !('error' in json)) return undefined
  return typeof json.error === 'string' && json.error !== '' ? json.error.slice(0, 1_000) : undefined
}

function retryAfter(headers: Headers, clock: Clock): number | undefined {
  const ms = headers.get('Kedge-Retry-After-Ms')
  if (ms !== null && /^\d{1,12}$/.test(ms)) return Number(ms)
  const after = headers.get('Retry-After')
  if (after === null) return undefined
  if (/^\d{1,9}$/.test(after)) return Number(after) * 1_000
  const dateMs = Date.parse(after)
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - clock.now())
}
