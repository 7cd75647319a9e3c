/**
 * The cluster as this process knows it: which brokers there are, which topics, who leads each partition, who coordinates each
 * group. All of it is a cache of what any broker answers; a wrong entry costs a request and is asked for anew.
 */
import { findCoordinatorV4, metadataV12 } from '@platformatic/kafka'
import type { Connection } from '@platformatic/kafka'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import { Connections } from './connections.ts'
import type { Address, ConnectionSettings, Occupation, Purpose } from './connections.ts'
import type { Deadline } from './deadline.ts'
import { failureOf, isConnectionFailure, isTimeout, kafkaNameOf, namedFailure, responseOf } from './failures.ts'

type MetadataResponse = metadataV12.MetadataResponse

/** A topic as the cluster describes it. */
export interface TopicMetadata {
  readonly topic: string
  readonly topicId: string
  readonly isInternal: boolean
  /** The node id of each partition's leader, -1 where there is none at the moment. */
  readonly leaders: readonly number[]
  /** Monotonic time of the answer. */
  readonly readAt: number
}

/** How a cluster is reached. */
export interface ClusterSettings extends ConnectionSettings {
  readonly bootstrap: readonly Address[]
}

/** What is older is asked for anew before a member's subscription is judged by it. */
const FRESH_MS = 5_000
/** What is older is asked for anew before anything is done by it: Kafka's metadata.max.age.ms. */
const MAX_AGE_MS = 300_000
/** A connection may have been idle for too long, and the next one be refused by a broker that is ending. */
export const MAX_LOSSES = 2
/** Between two tries of a call that met a moving cluster. */
const RETRY_MS = 50
/** Of so many requests it is known how long they took. */
const MAX_SAMPLES = 8
const TOPIC_NAME = /^[a-zA-Z0-9._-]{1,249}$/
const COORDINATOR_OF_GROUP = 0

/** A broker that has not answered by then is not waited for where another can answer as well. */
const HEDGE_MS = 300
const ALIVE_WITHIN_MS = 1_000

/** Errors after which the coordinator is looked for anew. The last one is ours: its broker left the cluster meanwhile. */
export const movedCoordinator: ReadonlySet<string> = new Set([
  'NOT_COORDINATOR',
  'COORDINATOR_NOT_AVAILABLE',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'LEADER_NOT_AVAILABLE',
])

/** One cluster. */
export class Cluster {
  readonly connections: Connections
  readonly clock: Clock
  readonly #bootstrap: readonly Address[]
  readonly #nodes = new Map<number, Address>()
  readonly #topics = new Map<string, TopicMetadata>()
  readonly #coordinators = new Map<string, number>()
  readonly #asking = new Map<string, Promise<void>>()
  readonly #tookMs: number[] = []
  #controller = -1

  constructor(settings: ClusterSettings) {
    this.#bootstrap = settings.bootstrap
    this.clock = settings.clock
    this.connections = new Connections(settings)
  }

  /**
   * A topic that exists, from the cache where it is young enough.
   * @throws {BrokerError} UNKNOWN_TOPIC_OR_PARTITION, TOPIC_AUTHORIZATION_FAILED
   */
  async topic(topic: string, deadline: Deadline, maxAgeMs: number = MAX_AGE_MS): Promise<TopicMetadata> {
    return this.cachedTopic(topic, maxAgeMs) ?? (await this.refreshTopic(topic, deadline))
  }

  /** A topic as it was a few seconds ago or later, for what depends on the number of its partitions. */
  async freshTopic(topic: string, deadline: Deadline): Promise<TopicMetadata> {
    return await this.topic(topic, deadline, FRESH_MS)
  }

  /** A topic from the cache, where it is there and young enough. */
  cachedTopic(topic: string, maxAgeMs: number = MAX_AGE_MS): TopicMetadata | undefined {
    const known = this.#topics.get(topic)
    return known !== undefined && this.clock.monotonic() - known.readAt < maxAgeMs ? known : undefined
  }

  /** Asks the cluster for a topic. Callers that ask at once share the answer. */
  async refreshTopic(topic: string, deadline: Deadline): Promise<TopicMetadata> {
    // Kafka would be asked for a name it cannot have, and some such names do not survive the way there.
    if (!TOPIC_NAME.test(topic)) throw unknownTopic(topic)
    const asking = this.#asking.get(topic) ?? this.#ask(topic)
    await deadline.race(asking)
    const found = this.#topics.get(topic)
    if (found === undefined) throw unknownTopic(topic)
    return found
  }

  /** All topics, internal ones included. */
  async allTopics(deadline: Deadline): Promise<TopicMetadata[]> {
    const response = await deadline.race(this.#metadata(null))
    this.#topics.clear()
    this.#learn(response)
    return [...this.#topics.values()]
  }

  /** How long the quickest of the newest requests took, milliseconds: the way there and back. Undefined before the first. */
  get roundTripMs(): number | undefined {
    return this.#tookMs.length === 0 ? undefined : Math.min(...this.#tookMs)
  }

  /** Forgets a topic: what is known of it was refuted. */
  forgetTopic(topic: string): void {
    this.#topics.delete(topic)
  }

  /** Forgets who leads a topic's partitions; how many there are stays known, so that records can go on to choose theirs. */
  forgetLeaders(topic: string): void {
    const known = this.#topics.get(topic)
    if (known !== undefined) this.#topics.set(topic, { ...known, leaders: known.leaders.map(() => -1) })
  }

  /** Every broker. */
  async nodeIds(deadline: Deadline): Promise<number[]> {
    await deadline.race(this.#metadata([]))
    return [...this.#nodes.keys()]
  }

  /** The node id of the controller's front, which takes changes of topics. */
  async controllerId(deadline: Deadline): Promise<number> {
    if (!this.#nodes.has(this.#controller)) await deadline.race(this.#metadata([]))
    return this.#controller
  }

  /** Makes a request that a broker answers at once. `what` completes "Cannot ...". */
  async onNode<T>(nodeId: number, what: string, request: (connection: Connection) => Promise<T>): Promise<T> {
    const address = this.#addressOf(nodeId)
    try {
      return await request(await this.connections.shared(address, 'calls'))
    } catch (error) {
      throw failureOf(error, what)
    }
  }

  /** Makes a request that any broker answers at once. `what` completes "Cannot ...". */
  async onAnyNode<T>(what: string, deadline: Deadline, request: (connection: Connection) => Promise<T>): Promise<T> {
    return await deadline.race(this.#onAny(what, request))
  }

  /** Whether a broker answers at once. */
  async answers(nodeId: number): Promise<boolean> {
    const asking = this.onNode(nodeId, 'see whether a broker answers', (connection) =>
      metadataV12.api.async(connection, [], false, false),
    )
    const { promise: silence, resolve } = Promise.withResolvers<boolean>()
    const cancel = this.clock.after(ALIVE_WITHIN_MS, () => resolve(false))
    const isAnswered = asking.then(
      () => true,
      () => false,
    )
    try {
      return await Promise.race([isAnswered, silence])
    } finally {
      cancel()
    }
  }

  /** The shared connection to a node. */
  async connectionTo(nodeId: number, purpose: Purpose): Promise<Connection> {
    return await this.connections.shared(this.#addressOf(nodeId), purpose)
  }

  /** Makes a request that may wait for at most `waitMs`, over a connection of its own. */
  async waitingOnNode<T>(
    nodeId: number,
    occupation: Occupation,
    waitMs: number,
    request: (connection: Connection) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    return await this.connections.exclusive(this.#addressOf(nodeId), occupation, waitMs, request, signal)
  }

  /** The coordinator of a group, looked for until the deadline where it is moving. */
  async coordinatorOf(groupId: string, deadline: Deadline): Promise<number> {
    for (;;) {
      const known = this.#coordinators.get(groupId)
      if (known !== undefined && this.#nodes.has(known)) return known
      try {
        const found = await deadline.race(this.#findCoordinator(groupId))
        this.#coordinators.set(groupId, found)
        return found
      } catch (error) {
        // What is unreachable at every address is not looked for again: the caller decides how long it tries.
        if (!movedCoordinator.has(codeOf(error))) {
          throw failureOf(error, `find the coordinator of group ${JSON.stringify(groupId)}`)
        }
        await deadline.pause(RETRY_MS)
      }
    }
  }

  /** The next look-up of the group's coordinator asks the cluster. */
  forgetCoordinator(groupId: string): void {
    this.#coordinators.delete(groupId)
  }

  /**
   * Makes a request of a group that its coordinator answers at once, and makes it again, until the deadline, where the
   * coordinator moved or the connection to it was lost. Only for requests that may be made twice.
   */
  async onCoordinator<T>(
    groupId: string,
    what: string,
    deadline: Deadline,
    request: (connection: Connection) => Promise<T>,
  ): Promise<T> {
    for (let losses = 0; ;) {
      const nodeId = await this.coordinatorOf(groupId, deadline)
      try {
        const connection = await deadline.race(this.connectionTo(nodeId, 'calls'))
        const askedAt = this.clock.monotonic()
        const answer = await deadline.race(request(connection))
        this.#tookMs.push(this.clock.monotonic() - askedAt)
        if (this.#tookMs.length > MAX_SAMPLES) this.#tookMs.shift()
        return answer
      } catch (error) {
        const isMoved = movedCoordinator.has(codeOf(error))
        // One that says nothing may be frozen, and another broker the coordinator long since.
        if (isMoved || isLost(error) || isTimeout(error)) this.forgetCoordinator(groupId)
        if (!isMoved && (!isLost(error) || losses++ >= MAX_LOSSES)) throw failureOf(error, what)
        await deadline.pause(RETRY_MS)
      }
    }
  }

  async close(): Promise<void> {
    await this.connections.close()
  }

  #addressOf(nodeId: number): Address {
    const address = this.#nodes.get(nodeId)
    if (address !== undefined) return address
    throw new BrokerError('LEADER_NOT_AVAILABLE', `The cluster names node ${nodeId}, but not its address: try again.`)
  }

  async #ask(topic: string): Promise<void> {
    const asking = this.#learnTopic(topic).finally(() => this.#asking.delete(topic))
    this.#asking.set(topic, asking)
    await asking
  }

  async #learnTopic(topic: string): Promise<void> {
    const response = await this.#metadata([topic])
    this.#topics.delete(topic)
    this.#learn(response)
    const refused = response.topics.find(({ name }) => name === topic)?.errorCode ?? 0
    if (refused === TOPIC_AUTHORIZATION_FAILED) throw namedFailure('TOPIC_AUTHORIZATION_FAILED', `use topic ${topic}`)
  }

  #learn(response: MetadataResponse): void {
    const readAt = this.clock.monotonic()
    for (const { name, topicId, isInternal, errorCode, partitions } of response.topics) {
      // A topic with partitions that have no leader at the moment is a topic.
      if (name === null || name === undefined || (errorCode !== 0 && errorCode !== LEADER_NOT_AVAILABLE)) continue
      if (partitions.length === 0) continue
      const leaders = Array.from({ length: partitions.length }, () => -1)
      for (const { partitionIndex, leaderId } of partitions) leaders[partitionIndex] = leaderId
      this.#topics.set(name, { topic: name, topicId, isInternal, leaders, readAt })
    }
  }

  async #findCoordinator(groupId: string): Promise<number> {
    const what = `find the coordinator of group ${JSON.stringify(groupId)}`
    const response = await this.#onAny(what, (connection) =>
      findCoordinatorV4.api.async(connection, COORDINATOR_OF_GROUP, [groupId]),
    )
    const [found] = response.coordinators
    if (found === undefined) throw namedFailure('COORDINATOR_NOT_AVAILABLE', `find the coordinator of ${groupId}`)
    this.#nodes.set(found.nodeId, { host: found.host, port: found.port })
    return found.nodeId
  }

  /** Metadata with the topics in it, those with an error too. */
  async #metadata(topics: string[] | null): Promise<MetadataResponse> {
    const response = await this.#onAny('ask for topics', async (connection) => {
      try {
        return await metadataV12.api.async(connection, topics, false, false)
      } catch (error) {
        const partial = responseOf(error) as MetadataResponse | undefined
        if (partial === undefined) throw error
        return partial
      }
    })
    this.#nodes.clear()
    for (const { nodeId, host, port } of response.brokers) this.#nodes.set(nodeId, { host, port })
    this.#controller = response.controllerId
    return response
  }

  /**
   * Makes a request that any broker can answer: of those that are known, or of those that were configured. One after the other,
   * the next one also when a broker says nothing for a while; the first answer counts.
   */
  async #onAny<T>(what: string, request: (connection: Connection) => Promise<T>): Promise<T> {
    const addresses = new Map(
      [...this.#nodes.values(), ...this.#bootstrap].map((address) => [`${address.host}:${address.port}`, address]),
    )
    const failures: unknown[] = []
    const { promise: answer, resolve, reject } = Promise.withResolvers<T>()
    const isOver = answer.then(
      () => undefined,
      () => undefined,
    )
    let isAnswered = false
    const ask = async (address: Address): Promise<void> => {
      try {
        resolve(await request(await this.connections.shared(address, 'calls')))
        isAnswered = true
      } catch (error) {
        failures.push(error)
        if (isLost(error)) return
        reject(failureOf(error, what))
        isAnswered = true
      }
    }
    const asked: Promise<void>[] = []
    for (const address of addresses.values()) {
      const asking = ask(address)
      asked.push(asking)
      await this.#orSilence(Promise.race([asking, isOver]))
      if (isAnswered) return await answer
    }
    await Promise.race([isOver, Promise.all(asked)])
    if (isAnswered) return await answer
    throw this.#unreachable(failures.at(-1))
  }

  /** Resolves when a broker was asked, or when it is time to ask another. */
  async #orSilence(asking: Promise<void>): Promise<void> {
    const { promise: silence, resolve } = Promise.withResolvers<void>()
    const cancel = this.clock.after(HEDGE_MS, resolve)
    try {
      await Promise.race([asking, silence])
    } finally {
      cancel()
    }
  }

  #unreachable(failure: unknown): BrokerError {
    const last = failureOf(failure, 'reach the cluster')
    const names = this.#bootstrap.map(({ host, port }) => `${host}:${port}`).join()
    const isFinal = last instanceof BrokerError && !last.retriable
    return new BrokerError('NETWORK', `Cannot reach Kafka at ${names}: ${last.message}`, {
      cause: last,
      ...(isFinal ? { retriable: false } : {}),
    })
  }
}

/** Kafka's numbers, where the library gives no name. */
const LEADER_NOT_AVAILABLE = 5
const TOPIC_AUTHORIZATION_FAILED = 29

/** Whether a connection was lost, or could not be made. */
function isLost(error: unknown): boolean {
  return isConnectionFailure(error) || (error instanceof BrokerError && error.code === 'NETWORK' && error.retriable)
}

function codeOf(error: unknown): string {
  return error instanceof BrokerError ? error.code : (kafkaNameOf(error) ?? '')
}

function unknownTopic(topic: string): BrokerError {
  return new BrokerError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Unknown topic ${JSON.stringify(topic.slice(0, 260))}: the cluster has no such topic, or hides it. Create it first.`,
  )
}

/** The error for a partition that a topic does not have. */
export function unknownPartition(topic: string, partition: number, count: number): BrokerError {
  return new BrokerError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Unknown partition ${partition} of topic ${topic}: it has partitions 0 to ${count - 1}.`,
  )
}
