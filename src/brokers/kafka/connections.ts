/**
 * Connections to the brokers of a cluster, each kind for itself, because a broker answers the requests of one connection one
 * after the other: a request that waits (a fetch without records, a join) holds up whatever comes behind it.
 *
 * - `shared`: one connection a broker and purpose, for requests that are answered at once. Callers share it.
 * - `exclusive`: one connection for one request that may wait, taken from a pool and given back.
 *
 * So connections grow with what waits at once, up to a bound, and not with callers.
 */
import { Connection } from '@platformatic/kafka'
import type { ConnectionOptions } from '@platformatic/kafka'
import type { Clock } from '../../clock.ts'
import { failureOf, isTimeout } from './failures.ts'

/** Where a broker listens. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** What a connection is for. */
export type Purpose = 'calls' | 'produce'

/** How connections are made. */
export interface ConnectionSettings {
  readonly clientId: string
  readonly options: Pick<ConnectionOptions, 'tls' | 'tlsServerName' | 'sasl'>
  readonly connectTimeoutMs: number
  /** A broker that has not answered a request for so long, waits apart, is taken for gone, and the connection ended. */
  readonly requestTimeoutMs: number
  readonly clock: Clock
}

/** What a request that has a connection of its own does: reads what is there, waits for what comes, or joins a group. */
export type Occupation = 'reading' | 'waiting' | 'joining'

/** Most connections to one broker for each of them, so that none holds the others up. */
const most: Readonly<Record<Occupation, number>> = { reading: 16, waiting: 64, joining: 256 }
/** So many stay open when they are not used. */
const MAX_IDLE = 8
/** An unused one is closed after this time: brokers close theirs after ten minutes. */
const IDLE_MS = 60_000
/** Requests on their way at once over one shared connection. */
const MAX_IN_FLIGHT = 1_000

interface Idle {
  readonly connection: Connection
  readonly since: number
}

interface Pool {
  readonly most: number
  readonly idle: Idle[]
  busy: number
  readonly waiting: (() => void)[]
}

/** Whoever waits had no connection to wait on. */
export class BusyError extends Error {
  override readonly name = 'BusyError' as const
}

/** All connections of one broker object. */
export class Connections {
  readonly #settings: ConnectionSettings
  readonly #shared = new Map<string, Promise<Connection>>()
  readonly #pools = new Map<string, Pool>()
  readonly #open = new Set<Connection>()
  #closed = false

  constructor(settings: ConnectionSettings) {
    this.#settings = settings
  }

  /** The shared connection to an address. @throws {BrokerError} NETWORK, SASL_AUTHENTICATION_FAILED */
  async shared(address: Address, purpose: Purpose): Promise<Connection> {
    const key = `${purpose} ${keyOf(address)}`
    const known = this.#shared.get(key)
    if (known !== undefined) {
      const connection = await known
      if (connection.isConnected()) return connection
      // Another caller may have begun a new one meanwhile.
      if (this.#shared.get(key) === known) this.#shared.delete(key)
      return await this.shared(address, purpose)
    }
    const opening = this.#connect(address, this.#settings.requestTimeoutMs)
    this.#shared.set(key, opening)
    opening.catch(() => {
      if (this.#shared.get(key) === opening) this.#shared.delete(key)
    })
    return await opening
  }

  /**
   * Makes one request that may take long, for at most `waitMs` beyond a broker's usual time, over a connection of its own. When `signal` is aborted, the
   * connection is ended and with it the request. Where a broker said nothing in time, its other connections that wait for use
   * are ended too: a network that has forgotten one has forgotten those that were idle longer.
   */
  async exclusive<T>(
    address: Address,
    occupation: Occupation,
    waitMs: number,
    request: (connection: Connection) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const pool = this.#pool(address, occupation)
    if (pool.busy >= pool.most) await this.#turnOf(pool, occupation === 'waiting' ? waitMs : undefined)
    pool.busy += 1
    let connection: Connection | undefined
    let cancel: (() => void) | undefined
    const end = (): void => void connection?.socket?.destroy()
    const endAll = (): void => {
      end()
      for (const { connection } of pool.idle.splice(0)) void connection.close()
    }
    const onAbort = (): void => (isTimeout(signal?.reason) ? endAll() : end())
    try {
      signal?.throwIfAborted()
      connection = takeIdle(pool) ?? (await this.#connect(address, NO_LIMIT_MS))
      signal?.addEventListener('abort', onAbort, { once: true })
      cancel = this.#settings.clock.after(waitMs + this.#settings.requestTimeoutMs, endAll)
      return await request(connection)
    } finally {
      cancel?.()
      signal?.removeEventListener('abort', onAbort)
      pool.busy -= 1
      if (connection !== undefined) this.#giveBack(pool, connection)
      pool.waiting.shift()?.()
    }
  }

  /** How many are open. */
  get count(): number {
    return this.#open.size
  }

  /** Ends all of them, and the requests on them. */
  async close(): Promise<void> {
    this.#closed = true
    const open = [...this.#open]
    this.#open.clear()
    await Promise.all(open.map((connection) => connection.close()))
  }

  /** Waits for one of a pool's connections. @throws {BusyError} when there was none within `limitMs` */
  async #turnOf(pool: Pool, limitMs: number | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    pool.waiting.push(resolve)
    if (limitMs === undefined) return await promise
    const cancel = this.#settings.clock.after(limitMs, () => {
      const at = pool.waiting.indexOf(resolve)
      if (at === -1) return
      pool.waiting.splice(at, 1)
      reject(new BusyError('All connections that wait are in use.'))
    })
    try {
      await promise
    } finally {
      cancel()
    }
  }

  #pool(address: Address, occupation: Occupation): Pool {
    const key = `${occupation} ${keyOf(address)}`
    const known = this.#pools.get(key)
    if (known !== undefined) return known
    const pool: Pool = { most: most[occupation], idle: [], busy: 0, waiting: [] }
    this.#pools.set(key, pool)
    return pool
  }

  #giveBack(pool: Pool, connection: Connection): void {
    const now = this.#settings.clock.monotonic()
    while (pool.idle[0] !== undefined && now - pool.idle[0].since > IDLE_MS) void pool.idle.shift()?.connection.close()
    if (!connection.isConnected()) return
    if (this.#closed || pool.idle.length >= MAX_IDLE) void connection.close()
    else pool.idle.push({ connection, since: now })
  }

  async #connect({ host, port }: Address, requestTimeout: number): Promise<Connection> {
    const { clientId, options, connectTimeoutMs } = this.#settings
    const what = `connect to Kafka at ${host}:${port}`
    const connection = new Connection(clientId, {
      ...options,
      connectTimeout: connectTimeoutMs,
      requestTimeout,
      maxInflights: MAX_IN_FLIGHT,
    })
    // Failures reach the requests they fail; an emitter without a listener would throw them a second time.
    connection.on('error', () => {})
    connection.on('close', () => this.#open.delete(connection))
    this.#open.add(connection)
    try {
      await connection.connect(host, port)
    } catch (error) {
      this.#open.delete(connection)
      throw failureOf(error, what)
    }
    if (this.#closed) void connection.close()
    return connection
  }
}

/** Node's longest timer: such a connection has a deadline for each of its requests instead. */
const NO_LIMIT_MS = 0x7fffffff

function takeIdle(pool: Pool): Connection | undefined {
  for (;;) {
    const newest = pool.idle.pop()
    if (newest === undefined || newest.connection.isConnected()) return newest?.connection
  }
}

function keyOf({ host, port }: Address): string {
  return `${host}:${port}`
}
