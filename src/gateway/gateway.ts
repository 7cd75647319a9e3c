/**
 * The gateway without a server: finds the route of a request, checks who calls, serves it, and turns whatever happens
 * into an answer of the documented shape. Every runtime goes through `serve`, so they cannot differ.
 */
import type { Broker } from '../broker.ts'
import { GatewayError, type KedgeError } from '../errors.ts'
import { authenticator, webSha256, type Authenticator, type Credential, type Sha256 } from './credentials.ts'
import { refuseForeignPages } from './browser-guard.ts'
import { asKedgeError, errorResponse } from './errors.ts'
import { gatewayLimits, type GatewayLimits } from './limits.ts'
import { matchPath, pathOf, queryOf, queryPairs, type PathPattern } from './path.ts'
import { everyone, type Principal } from './principal.ts'
import type { GatewayRequest, GatewayResponse } from './request.ts'
import { routeTable } from './routes.ts'
import type { DocsAssets } from './routes/documents.ts'
import type { Route } from './route.ts'
import { WaitingCalls } from './waiting.ts'

/** Who may call, from where, and within which limits. */
export interface GatewayOptions {
  /** Who may call. Without credentials everybody may do everything: only for loopback. */
  readonly credentials?: readonly Credential[] | undefined
  /** Without credentials: refuse requests that a web page made, or that name another host than loopback. @default false */
  readonly guardLoopback?: boolean | undefined
  /** Bounds that differ from `gatewayLimits`. */
  readonly limits?: Partial<GatewayLimits> | undefined
  /** Origins whose pages may call from a browser, exactly as browsers send them. @default none: CORS is off */
  readonly corsOrigins?: readonly string[] | undefined
  /** SHA-256 of the platform. @default WebCrypto's */
  readonly sha256?: Sha256 | undefined
  /** The files of the `/docs` page. @default none: no page */
  readonly docsAssets?: DocsAssets | undefined
  /**
   * Calls of operators, each of which must check its caller's rights itself. They are handed in because the behaviour behind
   * them is none that the gateway knows. @default none
   */
  readonly operatorRoutes?: readonly Route[] | undefined
  /** Told of everything that was thrown and is not an error of ours, or is answered with 500. */
  readonly onError?: ((error: unknown, request: GatewayRequest) => void) | undefined
}

/** All routes of one path. */
export interface PathEntry {
  readonly pattern: PathPattern
  readonly byMethod: ReadonlyMap<string, Route>
  /** The methods, as `Allow` lists them. */
  readonly allow: string
}

/** A path entry with the parameters of a request. */
export interface Match {
  readonly entry: PathEntry
  readonly params: Readonly<Record<string, string>>
}

/** Serves requests over a broker, whatever brought them. */
export class Gateway {
  readonly routes: readonly Route[]
  readonly entries: readonly PathEntry[]
  readonly limits: GatewayLimits
  readonly waiting: WaitingCalls
  readonly #byFirst: ReadonlyMap<string, readonly PathEntry[]>
  readonly #broker: Broker
  readonly #authenticator: Authenticator | undefined
  readonly #sha256: Sha256
  readonly #corsOrigins: ReadonlySet<string>
  readonly #onError: GatewayOptions['onError']
  readonly #guardLoopback: boolean

  constructor(broker: Broker, options: GatewayOptions = {}) {
    this.#broker = broker
    this.limits = { ...gatewayLimits, ...options.limits }
    this.waiting = new WaitingCalls(this.limits.waitingPolls)
    this.routes = routeTable(options.docsAssets, options.operatorRoutes)
    this.entries = entriesOf(this.routes)
    this.#byFirst = Map.groupBy(this.entries, ({ pattern }) => firstLiteral(pattern))
    this.#sha256 = options.sha256 ?? webSha256
    this.#authenticator = options.credentials && authenticator(options.credentials, this.#sha256)
    this.#corsOrigins = new Set(options.corsOrigins)
    this.#onError = options.onError
    this.#guardLoopback = options.guardLoopback === true && options.credentials === undefined
  }

  /** The entry of a raw path; of several the most literal. @throws {GatewayError} INVALID_REQUEST for bad percent-encoding */
  match(path: string): Match | undefined {
    const end = path.indexOf('/', 1)
    const entries = this.#byFirst.get(end === -1 ? path.slice(1) : path.slice(1, end))
    for (const entry of entries ?? []) {
      const params = matchPath(entry.pattern, path)
      if (params !== undefined) return { entry, params }
    }
    return undefined
  }

  /** Serves any request. Never rejects. */
  async handle(request: GatewayRequest): Promise<GatewayResponse> {
    return this.serve(request, () => this.match(pathOf(request.target)))
  }

  /** Serves a request whose path a runtime has matched. Never rejects. */
  async serve(request: GatewayRequest, match: () => Match | undefined): Promise<GatewayResponse> {
    const cors = this.#corsOrigins.size === 0 ? undefined : this.#corsHeaders(request)
    const response = await this.#answer(request, match, cors)
    if (cors === undefined && !this.waiting.draining) return response
    return {
      ...response,
      headers: { ...response.headers, ...cors, ...(this.waiting.draining ? { Connection: 'close' } : {}) },
    }
  }

  /** The answer of an error that arose outside `serve`, in a runtime. */
  fail(error: unknown, request?: GatewayRequest): GatewayResponse {
    const known = asKedgeError(error)
    if (request !== undefined && known.code === 'UNKNOWN_SERVER_ERROR') this.#onError?.(error, request)
    return errorResponse(known)
  }

  async #answer(
    request: GatewayRequest,
    match: () => Match | undefined,
    cors: Readonly<Record<string, string>> | undefined,
  ): Promise<GatewayResponse> {
    try {
      const found = match()
      if (found === undefined) throw unknownRoute(request)
      const route = found.entry.byMethod.get(request.method)
      if (route === undefined) return refuseMethod(request, found.entry, cors !== undefined)
      if (this.#guardLoopback && route.access !== 'public') refuseForeignPages(request, this.#corsOrigins)
      const principal = route.access === 'public' ? everyone : await this.#principal(route, request)
      if (route.bodyKind !== 'none') refuseEncoded(request)
      return await route.serve(found.params, {
        broker: this.#broker,
        principal,
        limits: this.limits,
        waiting: this.waiting,
        sha256: this.#sha256,
        request,
      })
    } catch (error) {
      return this.fail(error, request)
    }
  }

  #principal(route: Route, request: GatewayRequest): Promise<Principal> | Principal {
    if (this.#authenticator === undefined) return everyone
    const query = route.access === 'query' ? queryPairs(queryOf(request.target)) : {}
    return this.#authenticator.authenticate(request.header('authorization'), {
      user: query['user'],
      pass: query['pass'],
    })
  }

  #corsHeaders(request: GatewayRequest): Record<string, string> {
    const origin = request.header('origin')
    if (origin === undefined || !this.#corsOrigins.has(origin)) return { Vary: 'Origin' }
    return {
      Vary: 'Origin',
      'Access-Control-Allow-Origin': origin,
      'Access-Control-Allow-Methods': 'GET, POST, PUT, DELETE',
      'Access-Control-Allow-Headers': request.header('access-control-request-headers') ?? 'Authorization, Content-Type',
      'Access-Control-Expose-Headers':
        'Kedge-Error, Kedge-Retriable, Kedge-Limit, Kedge-Retry-After-Ms, Kedge-Generation, Kedge-Assignment, Kedge-Former-Run, Retry-After',
      'Access-Control-Max-Age': '600',
    }
  }
}

/** The error of a path that is not in the table. */
function unknownRoute(request: Pick<GatewayRequest, 'method'>): KedgeError {
  return new GatewayError(
    'UNKNOWN_ROUTE',
    `Cannot ${request.method} here: there is no such path. /openapi.json lists all.`,
  )
}

function refuseMethod(request: GatewayRequest, entry: PathEntry, isCors: boolean): GatewayResponse {
  if (isCors && request.method === 'OPTIONS' && request.header('access-control-request-method') !== undefined) {
    return { status: 200, body: '{"result":"Success","error":"","status":200}' }
  }
  const error = new GatewayError(
    'METHOD_NOT_ALLOWED',
    `Cannot ${request.method} ${entry.pattern.path}: it takes ${entry.allow}.`,
  )
  return errorResponse(error, { Allow: entry.allow })
}

function refuseEncoded(request: GatewayRequest): void {
  const encoding = request.header('content-encoding')
  if (encoding === undefined || encoding.trim().toLowerCase() === 'identity') return
  throw new GatewayError(
    'UNSUPPORTED_MEDIA_TYPE',
    'Cannot read a body with Content-Encoding other than identity. Send it uncompressed.',
  )
}

function entriesOf(routes: readonly Route[]): PathEntry[] {
  const byPath = Map.groupBy(routes, ({ path }) => path)
  return Array.from(byPath.values(), (same): PathEntry => {
    const byMethod = new Map(same.flatMap((route) => route.methods.map((method) => [method, route] as const)))
    const [first] = same
    if (first === undefined) throw new TypeError('A path without routes.')
    return { pattern: first.pattern, byMethod, allow: [...byMethod.keys()].join(', ') }
  })
}

function firstLiteral(pattern: PathPattern): string {
  const first = pattern.segments[0]
  return first !== undefined && 'literal' in first ? first.literal : ''
}
