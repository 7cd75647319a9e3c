/**
 * What goes in and out of the gateway, free of any HTTP library: a runtime hands in a `GatewayRequest` and writes the
 * `GatewayResponse` that comes back. Hono and bare `node:http` are two such runtimes, and both run the same code.
 */

/** One HTTP request as a runtime hands it in. */
export interface GatewayRequest {
  readonly method: string
  /** The request target as it was sent: path and query, still percent-encoded. */
  readonly target: string
  /** A header's value by its lower-case name; repeated headers joined by ", ". */
  header(name: string): string | undefined
  /** All headers as they were sent, where the runtime knows the sender's spelling and order. Values are the bytes sent. */
  headerLines(): readonly HeaderLine[]
  /**
   * The whole body. Rejects with LIMIT_EXCEEDED as soon as it is known to be over `maxBytes`, holding no more than that.
   */
  readBody(maxBytes: number): Promise<Uint8Array>
  /** Aborted when the client goes away. Read only where a call can wait: a runtime may make it at the first read. */
  readonly signal: AbortSignal
}

/** One header as it was sent. */
export interface HeaderLine {
  readonly name: string
  readonly value: Uint8Array
}

/** The answer a runtime writes. The content type is JSON unless `headers` says otherwise. */
export interface GatewayResponse {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string | Uint8Array
}
