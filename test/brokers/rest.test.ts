/** The REST driver through a gateway: in process, and over sockets to one that is on disk and restarted between steps. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Broker } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { gatewayApp } from '../../src/gateway/app.ts'
import type { GatewayServer } from '../../src/runtimes/node-gateway.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'

failOnLeaks()

describeBroker('rest → gateway → memory, in process', {
  async open() {
    const clock = new FakeClock()
    const behind = memoryBroker({ clock })
    const app = gatewayApp(behind)
    const fetch = async (url: string, init: RequestInit): Promise<Response> => await app.request(url, init)
    const broker = restBroker({ url: 'http://gateway.example', fetch, clock })
    return { broker, clock, close: () => behind.close() }
  },
})

describeBroker('rest → gateway → memory, over a socket', {
  async open() {
    const clock = new FakeClock()
    const behind = memoryBroker({ clock })
    const server = await startGateway(behind)
    const broker = restBroker({ url: server.url, clock })
    return { broker, clock, close: () => closed(server, behind) }
  },
})

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
