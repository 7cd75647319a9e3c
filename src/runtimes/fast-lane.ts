/**
 * The fast lane of the Node gateway: calls that arrive whole and in plain form are served from the socket, without
 * `node:http`, whose objects for request, answer and streams cost more than the call itself.
 *
 * It reads no HTTP but what it knows to the byte: `POST`, a target of plain characters, HTTP/1.1, each header once, a
 * `Content-Length`, nothing in the head that changes framing (`Transfer-Encoding`, `Expect`, `Upgrade`, `Connection` other
 * than keep-alive), head and body in one piece and nothing behind them. A connection that sends anything else is handed to
 * `node:http` with all its bytes, for good: what is slow, large, strange or hostile is decided there, as without this file.
 * Both end in `Gateway.handle`, so they cannot answer differently.
 */
import { STATUS_CODES, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { bodyTooLarge } from '../gateway/body.ts'
import type { Gateway } from '../gateway/gateway.ts'
import type { GatewayRequest, GatewayResponse, HeaderLine } from '../gateway/request.ts'
import { clientGone } from './node-request.ts'

/** What the lane takes, and how long it waits. */
export interface FastLaneOptions {
  /** Whether a call is worth the lane; others go to `node:http`. */
  readonly isHot: (target: string) => boolean
  /** Longest time a new connection may be silent before `node:http` times it, milliseconds. */
  readonly firstByteMs: number
  /** Longest time a connection may be idle between two requests, milliseconds. */
  readonly keepAliveMs: number
}

/** The lane of a server that listens. */
export interface FastLane {
  /** Ends the connections that wait for nothing. Those that are served end with their answer once the gateway drains. */
  closeIdle(): void
  closeAll(): void
}

/** Puts the lane before the server's own reading of connections. */
export function installFastLane(server: Server, gateway: Gateway, options: FastLaneOptions): FastLane {
  const toHttp = server.listeners('connection')
  server.removeAllListeners('connection')
  const connections = new Set<Connection>()
  server.on('connection', (socket: Socket) => {
    const connection = new Connection(socket, gateway, options, {
      handOver: (bytes) => {
        connections.delete(connection)
        if (bytes !== undefined) socket.unshift(bytes)
        for (const listener of toHttp) listener.call(server, socket)
        socket.resume()
      },
      onClose: () => connections.delete(connection),
    })
    connections.add(connection)
  })
  return {
    closeIdle() {
      for (const connection of connections) connection.closeIfIdle()
    },
    closeAll() {
      for (const connection of connections) connection.close()
    },
  }
}

interface ConnectionEvents {
  readonly handOver: (bytes: Buffer | undefined) => void
  readonly onClose: () => void
}

/** One client. At most one request at a time; what arrives meanwhile waits in the socket. */
class Connection {
  readonly #socket: Socket
  readonly #gateway: Gateway
  readonly #options: FastLaneOptions
  readonly #events: ConnectionEvents
  readonly #keepAlive: string
  #serving: LaneRequest | undefined
  #head: Head | undefined
  #early: Buffer[] = []

  constructor(socket: Socket, gateway: Gateway, options: FastLaneOptions, events: ConnectionEvents) {
    this.#socket = socket
    this.#gateway = gateway
    this.#options = options
    this.#events = events
    this.#keepAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(options.keepAliveMs / 1000)}\r\n`
    socket.setTimeout(options.firstByteMs)
    socket.on('data', this.#onData)
    socket.on('timeout', this.#onTimeout)
    socket.on('end', this.#onEnd)
    socket.on('error', this.#onError)
    socket.on('close', this.#onClose)
  }

  closeIfIdle(): void {
    if (this.#serving === undefined) this.#socket.destroy()
  }

  close(): void {
    this.#socket.destroy()
  }

  readonly #onData = (bytes: Buffer): void => {
    if (this.#serving === undefined) {
      this.#take(bytes)
      return
    }
    this.#early.push(bytes)
    this.#socket.pause()
  }

  readonly #onTimeout = (): void => {
    // A call may take as long as it likes; a connection in between may not.
    if (this.#serving !== undefined) return
    if (this.#socket.bytesRead === 0) this.#handOver(undefined)
    else this.#socket.destroy()
  }

  readonly #onEnd = (): void => {
    // As node:http: who sends no more is gone. A poll that waits for a client that left must not wait on.
    this.#serving?.abort()
    this.#socket.end()
  }

  readonly #onError = (): void => {
    this.#socket.destroy()
  }

  readonly #onClose = (): void => {
    this.#serving?.abort()
    this.#events.onClose()
  }

  #take(bytes: Buffer): void {
    const request = readRequest(bytes, this.#head, this.#gateway, this.#options)
    if (request === undefined) {
      this.#handOver(bytes)
      return
    }
    this.#head = request.head
    void this.#serve(request)
  }

  async #serve(request: LaneRequest): Promise<void> {
    this.#serving = request
    const response = await this.#gateway.handle(request)
    const socket = this.#socket
    if (!socket.writable) return
    if (!isWritable(response)) {
      // Never made by the gateway: rather no answer than one that somebody else has written a part of.
      socket.destroy()
      return
    }
    const isLast = response.headers?.['Connection'] === 'close'
    const hasRoom = write(socket, response, isLast ? '' : this.#keepAlive)
    if (isLast) socket.end()
    else if (hasRoom) this.#next()
    // A client that does not read its answers gets no more of them.
    else socket.once('drain', () => this.#next())
  }

  #next(): void {
    this.#serving = undefined
    this.#socket.setTimeout(this.#options.keepAliveMs)
    if (this.#early.length === 0) return
    const bytes = Buffer.concat(this.#early)
    this.#early = []
    this.#socket.resume()
    this.#take(bytes)
  }

  #handOver(bytes: Buffer | undefined): void {
    const socket = this.#socket
    socket.setTimeout(0)
    socket.off('data', this.#onData)
    socket.off('timeout', this.#onTimeout)
    socket.off('end', this.#onEnd)
    socket.off('error', this.#onError)
    socket.off('close', this.#onClose)
    socket.pause()
    this.#events.handOver(bytes)
  }
}

// --- requests -------------------------------------------------------------------------------------------------------------

/** A request head that the lane takes. */
interface Head {
  readonly text: string
  readonly method: string
  readonly target: string
  readonly bodyBytes: number
  readonly headers: ReadonlyMap<string, string>
  readonly lines: readonly (readonly [string, string])[]
}

/** Longer heads go to `node:http`. */
const MAX_HEAD_BYTES = 2048

const REQUEST_LINE = /^POST (\/[\w./~%?=&+-]*) HTTP\/1\.1$/
const HEADER_LINE = /^([A-Za-z0-9-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)$/
const CONTENT_LENGTH = /^(?:0|[1-9]\d{0,6})$/
/** Headers that change how a message is framed, or what becomes of the connection. */
const framing: ReadonlySet<string> = new Set([
  'transfer-encoding',
  'expect',
  'upgrade',
  'trailer',
  'te',
  'http2-settings',
])

/** The request in these bytes where it is whole, plain and hot. `former` is the connection's last: most send it again. */
function readRequest(
  bytes: Buffer,
  former: Head | undefined,
  { limits }: Gateway,
  { isHot }: FastLaneOptions,
): LaneRequest | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end === -1 || end > MAX_HEAD_BYTES) return undefined
  const text = bytes.toString('latin1', 0, end)
  const head = text === former?.text ? former : readHead(text)
  if (head === undefined || end + 4 + head.bodyBytes !== bytes.length) return undefined
  if (head.lines.length > limits.httpHeaders || end > limits.httpHeaderBytes || !isHot(head.target)) return undefined
  return new LaneRequest(head, bytes.subarray(end + 4))
}

function readHead(text: string): Head | undefined {
  const [first = '', ...rest] = text.split('\r\n')
  const target = REQUEST_LINE.exec(first)?.[1]
  if (target === undefined) return undefined
  const headers = new Map<string, string>()
  const lines: [string, string][] = []
  for (const line of rest) {
    const [, name, value] = HEADER_LINE.exec(line) ?? []
    if (name === undefined || value === undefined) return undefined
    const key = name.toLowerCase()
    if (headers.has(key) || framing.has(key)) return undefined
    headers.set(key, value)
    lines.push([name, value])
  }
  const length = headers.get('content-length') ?? ''
  const connection = headers.get('connection') ?? 'keep-alive'
  if (!CONTENT_LENGTH.test(length) || connection.toLowerCase() !== 'keep-alive' || !headers.has('host'))
    return undefined
  return { text, method: 'POST', target, bodyBytes: Number(length), headers, lines }
}

class LaneRequest implements GatewayRequest {
  readonly method: string
  readonly target: string
  readonly head: Head
  readonly #body: Buffer
  #controller: AbortController | undefined
  #isGone = false

  constructor(head: Head, body: Buffer) {
    this.method = head.method
    this.target = head.target
    this.head = head
    this.#body = body
  }

  header(name: string): string | undefined {
    return this.head.headers.get(name)
  }

  headerLines(): readonly HeaderLine[] {
    return this.head.lines.map(([name, value]) => ({ name, value: new TextEncoder().encode(value) }))
  }

  async readBody(maxBytes: number): Promise<Uint8Array> {
    if (this.#body.length > maxBytes) throw bodyTooLarge(maxBytes)
    return this.#body
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#isGone) this.#controller.abort(clientGone())
    }
    return this.#controller.signal
  }

  /** The client went away. */
  abort(): void {
    this.#isGone = true
    this.#controller?.abort(clientGone())
  }
}

// --- answers --------------------------------------------------------------------------------------------------------------

const HEADER_VALUE = /^[\t\x20-\x7e]*$/

/** Whether no header of an answer can end its line early. */
function isWritable({ headers }: GatewayResponse): boolean {
  return headers === undefined || Object.values(headers).every((value) => HEADER_VALUE.test(value))
}

/** Writes an answer in one piece. Says whether the socket has room for more. */
function write(socket: Socket, { status, headers, body }: GatewayResponse, connection: string): boolean {
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`
  if (headers === undefined) head += 'Content-Type: application/json\r\n'
  else {
    for (const [name, value] of Object.entries({ 'Content-Type': 'application/json', ...headers })) {
      head += `${name}: ${value}\r\n`
    }
  }
  head += `Date: ${dateNow()}\r\n${connection}`
  if (typeof body !== 'string') {
    socket.cork()
    socket.write(`${head}Content-Length: ${body.length}\r\n\r\n`, 'latin1')
    const hasRoom = socket.write(body)
    socket.uncork()
    return hasRoom
  }
  const bytes = Buffer.byteLength(body)
  // Where no character takes more than a byte, latin1 is the same bytes and cheaper.
  return socket.write(`${head}Content-Length: ${bytes}\r\n\r\n${body}`, bytes === body.length ? 'latin1' : 'utf8')
}

let dateSecond = 0
let dateText = ''

/** The time as HTTP writes it, made once a second. */
function dateNow(): string {
  const second = Math.floor(Date.now() / 1000)
  if (second !== dateSecond) {
    dateSecond = second
    dateText = new Date(second * 1000).toUTCString()
  }
  return dateText
}
