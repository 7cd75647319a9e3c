/**
 * Dead letters as records of a topic on the same (or another) broker, readable by anything that reads the topic.
 *
 * Durable as the broker is. A letter put twice within the broker's memory of idempotency keys (24 hours) is one record; the
 * first is kept, as a later failure of the same record by the same group says nothing new about where it is.
 * Reading is by scan: a topic has no index by id. Deleting is the topic's retention's business.
 */
import { appendOnce } from '../append-once.ts'
import { type Broker, type Call, DEFAULT_MAX_RECORD_BYTES, type NewTopic } from '../broker.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import { BrokerError, DeadLetterStoreError } from '../errors.ts'
import { checkCall, idParts, listLimit, matches, unsupported } from './call.ts'
import { digestOf } from '../digest.ts'
import type { HeaderDialect } from './topic-dialects.ts'
import { headersOfLetter } from './topic-headers.ts'
import { DEAD_LETTER_TOPIC_SUFFIX, deadLetterTopic } from './topic-name.ts'
import { type TopicScan, openTopicScan } from './topic-scan.ts'

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
  /** Most records read by one `list` (which then ends its page early) or `get` (which then fails). @default 100000 */
  readonly maxScanRecords?: number
}

const topicDeadLettersDefaults = { headers: 'spring', maxScanRecords: 100_000 } as const

/** What the headers of a letter add at most to its record: names, coordinates and a cause of 4 KiB, twice, once escaped. */
const MAX_LETTER_OVERHEAD_BYTES = 65_536

const features: Omit<DeadLetterFeatures, 'deduplicates'> = Object.freeze({
  list: true,
  listOrder: 'put',
  get: true,
  delete: false,
  maxLetterBytes: null,
})

/** Opens a store over a broker. */
export function topicDeadLetters(options: TopicDeadLettersOptions): DeadLetterStore {
  return new TopicDeadLetters(options)
}

class TopicDeadLetters implements DeadLetterStore {
  readonly #broker: Broker
  readonly #fixedTopic: string | undefined
  readonly #createTopics: boolean
  readonly #headers: HeaderDialect
  readonly #maxScanRecords: number
  #isClosed = false

  constructor({ broker, topic, createTopics, headers, maxScanRecords }: TopicDeadLettersOptions) {
    this.#broker = broker
    this.#fixedTopic = topic
    this.#createTopics = createTopics ?? broker.features.topicAdmin
    this.#headers = headers ?? topicDeadLettersDefaults.headers
    this.#maxScanRecords = maxScanRecords ?? topicDeadLettersDefaults.maxScanRecords
  }

  get features(): DeadLetterFeatures {
    return { ...features, deduplicates: this.#broker.features.idempotencyKeys }
  }

  async put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall('topic', this.#isClosed, call)
    const topic = await this.#topicOf(letter.groupId, letter.record.topic)
    if (topic === letter.record.topic) throw wouldLoop(letter)
    try {
      await this.#produce(topic, letter, call)
    } catch (error) {
      throw call?.signal?.aborted === true ? error : storeError(error, topic, letter)
    }
  }

  async list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall('topic', this.#isClosed, call)
    const limit = listLimit(query)
    const scan = await this.#scan(query, call)
    const items: DeadLetter[] = []
    for (let read = 0; read < this.#maxScanRecords && items.length < limit; read += 1) {
      const found = await scan.next()
      if (found === 'end') break
      if (found.letter !== undefined && matches(found.letter, query)) items.push(found.letter)
    }
    const cursor = scan.cursor()
    return cursor === undefined ? { items } : { items, cursor }
  }

  async get(id: string, call?: Call): Promise<DeadLetter | undefined> {
    checkCall('topic', this.#isClosed, call)
    const parts = idParts(id)
    if (parts === undefined) return undefined
    const { groupId, topic } = parts
    const scan = await this.#scan({ groupId, topic }, call)
    for (let read = 0; read < this.#maxScanRecords; read += 1) {
      const found = await scan.next()
      if (found === 'end') return undefined
      if (found.letter?.id === id) return found.letter
    }
    throw new DeadLetterStoreError(
      'LIMIT_EXCEEDED',
      `Cannot find dead letter ${id}: it is not among the first ${this.#maxScanRecords} records. Raise maxScanRecords or list from a cursor.`,
      { limit: 'maxScanRecords' },
    )
  }

  async delete(_id: string, call?: Call): Promise<boolean> {
    checkCall('topic', this.#isClosed, call)
    throw unsupported('topic', 'delete a letter')
  }

  async close(): Promise<void> {
    this.#isClosed = true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #topicOf(groupId: string, sourceTopic: string): Promise<string> {
    return this.#fixedTopic ?? (await deadLetterTopic(sourceTopic, groupId))
  }

  async #produce(topic: string, letter: DeadLetter, call: Call | undefined): Promise<void> {
    const { key, value, timestampMs } = letter.record
    const records = [{ topic, key, value, headers: headersOfLetter(letter, this.#headers) }]
    // The time too: where a topic was made anew, another record has the same place.
    const idempotencyKey = `kedge-dead-letter-${await digestOf(`${topic}\n${letter.id}\n${timestampMs}`)}`
    const create = (): Promise<NewTopic> => this.#likeSource(topic, letter.record.topic, call)
    await appendOnce({ broker: this.#broker, records, idempotencyKey, ...(this.#createTopics ? { create } : {}) }, call)
  }

  async #likeSource(topic: string, sourceTopic: string, call: Call | undefined): Promise<NewTopic> {
    const existing = await this.#broker.topics(call)
    const sources = this.#fixedTopic === undefined ? existing.filter(({ topic }) => topic === sourceTopic) : existing
    const largest = Math.max(DEFAULT_MAX_RECORD_BYTES, ...sources.map(({ maxRecordBytes }) => maxRecordBytes))
    const config = { topic, partitions: 1, maxRecordBytes: largest + MAX_LETTER_OVERHEAD_BYTES }
    // A driver without retention keeps its records in any case and refuses to be asked.
    return this.#broker.features.retention ? { ...config, retentionMs: null } : config
  }

  /** Over the one topic of a query that names topic and group, else over every topic that may hold letters. */
  async #scan(query: DeadLetterQuery, call: Call | undefined): Promise<TopicScan> {
    const { topic, groupId, cursor } = query
    const only = topic !== undefined && groupId !== undefined ? await this.#topicOf(groupId, topic) : this.#fixedTopic
    const topics = (await this.#broker.topics(call)).filter((described) =>
      only === undefined ? described.topic.endsWith(DEAD_LETTER_TOPIC_SUFFIX) : described.topic === only,
    )
    return openTopicScan(this.#broker, topics, cursor, call)
  }
}

function wouldLoop({ id, record }: DeadLetter): DeadLetterStoreError {
  return new DeadLetterStoreError(
    'INVALID_CONFIG',
    `Cannot store dead letter ${id}: its dead-letter topic is ${record.topic}, from which it was read; it would come again for ever. Name another topic.`,
  )
}

/** What `put` rejects with: the broker's error said of a letter. */
function storeError(error: unknown, topic: string, { id }: DeadLetter): unknown {
  if (!(error instanceof BrokerError)) return error
  const { code, retriable, retryAfterMs, limit } = error
  const details = {
    cause: error,
    retriable,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(limit === undefined ? {} : { limit }),
  }
  const failed = `Cannot store dead letter ${id} in topic ${topic}`
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
