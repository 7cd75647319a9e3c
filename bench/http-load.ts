/**
 * A load generator that costs little, so that it can keep a server on another core busy: keep-alive connections on
 * node:net, one request in flight on each, requests built once as bytes, answers read for their status and length only.
 */
import { type Socket, connect } from 'node:net'

export interface LoadOptions {
  readonly port: number
  readonly connections: number
  readonly runMs: number
  /** The requests of one connection, sent in turn. */
  readonly requests: readonly Uint8Array[]
}

export interface LoadResult {
  /** Answers with status 200, all of which came before the run ended. */
  readonly answered: number
  readonly elapsedMs: number
}

/** A POST as bytes. */
export function postRequest(port: number, path: string, body: string): Uint8Array {
  const bytes = Buffer.from(body)
  const head = [
    `POST ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    'content-type: application/json',
    `content-length: ${bytes.length}`,
  ]
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), bytes])
}

/**
 * Sends requests on every connection until the time is over, then waits for the answers that are due: each request that
 * was sent is counted. Any answer but 200 ends the run with an error.
 */
export async function runLoad({ port, connections, runMs, requests }: LoadOptions): Promise<LoadResult> {
  const start = performance.now()
  const counts = await Promise.all(
    Array.from({ length: connections }, () => runConnection(port, requests, start + runMs)),
  )
  return { answered: counts.reduce((sum, count) => sum + count, 0), elapsedMs: performance.now() - start }
}

function runConnection(port: number, requests: readonly Uint8Array[], untilMs: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  let answered = 0
  /** Bytes of the running answer that are still to come; -1 before its head is known. */
  let missing = -1
  let head: Buffer = Buffer.alloc(0)
  const buffer = Buffer.allocUnsafe(65_536)

  const send = (): void => {
    socket.write(requests[answered % requests.length] ?? buffer)
  }
  const onAnswer = (): void => {
    answered += 1
    missing = -1
    if (performance.now() < untilMs) {
      send()
      return
    }
    resolve(answered)
    socket.destroy()
  }
  const onBytes = (length: number, chunk: Uint8Array): boolean => {
    if (missing > 0) {
      missing -= length
    } else {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, length)
      head = head.length === 0 ? bytes : Buffer.concat([head, bytes])
      const answer = readHead(head)
      if (answer === undefined) {
        // The buffer is read into again.
        head = Buffer.from(head)
        return true
      }
      if (answer.status !== 200) {
        reject(new Error(`The server answered ${head.toString('latin1', 0, 500)}`))
        socket.destroy()
        return false
      }
      missing = answer.bytes - head.length
      head = Buffer.alloc(0)
    }
    if (missing === 0) onAnswer()
    return true
  }
  const socket: Socket = connect({ port, host: '127.0.0.1', noDelay: true, onread: { buffer, callback: onBytes } })
  socket.once('connect', send)
  socket.once('error', reject)
  socket.once('end', () => reject(new Error('The server closed a connection.')))
  return promise
}

/** The status of an answer and its length with head and body; undefined while the head is not whole. */
function readHead(bytes: Buffer): { readonly status: number; readonly bytes: number } | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end === -1) return undefined
  const text = bytes.toString('latin1', 0, end)
  const length = /content-length: ?(\d+)/i.exec(text)?.[1]
  if (length === undefined) throw new Error('The server answers without a content-length.')
  return { status: Number(text.slice(9, 12)), bytes: end + 4 + Number(length) }
}
