/** The REST driver through a gateway over memory: in process, and over a socket. */
import { memoryBroker } from '../../src/brokers/memory.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { gatewayApp } from '../../src/gateway/app.ts'
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
    return {
      broker,
      clock,
      async close() {
        await server.close()
        await behind.close()
      },
    }
  },
})
