/** The gateway as `npm run gateway` serves it, over a broker in memory, the embedded log or a Kafka cluster. */
import type { Broker } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { serveGateway } from '../../src/runtimes/node-gateway.ts'
import { serve } from './serve.ts'

export interface GatewayStart {
  /** Of the embedded log. */
  readonly dir?: string
  /** Of a Kafka cluster. */
  readonly bootstrapServers?: string
}

let gateway: Awaited<ReturnType<typeof serveGateway>> | undefined

serve(
  {
    async start(settings: GatewayStart) {
      gateway = await serveGateway({ broker: brokerFor(settings), host: '127.0.0.1', port: 0 })
      return Number(new URL(gateway.url).port)
    },
  },
  () => gateway?.close(),
)

function brokerFor({ dir, bootstrapServers }: GatewayStart): Broker {
  if (bootstrapServers !== undefined) return kafkaBroker({ bootstrapServers: bootstrapServers.split(',') })
  return dir === undefined ? memoryBroker({ defer: setImmediate }) : logBroker({ dir })
}
