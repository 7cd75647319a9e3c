/** The Kafka driver over a real cluster. */
import { afterAll, beforeAll } from 'vitest'
import { describeBroker } from '../conformance/broker/index.ts'
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

describeBroker('kafka, nothing kept between calls', {
  deviations,
  async open() {
    await admin.wipe()
    let broker = openKafka({ cache: false })
    return {
      broker,
      createTopic: (topic) => createTopic(admin, broker, topic),
      async reopen() {
        await broker.close()
        broker = openKafka({ cache: false })
        return broker
      },
      close: () => broker.close(),
    }
  },
})
