/** The REST driver over sockets to a gateway whose log is on disk, all of it ended and started again between steps. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Broker } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'

failOnLeaks()

describeBroker('rest → gateway → log on disk, over a socket, restarted between steps', {
  async open() {
    const clock = new FakeClock()
    const dir = await mkdtemp(join(tmpdir(), 'kedge-rest-'))
    let behind = logBroker({ dir, clock })
    let server = await startGateway(behind)
    let broker = restBroker({ url: server.url, clock })
    return {
      broker,
      clock,
      async reopen() {
        await broker.close()
        await closed(server, behind)
        behind = logBroker({ dir, clock })
        server = await startGateway(behind)
        broker = restBroker({ url: server.url, clock })
        return broker
      },
      async close() {
        await closed(server, behind)
        await rm(dir, { recursive: true })
      },
    }
  },
})

async function closed(server: GatewayServer, behind: Broker): Promise<void> {
  await server.close()
  await behind.close()
}
