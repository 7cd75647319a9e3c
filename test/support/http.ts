/** One HTTP call as a test writes it: any method with a body (GET too), the target as it is, the answer as JSON. */
import { Agent, request } from 'node:http'
import { connect } from 'node:net'

export interface HttpAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
  /** The body read as JSON; undefined where it is none. */
  readonly json: unknown
}

export interface HttpCall {
  /** A string or bytes are sent as they are, anything else as JSON. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
  /** Send the body in chunks, without a length. */
  readonly chunked?: boolean
  /** Send as clients with a pool of connections do. @default false: the connection ends with the answer */
  readonly keepAlive?: boolean
}

const agents = { keep: new Agent({ keepAlive: true }), close: new Agent({ keepAlive: false }) }

/** Calls `line`, such as `POST /produce/blue`, at a base URL. The target is not normalised. */
export function call(base: string, line: string, options: HttpCall = {}): Promise<HttpAnswer> {
  const space = line.indexOf(' ')
  const { hostname, port } = new URL(base)
  const body = bytesOfBody(options.body)
  const length = body === undefined || options.chunked === true ? {} : { 'content-length': String(body.length) }
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        hostname,
        port,
        method: line.slice(0, space),
        path: line.slice(space + 1),
        headers: { ...length, ...options.headers },
        agent: options.keepAlive === true ? agents.keep : agents.close,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8')
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, json: jsonOf(text) })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

/** Sends bytes over a bare socket and gives all that comes back until the other side closes, or `stopAt` is in it. */
export function rawCall(base: string, sent: string | Uint8Array, stopAt?: string): Promise<string> {
  const { hostname, port } = new URL(base)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(sent))
    let received = ''
    const end = (): void => {
      socket.destroy()
      resolve(received)
    }
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      if (stopAt !== undefined && received.includes(stopAt)) end()
    })
    socket.on('close', end)
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // A server that refuses may cut the line while we still send.
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') end()
      else reject(error)
    })
  })
}

function bytesOfBody(body: unknown): Uint8Array | undefined {
  if (body === undefined) return undefined
  if (body instanceof Uint8Array) return body
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
