/**
 * A load generator that costs little, so that it can keep a server on another core busy: keep-alive connections on
 * node:net, one request in flight on each, requests built once as bytes, answers read for their status and length only.
 */
import { type Socket, connect } from 'node:net'

import { type Latencies, openLoop } from './open-loop.ts'

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

/**
 * Sends a request when it is due, so many in a second, on a connection that is free; it waits for one where none is. Any
 * answer but 200 ends the run with an error.
 */
export async function runOpenLoad(
  { port, connections, runMs, requests }: LoadOptions,
  perSecond: number,
): Promise<Latencies> {
  const [request = Buffer.alloc(0)] = requests
  const free: HttpConnection[] = []
  const waiting: (() => void)[] = []
  const all = await Promise.all(Array.from({ length: connections }, () => HttpConnection.open(port)))
  free.push(...all)
  const send = async (): Promise<void> => {
    if (free.length === 0) await new Promise<void>((resolve) => waiting.push(resolve))
    const connection = free.pop()
    if (connection === undefined) throw new Error('no connection is free')
    await new Promise<void>((resolve, reject) => connection.send(request, resolve, reject))
    free.push(connection)
    waiting.shift()?.()
  }
  try {
    return await openLoop(perSecond, runMs, send)
  } finally {
    for (const connection of all) connection.close()
  }
}

async function runConnection(port: number, requests: readonly Uint8Array[], untilMs: number): Promise<number> {
  const connection = await HttpConnection.open(port)
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  let answered = 0
  const send = (): void => connection.send(requests[answered % requests.length] ?? Buffer.alloc(0), onAnswer, reject)
  const onAnswer = (): void => {
    answered += 1
    if (performance.now() < untilMs) send()
    else resolve(answered)
  }
  send()
  try {
    return await promise
  } finally {
    connection.close()
  }
}

/** One keep-alive connection: a request, its answer, the next request. */
class HttpConnection {
  readonly #socket: Socket
  /** Bytes of the running answer that are still to come; -1 before its head is known. */
  #missing = -1
  #head: Buffer = Buffer.alloc(0)
  #onAnswer: () => void = () => {}
  #onFailure: (error: Error) => void = () => {}

  static async open(port: number): Promise<HttpConnection> {
    const connection = new HttpConnection(port)
    await new Promise<void>((resolve, reject) => {
      connection.#onFailure = reject
      connection.#socket.once('connect', resolve)
    })
    return connection
  }

  private constructor(port: number) {
    const buffer = Buffer.allocUnsafe(65_536)
    const callback = (length: number, chunk: Uint8Array): boolean => this.#take(length, chunk)
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true, onread: { buffer, callback } })
    this.#socket.on('error', (error) => this.#onFailure(error))
    this.#socket.once('end', () => this.#onFailure(new Error('The server closed a connection.')))
  }

  send(request: Uint8Array, onAnswer: () => void, onFailure: (error: Error) => void): void {
    this.#onAnswer = onAnswer
    this.#onFailure = onFailure
    this.#socket.write(request)
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(length: number, chunk: Uint8Array): boolean {
    if (this.#missing > 0) {
      this.#missing -= length
    } else {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, length)
      this.#head = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes])
      const answer = readHead(this.#head)
      if (answer === undefined) {
        // The buffer is read into again.
        this.#head = Buffer.from(this.#head)
        return true
      }
      if (answer.status !== 200) {
        this.#onFailure(new Error(`The server answered ${this.#head.toString('latin1', 0, 500)}`))
        this.#socket.destroy()
        return false
      }
      this.#missing = answer.bytes - this.#head.length
      this.#head = Buffer.alloc(0)
    }
    if (this.#missing === 0) {
      this.#missing = -1
      this.#onAnswer()
    }
    return true
  }
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
