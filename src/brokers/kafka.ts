/**
 * A real Kafka cluster, over TCP, for processes on Node: the gateway, a Lambda function, a process that consumes for as long as
 * it lives. Kedge keeps nothing of its own beside it: groups, claims and positions are where the group's coordinator keeps its
 * members, so any process serves any call.
 *
 * Guarantees: an acknowledged record is on all in-sync replicas (acks=all). A batch that is sent again because its answer was
 * lost is stored once. Records of one call to one partition stay in order, and so do the calls of one process. A produce over
 * several partitions is not atomic. A group instance is a static member (group.instance.id) of the classic protocol.
 *
 * It is written for Apache Kafka 3.2 and newer, and speaks through the single requests of `@platformatic/kafka`.
 *
 * @see docs/drivers/kafka.md
 */
import { createTopicsV7, deleteTopicsV6, listGroupsV4 } from '@platformatic/kafka'
import type { CompressionAlgorithmValue, ConnectionOptions } from '@platformatic/kafka'
import type { Broker, BrokerFeatures, Call, GroupDescription, NewTopic, TopicDescription } from '../broker.ts'
import { checkLimits, checkNewTopic } from '../broker-validation.ts'
import type { Clock } from '../clock.ts'
import { systemClock } from '../clock.ts'
import { abortError, BrokerError, ConfigError } from '../errors.ts'
import type { Log } from '../logger.ts'
import type { Random } from '../random.ts'
import { systemRandom } from '../random.ts'
import type { CommittedOffset } from '../record.ts'
import { Cluster } from './kafka/cluster.ts'
import type { Address } from './kafka/connections.ts'
import { Commits } from './kafka/commits.ts'
import { Deadline } from './kafka/deadline.ts'
import { Fetcher } from './kafka/fetch.ts'
import { Groups } from './kafka/groups.ts'
import { Instances } from './kafka/instances.ts'
import { CLIENT_ID, Memberships } from './kafka/membership.ts'
import { Polls } from './kafka/polls.ts'
import { Positions } from './kafka/positions.ts'
import { Produces } from './kafka/produce.ts'
import { Sender } from './kafka/sender.ts'
import { batchBytesFor, TopicConfigs } from './kafka/topic-configs.ts'

/** How TLS is spoken: what `node:tls` takes, PEM texts. */
export interface KafkaTls {
  /** Authorities to trust. @default those of Node */
  readonly ca?: string
  /** The client's certificate, and its key. */
  readonly cert?: string
  readonly key?: string
  /** The name the broker's certificate must have. @default its host */
  readonly servername?: string
  /** false accepts any certificate. @default true */
  readonly rejectUnauthorized?: boolean
}

/** Who the driver is to the cluster. */
export interface KafkaSasl {
  readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
  readonly username: string
  readonly password: string
}

/** Options of `kafkaBroker`. */
export interface KafkaBrokerOptions {
  /** `host:port` of one broker or more; they name the others. */
  readonly bootstrapServers: readonly string[]
  /** Goes behind `kedge` in the client id that the cluster sees. @default nothing */
  readonly clientId?: string
  /** @default no TLS */
  readonly tls?: boolean | KafkaTls
  /** @default no authentication */
  readonly sasl?: KafkaSasl
  /** How batches are compressed (compression.type). @default 'none' */
  readonly compression?: 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd'
  /** Longest time of a call that names none itself, milliseconds; a poll's or fetch's wait comes on top. @default 30000 */
  readonly timeoutMs?: number
  /** A record that is not acknowledged within this time is given up, milliseconds (delivery.timeout.ms). @default 30000 */
  readonly deliveryTimeoutMs?: number
  /** How long a broker may take to accept a connection, milliseconds. @default 5000 */
  readonly connectTimeoutMs?: number
  /** How long a broker may take to answer a request, its wait apart, before its connection is ended, milliseconds. @default 15000 */
  readonly requestTimeoutMs?: number
  /** How much longer than its wait a poll may take to join its group, milliseconds; then it answers empty. @default 200 */
  readonly pollGraceMs?: number
  /** Copies of a topic that is created. @default the cluster's default.replication.factor */
  readonly replicationFactor?: number
  /**
   * Keeps memberships between calls, watches the groups it serves, and reads on for who comes back at once for more. Nothing
   * relies on it: it saves requests and time, and shortens rebalances that other clients begin. @default true
   */
  readonly cache?: boolean
  /** Told of what an operator should know, such as offsets that retention deleted. @default nobody is */
  readonly log?: Log
  /** @default systemClock */
  readonly clock?: Clock
  /** @default systemRandom */
  readonly random?: Random
}

/** What `kafkaBroker` does where its options say nothing. */
export const kafkaBrokerDefaults: Readonly<{
  compression: 'none'
  timeoutMs: number
  deliveryTimeoutMs: number
  connectTimeoutMs: number
  requestTimeoutMs: number
  pollGraceMs: number
}> = Object.freeze({
  compression: 'none',
  timeoutMs: 30_000,
  deliveryTimeoutMs: 30_000,
  connectTimeoutMs: 5_000,
  requestTimeoutMs: 15_000,
  pollGraceMs: 200,
})

const features: BrokerFeatures = {
  atomicProduce: false,
  idempotencyKeys: false,
  claims: true,
  topicAdmin: true,
  autoCommit: true,
  offsetMetadata: true,
  retention: true,
}

const DEFAULT_PORT = 9092
/** The cluster's own default for partitions and copies. */
const CLUSTER_DEFAULT = -1
const UNLIMITED = -1
const LONGEST_SEGMENT_MS = 604_800_000
const LEAST_SEGMENT_BYTES = 1_048_576
const MOST_SEGMENT_BYTES = 1_073_741_824
const RETRY_MS = 20

/**
 * Opens a broker over a cluster. Nothing is sent before the first call.
 * @throws {ConfigError} for an address that is none
 */
export function kafkaBroker(options: KafkaBrokerOptions): Broker {
  return new KafkaBroker(options)
}

class KafkaBroker implements Broker {
  readonly features: BrokerFeatures = features
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #replicationFactor: number
  readonly #closing = new AbortController()
  readonly #lifetime: Deadline
  readonly #cluster: Cluster
  readonly #configs: TopicConfigs
  readonly #sender: Sender
  readonly #produces: Produces
  readonly #fetcher: Fetcher
  readonly #memberships: Memberships
  readonly #polls: Polls
  readonly #commits: Commits
  readonly #groups: Groups

  constructor(options: KafkaBrokerOptions) {
    const { clientId, tls, sasl, log } = options
    const clock = options.clock ?? systemClock
    const random = options.random ?? systemRandom
    const id = clientId === undefined ? CLIENT_ID : `${CLIENT_ID}-${clientId}`
    const connection: Pick<ConnectionOptions, 'tls' | 'sasl' | 'tlsServerName'> = {
      ...(tls === undefined || tls === false
        ? {}
        : { tls: tls === true ? {} : { ...tls }, tlsServerName: serverNameOf(tls) }),
      ...(sasl === undefined ? {} : { sasl: { ...sasl } }),
    }
    this.#clock = clock
    this.#timeoutMs = options.timeoutMs ?? kafkaBrokerDefaults.timeoutMs
    this.#replicationFactor = options.replicationFactor ?? CLUSTER_DEFAULT
    this.#lifetime = new Deadline(clock, undefined, {}, this.#closing.signal)
    this.#cluster = new Cluster({
      bootstrap: addressesOf(options.bootstrapServers),
      clientId: id,
      options: connection,
      connectTimeoutMs: options.connectTimeoutMs ?? kafkaBrokerDefaults.connectTimeoutMs,
      requestTimeoutMs: options.requestTimeoutMs ?? kafkaBrokerDefaults.requestTimeoutMs,
      clock,
    })
    const compression: CompressionAlgorithmValue = options.compression ?? kafkaBrokerDefaults.compression
    this.#configs = new TopicConfigs(this.#cluster)
    this.#sender = new Sender({
      cluster: this.#cluster,
      compression,
      clock,
      random,
      defer: setImmediate,
      lifetime: this.#lifetime,
    })
    this.#produces = new Produces({
      cluster: this.#cluster,
      configs: this.#configs,
      sender: this.#sender,
      clock,
      random,
      deliveryTimeoutMs: options.deliveryTimeoutMs ?? kafkaBrokerDefaults.deliveryTimeoutMs,
    })
    this.#fetcher = new Fetcher({
      cluster: this.#cluster,
      isReadingAhead: options.cache ?? true,
      closing: this.#closing.signal,
    })
    this.#memberships = new Memberships({
      cluster: this.#cluster,
      clock,
      random,
      isWatching: options.cache ?? true,
      closing: this.#closing.signal,
    })
    const instances = new Instances({
      cluster: this.#cluster,
      memberships: this.#memberships,
      clock,
      random,
      isKeeping: options.cache ?? true,
      closing: this.#closing.signal,
    })
    const positions = new Positions({ memberships: this.#memberships, fetcher: this.#fetcher, log })
    this.#commits = new Commits({
      memberships: this.#memberships,
      instances,
      fetcher: this.#fetcher,
      clock,
      closing: this.#closing.signal,
    })
    this.#polls = new Polls({
      cluster: this.#cluster,
      memberships: this.#memberships,
      instances,
      positions,
      fetcher: this.#fetcher,
      clock,
      random,
      graceMs: options.pollGraceMs ?? kafkaBrokerDefaults.pollGraceMs,
      closing: this.#closing.signal,
    })
    this.#groups = new Groups({
      cluster: this.#cluster,
      memberships: this.#memberships,
      instances,
      clock,
    })
  }

  async produce(...[records, options = {}, call = {}]: Parameters<Broker['produce']>): ReturnType<Broker['produce']> {
    return await this.#run(call, 0, async (deadline) => {
      if (options.idempotencyKey !== undefined) {
        throw new BrokerError(
          'UNSUPPORTED',
          'Cannot name a produce: Kafka keeps no idempotency keys. Send it without, and let its consumer recognise what comes twice.',
        )
      }
      return records.length === 0 ? [] : await this.#produces.produce(records, options, deadline)
    })
  }

  async fetch(...[from, limits, call = {}]: Parameters<Broker['fetch']>): ReturnType<Broker['fetch']> {
    return await this.#run(call, limits.maxWaitMs, async (deadline) => {
      checkLimits(limits)
      const last = new Map(from.map((entry) => [`${entry.partition}/${entry.topic}`, entry] as const))
      return await this.#fetcher.fetch([...last.values()], limits, deadline)
    })
  }

  async poll(...[request, call = {}]: Parameters<Broker['poll']>): ReturnType<Broker['poll']> {
    return await this.#run(call, request.maxWaitMs, (deadline) => this.#polls.poll(request, deadline))
  }

  async claim(...[group, run, call = {}]: Parameters<Broker['claim']>): Promise<void> {
    await this.#run(call, 0, (deadline) => this.#groups.claim(group, run, deadline))
  }

  async release(...[group, runId, call = {}]: Parameters<Broker['release']>): Promise<void> {
    await this.#run(call, 0, (deadline) => this.#groups.release(group, runId, deadline))
  }

  async commit(...[group, offsets, options = {}, call = {}]: Parameters<Broker['commit']>): Promise<void> {
    await this.#run(call, 0, (deadline) => this.#commits.commit(group, offsets, options, deadline))
  }

  async committed(...[groupId, partitions, call = {}]: Parameters<Broker['committed']>): Promise<CommittedOffset[]> {
    return await this.#run(call, 0, (deadline) => this.#groups.committed(groupId, partitions, deadline))
  }

  async offsets(...[partitions, at, call = {}]: Parameters<Broker['offsets']>): ReturnType<Broker['offsets']> {
    return await this.#run(call, 0, (deadline) => this.#fetcher.offsets(partitions, at, deadline))
  }

  async topics(call: Call = {}): Promise<TopicDescription[]> {
    return await this.#run(call, 0, async (deadline) => {
      const topics = (await this.#cluster.allTopics(deadline)).filter(({ isInternal }) => !isInternal)
      const ordered = topics.toSorted((a, b) => (a.topic < b.topic ? -1 : 1))
      const configs = await this.#configs.read(
        ordered.map(({ topic }) => topic),
        deadline,
      )
      return ordered.map(({ topic, leaders }, index) => ({
        topic,
        partitions: leaders.length,
        ...(configs[index] ?? this.#configs.fallback),
      }))
    })
  }

  async createTopic(...[topic, call = {}]: Parameters<Broker['createTopic']>): Promise<TopicDescription> {
    return await this.#run(call, 0, async (deadline) => {
      const description = checkNewTopic(topic)
      const { topic: name, partitions } = description
      const nodeId = await this.#cluster.controllerId(deadline)
      const request = {
        name,
        numPartitions: partitions,
        replicationFactor: this.#replicationFactor,
        assignments: [],
        configs: configsOf(topic, description),
      }
      await deadline.race(
        this.#cluster.onNode(nodeId, `create topic ${name}`, (connection) =>
          createTopicsV7.api.async(connection, [request], deadline.leftMs, false),
        ),
      )
      this.#configs.forget(name)
      await this.#untilLed(name, partitions, deadline)
      return description
    })
  }

  async deleteTopic(...[topic, call = {}]: Parameters<Broker['deleteTopic']>): Promise<void> {
    await this.#run(call, 0, async (deadline) => {
      await this.#cluster.refreshTopic(topic, deadline)
      const nodeId = await this.#cluster.controllerId(deadline)
      await deadline.race(
        this.#cluster.onNode(nodeId, `delete topic ${topic}`, (connection) =>
          deleteTopicsV6.api.async(connection, [{ name: topic }], deadline.leftMs),
        ),
      )
      this.#cluster.forgetTopic(topic)
      this.#configs.forget(topic)
    })
  }

  async groups(call: Call = {}): Promise<GroupDescription[]> {
    return await this.#run(call, 0, async (deadline) => {
      const ids = new Set<string>()
      for (const nodeId of await this.#cluster.nodeIds(deadline)) {
        const { groups } = await deadline.race(
          this.#cluster.onNode(nodeId, 'list groups', (connection) => listGroupsV4.api.async(connection, [], [])),
        )
        for (const { groupId, protocolType } of groups) {
          // Groups of Kafka Connect and other protocols have no members of this kind.
          if (protocolType === 'consumer' || protocolType === '') ids.add(groupId)
        }
      }
      const described: GroupDescription[] = []
      for (const groupId of [...ids].sort()) {
        const group = await this.#groups.describe(groupId, deadline)
        if (group !== undefined) described.push(group)
      }
      return described
    })
  }

  async leave(...[group, call = {}]: Parameters<Broker['leave']>): Promise<void> {
    await this.#run(call, 0, (deadline) => this.#groups.leave(group, deadline))
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    const closed = new BrokerError('CLOSED', 'The broker is closed: open it again.')
    this.#sender.close(closed)
    this.#closing.abort(closed)
    this.#lifetime.close()
    await this.#cluster.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Makes a call within its time and until it is given up. */
  async #run<T>(call: Call, waitMs: number, work: (deadline: Deadline) => Promise<T>): Promise<T> {
    if (call.signal?.aborted === true) throw abortError(call.signal)
    if (this.#closing.signal.aborted) throw abortError(this.#closing.signal)
    const limitMs = call.timeoutMs ?? this.#timeoutMs + (waitMs >= 0 ? waitMs : 0)
    const deadline = new Deadline(this.#clock, limitMs, call, this.#closing.signal)
    try {
      return await deadline.race(work(deadline))
    } finally {
      deadline.close()
    }
  }

  /** A topic is there before each broker knows it and its leaders. */
  async #untilLed(topic: string, partitions: number, deadline: Deadline): Promise<void> {
    for (;;) {
      this.#cluster.forgetTopic(topic)
      const found = await this.#cluster.refreshTopic(topic, deadline).catch((error: unknown) => {
        if (error instanceof BrokerError && error.code === 'UNKNOWN_TOPIC_OR_PARTITION') return undefined
        throw error
      })
      if (found?.leaders.length === partitions && !found.leaders.includes(-1)) return
      await deadline.pause(RETRY_MS)
    }
  }
}

/** What Kafka is told of a topic. Segments are as short as what is to be deleted, because Kafka deletes whole ones. */
function configsOf(
  given: NewTopic,
  { retentionMs, retentionBytes, maxRecordBytes }: TopicDescription,
): createTopicsV7.CreateTopicsRequestTopicConfig[] {
  const configs: Record<string, number> = {
    'max.message.bytes': batchBytesFor(maxRecordBytes),
    'retention.ms': retentionMs ?? UNLIMITED,
    'retention.bytes': retentionBytes ?? UNLIMITED,
  }
  if (typeof given.retentionMs === 'number') configs['segment.ms'] = Math.min(given.retentionMs, LONGEST_SEGMENT_MS)
  if (typeof given.retentionBytes === 'number') {
    configs['segment.bytes'] = Math.min(
      Math.max(LEAST_SEGMENT_BYTES, Math.floor(given.retentionBytes / 4)),
      MOST_SEGMENT_BYTES,
    )
  }
  return Object.entries(configs).map(([name, value]) => ({ name, value: String(value) }))
}

const ADDRESS = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]/@\s]+))(?::(\d{1,5}))?$/

function addressesOf(servers: readonly string[]): Address[] {
  if (servers.length === 0) throw new ConfigError('Cannot open Kafka: no server is named. Name one as host:port.')
  return servers.map((server) => {
    const [, v6, name, digits = String(DEFAULT_PORT)] = ADDRESS.exec(server) ?? []
    const host = v6 ?? name
    const port = Number(digits)
    if (host === undefined || port < 1 || port > 65_535) {
      throw new ConfigError(`Cannot open Kafka: ${JSON.stringify(server)} is no address. Write it as host:port.`)
    }
    return { host, port }
  })
}

/** true: the broker's host, as the library sends it. */
function serverNameOf(tls: true | KafkaTls): string | true {
  return tls === true ? true : (tls.servername ?? true)
}
