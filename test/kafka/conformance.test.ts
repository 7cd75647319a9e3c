/** The Kafka driver over a real cluster. */
import { describeBroker } from '../conformance/broker/index.ts'
import { deviations, openKafka, ownCluster } from './conformance-kafka.ts'

const cluster = ownCluster()

describeBroker('kafka, nothing kept between calls', {
  deviations,
  async open() {
    await cluster.wipe()
    let broker = openKafka({ cache: false })
    return {
      broker,
      createTopic: (topic) => cluster.createTopic(broker, topic),
      async reopen() {
        await broker.close()
        broker = openKafka({ cache: false })
        return broker
      },
      close: () => broker.close(),
    }
  },
})
