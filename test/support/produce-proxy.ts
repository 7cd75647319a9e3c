/**
 * A TCP proxy before a Kafka broker that knows produce requests from all others, and does to them what a test says: the broker
 * stores them or never sees them, and the client is answered by the broker, by an error of the test's, or not at all. It speaks
 * version 9 of the request, which is the driver's. Everything else passes.
 *
 * @see https://kafka.apache.org/protocol.html#The_Messages_Produce
 */
import { protocolErrorsCodesById, Reader, Writer } from '@platformatic/kafka'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

const PRODUCE = 0
const PRODUCE_VERSION = 9
const LENGTH_BYTES = 4

/** What becomes of one produce request. */
export interface Fate {
  /** The broker gets it, and has stored its records before anything else happens. */
  readonly isForwarded: boolean
  /** What the client gets: the broker's own answer, an error by Kafka's name for each partition, or the connection's end. */
  readonly answer: 'own' | 'cut' | { readonly error: string }
  /** Nothing happens to it before this settles; it reaches the broker also when the client is gone by then. */
  readonly after?: Promise<void>
}

/** The broker stores it, and the client is told that something went wrong. */
export function storesAndAnswers(error: string): Fate {
  return { isForwarded: true, answer: { error } }
}

/** The broker stores it, and the connection ends without an answer. */
export const storesAndCuts: Fate = { isForwarded: true, answer: 'cut' }

/** The broker never sees it, and seems to refuse it. */
export function refuses(error: string): Fate {
  return { isForwarded: false, answer: { error } }
}

/** The broker never sees it, and seems to have stored it: as if it had lost it since. */
export const loses: Fate = { isForwarded: false, answer: { error: 'NONE' } }

/** Lets it wait on its way, and then pass, or what else is its fate. */
export function waits(after: Promise<void>, fate: Fate = { isForwarded: true, answer: 'own' }): Fate {
  return { ...fate, after }
}

export interface ProduceProxy extends AsyncDisposable {
  /** Where clients connect to, on 127.0.0.1. */
  readonly port: number
  /** Produce requests that arrived, and those that the broker has answered. */
  readonly arrived: number
  readonly stored: number
  /** Connections that were ended because of a marker. */
  readonly cuts: number
  /** Fates that no request has met yet. */
  readonly left: number
  /** Sends later connections to another port. */
  forwardTo(targetPort: number): void
  /** The fates of the next produce requests, in their order; those after them pass. */
  next(...fates: readonly Fate[]): void
  /** Ends the connection of every produce request that has these bytes, before the broker sees it. */
  cutAt(marker: string): void
}

/** Starts one. `await using` ends it, connections included. */
export async function startProduceProxy(): Promise<ProduceProxy> {
  const script: Script = { fates: [], marker: undefined, arrived: 0, stored: 0, cuts: 0 }
  const sockets = new Set<Socket>()
  let target = 1
  const server = createServer({ noDelay: true }, (client) => {
    const broker = connect({ port: target, host: '127.0.0.1', noDelay: true })
    for (const socket of [client, broker]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => sockets.delete(socket))
    }
    join(client, broker, script)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // A server on a host and port has an address of this kind.
  const { port } = server.address() as AddressInfo
  return {
    port,
    get arrived() {
      return script.arrived
    },
    get stored() {
      return script.stored
    },
    get cuts() {
      return script.cuts
    },
    get left() {
      return script.fates.length
    },
    forwardTo: (port) => void (target = port),
    next: (...fates) => void script.fates.push(...fates),
    cutAt: (marker) => void (script.marker = marker),
    async [Symbol.asyncDispose]() {
      const closed = once(server.close(), 'close')
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** What all connections of a proxy share. */
interface Script {
  readonly fates: Fate[]
  marker: string | undefined
  arrived: number
  stored: number
  cuts: number
}

/** Joins a client's connection and the one to the broker that was made for it. */
function join(client: Socket, broker: Socket, script: Script): void {
  /** Produce requests that the broker has not answered, and what the client gets instead; undefined: that answer. */
  const instead = new Map<number, Buffer | 'cut' | undefined>()
  /** Requests that the broker gets later. */
  let waiting = 0
  const cut = (): void => {
    client.resetAndDestroy()
    broker.destroy()
  }
  const meet = async (frame: Buffer, { isForwarded, answer, after }: Fate): Promise<void> => {
    const { correlationId, partitions } = produceOf(frame)
    if (after !== undefined) {
      waiting += 1
      await after
      waiting -= 1
    }
    const given = typeof answer === 'object' ? errorAnswer(correlationId, partitions, answer.error) : answer
    if (isForwarded) {
      instead.set(correlationId, given === 'own' ? undefined : given)
      broker.write(frame)
    } else if (given === 'cut') cut()
    else if (given !== 'own') client.write(given)
  }
  eachFrame(client, (frame) => {
    if (frame.readInt16BE(LENGTH_BYTES) !== PRODUCE) {
      broker.write(frame)
      return
    }
    script.arrived += 1
    if (script.marker !== undefined && frame.includes(script.marker)) {
      script.cuts += 1
      cut()
      return
    }
    void meet(frame, script.fates.shift() ?? { isForwarded: true, answer: 'own' })
  })
  eachFrame(broker, (frame) => {
    const correlationId = frame.readInt32BE(LENGTH_BYTES)
    const isProduce = instead.has(correlationId)
    const given = instead.get(correlationId)
    instead.delete(correlationId)
    if (isProduce) script.stored += 1
    if (given === 'cut') cut()
    else if (!client.destroyed) client.write(given ?? frame)
    if (client.destroyed && waiting === 0 && instead.size === 0) broker.destroy()
  })
  broker.once('close', () => client.destroy())
  client.once('close', () => {
    if (waiting === 0 && instead.size === 0) broker.destroy()
  })
}

/** Calls `use` with each message whole, its length before it. */
function eachFrame(socket: Socket, use: (frame: Buffer) => void): void {
  let held: Buffer = Buffer.alloc(0)
  socket.on('data', (bytes: Buffer) => {
    held = held.length === 0 ? bytes : Buffer.concat([held, bytes])
    while (held.length >= LENGTH_BYTES) {
      const end = LENGTH_BYTES + held.readInt32BE(0)
      if (held.length < end) return
      use(held.subarray(0, end))
      held = held.subarray(end)
    }
  })
}

interface Produce {
  readonly correlationId: number
  readonly partitions: ReadonlyMap<string, readonly number[]>
}

/**
 * ```
 * header  => length i32, api key i16, api version i16, correlation id i32, client id string, tags
 * produce => transactional id string, acks i16, timeout i32, [topic string, [partition i32, records bytes, tags], tags], tags
 * ```
 */
function produceOf(frame: Buffer): Produce {
  const reader = Reader.from(frame)
  reader.skip(LENGTH_BYTES + 2)
  const version = reader.readInt16()
  if (version !== PRODUCE_VERSION) throw new Error(`The proxy reads produce requests of version 9, not ${version}.`)
  const correlationId = reader.readInt32()
  reader.readNullableString(false)
  reader.readTaggedFields()
  reader.readNullableString()
  reader.skip(2 + 4)
  const topics = reader.readArray((reader): [string, number[]] => [
    reader.readString(),
    reader.readArray((reader) => {
      const partition = reader.readInt32()
      reader.readNullableBytes()
      return partition
    }),
  ])
  return { correlationId, partitions: new Map(topics) }
}

/**
 * ```
 * header => length i32, correlation id i32, tags
 * answer => [topic string, [partition i32, error i16, base offset i64, append time i64, log start i64, [record errors],
 *           message string, tags], tags], throttled i32, tags
 * ```
 */
function errorAnswer(correlationId: number, partitions: Produce['partitions'], error: string): Buffer {
  const code = Object.entries(protocolErrorsCodesById).find(([, name]) => name === error)?.[0]
  if (code === undefined) throw new Error(`Kafka has no error ${error}.`)
  const answer = Writer.create()
    .appendInt32(correlationId)
    .appendTaggedFields()
    .appendArray([...partitions], (writer, [topic, indexes]) => {
      writer.appendString(topic).appendArray([...indexes], (writer, index) => {
        writer.appendInt32(index).appendInt16(Number(code)).appendInt64(-1n).appendInt64(-1n).appendInt64(-1n)
        writer.appendArray([], () => {}).appendString(null)
      })
    })
    .appendInt32(0)
    .appendTaggedFields()
  return answer.prependLength().buffer
}
