/** The gateway as `npm run gateway` serves it, over a broker in memory or over the embedded log. */
import { logBroker } from '../../src/brokers/log.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { serveGateway } from '../../src/runtimes/node-gateway.ts'
import { serve } from './serve.ts'

let gateway: Awaited<ReturnType<typeof serveGateway>> | undefined

serve(
  {
    async start({ dir }: { readonly dir?: string }) {
      const broker = dir === undefined ? memoryBroker({ defer: setImmediate }) : logBroker({ dir })
      gateway = await serveGateway({ broker, host: '127.0.0.1', port: 0 })
      return Number(new URL(gateway.url).port)
    },
  },
  () => gateway?.close(),
)
