/** What the conformance suite of brokers is run with over a real cluster, whatever is in between. */
import { afterAll, beforeAll } from 'vitest'
import type { Broker, NewTopic } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import type { KafkaBrokerOptions } from '../../src/brokers/kafka.ts'
import type { Deviation } from '../conformance/broker/harness.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { bootstrapServers, type DescribedMember, type KafkaAdmin, kafkaAdmin } from './admin.ts'

/** What suites do to the cluster past the driver. */
export interface OwnCluster {
  /** Leaves no topic and no group. */
  wipe(): Promise<void>
  /** The members of a group, of any client. */
  members(groupId: string): Promise<readonly DescribedMember[]>
  /** Creates a topic that keeps its retention as quickly as the suites ask for it. */
  createTopic(broker: Broker, topic: NewTopic): Promise<void>
}

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

/** The cluster of a file's suites, which have it for themselves. Nothing may be left open behind them. */
export function ownCluster(): OwnCluster {
  let admin: KafkaAdmin
  beforeAll(async () => {
    admin = await kafkaAdmin()
  })
  afterAll(() => admin[Symbol.asyncDispose]())
  failOnLeaks()
  return {
    wipe: () => admin.wipe(),
    members: (groupId) => admin.members(groupId),
    async createTopic(broker, topic) {
      await broker.createTopic(topic)
      // Kafka deletes whole segments, and never the newest for its size: so those of a topic with a size are short.
      if (typeof topic.retentionBytes === 'number') await admin.configureTopic(topic.topic, { 'segment.ms': '50' })
    },
  }
}
