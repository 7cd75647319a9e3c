/**
 * The gateway on Node: the socket itself for hot calls in plain form (`fast-lane.ts`), bare `node:http` for
 * the other hot calls, Hono for the rest, one `Gateway` behind all three.
 *
 * Here is what only a real server can do: deadlines for slow senders, answers to what is not even HTTP, bodies on GET,
 * bounded reading, and an end that lets requests in flight finish.
 */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import { isIP, type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import type { Broker } from '../broker.ts'
import { ConfigError, GatewayError, type KedgeError } from '../errors.ts'
import { appOver } from '../gateway/app.ts'
import type { Credential } from '../gateway/credentials.ts'
import { errorResponse, invalidRequest } from '../gateway/errors.ts'
import { Gateway, type GatewayOptions } from '../gateway/gateway.ts'
import { limitNames } from '../gateway/limits.ts'
import type { GatewayResponse } from '../gateway/request.ts'
import type { DocsAssets } from '../gateway/routes/documents.ts'
import { installFastLane, type FastLane } from './fast-lane.ts'
import { NodeRequest, writeResponse } from './node-request.ts'

/** What to serve, where, and within which bounds. */
export interface ServeGatewayOptions extends GatewayOptions {
  readonly broker: Broker
  /** @default '127.0.0.1' */
  readonly host?: string | undefined
  /** 0 takes a free one. @default 0 */
  readonly port?: number | undefined
  /** Serve the hot calls without Hono. Off only to test that it makes no difference. @default true */
  readonly hotPath?: boolean | undefined
  /** Longest time a client may take over its headers, milliseconds. @default 15000 */
  readonly headersTimeoutMs?: number | undefined
  /** Longest time a client may take over its whole request, milliseconds. @default 60000 */
  readonly requestTimeoutMs?: number | undefined
  /** Longest time `close` waits for requests in flight, milliseconds. @default 10000 */
  readonly drainMs?: number | undefined
}

/** A gateway that listens. */
export interface GatewayServer extends AsyncDisposable {
  /** Base URL, without a trailing slash. */
  readonly url: string
  readonly gateway: Gateway
  /** Takes no more connections, ends the polls that wait, resolves when all in flight are answered. Idempotent. */
  close(): Promise<void>
}

const HEADERS_TIMEOUT_MS = 15_000
const REQUEST_TIMEOUT_MS = 60_000
const DRAIN_MS = 10_000
/** Over the 60 s for which load balancers keep idle connections, so that they and not we close them. */
const KEEP_ALIVE_MS = 75_000

/**
 * Serves a broker over HTTP. The broker stays the caller's: `close` does not close it.
 * @throws {ConfigError} INVALID_CONFIG for a host beyond loopback without credentials
 * @throws the listening error (EADDRINUSE, EACCES)
 */
export async function serveGateway(options: ServeGatewayOptions): Promise<GatewayServer> {
  const { broker, host = '127.0.0.1', port = 0, headersTimeoutMs = HEADERS_TIMEOUT_MS } = options
  refuseExposure(host, options.credentials)
  const gateway = new Gateway(broker, { sha256, docsAssets: swaggerAssets(), guardLoopback: true, ...options })
  const server = createServer({
    maxHeaderSize: gateway.limits.httpHeaderBytes,
    headersTimeout: headersTimeoutMs,
    requestTimeout: options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: Math.min(1000, headersTimeoutMs),
    keepAliveTimeout: KEEP_ALIVE_MS,
    // Node's own refusal has no body; ours has.
    requireHostHeader: false,
  })
  // Beyond its own count Node drops headers in silence; ours is counted, and refused.
  server.maxHeadersCount = 0
  const hotPath = options.hotPath ?? true
  listenForRequests(server, gateway, hotPath)
  const lane = hotPath ? fastLane(server, gateway, headersTimeoutMs) : undefined
  await listen(server, host, port)
  return running({ server, gateway, lane }, host, options.drainMs ?? DRAIN_MS)
}

interface Parts {
  readonly server: Server
  readonly gateway: Gateway
  readonly lane: FastLane | undefined
}

function fastLane(server: Server, gateway: Gateway, firstByteMs: number): FastLane {
  return installFastLane(server, gateway, { isHot: isHotTarget, firstByteMs, keepAliveMs: KEEP_ALIVE_MS })
}

function running(parts: Parts, host: string, drainMs: number): GatewayServer {
  const { server, gateway } = parts
  let closed: Promise<void> | undefined
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const close = (): Promise<void> => (closed ??= drain(parts, sockets, drainMs))
  // A TCP server that listens has an address with a port.
  const { port } = server.address() as AddressInfo
  const url = `http://${isIP(host) === 6 ? `[${host}]` : host}:${port}`
  return { url, gateway, close, [Symbol.asyncDispose]: close }
}

function drain({ server, gateway, lane }: Parts, sockets: ReadonlySet<Socket>, drainMs: number): Promise<void> {
  gateway.waiting.drain()
  // To Node a connection on which nothing was sent yet is not idle, and clients open such ones to have them ready.
  for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
  return new Promise((resolve) => {
    const giveUp = setTimeout(() => {
      server.closeAllConnections()
      lane?.closeAll()
    }, drainMs)
    server.close(() => {
      clearTimeout(giveUp)
      resolve()
    })
    server.closeIdleConnections()
    lane?.closeIdle()
  })
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function listenForRequests(server: Server, gateway: Gateway, hotPath: boolean): void {
  const throughHono = honoListener(gateway)
  const onRequest = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    const refusal = refusalOf(incoming, gateway.limits.httpHeaders)
    if (refusal !== undefined) writeResponse(outgoing, gateway.fail(refusal))
    else if (hotPath && isHot(incoming)) void serveHot(gateway, incoming, outgoing)
    else void throughHono(incoming, outgoing)
  }
  server.on('request', onRequest)
  server.on('checkContinue', (incoming: IncomingMessage, outgoing: ServerResponse) => {
    // A client that asks first is refused before it sends.
    if (Number(incoming.headers['content-length'] ?? 0) <= gateway.limits.bodyBytes) outgoing.writeContinue()
    onRequest(incoming, outgoing)
  })
  server.on('checkExpectation', (_incoming: IncomingMessage, outgoing: ServerResponse) => {
    writeResponse(outgoing, gateway.fail(invalidRequest('Cannot meet the Expect header: only 100-continue is known.')))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => answerOnSocket(socket, clientError(error)))
  server.on('connect', (_incoming: IncomingMessage, socket: Duplex) =>
    answerOnSocket(socket, new GatewayError('METHOD_NOT_ALLOWED', 'Cannot CONNECT: the gateway is no proxy.')),
  )
}

async function serveHot(gateway: Gateway, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  writeResponse(outgoing, await gateway.handle(new NodeRequest(incoming, outgoing)))
}

/** The calls that functions make for every record or batch. */
function isHot({ method, url = '' }: IncomingMessage): boolean {
  return method === 'POST' && isHotTarget(url)
}

function isHotTarget(target: string): boolean {
  return target.startsWith('/produce') || target.startsWith('/consume/') || target.startsWith('/commit/')
}

function honoListener(gateway: Gateway): (incoming: IncomingMessage, outgoing: ServerResponse) => Promise<void> {
  const app = appOver(gateway)
  return getRequestListener(
    (request, env) => {
      // Ours is an HTTP/1 server, so these are Node's own request and response.
      const { incoming, outgoing } = env as { incoming: IncomingMessage; outgoing: ServerResponse }
      return app.fetch(request, { gatewayRequest: new NodeRequest(incoming, outgoing) })
    },
    {
      overrideGlobalObjects: false,
      autoCleanupIncoming: false,
      // A Host or target of which no URL can be made.
      errorHandler: () => asResponse(gateway.fail(invalidRequest('Cannot read the address of the request.'))),
    },
  )
}

function asResponse({ status, headers, body }: GatewayResponse): Response {
  return new Response(String(body), { status, headers: { 'Content-Type': 'application/json', ...headers } })
}

// --- what is not a request ------------------------------------------------------------------------------------------------

function clientError(error: NodeJS.ErrnoException): KedgeError {
  if (error.code === 'HPE_HEADER_OVERFLOW') {
    return new GatewayError('LIMIT_EXCEEDED', 'Cannot read the request: its headers are too large.', {
      limit: limitNames.httpHeaderBytes,
    })
  }
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new GatewayError('SLOW_REQUEST', 'Cannot read the request: it did not arrive in time.')
  }
  if (error.code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') {
    return new GatewayError('LIMIT_EXCEEDED', 'Cannot read the body: its chunk extensions are too large.', {
      limit: limitNames.bodyBytes,
    })
  }
  return invalidRequest('Cannot read the request: it is not HTTP/1.1.')
}

/** Why a request that Node could parse is not served, if it is not. */
function refusalOf(incoming: IncomingMessage, mostHeaders: number): KedgeError | undefined {
  if (incoming.headers.host === undefined && incoming.httpVersion === '1.1') {
    return invalidRequest('Cannot read the request: HTTP/1.1 needs a Host header.')
  }
  if (incoming.rawHeaders.length <= 2 * mostHeaders) return undefined
  return new GatewayError('LIMIT_EXCEEDED', `Cannot read the request: it has more than ${mostHeaders} headers.`, {
    limit: limitNames.httpHeaders,
  })
}

/** Answers where Node has no response object, and ends the connection. */
function answerOnSocket(socket: Duplex, error: KedgeError): void {
  // `_httpMessage` is the answer that is being sent on the socket; into the middle of it nothing may be written.
  const { _httpMessage: current } = socket as Duplex & { _httpMessage?: { headersSent: boolean } | null }
  if (!socket.writable || current?.headersSent === true) {
    socket.destroy()
    return
  }
  const { status, headers, body } = errorResponse(error)
  const head = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), Connection: 'close' }
  const lines = Object.entries({ ...head, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n`)
  socket.write(body)
  // Node gives these events a TCP socket.
  const tcp = socket as Socket
  tcp.destroySoon()
}

// --- the platform's parts -------------------------------------------------------------------------------------------------

/** @throws {ConfigError} INVALID_CONFIG for a host beyond loopback without credentials */
export function refuseExposure(host: string, credentials: readonly Credential[] | undefined): void {
  if (credentials !== undefined || host === 'localhost' || host === '::1') return
  if (isIP(host) === 4 && host.startsWith('127.')) return
  throw new ConfigError(
    `Cannot listen on ${host}: without credentials the gateway listens on loopback only. ` +
      'Set KEDGE_USERNAME and KEDGE_PASSWORD or KEDGE_CREDENTIALS, or listen on 127.0.0.1.',
  )
}

function sha256(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer')
}

/** The page's files from the installed `swagger-ui-dist`; none where it is not installed. */
function swaggerAssets(): DocsAssets {
  const cache = new Map<string, Promise<Uint8Array | undefined>>()
  return (name) => {
    const known = cache.get(name) ?? readFile(join(swaggerFolder(), name)).catch(() => undefined)
    cache.set(name, known)
    return known
  }
}

function swaggerFolder(): string {
  return join(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'), '..')
}
