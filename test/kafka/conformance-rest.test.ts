/** The Kafka driver over a real cluster, by REST through a gateway. */
import { restBroker } from '../../src/brokers/rest.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { startGateway } from '../support/gateway.ts'
import { deviations, openKafka, ownCluster } from './conformance-kafka.ts'

const cluster = ownCluster()

describeBroker('rest → gateway → kafka, over a socket', {
  deviations,
  async open() {
    await cluster.wipe()
    let behind = openKafka()
    let server = await startGateway(behind)
    let broker = restBroker({ url: server.url, features: behind.features })
    const close = async (): Promise<void> => {
      await server.close()
      await behind.close()
    }
    return {
      broker,
      createTopic: (topic) => cluster.createTopic(behind, topic),
      async reopen() {
        await broker.close()
        await close()
        behind = openKafka()
        server = await startGateway(behind)
        broker = restBroker({ url: server.url, features: behind.features })
        return broker
      },
      close,
    }
  },
})
