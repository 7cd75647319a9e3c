/** The service that the example's handler depends on: it takes payments for orders, until it breaks. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A payment service on a free port of loopback. */
export interface Payments extends AsyncDisposable {
  readonly url: string
  /** How often each order was paid. */
  readonly paid: ReadonlyMap<string, number>
  /** When so many orders are paid it answers 503 to everything. */
  downAfter: number
}

/** Starts the service. `await using` ends it, connections included. */
export async function startPayments(): Promise<Payments> {
  const paid = new Map<string, number>()
  const server = createServer((request, response) => {
    request.resume()
    if (paid.size >= payments.downAfter) {
      response.writeHead(503).end()
      return
    }
    const id = (request.url ?? '').slice(1)
    paid.set(id, (paid.get(id) ?? 0) + 1)
    response.writeHead(204).end()
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  // A server on a host and port has an address of this kind.
  const { port } = server.address() as AddressInfo
  const payments: Payments = {
    url: `http://127.0.0.1:${port}`,
    paid,
    downAfter: Number.POSITIVE_INFINITY,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return payments
}
