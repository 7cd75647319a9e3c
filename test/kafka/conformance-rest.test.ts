/** The Kafka driver over a real cluster, by REST through a gateway. */
import { afterAll, beforeAll } from 'vitest'
import { restBroker } from '../../src/brokers/rest.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { type KafkaAdmin, kafkaAdmin } from './admin.ts'
import { createTopic, deviations, openKafka } from './conformance-kafka.ts'

let admin: KafkaAdmin

beforeAll(async () => {
  admin = await kafkaAdmin()
})

afterAll(async () => {
  await admin[Symbol.asyncDispose]()
})

failOnLeaks()

describeBroker('rest → gateway → kafka, over a socket', {
  deviations,
  async open() {
    await admin.wipe()
    let behind = openKafka()
    let server = await startGateway(behind)
    let broker = restBroker({ url: server.url, features: behind.features })
    const close = async (): Promise<void> => {
      await server.close()
      await behind.close()
    }
    return {
      broker,
      createTopic: (topic) => createTopic(admin, behind, topic),
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
