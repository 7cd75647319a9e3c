/**
 * The cluster of the Kafka tests, and what they do to it past the driver: by single requests, on connections that are
 * kept.
 */
import {
  ConfigResourceTypes,
  Connection,
  consumerGroupDescribeV0,
  decodeConsumerProtocolAssignment,
  deleteGroupsV2,
  deleteTopicsV6,
  describeGroupsV5,
  incrementalAlterConfigsV1,
  IncrementalAlterConfigOperationTypes,
  leaveGroupV5,
  listGroupsV5,
  metadataV12,
  ResponseError,
} from '@platformatic/kafka'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TopicPartition } from '../../src/record.ts'

/** Longest time that a cluster may take to be empty, milliseconds. */
const WIPE_LIMIT_MS = 20_000
const REQUEST_TIMEOUT_MS = 10_000

/** `host:port` of each cluster's brokers, comma-separated. @throws {Error} when no cluster was started for the tests */
export function allBootstrapServers(): readonly string[] {
  const servers = process.env['KAFKA_BOOTSTRAP_SERVERS']
  if (servers === undefined || servers === '') {
    throw new Error(
      'KAFKA_BOOTSTRAP_SERVERS is not set. These tests need a real Kafka: start it by npm run test:kafka.',
    )
  }
  return servers.split(';')
}

/** `host:port` of the brokers of the cluster that this worker of vitest has for itself. @throws {Error} as above */
export function bootstrapServers(): string {
  const worker = Number(process.env['VITEST_POOL_ID'] ?? 1)
  const servers = allBootstrapServers()[worker - 1]
  if (servers === undefined)
    throw new Error(`There is no cluster for worker ${worker} of vitest: one for each is needed.`)
  return servers
}

/** What tests do to a cluster. */
export interface KafkaAdmin extends AsyncDisposable {
  /** The names of all topics that are not Kafka's own. */
  topics(): Promise<string[]>
  /** The ids of all groups. */
  groups(): Promise<string[]>
  /** Deletes these topics and all groups, those with members included. Takes a few milliseconds where there are none. */
  wipe(): Promise<void>
  /** The members of a group, of any client, and what each holds; none while it rebalances. */
  members(groupId: string): Promise<DescribedMember[]>
  /** Sets a topic's configuration, by Kafka's names. */
  configureTopic(topic: string, configs: Readonly<Record<string, string>>): Promise<void>
}

export interface DescribedMember {
  readonly memberId: string
  readonly assignment: readonly TopicPartition[]
}

/** Connects to every broker of the cluster. */
export async function kafkaAdmin(servers: string = bootstrapServers()): Promise<KafkaAdmin> {
  const first = await connected(servers.split(',')[0] ?? '')
  const { brokers } = await metadataV12.api.async(first, [], false)
  await first.close()
  const connections = await Promise.all(brokers.map(({ host, port }) => connected(`${host}:${port}`)))
  const [any] = connections as [Connection]

  const topics = async (): Promise<string[]> => {
    const metadata = await metadataV12.api.async(any, null, false)
    return metadata.topics.flatMap(({ name, isInternal }) => (isInternal || typeof name !== 'string' ? [] : [name]))
  }
  return {
    topics,
    async groups() {
      const listed = await Promise.all(connections.map((one) => groupsOf(one)))
      return listed.flat().map(({ groupId }) => groupId)
    },
    async members(groupId) {
      const described = await Promise.all(connections.map((one) => membersOn(one, groupId)))
      return described.flat()
    },
    async wipe() {
      const deadline = performance.now() + WIPE_LIMIT_MS
      let refused: unknown
      for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, 100)) {
        try {
          const [names, ...groups] = await Promise.all([topics(), ...connections.map((one) => groupsOf(one))])
          if (names.length === 0 && groups.flat().length === 0) return
          await Promise.all([
            deleteTopics(any, names),
            ...connections.map((one, index) => deleteGroups(one, groups[index] ?? [])),
          ])
        } catch (failure) {
          // A coordinator that is not there yet, a member that joined meanwhile, a topic that is half gone: the next
          // round sees what is left.
          if (!(failure instanceof ResponseError)) throw failure
          refused = failure
        }
        if (performance.now() > deadline) throw new Error('Could not empty the cluster.', { cause: refused })
        await sleep(pauseMs)
      }
    },
    async configureTopic(topic, configs) {
      const changes = Object.entries(configs).map(([name, value]) => ({
        name,
        configOperation: IncrementalAlterConfigOperationTypes.SET,
        value,
      }))
      const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic, configs: changes }
      await incrementalAlterConfigsV1.api.async(any, [resource], false)
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(connections.map((one) => one.close()))
    },
  }
}

/** Opens a connection for single requests. */
export async function connected(server: string): Promise<Connection> {
  const connection = new Connection('kedge-test', { connectTimeout: 5_000, requestTimeout: REQUEST_TIMEOUT_MS })
  const [, host = '', port] = /^(.*):(\d+)$/.exec(server) ?? []
  await connection.connect(host, Number(port))
  return connection
}

/** The members of a stable group that this broker coordinates, of either protocol. */
async function membersOn(connection: Connection, groupId: string): Promise<DescribedMember[]> {
  const classic = await describeGroupsV5.api.async(connection, [groupId], false).catch(noGroups)
  const newer = await consumerGroupDescribeV0.api.async(connection, [groupId], false).catch(noGroups)
  const isStable = ({ groupState }: { readonly groupState: string }): boolean => groupState === 'Stable'
  return [
    ...classic.groups.filter(isStable).flatMap(({ members }) =>
      members.map(({ memberId, memberAssignment }) => ({
        memberId,
        // A member that was given nothing at all has no bytes to show for it.
        assignment:
          memberAssignment.length === 0
            ? []
            : flat(decodeConsumerProtocolAssignment(memberAssignment).assignedPartitions ?? []),
      })),
    ),
    ...newer.groups.filter(isStable).flatMap(({ members }) =>
      members.map(({ memberId, assignment }) => ({
        memberId,
        assignment: flat(
          assignment.topicPartitions.map(({ topicName, partitions }) => ({ topic: topicName, partitions })),
        ),
      })),
    ),
  ]
}

function flat(
  byTopic: readonly { readonly topic: string; readonly partitions: readonly number[] }[],
): TopicPartition[] {
  return byTopic.flatMap(({ topic, partitions }) => partitions.map((partition) => ({ topic, partition })))
}

/** A broker that does not coordinate the group, or knows it by the other protocol, answers with an error. */
function noGroups(): { groups: never[] } {
  return { groups: [] }
}

interface ListedGroup {
  readonly groupId: string
  readonly groupState: string
}

async function groupsOf(connection: Connection): Promise<ListedGroup[]> {
  return (await listGroupsV5.api.async(connection, [], [])).groups
}

async function deleteTopics(connection: Connection, names: readonly string[]): Promise<void> {
  if (names.length === 0) return
  await deleteTopicsV6.api.async(
    connection,
    names.map((name) => ({ name })),
    REQUEST_TIMEOUT_MS,
  )
}

async function deleteGroups(connection: Connection, groups: readonly ListedGroup[]): Promise<void> {
  for (const { groupId, groupState } of groups) {
    if (groupState !== 'Empty') await removeMembers(connection, groupId)
  }
  const ids = groups.map(({ groupId }) => groupId)
  if (ids.length > 0) await deleteGroupsV2.api.async(connection, ids)
}

async function removeMembers(connection: Connection, groupId: string): Promise<void> {
  const classic = await describeGroupsV5.api.async(connection, [groupId], false).catch(noGroups)
  const newer = await consumerGroupDescribeV0.api.async(connection, [groupId], false).catch(noGroups)
  const members = [
    ...classic.groups.flatMap((group) => group.members.map((one) => ({ ...one, instanceId: one.groupInstanceId }))),
    ...newer.groups.flatMap((group) => group.members),
  ]
  // A static member is removed by its instance id, whoever holds it.
  const leaving = members.map(({ memberId, instanceId }) =>
    instanceId === null || instanceId === undefined ? { memberId } : { memberId: '', groupInstanceId: instanceId },
  )
  if (leaving.length > 0) await leaveGroupV5.api.async(connection, groupId, leaving)
}
