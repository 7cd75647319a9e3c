/** `node:http` as the gateway sees it: a request read within bounds, an answer written in one piece. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { GatewayError } from '../errors.ts'
import { bodyTooLarge, joined } from '../gateway/body.ts'
import type { GatewayRequest, GatewayResponse, HeaderLine } from '../gateway/request.ts'

/** After a body was refused, so many times the limit are read and dropped so that the client sees the answer; then the line is cut. */
const DROPPED_LIMITS = 4

/** One request of a Node server. */
export class NodeRequest implements GatewayRequest {
  readonly method: string
  readonly target: string
  readonly #incoming: IncomingMessage
  readonly #outgoing: ServerResponse
  #controller: AbortController | undefined

  constructor(incoming: IncomingMessage, outgoing: ServerResponse) {
    this.#incoming = incoming
    this.#outgoing = outgoing
    this.method = incoming.method ?? 'GET'
    this.target = originForm(incoming.url ?? '/')
  }

  header(name: string): string | undefined {
    const value = this.#incoming.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  headerLines(): readonly HeaderLine[] {
    const raw = this.#incoming.rawHeaders
    const lines: HeaderLine[] = []
    for (let at = 0; at + 1 < raw.length; at += 2) {
      // Node reads header bytes as latin1, so that gives the bytes back.
      lines.push({ name: raw[at] ?? '', value: Uint8Array.from(Buffer.from(raw[at + 1] ?? '', 'latin1')) })
    }
    return lines
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController()
      const onClose = (): void => {
        if (!this.#outgoing.writableFinished) controller.abort(clientGone())
      }
      if (this.#outgoing.destroyed || this.#outgoing.closed) onClose()
      else this.#outgoing.once('close', onClose)
      this.#controller = controller
    }
    return this.#controller.signal
  }

  readBody(maxBytes: number): Promise<Uint8Array> {
    const incoming = this.#incoming
    return new Promise((resolve, reject) => {
      if (Number(incoming.headers['content-length'] ?? 0) > maxBytes) {
        reject(bodyTooLarge(maxBytes))
        return
      }
      let parts: Buffer[] = []
      let size = 0
      let isWhole = false
      incoming.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size <= maxBytes) parts.push(chunk)
        else {
          parts = []
          reject(bodyTooLarge(maxBytes))
          if (size > maxBytes * DROPPED_LIMITS) incoming.socket.destroy()
        }
      })
      incoming.on('end', () => {
        const [only] = parts
        isWhole = true
        resolve(parts.length === 1 && only !== undefined ? only : joined(parts, size))
      })
      incoming.on('close', () => {
        // Comes after every request; an error is not made for nothing.
        if (!isWhole) reject(clientGone())
      })
    })
  }
}

/** Writes an answer. One that nobody waits for any more is dropped. */
export function writeResponse(outgoing: ServerResponse, { status, headers, body }: GatewayResponse): void {
  if (outgoing.destroyed || outgoing.headersSent) return
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.length
  outgoing.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': length, ...headers })
  outgoing.end(body)
}

/** The target without scheme and host, which proxies may send. */
function originForm(url: string): string {
  return url.startsWith('/') ? url : url.replace(/^https?:\/\/[^/?]*/i, '')
}

/** Why a request's signal is aborted when its connection closed. */
export function clientGone(): GatewayError {
  return new GatewayError('ABORTED', 'The client went away before its request was answered.')
}
