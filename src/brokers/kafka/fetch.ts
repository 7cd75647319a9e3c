/**
 * Reading records at offsets: one request to each leader, the waiting ones over connections of their own, in slices, so that
 * whoever waits can look up from it. Whole batches arrive; what was not asked for is left out here.
 *
 * Reads what is replicated, aborted transactions included (Kafka's default, isolation.level=read_uncommitted).
 */
import { createAPI, fetchV13, listOffsetsV7, Reader } from '@platformatic/kafka'
import type { FetchLimits, OffsetSpec } from '../../broker.ts'
import { isWhole } from '../../broker-validation.ts'
import { BrokerError } from '../../errors.ts'
import { headersBytes } from '../../headers.ts'
import { partitionKey } from '../../record.ts'
import type { ConsumerRecord, TopicPartition, TopicPartitionOffset } from '../../record.ts'
import type { Cluster } from './cluster.ts'
import { unknownPartition } from './cluster.ts'
import { BusyError } from './connections.ts'
import { Deadline } from './deadline.ts'
import { failureOf, isTimeout, numberedFailure, responseOf } from './failures.ts'
import { readBatches } from './record-batch.ts'
import type { BatchSizes, ReadRecord } from './record-batch.ts'
import { ReadAhead } from './read-ahead.ts'

/** The longest a broker is left to wait: so long, at most, a change goes unnoticed. */
export const SLICE_MS = 500
/** Between two looks for a leader that is not there yet. */
const RETRY_MS = 50
/** A leader is asked for so much, at least and at most; more where it was not enough. */
const LEAST_BYTES = 64 * 1024
const MAX_RESPONSE_BYTES = 16 * 1024 * 1024
/** What a record takes in a topic that nothing has been read from yet. */
const BYTES_PER_RECORD = 1024
/** Batches come whole and rarely end where an answer is full. */
const ROOM = 1.25
/** An answer that is read ahead and takes longer helps nobody. */
const AHEAD_LIMIT_MS = 2_000
const GOLDEN_RATIO = 0.618_033_988_749_895
const OFFSET_OUT_OF_RANGE = 1
/** Errors after which the leader and the topic's id are looked up anew. */
const moved: ReadonlySet<number> = new Set([3, 5, 6, 9, 74, 75, 76, 78, 100, 103])

/** What one round of requests gave. */
interface Round {
  /** Where each partition goes on that gave something: records, or what is none (markers of transactions, compacted away). */
  readonly next: TopicPartitionOffset[]
  /** Partitions whose offset is outside the log. */
  readonly outOfRange: TopicPartition[]
  /** More of what was asked for is there. */
  readonly hasMore: boolean
  /** Leaders have to be looked up anew. */
  readonly isMoved: boolean
}

/** Collects the records of an answer within its limits, counted as the port counts: bytes of keys, values and headers. */
class Collector {
  readonly records: ConsumerRecord[] = []
  readonly #limits: FetchLimits
  #bytes = 0
  #isFull = false

  constructor(limits: FetchLimits) {
    this.#limits = limits
  }

  get isFull(): boolean {
    return this.#isFull
  }

  /** Takes a record, unless the answer is full. The first one is taken whatever its size. */
  take(topic: string, partition: number, { offset, timestampMs, key, value, headers }: ReadRecord): boolean {
    if (this.#isFull) return false
    const bytes = (key?.length ?? 0) + (value?.length ?? 0) + (headers.length === 0 ? 0 : headersBytes(headers))
    if (this.records.length > 0 && this.#bytes + bytes > this.#limits.maxBytes) {
      this.#isFull = true
      return false
    }
    this.records.push({ topic, partition, offset, timestampMs, key, value, headers })
    this.#bytes += bytes
    this.#isFull = this.records.length >= this.#limits.maxRecords
    return true
  }
}

/** What reading needs. */
export interface FetcherParts {
  readonly cluster: Cluster
  /** Reads on for callers who come back at once for more. */
  readonly isReadingAhead: boolean
  /** Aborted when the broker closes. */
  readonly closing: AbortSignal
}

/** Reads from partitions, and looks offsets up. */
export class Fetcher {
  readonly #cluster: Cluster
  /** Which partition comes first, so that a busy one starves no other. */
  #turn = 0
  /** Bytes of a record of each topic, about, as it was last read. */
  readonly #recordBytes = new Map<string, number>()
  readonly #ahead: ReadAhead<(Answer | 'moved')[]> | undefined
  readonly #closing: AbortSignal

  constructor({ cluster, isReadingAhead, closing }: FetcherParts) {
    this.#cluster = cluster
    this.#closing = closing
    this.#ahead = isReadingAhead ? new ReadAhead(cluster.clock) : undefined
    closing.addEventListener('abort', () => this.#ahead?.close(), { once: true })
  }

  /**
   * Reads from the offsets until something is there or the time is over.
   * @throws {BrokerError} OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC_OR_PARTITION
   */
  async fetch(
    from: readonly TopicPartitionOffset[],
    limits: FetchLimits,
    deadline: Deadline,
  ): Promise<ConsumerRecord[]> {
    const { clock } = this.#cluster
    const until = clock.monotonic() + limits.maxWaitMs
    await this.requirePartitions(from, deadline)
    for (;;) {
      const leftMs = Math.max(0, until - clock.monotonic())
      const { records, outOfRange } = await this.read(from, limits, Math.min(leftMs, SLICE_MS), deadline)
      const [refused] = outOfRange
      if (refused !== undefined) throw await this.#outOfRange(refused, from, deadline)
      if (records.length > 0 || leftMs <= 0 || from.length === 0) return records
    }
  }

  /**
   * One look at the partitions that waits for at most `waitMs`; where all that was asked for does not fit into one request,
   * as many as fill the limits.
   */
  async read(
    from: readonly TopicPartitionOffset[],
    limits: FetchLimits,
    waitMs: number,
    deadline: Deadline,
  ): Promise<{ readonly records: ConsumerRecord[]; readonly outOfRange: readonly TopicPartition[] }> {
    if (from.length === 0) {
      if (waitMs > 0) await deadline.pause(waitMs)
      return { records: [], outOfRange: [] }
    }
    const collector = new Collector(limits)
    // Steps of an irrational part of the circle meet every partition, also for one who makes only each second step.
    const turn = Math.floor(((this.#turn++ * GOLDEN_RATIO) % 1) * from.length)
    const wanted = new Map(
      [...from.slice(turn), ...from.slice(0, turn)].map((entry) => [partitionKey(entry), entry] as const),
    )
    let bytes = this.#bytesFor(from, limits)
    const until = this.#cluster.clock.monotonic() + waitMs
    const isExpected = await this.#takeAhead(wanted, collector, deadline)
    let isFirst = true
    while (!collector.isFull) {
      // What is there is read first: only who finds nothing needs one of the connections that wait.
      const leftMs = isFirst || collector.records.length > 0 ? 0 : Math.max(0, until - this.#cluster.clock.monotonic())
      isFirst = false
      const round = await this.#round([...wanted.values()], collector, leftMs, bytes, deadline)
      if (round.outOfRange.length > 0) return { records: collector.records, outOfRange: round.outOfRange }
      for (const entry of round.next) wanted.set(partitionKey(entry), entry)
      if (round.isMoved && collector.records.length === 0) {
        await this.#lookAgain([...wanted.values()], deadline)
        if (this.#cluster.clock.monotonic() < until) {
          await deadline.pause(Math.min(RETRY_MS, until - this.#cluster.clock.monotonic()))
          continue
        }
      }
      const isOver = this.#cluster.clock.monotonic() >= until
      const isDone = collector.records.length > 0 ? !round.hasMore || round.next.length === 0 : isOver && !round.hasMore
      if (isDone) return { records: collector.records, outOfRange: [] }
      if (!collector.isFull && round.next.length > 0) bytes = Math.min(bytes * 2, MAX_RESPONSE_BYTES)
    }
    this.#readAhead([...wanted.values()], bytes, isExpected)
    return { records: collector.records, outOfRange: [] }
  }

  /** Looks offsets up, one for each partition, in that order. @throws {BrokerError} UNKNOWN_TOPIC_OR_PARTITION */
  async offsets(
    partitions: readonly TopicPartition[],
    at: OffsetSpec,
    deadline: Deadline,
  ): Promise<TopicPartitionOffset[]> {
    await this.requirePartitions(partitions, deadline)
    const found = await this.#list(partitions, at, deadline)
    const absent = partitions.filter((partition) => (found.get(partitionKey(partition)) ?? -1) < 0)
    // A time after the last record gives no offset: its first record will be the next one.
    const ends = absent.length > 0 && at !== 'latest' ? await this.#list(absent, 'latest', deadline) : new Map()
    return partitions.map(({ topic, partition }) => {
      const key = partitionKey({ topic, partition })
      const offset = found.get(key) ?? -1
      return { topic, partition, offset: offset >= 0 ? offset : ((ends.get(key) as number | undefined) ?? 0) }
    })
  }

  /** Sees that partitions exist. @throws {BrokerError} UNKNOWN_TOPIC_OR_PARTITION */
  async requirePartitions(partitions: readonly TopicPartition[], deadline: Deadline): Promise<void> {
    for (const { topic, partition } of partitions) {
      const known = (await this.#cluster.topic(topic, deadline)).leaders.length
      if (isWhole(partition, 0, known - 1)) continue
      // It may have been added since.
      const count = (await this.#cluster.refreshTopic(topic, deadline)).leaders.length
      if (!isWhole(partition, 0, count - 1)) throw unknownPartition(topic, partition, count)
    }
  }

  async #round(
    wanted: readonly TopicPartitionOffset[],
    collector: Collector,
    waitMs: number,
    bytes: number,
    deadline: Deadline,
  ): Promise<Round> {
    const byLeader = new Map<number, TopicPartitionOffset[]>()
    let isMoved = false
    for (const entry of wanted) {
      const leader = (await this.#cluster.topic(entry.topic, deadline)).leaders[entry.partition] ?? -1
      if (leader === -1) isMoved = true
      else byLeader.set(leader, [...(byLeader.get(leader) ?? []), entry])
    }
    if (byLeader.size === 0) return { next: [], outOfRange: [], hasMore: false, isMoved: true }
    const answers = await this.#ask(byLeader, waitMs, bytes, deadline)
    const round = this.#collect(answers, collector)
    return isMoved ? { ...round, isMoved } : round
  }

  #collect(answers: readonly (Answer | 'moved')[], collector: Collector): Round {
    let isMoved = false
    const next: TopicPartitionOffset[] = []
    const outOfRange: TopicPartition[] = []
    let hasMore = false
    for (const answer of answers) {
      if (answer === 'moved') {
        isMoved = true
        continue
      }
      for (const [entry, partition] of answer) {
        if (partition.errorCode === OFFSET_OUT_OF_RANGE) outOfRange.push(entry)
        else if (moved.has(partition.errorCode)) isMoved = true
        else if (partition.errorCode !== 0) {
          throw numberedFailure(partition.errorCode, `read ${entry.topic}[${entry.partition}]`)
        } else {
          const offset = this.#take(partition.records, entry, collector)
          if (offset > entry.offset) next.push({ topic: entry.topic, partition: entry.partition, offset })
          if (offset < Number(partition.highWatermark)) hasMore = true
        }
      }
    }
    return { next, outOfRange, hasMore, isMoved }
  }

  /** Takes what was read ahead of these positions. Says whether they were expected. */
  async #takeAhead(
    wanted: Map<string, TopicPartitionOffset>,
    collector: Collector,
    deadline: Deadline,
  ): Promise<boolean> {
    if (this.#ahead === undefined || this.#ahead.isEmpty) return false
    const { isExpected, answer } = this.#ahead.take(this.#keyOf(wanted.values()))
    const answers = answer === undefined ? undefined : await deadline.race(answer)
    // Leaders that moved and offsets that are gone are met again by whoever asks for the rest.
    if (answers !== undefined) {
      for (const entry of this.#collect(answers, collector).next) wanted.set(partitionKey(entry), entry)
    }
    return isExpected
  }

  /** Expects the caller of a full answer to go on from here; one who did so before finds the next answer read already. */
  #readAhead(from: readonly TopicPartitionOffset[], bytes: number, isExpected: boolean): void {
    const read = async (): Promise<(Answer | 'moved')[]> => {
      const deadline = new Deadline(this.#cluster.clock, AHEAD_LIMIT_MS, {}, this.#closing)
      try {
        const byLeader = new Map<number, TopicPartitionOffset[]>()
        for (const entry of from) {
          const leader = this.#cluster.cachedTopic(entry.topic)?.leaders[entry.partition] ?? -1
          byLeader.set(leader, [...(byLeader.get(leader) ?? []), entry])
        }
        byLeader.delete(-1)
        return await this.#ask(byLeader, 0, bytes, deadline)
      } finally {
        deadline.close()
      }
    }
    this.#ahead?.expect(this.#keyOf(from), bytes, isExpected ? read : undefined)
  }

  /** Positions as a text, equal for equal ones in whatever order, and for no others. */
  #keyOf(positions: Iterable<TopicPartitionOffset>): string {
    return Array.from(positions, ({ topic, partition, offset }) => {
      return `${this.#cluster.cachedTopic(topic)?.topicId ?? topic}/${partition}@${offset}`
    })
      .sort()
      .join()
  }

  /** What holds as many records as are wanted, going by the size of those before. */
  #bytesFor(from: readonly TopicPartitionOffset[], { maxRecords, maxBytes }: FetchLimits): number {
    let recordBytes = 0
    for (const { topic } of from) recordBytes = Math.max(recordBytes, this.#recordBytes.get(topic) ?? BYTES_PER_RECORD)
    const wanted = Math.min(maxRecords * recordBytes, maxBytes) * ROOM
    return Math.ceil(Math.min(MAX_RESPONSE_BYTES, Math.max(LEAST_BYTES, wanted)))
  }

  /** Takes records from the offset on, as many as fit, and gives the offset after what needs no second look. */
  #take(bytes: Buffer | null, { topic, partition, offset }: TopicPartitionOffset, collector: Collector): number {
    if (bytes === null || collector.isFull) return offset
    const sizes: BatchSizes = { bytes: 0, records: 0 }
    const next = readBatches(bytes, offset, (record) => collector.take(topic, partition, record), sizes)
    if (sizes.records > 0) this.#recordBytes.set(topic, sizes.bytes / sizes.records)
    return next
  }

  /** Asks every leader at once; when the first has something, the others are not waited for. */
  async #ask(
    byLeader: ReadonlyMap<number, readonly TopicPartitionOffset[]>,
    waitMs: number,
    bytes: number,
    deadline: Deadline,
  ): Promise<(Answer | 'moved')[]> {
    const asked = Array.from(byLeader, ([nodeId, entries]) => this.#askLeader(nodeId, entries, waitMs, bytes, deadline))
    const [only] = asked
    if (asked.length === 1 && only !== undefined) return [await deadline.race(only)]
    const answers: (Answer | 'moved')[] = []
    const all = Promise.all(asked.map(async (one) => answers.push(await one)))
    // What comes later than the first with records is asked for again by the next call.
    const first = Promise.any(
      asked.map(async (one) => {
        if (!hasRecords(await one)) throw NOTHING
      }),
    ).catch(() => all)
    all.catch(() => {})
    const { promise: silence, resolve } = Promise.withResolvers<void>()
    const cancel = this.#cluster.clock.after(waitMs + SILENCE_MS, resolve)
    try {
      await deadline.race(Promise.race([first, all, silence.then(() => (answers.length > 0 ? undefined : all))]))
    } finally {
      cancel()
    }
    // Who leads the partitions of a broker that says nothing, where others answer, is looked up.
    return answers.length < asked.length && !answers.some(hasRecords) ? [...answers, 'moved'] : answers
  }

  async #askLeader(
    nodeId: number,
    entries: readonly TopicPartitionOffset[],
    waitMs: number,
    bytes: number,
    deadline: Deadline,
  ): Promise<Answer | 'moved'> {
    const { topics, entryOf } = await this.#topicsOf(entries, bytes, deadline)
    const { clock } = this.#cluster
    const until = clock.monotonic() + waitMs
    // Waiting for a connection is waiting, too.
    const leftMs = (): number => Math.max(0, Math.round(until - clock.monotonic()))
    try {
      const response = await this.#cluster.waitingOnNode(
        nodeId,
        waitMs > 0 ? 'waiting' : 'reading',
        waitMs,
        (connection) => fetchApi.async(connection, leftMs(), 1, bytes, 0, 0, -1, topics, [], ''),
        deadline.signal,
      )
      if (response.errorCode !== 0) throw numberedFailure(response.errorCode, 'read')
      return response.responses.flatMap(({ topicId, partitions }) =>
        partitions.flatMap((partition): [TopicPartitionOffset, PartitionAnswer][] => {
          const entry = entryOf.get(`${topicId}/${partition.partitionIndex}`)
          return entry === undefined ? [] : [[entry, partition]]
        }),
      )
    } catch (error) {
      // Nothing was there a moment ago, and nothing is known to have come since.
      if (error instanceof BusyError) return []
      const failure = failureOf(error, 'read')
      if (!isGone(failure)) throw failure
      // The broker is gone, or says nothing: who leads its partitions now is looked up, by the next call where this one is over.
      if (isTimeout(deadline.signal.reason)) for (const { topic } of entries) this.#cluster.forgetTopic(topic)
      return 'moved'
    }
  }

  async #topicsOf(
    entries: readonly TopicPartitionOffset[],
    bytes: number,
    deadline: Deadline,
  ): Promise<{ topics: fetchV13.FetchRequestTopic[]; entryOf: Map<string, TopicPartitionOffset> }> {
    const byTopic = new Map<string, fetchV13.FetchRequestTopic>()
    const entryOf = new Map<string, TopicPartitionOffset>()
    for (const entry of entries) {
      const { topicId } = await this.#cluster.topic(entry.topic, deadline)
      let topic = byTopic.get(topicId)
      if (topic === undefined) byTopic.set(topicId, (topic = { topicId, partitions: [] }))
      topic.partitions.push({
        partition: entry.partition,
        currentLeaderEpoch: -1,
        fetchOffset: BigInt(entry.offset),
        lastFetchedEpoch: -1,
        partitionMaxBytes: bytes,
      })
      entryOf.set(`${topicId}/${entry.partition}`, entry)
    }
    return { topics: [...byTopic.values()], entryOf }
  }

  async #lookAgain(entries: readonly TopicPartition[], deadline: Deadline): Promise<void> {
    const topics = new Set(entries.map(({ topic }) => topic))
    for (const topic of topics) await this.#cluster.refreshTopic(topic, deadline)
  }

  async #list(partitions: readonly TopicPartition[], at: OffsetSpec, deadline: Deadline): Promise<Map<string, number>> {
    const timestamp = at === 'earliest' ? EARLIEST : at === 'latest' ? LATEST : BigInt(Math.trunc(at))
    const found = new Map<string, number>()
    let left = new Map(partitions.map((partition) => [partitionKey(partition), partition] as const))
    while (left.size > 0) {
      const byLeader = new Map<number, TopicPartition[]>()
      for (const partition of left.values()) {
        const leader = (await this.#cluster.topic(partition.topic, deadline)).leaders[partition.partition] ?? -1
        byLeader.set(leader, [...(byLeader.get(leader) ?? []), partition])
      }
      const unanswered = new Map<string, TopicPartition>()
      for (const [nodeId, entries] of byLeader) {
        const answers =
          nodeId === -1 ? new Map<string, number>() : await this.#listOn(nodeId, entries, timestamp, deadline)
        for (const entry of entries) {
          const key = partitionKey(entry)
          const offset = answers.get(key)
          if (offset === undefined) unanswered.set(key, entry)
          else found.set(key, offset)
        }
      }
      left = unanswered
      if (left.size === 0) break
      await deadline.pause(RETRY_MS)
      await this.#lookAgain([...left.values()], deadline)
    }
    return found
  }

  /** Offsets from one leader; partitions that it does not lead any more are left out. */
  async #listOn(
    nodeId: number,
    partitions: readonly TopicPartition[],
    timestamp: bigint,
    deadline: Deadline,
  ): Promise<Map<string, number>> {
    const topics = Array.from(
      Map.groupBy(partitions, ({ topic }) => topic),
      ([name, entries]) => ({
        name,
        partitions: entries.map(({ partition }) => ({
          partitionIndex: partition,
          currentLeaderEpoch: -1,
          timestamp,
        })),
      }),
    )
    const found = new Map<string, number>()
    const asking = this.#cluster.onNode(nodeId, 'look offsets up', async (connection) => {
      try {
        return await listOffsetsV7.api.async(connection, -1, 0, topics)
      } catch (error) {
        const partial = responseOf(error) as listOffsetsV7.ListOffsetsResponse | undefined
        if (partial === undefined) throw error
        return partial
      }
    })
    const response = await deadline.race(asking).catch((error: unknown) => {
      if (!isGone(error)) throw error
      return undefined
    })
    if (response === undefined) return found
    for (const { name, partitions: answers } of response.topics) {
      for (const { partitionIndex: partition, errorCode, offset } of answers) {
        if (errorCode === 0) found.set(partitionKey({ topic: name, partition }), Number(offset))
        else if (!moved.has(errorCode)) throw numberedFailure(errorCode, `look up offsets of ${name}[${partition}]`)
      }
    }
    return found
  }

  async #outOfRange(
    { topic, partition }: TopicPartition,
    from: readonly TopicPartitionOffset[],
    deadline: Deadline,
  ): Promise<BrokerError> {
    const asked = from.findLast((entry) => entry.topic === topic && entry.partition === partition)
    const [start] = await this.offsets([{ topic, partition }], 'earliest', deadline)
    const [end] = await this.offsets([{ topic, partition }], 'latest', deadline)
    return new BrokerError(
      'OFFSET_OUT_OF_RANGE',
      `Cannot fetch ${topic}[${partition}] at offset ${asked?.offset ?? -1}: the log has offsets ${start?.offset ?? 0} to ${end?.offset ?? 0}.`,
    )
  }
}

type Answer = readonly [TopicPartitionOffset, PartitionAnswer][]

const EARLIEST = -2n
const LATEST = -1n
/** A broker that says nothing for so long beyond its wait, where others answer, is not waited for. */
const SILENCE_MS = 1_000
/** Thrown by answers without records, which end no wait. */
const NOTHING: Error = new Error('no records')

function hasRecords(answer: Answer | 'moved'): boolean {
  return answer !== 'moved' && answer.some(([, { records }]) => (records?.length ?? 0) > 0)
}

/** Whether a broker could not be asked, so that another one may be by now. */
function isGone(error: unknown): boolean {
  if (!(error instanceof BrokerError)) return false
  return error.code === 'LEADER_NOT_AVAILABLE' || (error.code === 'NETWORK' && error.retriable)
}

// --- answers --------------------------------------------------------------------------------------------------------------

interface PartitionAnswer {
  readonly partitionIndex: number
  readonly errorCode: number
  readonly highWatermark: bigint
  /** Batches, not read yet. */
  readonly records: Buffer | null
}

interface FetchResponse {
  readonly errorCode: number
  readonly responses: readonly { readonly topicId: string; readonly partitions: readonly PartitionAnswer[] }[]
}

const FETCH = 1
const FETCH_VERSION = 13

/** Fetch that leaves the batches as they came: the library's own reads all of their records. */
const fetchApi = createAPI<Parameters<typeof fetchV13.createRequest>, FetchResponse>(
  FETCH,
  FETCH_VERSION,
  fetchV13.createRequest,
  (_correlationId, _apiKey, _apiVersion, chunks) => {
    // In one piece: each read from chunks is a search for its chunk.
    const bytes = chunks.buffer.slice(chunks.position)
    const reader = Reader.from(bytes)
    // The time for which the broker throttles.
    reader.readInt32()
    const errorCode = reader.readInt16()
    // The session, of which there is none.
    reader.readInt32()
    const responses = reader.readArray((reader) => ({
      topicId: reader.readUUID(),
      partitions: reader.readArray((reader) => readPartition(reader, bytes)),
    }))
    return { errorCode, responses }
  },
)

function readPartition(reader: Reader, bytes: Buffer): PartitionAnswer {
  const partitionIndex = reader.readInt32()
  const errorCode = reader.readInt16()
  const highWatermark = reader.readInt64()
  // The last stable offset, the log's start, aborted transactions, the replica to read from.
  reader.readInt64()
  reader.readInt64()
  reader.readNullableArray((reader) => [reader.readInt64(), reader.readInt64()])
  reader.readInt32()
  // 0 is null, 1 is nothing.
  const length = reader.readUnsignedVarInt() - 1
  const records = length < 0 ? null : bytes.subarray(reader.position, reader.position + length)
  reader.skip(Math.max(0, length))
  return { partitionIndex, errorCode, highWatermark, records }
}
