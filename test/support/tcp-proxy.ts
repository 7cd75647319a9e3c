/** A TCP proxy on loopback that does to connections what networks do: cuts, refuses, stalls, delays and forgets them. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** Bytes of one direction that may wait in the proxy, beyond what the sockets hold. */
const MAX_HELD_BYTES = 4 * 1024 * 1024

export interface TcpProxy extends AsyncDisposable {
  /** Where clients connect to, on 127.0.0.1. */
  readonly port: number
  /** Connections that are open on one side at least. */
  readonly connections: number
  /** Connections that were ever taken. */
  readonly taken: number
  /** Sends later connections to another port. */
  forwardTo(targetPort: number): void
  /** Destroys all connections, on both sides (ECONNRESET). */
  cut(): void
  /** Refuses new connections (ECONNREFUSED); open ones go on. */
  refuse(): void
  /** Takes connections again. */
  accept(): Promise<void>
  /** Forwards nothing, either way, and keeps it: also for connections that are made meanwhile. */
  stall(): void
  /** Forwards again, first what was kept. */
  flow(): void
  /** Forwards everything later by so much, in each direction, in order. 0 ends it. */
  delay(ms: number): void
  /** Makes every open connection swallow what either side sends, its end included, for as long as it lives. New ones work. */
  halfOpen(): void
}

/** Starts a proxy before a port of 127.0.0.1. `await using` ends it, connections included. */
export async function startProxy(targetPort: number): Promise<TcpProxy> {
  const weather: Weather = { isStalled: false, delayMs: 0 }
  const links = new Set<Link>()
  let target = targetPort
  let taken = 0
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    taken++
    const link = new Link(client, target, weather)
    links.add(link)
    link.whenClosed(() => links.delete(link))
  })
  const listen = async (port: number): Promise<void> => {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  }
  await listen(0)
  // A server on a host and port has an address of this kind.
  const { port } = server.address() as AddressInfo
  const each = (use: (link: Link) => void): void => {
    for (const link of links) use(link)
  }
  return {
    port,
    get connections() {
      return links.size
    },
    get taken() {
      return taken
    },
    forwardTo: (port) => void (target = port),
    cut: () => each((link) => link.destroy()),
    refuse: () => void server.close(),
    accept: async () => {
      if (!server.listening) await listen(port)
    },
    stall() {
      weather.isStalled = true
      each((link) => link.pump())
    },
    flow() {
      weather.isStalled = false
      each((link) => link.pump())
    },
    delay: (ms) => void (weather.delayMs = ms),
    halfOpen: () => each((link) => link.forget()),
    async [Symbol.asyncDispose]() {
      const closed = server.listening ? once(server.close(), 'close') : undefined
      each((link) => link.destroy())
      await closed
    },
  }
}

/** What all connections of a proxy share. */
interface Weather {
  isStalled: boolean
  delayMs: number
}

/** One client's connection and the one that was made for it. */
class Link {
  readonly #client: Socket
  readonly #server: Socket
  readonly #directions: readonly [Direction, Direction]
  #isForgotten = false

  constructor(client: Socket, targetPort: number, weather: Weather) {
    this.#client = client
    this.#server = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    this.#directions = [
      new Direction(this.#client, this.#server, weather),
      new Direction(this.#server, this.#client, weather),
    ]
    for (const [one, other] of [
      [this.#client, this.#server],
      [this.#server, this.#client],
    ] as const) {
      // The other side learns of a lost connection as this proxy did; of an orderly end in its place among the bytes.
      one.on('error', () => {
        if (!this.#isForgotten) reset(other)
      })
    }
  }

  whenClosed(use: () => void): void {
    let open = 2
    for (const socket of [this.#client, this.#server]) socket.once('close', () => --open === 0 && use())
  }

  pump(): void {
    for (const direction of this.#directions) direction.pump()
  }

  forget(): void {
    this.#isForgotten = true
    for (const direction of this.#directions) direction.forget()
  }

  destroy(): void {
    this.#isForgotten = true
    for (const direction of this.#directions) direction.forget()
    reset(this.#client)
    reset(this.#server)
  }
}

function reset(socket: Socket): void {
  if (socket.connecting) socket.destroy()
  else if (!socket.destroyed) socket.resetAndDestroy()
}

/** What goes one way: bytes, and the end as `null`, each with the time at which it is due. */
class Direction {
  readonly #from: Socket
  readonly #to: Socket
  readonly #weather: Weather
  readonly #held: { readonly bytes: Buffer | null; readonly dueMs: number }[] = []
  #heldBytes = 0
  #isForgotten = false
  #timer: NodeJS.Timeout | undefined

  constructor(from: Socket, to: Socket, weather: Weather) {
    this.#from = from
    this.#to = to
    this.#weather = weather
    from.on('data', (bytes: Buffer) => this.#hold(bytes))
    from.on('end', () => this.#hold(null))
    to.on('drain', () => this.pump())
    to.on('close', () => clearTimeout(this.#timer))
    this.pump()
  }

  forget(): void {
    this.#isForgotten = true
    this.#held.length = 0
    this.#heldBytes = 0
    clearTimeout(this.#timer)
    this.#from.resume()
  }

  #hold(bytes: Buffer | null): void {
    if (this.#isForgotten) return
    this.#held.push({ bytes, dueMs: performance.now() + this.#weather.delayMs })
    this.#heldBytes += bytes?.length ?? 0
    this.pump()
  }

  /** Forwards what is due, and reads on where there is room. */
  pump(): void {
    if (this.#isForgotten) return
    clearTimeout(this.#timer)
    while (!this.#weather.isStalled && !this.#to.writableNeedDrain) {
      const next = this.#held[0]
      if (next === undefined) break
      const waitMs = next.dueMs - performance.now()
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.pump(), waitMs)
        break
      }
      this.#held.shift()
      this.#heldBytes -= next.bytes?.length ?? 0
      if (next.bytes === null) this.#to.end()
      else this.#to.write(next.bytes)
    }
    // A socket that is not read from does not see its end either: a stalled network carries no ends.
    if (this.#weather.isStalled || this.#heldBytes > MAX_HELD_BYTES) this.#from.pause()
    else this.#from.resume()
  }
}
