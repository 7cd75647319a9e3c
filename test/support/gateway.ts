/** A gateway on a free port of loopback, for a test over a real socket. */
import type { Broker } from '../../src/broker.ts'
import { serveGateway, type GatewayServer, type ServeGatewayOptions } from '../../src/runtimes/node-gateway.ts'

/** Starts a gateway over a broker, which stays the caller's to close. `await using` ends it. */
export function startGateway(
  broker: Broker,
  options: Omit<ServeGatewayOptions, 'broker'> = {},
): Promise<GatewayServer> {
  return serveGateway({ drainMs: 2000, ...options, broker })
}
