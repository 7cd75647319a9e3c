/** The Kafka driver over a real cluster: directly, and by REST through a gateway. */
import { afterAll, beforeAll } from 'vitest'
import type { Broker, NewTopic } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import type { KafkaBrokerOptions } from '../../src/brokers/kafka.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import type { Deviation } from '../conformance/broker/harness.ts'
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

const deviations: readonly Deviation[] = [
  {
    test: 'commit › tells empty metadata from none',
    reason: "Kafka answers '' where an offset was committed without metadata",
  },
]

describeBroker('kafka, nothing kept between calls', {
  deviations,
  async open() {
    await admin.wipe()
    let broker = openKafka({ cache: false })
    return {
      broker,
      createTopic: (topic) => createTopic(broker, topic),
      async reopen() {
        await broker.close()
        broker = openKafka({ cache: false })
        return broker
      },
      close: () => broker.close(),
    }
  },
})

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
      createTopic: (topic) => createTopic(behind, topic),
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

/** A group is joined however long it takes: these machines are busy. */
function openKafka(options: Partial<KafkaBrokerOptions> = {}): Broker {
  return kafkaBroker({ bootstrapServers: bootstrapServers().split(','), pollGraceMs: 5_000, ...options })
}

/** Kafka deletes whole segments, and never the newest for its size: so those of a topic with a size are short. */
async function createTopic(broker: Broker, topic: NewTopic): Promise<void> {
  await broker.createTopic(topic)
  if (typeof topic.retentionBytes === 'number') await admin.configureTopic(topic.topic, { 'segment.ms': '50' })
}
