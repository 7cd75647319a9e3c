/** A proxy before a gateway that refuses idempotency keys, as a gateway over a Kafka cluster does. */
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { statusOfCode } from '../../src/gateway/errors.ts'

/** Where it listens, until the end of its scope. */
export interface KeylessProxy extends AsyncDisposable {
  readonly url: string
}

/** Starts one before the gateway at a URL. */
export async function withoutKeys(target: string): Promise<KeylessProxy> {
  const server = createServer((incoming, outgoing) => {
    if (incoming.headers['idempotency-key'] !== undefined) {
      incoming.resume()
      const status = statusOfCode.UNSUPPORTED ?? 501
      outgoing.writeHead(status, { 'Content-Type': 'application/json', 'Kedge-Error': 'UNSUPPORTED' })
      outgoing.end(JSON.stringify({ result: '', error: 'There are no idempotency keys here.', status }))
      return
    }
    const { method, headers } = incoming
    const onward = request(target + (incoming.url ?? '/'), { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    // Whoever asks is killed now and then; what it asked for goes on.
    onward.on('error', () => outgoing.destroy())
    incoming.on('error', () => undefined)
    incoming.pipe(onward)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // A server on a host and port has an address of this kind.
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  }
}
