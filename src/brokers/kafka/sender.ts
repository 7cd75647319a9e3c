/**
 * The shared producer: acks=all, idempotent, one produce request on its way to each broker. Records that arrive meanwhile, or
 * in the same turn of the event loop, share the next one, whoever sent them; nothing waits for a timer. A batch holds records of one partition, in the order in
 * which they arrived, and no more than the topic takes, so that one caller's records never fail another's.
 *
 * A batch whose answer was lost, or whose leader moved, is sent again under the same sequence number, which Kafka stores once.
 * A batch that is given up after that leaves its partition with a new producer id, because its sequence may be used up.
 *
 * @see https://cwiki.apache.org/confluence/display/KAFKA/KIP-98 for producer ids, epochs and sequences
 */
import { createAPI, initProducerIdV4, produceV9, Writer } from '@platformatic/kafka'
import type { CompressionAlgorithmValue, Connection } from '@platformatic/kafka'
import { backoffMs } from '../../backoff.ts'
import type { Clock } from '../../clock.ts'
import { BrokerError } from '../../errors.ts'
import type { Random } from '../../random.ts'
import type { RecordMetadata } from '../../record.ts'
import type { Cluster } from './cluster.ts'
import type { Deadline } from './deadline.ts'
import { failureOf, isEndedConnection, numberedFailure, responseOf } from './failures.ts'
import { sealBatch, writeBatch } from './record-batch.ts'
import type { TimedRecord } from './record-batch.ts'

type ProduceResponse = produceV9.ProduceResponse
type PartitionAnswer = ProduceResponse['responses'][number]['partitionResponses'][number]

/** A record on its way. */
export interface Outgoing extends TimedRecord {
  /** About its size in a batch. */
  readonly bytes: number
  /** Monotonic: not tried again after it. */
  readonly giveUpAt: number
  /** Nobody waits for it any more; its bytes are not ours any longer. */
  isAbandoned: boolean
  settle(result: RecordMetadata | BrokerError): void
}

/** How records are sent. */
export interface SenderSettings {
  readonly cluster: Cluster
  readonly compression: CompressionAlgorithmValue
  readonly clock: Clock
  readonly random: Random
  /** Calls what it is given after everything that is to be done in this turn of the event loop. */
  readonly defer: (run: () => void) => void
  /** Ends with the broker object. */
  readonly lifetime: Deadline
}

/** How long the leader may wait for its replicas, milliseconds. */
const ACKS_TIMEOUT_MS = 10_000
/** Most bytes of one request; brokers take 100 MiB (socket.request.max.bytes). */
const MAX_REQUEST_BYTES = 16 * 1024 * 1024
const ALL_REPLICAS = -1
const retryBackoff = { initialMs: 20, maxMs: 1_000, factor: 2 }

/** A batch with which so many connections were lost, one after the other, is what the broker ends them for. */
const MAX_LOSSES = 4

const DUPLICATE_SEQUENCE = 46
const tooLarge: ReadonlySet<number> = new Set([10, 18])
/** The batch's sequence or producer id is not what the broker expects: it can store nothing under them. */
const brokenSequences: ReadonlySet<number> = new Set([45, DUPLICATE_SEQUENCE, 47, 59, 90])

/** A producer id with its epoch; sequences count from 0 under each. */
interface Identity {
  readonly producerId: bigint
  readonly producerEpoch: number
}

interface Batch {
  readonly records: readonly Outgoing[]
  readonly bytes: number
  /** The records as they are sent, each time the same. */
  written: Buffer
  isSealed: boolean
  readonly firstSequence: number
  /** It was sent and no answer said that it was not written: it may be. */
  isUnknown: boolean
  /** How often a broker that is there ended the connection on which it was sent. */
  losses: number
}

/** One partition: what waits for it, and the batch that is being sent. */
class Lane {
  readonly topic: string
  readonly partition: number
  maxBatchBytes = 0
  queue: Outgoing[] = []
  batch: Batch | undefined
  identity: Identity | undefined
  sequence = 0
  failures = 0
  /** Monotonic: it is not tried again before. */
  notBefore = 0
  /** A request with its batch is on its way, or its leader is looked for. */
  isBusy = false

  constructor(topic: string, partition: number) {
    this.topic = topic
    this.partition = partition
  }

  get isEmpty(): boolean {
    return this.batch === undefined && this.queue.length === 0
  }
}

/** Sends records to the leaders of their partitions. */
export class Sender {
  readonly #settings: SenderSettings
  readonly #lanes = new Map<string, Map<number, Lane>>()
  /** Lanes that have something to send, in the order of their turns. */
  readonly #ready = new Set<Lane>()
  /** Nodes to which a request is on its way. */
  readonly #busyNodes = new Set<number>()
  #identity: Promise<Identity> | undefined
  #isScheduled = false
  #closed: BrokerError | undefined

  constructor(settings: SenderSettings) {
    this.#settings = settings
  }

  /** Takes records for one partition, which they reach in this order and after those taken before. */
  add(topic: string, partition: number, maxBatchBytes: number, records: readonly Outgoing[]): void {
    let partitions = this.#lanes.get(topic)
    if (partitions === undefined) this.#lanes.set(topic, (partitions = new Map<number, Lane>()))
    let lane = partitions.get(partition)
    if (lane === undefined) partitions.set(partition, (lane = new Lane(topic, partition)))
    lane.maxBatchBytes = maxBatchBytes
    for (const record of records) lane.queue.push(record)
    this.#ready.add(lane)
    this.#schedule()
  }

  /** Nobody waits for these records any more: those that are in no batch yet are not sent. */
  abandon(topic: string, partition: number, records: readonly Outgoing[]): void {
    for (const record of records) record.isAbandoned = true
    const lane = this.#lanes.get(topic)?.get(partition)
    if (lane !== undefined) lane.queue = lane.queue.filter((record) => !record.isAbandoned)
  }

  /** Settles everything that is left with the error. */
  close(error: BrokerError): void {
    this.#closed = error
    for (const lane of this.#ready) {
      for (const record of [...(lane.batch?.records ?? []), ...lane.queue]) record.settle(error)
    }
    this.#ready.clear()
  }

  /** Lets whatever arrives in this turn of the event loop come along. */
  #schedule(): void {
    if (this.#isScheduled || this.#closed !== undefined) return
    this.#isScheduled = true
    this.#settings.defer(() => {
      this.#isScheduled = false
      this.#dispatch()
    })
  }

  /** Sends what is ready to every leader that has answered the request before. */
  #dispatch(): void {
    const { cluster, clock } = this.#settings
    const lanesOf = new Map<number, Lane[]>()
    const now = clock.monotonic()
    for (const lane of this.#ready) {
      if (lane.isBusy || lane.notBefore > now) continue
      const leader = cluster.cachedTopic(lane.topic)?.leaders[lane.partition] ?? -1
      if (leader === -1) void this.#findLeader(lane)
      else if (!this.#busyNodes.has(leader)) {
        const lanes = lanesOf.get(leader)
        if (lanes === undefined) lanesOf.set(leader, [lane])
        else lanes.push(lane)
      }
    }
    for (const [nodeId, lanes] of lanesOf) void this.#sendTo(nodeId, lanes)
  }

  async #sendTo(nodeId: number, lanes: readonly Lane[]): Promise<void> {
    this.#busyNodes.add(nodeId)
    for (const lane of lanes) lane.isBusy = true
    const taken: Lane[] = []
    try {
      const shared = await this.#sharedIdentity()
      const connection = await this.#settings.cluster.connectionTo(nodeId, 'produce')
      this.#fill(lanes, shared, taken)
      const response = await this.#request(connection, taken)
      const answers = new Map(
        response.responses.flatMap(({ name, partitionResponses }) =>
          partitionResponses.map((answer) => [`${name}:${answer.index}`, answer] as const),
        ),
      )
      for (const lane of taken) this.#settle(lane, answers.get(`${lane.topic}:${lane.partition}`))
    } catch (error) {
      const isSent = taken.length > 0
      // A broker that answers everything else ended the connection for what was sent; one that does not may be gone.
      const isForIt = isSent && isEndedConnection(error) && (await this.#settings.cluster.answers(nodeId))
      for (const lane of isSent ? taken : lanes) {
        this.#settings.cluster.forgetLeaders(lane.topic)
        if (isForIt && lane.batch !== undefined) lane.batch.losses += 1
        this.#fail(lane, failureOf(error, `produce to ${lane.topic}[${lane.partition}]`), isSent)
      }
    } finally {
      this.#busyNodes.delete(nodeId)
      for (const lane of lanes) this.#rest(lane)
      this.#schedule()
    }
  }

  /** Gives the lane its next turn, behind the others. */
  #rest(lane: Lane): void {
    lane.isBusy = false
    this.#ready.delete(lane)
    if (this.#closed === undefined && !lane.isEmpty) this.#ready.add(lane)
  }

  /** Makes the lanes' next batches and gathers those that go together. */
  #fill(lanes: readonly Lane[], shared: Identity, taken: Lane[]): void {
    let bytes = 0
    for (const lane of lanes) {
      if (bytes >= MAX_REQUEST_BYTES) return
      lane.batch ??= nextBatch(lane, shared)
      if (lane.batch === undefined) continue
      // What may be the reason for a lost connection goes alone, so that it harms nothing else.
      if (lane.batch.losses > 0 && taken.length > 0) continue
      bytes += lane.batch.bytes
      taken.push(lane)
      if (lane.batch.losses > 0) return
    }
  }

  async #request(connection: Connection, lanes: readonly Lane[]): Promise<ProduceResponse> {
    if (lanes.length === 0) return { responses: [], throttleTimeMs: 0 }
    for (const { batch } of lanes) {
      if (batch === undefined || batch.isSealed) continue
      batch.written = await sealBatch(batch.written, this.#settings.compression)
      batch.isSealed = true
    }
    try {
      return await produceApi.async(connection, lanes)
    } catch (error) {
      const partial = responseOf(error) as ProduceResponse | undefined
      if (partial === undefined) throw error
      return partial
    }
  }

  #settle(lane: Lane, answer: PartitionAnswer | undefined): void {
    const { batch, topic, partition } = lane
    if (batch === undefined || answer === undefined) return
    const { errorCode, baseOffset, logAppendTimeMs } = answer
    if (errorCode === 0) {
      lane.batch = undefined
      lane.failures = 0
      let offset = Number(baseOffset)
      const appendedAt = logAppendTimeMs === -1n ? undefined : Number(logAppendTimeMs)
      for (const record of batch.records) {
        record.settle({ topic, partition, offset, timestampMs: appendedAt ?? record.timestampMs })
        offset += 1
      }
      return
    }
    const failure = numberedFailure(errorCode, `produce to ${topic}[${partition}]`, answer.errorMessage)
    // The leader may have it although its replicas do not: its sequence numbers must never name other records.
    if (failure.retriable) batch.isUnknown = true
    if (tooLarge.has(errorCode) && batch.records.length > 1 && !batch.isUnknown) {
      // The topic takes less than it was thought to: each half may still fit, and a record that does not fails alone.
      lane.maxBatchBytes = Math.ceil(batch.bytes / 2)
      takeBack(lane, batch, new Set())
      return
    }
    if (!failure.retriable && !batch.isUnknown && !brokenSequences.has(errorCode)) {
      this.#refuse(lane, batch, answer, failure)
      return
    }
    if (failure.retriable) this.#settings.cluster.forgetLeaders(topic)
    this.#fail(lane, failure, false)
  }

  /** The broker took nothing of the batch: because of all its records, or because of those that it names. */
  #refuse(lane: Lane, batch: Batch, { recordErrors }: PartitionAnswer, failure: BrokerError): void {
    const named = new Set(recordErrors.map(({ batchIndex }) => batchIndex))
    const refused = new Set(batch.records.filter((_, index) => named.size === 0 || named.has(index)))
    takeBack(lane, batch, refused)
    for (const record of refused) record.settle(failure)
  }

  /** Something failed on the way: tries again while there is time, unless the failure is final. */
  #fail(lane: Lane, failure: Error, isUnknown: boolean): void {
    const { clock, random } = this.#settings
    lane.failures += 1
    const waitMs = backoffMs(retryBackoff, lane.failures, random)
    const again = clock.monotonic() + waitMs
    const isFinal = !(failure instanceof BrokerError) || !failure.retriable
    const { batch } = lane
    if (batch === undefined) {
      const over = lane.queue.filter(({ giveUpAt }) => isFinal || giveUpAt <= again)
      const gone = new Set(over)
      lane.queue = lane.queue.filter((record) => !gone.has(record))
      for (const record of over) record.settle(asBrokerError(failure))
    } else {
      batch.isUnknown ||= isUnknown
      if (isFinal || batch.losses >= MAX_LOSSES || batch.records.some(({ giveUpAt }) => giveUpAt <= again))
        this.#giveUp(lane, batch, failure)
    }
    if (lane.isEmpty) return
    lane.notBefore = again
    clock.after(waitMs + 1, () => this.#schedule())
  }

  /** What became of the batch stays unknown: what follows it goes under another producer id. */
  #giveUp(lane: Lane, batch: Batch, failure: Error): void {
    lane.batch = undefined
    lane.identity = undefined
    lane.sequence = 0
    this.#identity = undefined
    for (const record of batch.records) record.settle(asBrokerError(failure))
  }

  /** Asks who leads a partition now. A topic that is gone is final. */
  async #findLeader(lane: Lane): Promise<void> {
    const { cluster, lifetime } = this.#settings
    lane.isBusy = true
    const what = `produce to ${lane.topic}[${lane.partition}]`
    try {
      const { leaders } = await cluster.refreshTopic(lane.topic, lifetime)
      if ((leaders[lane.partition] ?? -1) === -1) this.#fail(lane, numberedFailure(LEADER_NOT_AVAILABLE, what), false)
    } catch (error) {
      const failure = failureOf(error, what)
      const isGone = failure instanceof BrokerError && failure.code === 'UNKNOWN_TOPIC_OR_PARTITION'
      if (isGone && lane.batch !== undefined) this.#giveUp(lane, lane.batch, failure)
      this.#fail(lane, isGone ? new BrokerError(failure.code, failure.message, { retriable: false }) : failure, false)
    } finally {
      this.#rest(lane)
      this.#schedule()
    }
  }

  async #sharedIdentity(): Promise<Identity> {
    if (this.#identity === undefined) {
      const asking = this.#newIdentity()
      this.#identity = asking
      asking.catch(() => {
        if (this.#identity === asking) this.#identity = undefined
      })
    }
    return await this.#identity
  }

  async #newIdentity(): Promise<Identity> {
    const { cluster, lifetime } = this.#settings
    const { producerId, producerEpoch } = await cluster.onAnyNode('get a producer id', lifetime, (connection) =>
      initProducerIdV4.api.async(connection, null, 0, -1n, -1),
    )
    return { producerId, producerEpoch }
  }
}

const LEADER_NOT_AVAILABLE = 5
const PRODUCE = 0
const PRODUCE_VERSION = 9

/** Produce with batches of ours: the library's own request makes them of its messages. */
const produceApi = createAPI<[lanes: readonly Lane[]], ProduceResponse>(
  PRODUCE,
  PRODUCE_VERSION,
  (lanes: readonly Lane[]) => {
    const topics = [...Map.groupBy(lanes, ({ topic }) => topic)]
    return Writer.create()
      .appendString(null)
      .appendInt16(ALL_REPLICAS)
      .appendInt32(ACKS_TIMEOUT_MS)
      .appendArray(topics, (writer, [topic, partitions]) => {
        writer.appendString(topic).appendArray(partitions, (writer, { partition, batch }) => {
          const written = batch?.written ?? Buffer.alloc(0)
          writer
            .appendInt32(partition)
            .appendUnsignedVarInt(written.length + 1)
            .append(written)
        })
      })
      .appendTaggedFields()
  },
  produceV9.parseResponse,
)

function nextBatch(lane: Lane, shared: Identity): Batch | undefined {
  let count = 0
  let bytes = 0
  for (const record of lane.queue) {
    if (count > 0 && bytes + record.bytes > lane.maxBatchBytes) break
    bytes += record.bytes
    count += 1
  }
  if (count === 0) return undefined
  const records = count === lane.queue.length ? lane.queue : lane.queue.slice(0, count)
  lane.queue = count === lane.queue.length ? [] : lane.queue.slice(count)
  lane.identity ??= shared
  const firstSequence = lane.sequence
  // Sequence numbers are int32 and begin again at 0.
  lane.sequence = (firstSequence + count) % 0x8000_0000
  const written = writeBatch(records, { ...lane.identity, firstSequence })
  return { records, bytes, written, isSealed: false, firstSequence, isUnknown: false, losses: 0 }
}

/**
 * The batch was not stored: all but the refused records, and those that nobody waits for, wait at the front again; its sequence
 * numbers are free.
 */
function takeBack(lane: Lane, batch: Batch, refused: ReadonlySet<Outgoing>): void {
  lane.batch = undefined
  lane.sequence = batch.firstSequence
  const waiting = batch.records.filter((record) => !refused.has(record) && !record.isAbandoned)
  lane.queue = [...waiting, ...lane.queue]
}

function asBrokerError(failure: Error): BrokerError {
  if (failure instanceof BrokerError) return failure
  return new BrokerError('UNKNOWN_SERVER_ERROR', `Cannot produce: ${failure.message}`, { cause: failure })
}
