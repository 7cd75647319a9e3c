/** What makes a fresh broker of a used one. */
import {
  type Connection,
  createTopicsV7,
  describeGroupsV5,
  encodeConsumerProtocolSubscription,
  FindCoordinatorKeyTypes,
  findCoordinatorV6,
  joinGroupV9,
  offsetCommitV9,
} from '@platformatic/kafka'
import { expect, it } from 'vitest'
import { until } from '../support/until.ts'
import { bootstrapServers, connected, kafkaAdmin } from './admin.ts'

it('deletes topics, and groups with static members, dynamic ones, ones that wait to join, and only offsets', async () => {
  await using admin = await kafkaAdmin()
  const servers = bootstrapServers().split(',')
  const connection = await connected(servers[0] ?? '')
  const waiting = await connected(servers[0] ?? '')
  try {
    await createTopics(connection, ['one', '...'])
    await groupsAreServed(connection, ['static', 'waited for', 'dynamic', 'offsets'])
    await join(connection, 'static', 'i')
    await join(connection, 'waited for', 'i')
    const joining = join(waiting, 'waited for', 'other').catch(() => 'given up')
    await join(connection, 'dynamic', null)
    const offset = { partitionIndex: 0, committedOffset: 1n, committedLeaderEpoch: -1, committedMetadata: null }
    await offsetCommitV9.api.async(connection, 'offsets', -1, '', null, [{ name: 'one', partitions: [offset] }])

    await admin.wipe()
    await waiting.close()

    expect(await admin.topics()).toEqual([])
    expect(await admin.groups()).toEqual([])
    expect(await joining).toBe('given up')
  } finally {
    await connection.close()
  }
})

it('takes no time where there is nothing', async () => {
  await using admin = await kafkaAdmin()
  await admin.wipe()

  const before = performance.now()
  for (let n = 0; n < 10; n++) await admin.wipe()

  expect(performance.now() - before).toBeLessThan(1_000)
})

async function createTopics(connection: Connection, names: readonly string[]): Promise<void> {
  await createTopicsV7.api.async(
    connection,
    names.map((name) => ({ name, numPartitions: 1, replicationFactor: 1, assignments: [], configs: [] })),
    10_000,
    false,
  )
}

/** The first use of groups makes Kafka's topic of offsets, whose partitions take a moment to be loaded. */
async function groupsAreServed(connection: Connection, ids: string[]): Promise<void> {
  const served = async (): Promise<boolean> => {
    await findCoordinatorV6.api.async(connection, FindCoordinatorKeyTypes.GROUP, ids)
    await describeGroupsV5.api.async(connection, ids, false)
    return true
  }
  await until(() => served().catch(() => false), { what: 'coordinators', timeoutMs: 20_000 })
}

async function join(connection: Connection, groupId: string, groupInstanceId: string | null): Promise<void> {
  const metadata = encodeConsumerProtocolSubscription({ version: 1, topics: ['one'], ownedPartitions: [] })
  const protocols = [{ name: 'range', metadata }]
  const memberId = groupInstanceId === null ? await newMemberId(connection, groupId, protocols) : ''
  await joinGroupV9.api.async(
    connection,
    groupId,
    60_000,
    60_000,
    memberId,
    groupInstanceId,
    'consumer',
    protocols,
    null,
  )
}

/** A dynamic member is told its id first, by an error. */
async function newMemberId(
  connection: Connection,
  groupId: string,
  protocols: { name: string; metadata: Buffer }[],
): Promise<string> {
  const refused = await joinGroupV9.api
    .async(connection, groupId, 60_000, 60_000, '', null, 'consumer', protocols, null)
    .catch((failure: unknown) => failure)
  return (refused as { response: { memberId: string } }).response.memberId
}
