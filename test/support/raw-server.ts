/** A TCP server that answers HTTP requests with whatever it is told, and counts them. */
import { once } from 'node:events'
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net'

/** Starts a server that answers every request head as told. */
export async function rawServer(answer: (socket: Socket) => void): Promise<
  AsyncDisposable & {
    readonly url: string
    requests(): number
    untilRequests(count: number): Promise<void>
  }
> {
  let requests = 0
  const sockets = new Set<Socket>()
  const raw: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    let head = ''
    socket.on('data', (chunk) => {
      head += chunk.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      head = ''
      requests += 1
      raw.emit('request')
      answer(socket)
    })
  })
  raw.listen(0, '127.0.0.1')
  await once(raw, 'listening')
  const { port } = raw.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    requests: () => requests,
    async untilRequests(count) {
      for (;;) {
        if (requests >= count) return
        await once(raw, 'request')
      }
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      raw.close()
      await once(raw, 'close')
    },
  }
}
