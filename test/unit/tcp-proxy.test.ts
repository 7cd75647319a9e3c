import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { failOnLeaks } from '../support/leaks.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { until } from '../support/until.ts'

failOnLeaks()

let echo: EchoServer
let proxy: TcpProxy
const clients: Client[] = []

beforeEach(async () => {
  echo = await startEcho()
  proxy = await startProxy(echo.port)
})

afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy()
  await proxy[Symbol.asyncDispose]()
  await echo[Symbol.asyncDispose]()
})

it('forwards both ways, byte for byte, however much', async () => {
  const client = await open()
  const bytes = Buffer.alloc(20_000_000, 'everything passes ')

  client.socket.end(bytes)
  await until(() => client.ended)

  expect(Buffer.concat(client.received).equals(bytes)).toBe(true)
})

it('passes the end of one side on, and lets the other go on speaking', async () => {
  const client = await open()

  client.socket.end('last words')
  await until(() => client.ended)

  expect(client.text()).toBe('last words')
  await until(() => proxy.connections === 0)
})

it('counts connections', async () => {
  await open()
  const second = await open()
  expect(proxy.connections).toBe(2)

  second.socket.destroy()
  await until(() => proxy.connections === 1)

  expect(proxy.taken).toBe(2)
})

it('cuts all connections, on both sides, and takes new ones', async () => {
  const before = [await open(), await open()]

  proxy.cut()
  await until(() => before.every(({ closed }) => closed) && echo.sockets.size === 0)

  expect(proxy.connections).toBe(0)
  expect(await (await open()).ask('again')).toBe('again')
})

it('refuses new connections and keeps open ones, until it accepts again', async () => {
  const before = await open()

  proxy.refuse()
  const refused = await open().catch((error: NodeJS.ErrnoException) => error.code)
  const meanwhile = await before.ask('still here')
  await proxy.accept()

  expect(refused).toBe('ECONNREFUSED')
  expect(meanwhile).toBe('still here')
  expect(await (await open()).ask('again')).toBe('again')
})

it('holds what is sent while it stalls, new connections and ends included, and then delivers it in order', async () => {
  const before = await open()
  proxy.stall()
  const during = await open(false)
  before.socket.write('one ')
  before.socket.write('two')
  during.socket.end('three')
  await sleep(50)

  const held = [before.text(), during.text(), during.ended]
  proxy.flow()
  await until(() => before.text() === 'one two' && during.ended)

  expect(held).toEqual(['', '', false])
  expect(during.text()).toBe('three')
})

it('stalls answers that are under way, too', async () => {
  const client = await open()
  proxy.stall()
  for (const socket of echo.sockets) socket.write('pushed')
  await sleep(50)

  const held = client.text()
  proxy.flow()
  await until(() => client.text() === 'pushed')

  expect(held).toBe('')
})

it('delays each direction, in order, until it is told not to', async () => {
  const client = await open()
  proxy.delay(60)
  const before = performance.now()

  client.socket.write('one ')
  const answer = await client.ask('two')
  const slow = performance.now() - before
  proxy.delay(0)
  const again = performance.now()
  await client.ask('three')

  expect(answer).toBe('one two')
  expect(slow).toBeGreaterThan(119)
  expect(performance.now() - again).toBeLessThan(60)
})

it('swallows everything on half-open connections and closes none, while new ones work', async () => {
  const before = await open()
  const [served] = [...echo.sockets]

  proxy.halfOpen()
  before.socket.write('into the void')
  served?.write('back into it')
  await sleep(50)
  const silent = [before.text(), before.closed, served?.destroyed]
  served?.destroy()
  await sleep(50)

  expect(silent).toEqual(['', false, false])
  expect([before.closed, before.ended]).toEqual([false, false])
  expect(echo.heard).toBe('')
  expect(await (await open()).ask('new')).toBe('new')
  expect(proxy.connections).toBe(2)
})

it('forwards later connections to where it is told', async () => {
  await using other = await startEcho()
  const before = await open()

  proxy.forwardTo(other.port)
  await open(false)
  await until(() => other.sockets.size === 1)

  expect(await before.ask('old')).toBe('old')
  expect(echo.sockets.size).toBe(1)
})

it('closes connections whose server is not there', async () => {
  await echo[Symbol.asyncDispose]()

  const client = await open(false)
  await until(() => client.closed)

  expect(proxy.connections).toBe(0)
})

it('ends with what is open, stalled and delayed', async () => {
  const client = await open()
  proxy.delay(10_000)
  client.socket.write('late')
  proxy.stall()
  await open(false)

  await proxy[Symbol.asyncDispose]()

  await until(() => client.closed && echo.sockets.size === 0)
  expect(await open().catch((error: NodeJS.ErrnoException) => error.code)).toBe('ECONNREFUSED')
})

interface EchoServer extends AsyncDisposable {
  readonly port: number
  readonly sockets: ReadonlySet<Socket>
  readonly heard: string
}

async function startEcho(): Promise<EchoServer> {
  const sockets = new Set<Socket>()
  let heard = ''
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('data', (bytes) => (heard += bytes.length < 100 ? bytes.toString() : ''))
    socket.once('close', () => sockets.delete(socket))
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    sockets,
    get heard() {
      return heard
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      if (server.listening) await once(server.close(), 'close')
    },
  }
}

interface Client {
  readonly socket: Socket
  readonly received: Buffer[]
  readonly ended: boolean
  readonly closed: boolean
  text(): string
  /** Sends a text and gives everything that has come when it ends with it. */
  ask(text: string): Promise<string>
}

/** Connects through the proxy, and unless told otherwise waits until the echo server has the connection. */
async function open(isForwarded = true): Promise<Client> {
  const served = echo.sockets.size
  const socket = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true })
  const received: Buffer[] = []
  let ended = false
  let closed = false
  socket.on('data', (bytes: Buffer) => received.push(bytes))
  socket.on('end', () => (ended = true))
  socket.on('close', () => (closed = true))
  await once(socket, 'connect')
  socket.on('error', () => {})
  const text = (): string => Buffer.concat(received).toString()
  const client: Client = {
    socket,
    received,
    get ended() {
      return ended
    },
    get closed() {
      return closed
    },
    text,
    async ask(question) {
      socket.write(question)
      await until(() => text().endsWith(question))
      return text()
    },
  }
  clients.push(client)
  if (isForwarded) await until(() => echo.sockets.size > served)
  return client
}
