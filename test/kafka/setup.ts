/** Before the first Kafka test, and after the last. */
import { bootstrapServers, kafkaAdmin } from './admin.ts'

/** Vitest calls `teardown` after a `setup` that failed, too. */
let isEmpty = false

/** Refuses to run without a broker, and over a cluster that somebody uses: the tests delete all that is there. */
export async function setup(): Promise<void> {
  await using admin = await kafkaAdmin()
  const topics = await admin.topics()
  if (topics.length > 0) {
    throw new Error(
      `The Kafka tests delete every topic, and the cluster at ${bootstrapServers()} has some: ` +
        `${topics.slice(0, 5).join(', ')}. Let KAFKA_BOOTSTRAP_SERVERS name an empty cluster.`,
    )
  }
  isEmpty = true
}

/** Leaves the cluster as it was found. */
export async function teardown(): Promise<void> {
  if (!isEmpty) return
  await using admin = await kafkaAdmin()
  await admin.wipe()
}
