/**
 * Dead letters as records of a topic on the same (or another) broker, readable by anything that reads the topic.
 *
 * Durable as the broker is. A letter that is put again while it is there is one letter, the first; on a broker with
 * idempotency keys it is also one record, where it is the same failure. A letter is deleted by a marker behind it, a
 * tombstone in the same partition; one that is put behind its marker is there again.
 * Reading is by scan: a topic has no index by id.
 */
import { appendOnce } from '../append-once.ts'
import { type Broker, type Call, DEFAULT_MAX_RECORD_BYTES, type NewTopic } from '../broker.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import { BrokerError, ConfigError, DeadLetterStoreError } from '../errors.ts'
import { checkCall, idParts, listLimit, matches } from './call.ts'
import { digestOf } from '../digest.ts'
import {
  partitionKey,
  type Offset,
  type RecordMetadata,
  type TimestampMs,
  type TopicPartition,
  type TopicPartitionOffset,
} from '../record.ts'
import { type HeaderDialect, headerDialects } from './topic-dialects.ts'
import { deletedBy, headersOfLetter, letterOfRecord, markerOf } from './topic-headers.ts'
import { isOutOfRange, PartitionIndex, readFrom, type ScanBudget } from './topic-index.ts'
import { DEAD_LETTER_TOPIC_SUFFIX, deadLetterTopic } from './topic-name.ts'
import { openTopicScan } from './topic-scan.ts'

/** Options of `topicDeadLetters`. */
export interface TopicDeadLettersOptions {
  /** Where the letters are stored. Not closed with the store. */
  readonly broker: Broker
  /** One topic for all letters. @default one for each source topic and group, `<topic>.<group>-dlt` */
  readonly topic?: string
  /**
   * Make a missing topic on its first letter: one partition, no retention, room for the largest record of its source with
   * its headers. @default true where the broker has `topicAdmin`
   */
  readonly createTopics?: boolean
  /**
   * Whose headers are written beside Kedge's own, for the tools that read the topic. Letters of any dialect are read.
   * @default 'spring'
   */
  readonly headers?: HeaderDialect
  /**
   * Most records read by one `list` (which then ends its page early, perhaps empty), `get` or `delete` (which then fail). What
   * was read stays known to the store: the next call goes on from there. @default 100000
   */
  readonly maxScanRecords?: number
  /**
   * Most letters of one partition whose id and place are remembered, about 300 bytes each. Of more, a part at a time is
   * looked at, each of which reads the rest of the partition for its markers. @default 20000
   */
  readonly maxIndexedLetters?: number
}

const topicDeadLettersDefaults = { headers: 'spring', maxScanRecords: 100_000, maxIndexedLetters: 20_000 } as const

/** What the headers of a letter add at most to its record: names, coordinates and a cause of 4 KiB, twice, once escaped. */
const MAX_LETTER_OVERHEAD_BYTES = 65_536

/** What may be an idempotency key. */
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

const features: DeadLetterFeatures = Object.freeze({
  deduplicates: true,
  list: true,
  listOrder: 'put',
  get: true,
  delete: true,
  maxLetterBytes: null,
})

/** Opens a store over a broker. @throws {ConfigError} INVALID_CONFIG for headers of no dialect */
export function topicDeadLetters(options: TopicDeadLettersOptions): DeadLetterStore {
  return new TopicDeadLetters(options)
}

class TopicDeadLetters implements DeadLetterStore {
  readonly features = features
  readonly #broker: Broker
  readonly #fixedTopic: string | undefined
  readonly #createTopics: boolean
  readonly #headers: HeaderDialect
  readonly #maxScanRecords: number
  readonly #maxIndexedLetters: number
  readonly #indexes = new Map<string, PartitionIndex>()
  /** Of a partition, an end that its log had: what is stored there or behind it was stored since. */
  readonly #ends = new Map<string, Offset>()
  #isClosed = false

  constructor(options: TopicDeadLettersOptions) {
    const { broker, topic, createTopics, headers, maxScanRecords, maxIndexedLetters } = options
    this.#broker = broker
    this.#fixedTopic = topic
    this.#createTopics = createTopics ?? broker.features.topicAdmin
    this.#headers = headers ?? topicDeadLettersDefaults.headers
    if (!headerDialects.includes(this.#headers)) {
      const given = JSON.stringify(headers)
      throw new ConfigError(
        `Cannot open the dead letters: headers is ${given}: choose of ${headerDialects.join(', ')}.`,
      )
    }
    this.#maxScanRecords = maxScanRecords ?? topicDeadLettersDefaults.maxScanRecords
    this.#maxIndexedLetters = maxIndexedLetters ?? topicDeadLettersDefaults.maxIndexedLetters
  }

  async put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall('topic', this.#isClosed, call)
    const topic = await this.#topicOf(letter.groupId, letter.record.topic)
    if (topic === letter.record.topic) throw wouldLoop(letter)
    try {
      await this.#store(topic, letter, call)
    } catch (error) {
      throw call?.signal?.aborted === true
        ? error
        : storeError(error, `store dead letter ${letter.id} in topic ${topic}`)
    }
  }

  async list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall('topic', this.#isClosed, call)
    const limit = listLimit(query)
    const { topic, groupId, cursor } = query
    const only = topic !== undefined && groupId !== undefined ? await this.#topicOf(groupId, topic) : this.#fixedTopic
    const partitions = await this.#partitions(only, call)
    const budget = { left: this.#maxScanRecords }
    const indexOf = (partition: TopicPartition): PartitionIndex => this.#indexOf(partition)
    const scan = await openTopicScan({ broker: this.#broker, partitions, indexOf, cursor, budget }, call)
    const items: DeadLetter[] = []
    while (items.length < limit) {
      const letter = await scan.next()
      if (letter === undefined) break
      if (matches(letter, query)) items.push(letter)
    }
    const next = scan.cursor()
    return next === undefined ? { items } : { items, cursor: next }
  }

  async get(id: string, call?: Call): Promise<DeadLetter | undefined> {
    checkCall('topic', this.#isClosed, call)
    for (const { topic, partition, offset } of await this.#find(id, call)) {
      const found = await this.#letterAt(id, { topic, partition }, offset, call)
      if (found !== undefined) return found.letter
    }
    return undefined
  }

  async delete(id: string, call?: Call): Promise<boolean> {
    checkCall('topic', this.#isClosed, call)
    // In each partition that has it one marker, behind all copies of the letter. Of several records at one place only the
    // letter of the first goes, which is what `get` gives.
    const marks = new Map<string, { readonly place: TopicPartitionOffset; readonly stored: StoredLetter }>()
    let recordedAtMs: TimestampMs | undefined
    for (const place of await this.#find(id, call)) {
      const stored = await this.#letterAt(id, place, place.offset, call)
      if (stored === undefined) continue
      recordedAtMs ??= stored.letter.record.timestampMs
      if (stored.letter.record.timestampMs === recordedAtMs) marks.set(partitionKey(place), { place, stored })
    }
    for (const { place, stored } of marks.values()) await this.#mark(stored, place, call)
    return marks.size > 0
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#indexes.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #topicOf(groupId: string, sourceTopic: string): Promise<string> {
    return this.#fixedTopic ?? (await deadLetterTopic(sourceTopic, groupId))
  }

  /**
   * Stores a letter, and once more where its idempotency key is taken and what was stored under it is not this letter or was
   * deleted since: no record may be lost because another one had its name.
   */
  async #store(topic: string, letter: DeadLetter, call: Call | undefined): Promise<void> {
    // The time too: where a topic was made anew, another record has the same place.
    const name = `dead-letter/${topic}/${letter.id}/${letter.record.timestampMs}`
    // Where another failure of the record was stored under its name, whether that letter is there still is for readers to
    // see, who leave out what comes again.
    const byFailure = `${name}/${letter.failedAtMs}/${letter.attempts}`
    const byName = await this.#produce(topic, letter, name, call)
    const stored = byName ?? (await this.#produce(topic, letter, byFailure, call))
    if (stored === undefined) return
    const end = await this.#endOf(letter, stored, call)
    if (end === undefined) return
    await this.#produce(topic, letter, `${byName === undefined ? byFailure : name}/after/${end}`, call)
  }

  async #produce(
    topic: string,
    letter: DeadLetter,
    name: string,
    call: Call | undefined,
  ): Promise<RecordMetadata | undefined> {
    const { key, value } = letter.record
    const records = [{ topic, key, value, headers: headersOfLetter(letter, this.#headers) }]
    const idempotencyKey = await keyOf(name)
    const create = (): Promise<NewTopic> => this.#likeSource(topic, letter.record.topic, call)
    const options = { broker: this.#broker, records, idempotencyKey, ...(this.#createTopics ? { create } : {}) }
    return (await appendOnce(options, call))?.[0]
  }

  /** What ended a record that was stored by an earlier put: the last marker behind it, or else where its log begins or ends now. */
  async #endOf(
    { id, record }: DeadLetter,
    stored: RecordMetadata,
    call: Call | undefined,
  ): Promise<Offset | undefined> {
    if (!this.#broker.features.idempotencyKeys) return undefined
    const { topic, partition } = stored
    const key = partitionKey(stored)
    const seen = this.#ends.get(key)
    this.#ends.set(key, Math.max(seen ?? 0, stored.offset + 1))
    if (seen !== undefined && stored.offset >= seen) return undefined
    const place = { topic, partition }
    const [end] = await this.#broker.offsets([place], 'latest', call)
    const endOffset = end?.offset ?? 0
    // The log ends behind it, so it was stored by this put.
    if (stored.offset + 1 === endOffset) return undefined
    const [start] = await this.#broker.offsets([place], 'earliest', call)
    // Retention deleted it, or its topic was made anew.
    if (start !== undefined && stored.offset < start.offset) return start.offset
    if (stored.offset >= endOffset) return endOffset
    let ended: Offset | undefined
    for (let next = stored.offset; next < endOffset;) {
      const records = await readFrom(this.#broker, { ...place, offset: next }, undefined, call)
      if (next === stored.offset && records.every((record) => letterOfRecord(record)?.id !== id)) return endOffset
      for (const marker of records) {
        const deleted = deletedBy(marker)
        const isOfRecord = (deleted?.recordedAtMs ?? record.timestampMs) === record.timestampMs
        if (deleted?.id === id && isOfRecord) ended = marker.offset
      }
      next = (records.at(-1)?.offset ?? endOffset - 1) + 1
    }
    return ended
  }

  async #likeSource(topic: string, sourceTopic: string, call: Call | undefined): Promise<NewTopic> {
    const existing = await this.#broker.topics(call)
    const sources = this.#fixedTopic === undefined ? existing.filter(({ topic }) => topic === sourceTopic) : existing
    const largest = Math.max(DEFAULT_MAX_RECORD_BYTES, ...sources.map(({ maxRecordBytes }) => maxRecordBytes))
    const config = { topic, partitions: 1, maxRecordBytes: largest + MAX_LETTER_OVERHEAD_BYTES }
    // A driver without retention keeps its records in any case and refuses to be asked.
    return this.#broker.features.retention ? { ...config, retentionMs: null } : config
  }

  /** Of one topic, or of every topic that may hold letters. */
  async #partitions(only: string | undefined, call: Call | undefined): Promise<TopicPartition[]> {
    return (await this.#broker.topics(call))
      .filter(({ topic }) => (only === undefined ? topic.endsWith(DEAD_LETTER_TOPIC_SUFFIX) : topic === only))
      .flatMap(({ topic, partitions }) => Array.from({ length: partitions }, (_, partition) => ({ topic, partition })))
  }

  #indexOf({ topic, partition }: TopicPartition): PartitionIndex {
    const key = partitionKey({ topic, partition })
    const known = this.#indexes.get(key)
    if (known !== undefined) return known
    const index = new PartitionIndex({ broker: this.#broker, topic, partition, maxLetters: this.#maxIndexedLetters })
    this.#indexes.set(key, index)
    return index
  }

  /** Where the letters of an id are, in the order of each partition. */
  async #find(id: string, call: Call | undefined): Promise<(TopicPartition & { readonly offset: Offset })[]> {
    const parts = idParts(id)
    if (parts === undefined) return []
    const partitions = await this.#partitions(await this.#topicOf(parts.groupId, parts.topic), call)
    if (partitions.length === 0) return []
    const ends = await this.#broker.offsets(partitions, 'latest', call)
    const budget = { left: this.#maxScanRecords }
    const found = []
    for (const [at, partition] of partitions.entries()) {
      for (const offset of await this.#offsetsOf(id, partition, ends[at]?.offset ?? 0, budget, call)) {
        found.push({ ...partition, offset })
      }
    }
    return found
  }

  async #offsetsOf(
    id: string,
    partition: TopicPartition,
    end: Offset,
    budget: ScanBudget,
    call: Call | undefined,
  ): Promise<readonly Offset[]> {
    const found = await this.#indexOf(partition).placesOf(id, end, budget, call)
    if (found === undefined) throw this.#notReadWhole(id)
    if (found.offsets.length > 0 || found.isAll) return found.offsets
    // It may be where the index does not look just now. One for this id alone knows.
    const own = new PartitionIndex({
      broker: this.#broker,
      ...partition,
      maxLetters: this.#maxIndexedLetters,
      only: id,
    })
    const alone = await own.placesOf(id, end, budget, call)
    if (alone === undefined) throw this.#notReadWhole(id)
    return alone.offsets
  }

  #notReadWhole(id: string): DeadLetterStoreError {
    return new DeadLetterStoreError(
      'LIMIT_EXCEEDED',
      `Cannot find dead letter ${id}: its topic has more than ${this.#maxScanRecords} records that were not read yet. Ask the same store again, which goes on from there; a store that is opened for each call needs a larger maxScanRecords.`,
      { limit: 'maxScanRecords', retriable: true },
    )
  }

  async #letterAt(
    id: string,
    { topic, partition }: TopicPartition,
    offset: Offset,
    call: Call | undefined,
  ): Promise<StoredLetter | undefined> {
    try {
      const [record] = await readFrom(this.#broker, { topic, partition, offset }, 1, call)
      const letter = record?.offset === offset ? letterOfRecord(record) : undefined
      if (record !== undefined && letter?.id === id) return { letter, storedAtMs: record.timestampMs }
    } catch (error) {
      if (!isOutOfRange(error)) throw error
    }
    // Retention deleted it, or the topic was made anew.
    await this.#indexOf({ topic, partition }).forget()
    return undefined
  }

  /** Makes a marker durable behind a letter. */
  async #mark(
    { letter, storedAtMs }: StoredLetter,
    { topic, partition, offset }: TopicPartitionOffset,
    call: Call | undefined,
  ): Promise<void> {
    const { id } = letter
    const deleted = { id, recordedAtMs: letter.record.timestampMs }
    const records = [{ topic, partition, ...markerOf(letter) }]
    // The time too: a topic that was made anew has other letters at the same offsets.
    const name = `dead-letter-deleted/${topic}/${partition}/${offset}/${storedAtMs}/${id}`
    const idempotencyKey = await keyOf(name)
    try {
      const [stored] = (await appendOnce({ broker: this.#broker, records, idempotencyKey }, call)) ?? []
      if (stored !== undefined) this.#indexOf({ topic, partition }).deleted(deleted, stored.offset)
    } catch (error) {
      throw call?.signal?.aborted === true ? error : storeError(error, `delete dead letter ${id} in topic ${topic}`)
    }
  }
}

/** A letter as it was read from its topic. */
interface StoredLetter {
  readonly letter: DeadLetter
  readonly storedAtMs: TimestampMs
}

/** A name as an idempotency key. */
async function keyOf(name: string): Promise<string> {
  return IDEMPOTENCY_KEY.test(name) ? name : await digestOf(name)
}

function wouldLoop({ id, record }: DeadLetter): DeadLetterStoreError {
  return new DeadLetterStoreError(
    'INVALID_CONFIG',
    `Cannot store dead letter ${id}: its dead-letter topic is ${record.topic}, from which it was read; it would come again for ever. Name another topic.`,
  )
}

/** What `put` and `delete` reject with: the broker's error said of a letter. */
function storeError(error: unknown, what: string): unknown {
  if (!(error instanceof BrokerError)) return error
  const { code, retriable, retryAfterMs, limit } = error
  const details = {
    cause: error,
    retriable,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(limit === undefined ? {} : { limit }),
  }
  const failed = `Cannot ${what}`
  if (code === 'MESSAGE_TOO_LARGE' || code === 'LIMIT_EXCEEDED') {
    return new DeadLetterStoreError(
      'DEAD_LETTER_TOO_LARGE',
      `${failed}: with its headers it is larger than the topic or the broker accepts. Raise the topic's maxRecordBytes.`,
      { limit: 'maxRecordBytes', ...details },
    )
  }
  if (code === 'UNKNOWN_TOPIC_OR_PARTITION') {
    return new DeadLetterStoreError(code, `${failed}: there is no such topic. Create it or set createTopics.`, {
      ...details,
      retriable: false,
    })
  }
  if (retriable && code !== 'TIMEOUT' && code !== 'NETWORK') {
    return new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', `${failed}: ${error.message}`, details)
  }
  return new DeadLetterStoreError(code, `${failed}: ${error.message}`, details)
}
