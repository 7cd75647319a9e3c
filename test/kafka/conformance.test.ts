/** The Kafka driver over a real cluster: directly, and by REST through a gateway. */
import { afterAll, beforeAll } from 'vitest'
import type { Broker, NewTopic } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { describeBroker } from '../conformance/broker/index.ts'
import { startGateway } from '../support/gateway.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { bootstrapServers, type KafkaAdmin, kafkaAdmin } from './admin.ts'

let admin: KafkaAdmin

beforeAll(async () => {
  admin = await kafkaAdmin()
})

afterAll(async () => {
  await admin[Symbol.asyncDispose]()
})

failOnLeaks()

describeBroker('kafka', {
  async open() {
    await admin.wipe()
    let broker = openKafka()
    return {
      broker,
      createTopic: (topic) => createTopic(broker, topic),
      async reopen() {
        await broker.close()
        broker = openKafka()
        return broker
      },
      close: () => broker.close(),
    }
  },
})

describeBroker('rest → gateway → kafka, over a socket', {
  async open() {
    await admin.wipe()
    let behind = openKafka()
    let server = await startGateway(behind)
    let broker = restBroker({ url: server.url })
    const close = async (): Promise<void> => {
      await server.close()
      await behind.close()
    }
    return {
      broker,
      createTopic: (topic) => createTopic(behind, topic),
      async reopen() {
        await broker.close()
        await close()
        behind = openKafka()
        server = await startGateway(behind)
        broker = restBroker({ url: server.url })
        return broker
      },
      close,
    }
  },
})

function openKafka(): Broker {
  return kafkaBroker({ bootstrapServers: bootstrapServers().split(',') })
}

/** Kafka deletes whole segments, and never the newest for its size: so those of a topic with a size are short. */
async function createTopic(broker: Broker, topic: NewTopic): Promise<void> {
  await broker.createTopic(topic)
  if (typeof topic.retentionBytes === 'number') await admin.configureTopic(topic.topic, { 'segment.ms': '50' })
}
