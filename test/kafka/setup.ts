/** Before the first Kafka test, and after the last. */
import { allBootstrapServers, kafkaAdmin } from './admin.ts'

/** Vitest calls `teardown` after a `setup` that failed, too. */
let isEmpty = false

/** Refuses to run without a broker, and over a cluster that somebody uses: the tests delete all that is there. */
export async function setup(): Promise<void> {
  for (const servers of allBootstrapServers()) {
    await using admin = await kafkaAdmin(servers)
    const topics = await admin.topics()
    if (topics.length > 0) {
      throw new Error(
        `The Kafka tests delete every topic, and the cluster at ${servers} has some: ` +
          `${topics.slice(0, 5).join(', ')}. Let KAFKA_BOOTSTRAP_SERVERS name an empty cluster.`,
      )
    }
  }
  isEmpty = true
}

/** Leaves the clusters as they were found. */
export async function teardown(): Promise<void> {
  if (!isEmpty) return
  for (const servers of allBootstrapServers()) {
    await using admin = await kafkaAdmin(servers)
    await admin.wipe()
  }
}
