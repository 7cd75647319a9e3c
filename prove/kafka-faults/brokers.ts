/** What to ask brokers past the driver. */
import { Connection, createPartitionsV3, findCoordinatorV4, metadataV12 } from '@platformatic/kafka'
import type { KafkaCluster } from '../../scripts/kafka/cluster.ts'
import { until } from '../../test/support/until.ts'

const OFFSETS_TOPIC = '__consumer_offsets'
const IN_SYNC_LIMIT_MS = 60_000

/** The node id of a group's coordinator. */
export async function coordinatorOf(cluster: KafkaCluster, groupId: string): Promise<number | undefined> {
  return await ask(cluster.bootstrapServers, async (connection) => {
    const { coordinators } = await findCoordinatorV4.api.async(connection, 0, [groupId])
    return coordinators[0]?.nodeId
  })
}

/** The node id of the broker that leads most partitions of a topic. */
export async function leaderOf(cluster: KafkaCluster, topic: string): Promise<number | undefined> {
  return await ask(cluster.bootstrapServers, async (connection) => {
    const { topics } = await metadataV12.api.async(connection, [topic], false, false)
    const byLeader = Map.groupBy(topics[0]?.partitions ?? [], ({ leaderId }) => leaderId)
    return [...byLeader].sort(([, a], [, b]) => b.length - a.length)[0]?.[0]
  })
}

/** Adds partitions to a topic of a cluster of one. */
export async function addPartitions(cluster: KafkaCluster, topic: string, added: number): Promise<void> {
  await ask(cluster.bootstrapServers, async (connection) => {
    const { topics } = await metadataV12.api.async(connection, [topic], false, false)
    const count = (topics[0]?.partitions.length ?? 0) + added
    // Kafka would choose for itself where none are named, which the client library cannot say.
    const assignments = Array.from({ length: added }, () => ({ brokerIds: [cluster.nodes[0]?.nodeId ?? 0] }))
    await createPartitionsV3.api.async(connection, [{ name: topic, count, assignments }], 10_000, false)
  })
}

/** Resolves when every broker has all of a topic, so that one of them may go. */
export async function untilInSync(cluster: KafkaCluster, topic: string): Promise<void> {
  const isInSync = async (): Promise<boolean> =>
    await ask(cluster.bootstrapServers, async (connection) => {
      const { topics } = await metadataV12.api.async(connection, [topic, OFFSETS_TOPIC], false, false)
      const partitions = topics.flatMap((one) => one.partitions)
      return partitions.length > 0 && partitions.every(({ isrNodes }) => isrNodes.length === cluster.nodes.length)
    })
  // A broker that has only just come back may not know the topic yet.
  await until(() => isInSync().catch(() => false), { what: 'all replicas to be in sync', timeoutMs: IN_SYNC_LIMIT_MS })
}

/** Asks the first broker, past the driver. */
async function ask<T>(bootstrapServers: string, request: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = new Connection('prove', { connectTimeout: 5_000, requestTimeout: 10_000 })
  const [host = '', port] = bootstrapServers.split(',')[0]?.split(':') ?? []
  await connection.connect(host, Number(port))
  try {
    return await request(connection)
  } finally {
    await connection.close()
  }
}
