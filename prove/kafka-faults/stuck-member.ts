/**
 * A consumer of another client that has joined a group and then does nothing for as long as its rebalance timeout allows, as a
 * Java consumer does whose thread hangs between two polls (max.poll.interval.ms, five minutes): every rebalance waits for it.
 */
import {
  Connection,
  encodeConsumerProtocolSubscription,
  findCoordinatorV4,
  joinGroupV9,
  leaveGroupV5,
  syncGroupV5,
} from '@platformatic/kafka'
import { kafkaNameOf } from '../../src/brokers/kafka/failures.ts'

const MAX_POLL_INTERVAL_MS = 300_000
const SESSION_MS = 300_000
const SETTLED_WITHIN_MS = 30_000
const GROUP = 0

/** Lets one join a group, and gives what lets it leave again. */
export async function joinStuckMember(
  bootstrapServer: string,
  groupId: string,
  topic: string,
): Promise<AsyncDisposable> {
  using looking = await connected(bootstrapServer)
  const { coordinators } = await findCoordinatorV4.api.async(looking.connection, GROUP, [groupId])
  const coordinator = `${coordinators[0]?.host}:${coordinators[0]?.port}`
  // A join that waits blocks its connection.
  const joining = await connected(coordinator)
  const protocols = [{ name: 'range', metadata: encodeConsumerProtocolSubscription({ version: 1, topics: [topic] }) }]
  const { connection } = joining
  const join = (memberId: string): ReturnType<typeof joinGroupV9.api.async> =>
    joinGroupV9.api.async(
      connection,
      groupId,
      SESSION_MS,
      MAX_POLL_INTERVAL_MS,
      memberId,
      null,
      'consumer',
      protocols,
      null,
    )
  // The first join is answered by an id to come again with.
  const memberId = await join('').then(
    (joined) => joined.memberId,
    (error: unknown) => memberIdOf(error) ?? Promise.reject(error as Error),
  )
  const takePart = async (): Promise<void> => {
    const { generationId, protocolName } = await join(memberId)
    await syncGroupV5.api.async(connection, groupId, generationId, memberId, null, 'consumer', protocolName ?? null, [])
  }
  const deadline = performance.now() + SETTLED_WITHIN_MS
  for (;;) {
    try {
      await takePart()
      break
    } catch (error) {
      // Somebody else joined before the leader had decided: all begin anew.
      const isAnew = kafkaNameOf(error) === 'REBALANCE_IN_PROGRESS'
      if (!isAnew || performance.now() > deadline) throw error
    }
  }
  return {
    async [Symbol.asyncDispose]() {
      using leaving = await connected(coordinator)
      await leaveGroupV5.api.async(leaving.connection, groupId, [{ memberId, groupInstanceId: null, reason: null }])
      joining[Symbol.dispose]()
    },
  }
}

function memberIdOf(error: unknown): string | undefined {
  const { response } = error as { readonly response?: { readonly memberId?: string } }
  return response?.memberId === '' ? undefined : response?.memberId
}

async function connected(server: string): Promise<{ readonly connection: Connection } & Disposable> {
  const connection = new Connection('stuck', { connectTimeout: 5_000, requestTimeout: MAX_POLL_INTERVAL_MS })
  connection.on('error', () => {})
  const [host = '', port] = server.split(':')
  await connection.connect(host, Number(port))
  return { connection, [Symbol.dispose]: () => void connection.socket.destroy() }
}
