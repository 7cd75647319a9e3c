/** What the conformance suite of brokers is run with over a real cluster, whatever is in between. */
import type { Broker, NewTopic } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import type { KafkaBrokerOptions } from '../../src/brokers/kafka.ts'
import type { Deviation } from '../conformance/broker/harness.ts'
import { bootstrapServers, type KafkaAdmin } from './admin.ts'

export const deviations: readonly Deviation[] = [
  {
    test: 'commit › tells empty metadata from none',
    reason: "Kafka answers '' where an offset was committed without metadata",
  },
]

/** A group is joined however long it takes: these machines are busy. */
export function openKafka(options: Partial<KafkaBrokerOptions> = {}): Broker {
  return kafkaBroker({ bootstrapServers: bootstrapServers().split(','), pollGraceMs: 5_000, ...options })
}

/** Kafka deletes whole segments, and never the newest for its size: so those of a topic with a size are short. */
export async function createTopic(admin: KafkaAdmin, broker: Broker, topic: NewTopic): Promise<void> {
  await broker.createTopic(topic)
  if (typeof topic.retentionBytes === 'number') await admin.configureTopic(topic.topic, { 'segment.ms': '50' })
}
