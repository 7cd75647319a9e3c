/**
 * What the topics' configurations say that Kedge goes by: the largest record and retention. Kafka bounds a *batch*
 * (max.message.bytes), Kedge a record's key, value and headers; the difference is room for the rest of a batch.
 */
import { describeConfigsV4 } from '@platformatic/kafka'
import type { TopicConfig } from '../../broker.ts'
import { BrokerError } from '../../errors.ts'
import type { Cluster } from './cluster.ts'
import type { Deadline } from './deadline.ts'
import { kafkaNameOf } from './failures.ts'

/** The settings of one topic. */
export type KnownConfig = Required<TopicConfig>

/** What a batch of one record, with a hundred headers, may have besides the record's bytes. */
const BATCH_ROOM_BYTES = 1_024
/** Kafka's defaults, for users who may not look. */
const fallback: KnownConfig = {
  retentionMs: 604_800_000,
  retentionBytes: null,
  maxRecordBytes: recordBytesFor(1_048_588),
}
/** Configurations are rarely changed; a record that a smaller limit refuses gets the broker's own answer. */
const MAX_AGE_MS = 60_000
const TOPIC_RESOURCE = 2
const keys = ['max.message.bytes', 'retention.bytes', 'retention.ms']

/** The batch size that a topic needs for records of this size. */
export function batchBytesFor(maxRecordBytes: number): number {
  return Math.min(maxRecordBytes + BATCH_ROOM_BYTES, 0x7fffffff)
}

/** The largest record for which a topic's batch size has room. */
function recordBytesFor(maxMessageBytes: number): number {
  return Math.max(1, maxMessageBytes - BATCH_ROOM_BYTES)
}

/** The configurations of a cluster's topics. */
export class TopicConfigs {
  readonly #cluster: Cluster
  readonly #known = new Map<string, { readonly config: KnownConfig; readonly readAt: number }>()
  /** What is taken for the settings of a topic that may not be looked at. */
  readonly fallback: KnownConfig = fallback

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  /** The topic's settings from the cache, where they are there and young enough. */
  cached(topic: string): KnownConfig | undefined {
    const known = this.#known.get(topic)
    return known !== undefined && this.#cluster.clock.monotonic() - known.readAt < MAX_AGE_MS ? known.config : undefined
  }

  /** The topic's settings. */
  async of(topic: string, deadline: Deadline): Promise<KnownConfig> {
    const known = this.cached(topic)
    if (known !== undefined) return known
    const [config = fallback] = await this.read([topic], deadline)
    return config
  }

  /** The settings of topics, in that order, as they are now. */
  async read(topics: readonly string[], deadline: Deadline): Promise<KnownConfig[]> {
    if (topics.length === 0) return []
    const resources = topics.map((resourceName) => ({
      resourceType: TOPIC_RESOURCE,
      resourceName,
      configurationKeys: keys,
    }))
    const found = new Map<string, KnownConfig>()
    try {
      const { results } = await this.#cluster.onAnyNode('read the configuration of topics', deadline, (connection) =>
        describeConfigsV4.api.async(connection, resources as never, false, false),
      )
      for (const { resourceName, configs } of results) {
        found.set(resourceName, configOf(new Map(configs.map(({ name, value }) => [name, value ?? '']))))
      }
    } catch (error) {
      // Who may write to a topic need not be allowed to look at its settings.
      const isHidden = error instanceof BrokerError && hidden.has(error.code)
      if (!isHidden && kafkaNameOf(error) === undefined) throw error
    }
    const readAt = this.#cluster.clock.monotonic()
    return topics.map((topic) => {
      const config = found.get(topic) ?? fallback
      this.#known.set(topic, { config, readAt })
      return config
    })
  }

  forget(topic: string): void {
    this.#known.delete(topic)
  }
}

const hidden: ReadonlySet<string> = new Set(['TOPIC_AUTHORIZATION_FAILED', 'UNKNOWN_TOPIC_OR_PARTITION'])

function configOf(values: ReadonlyMap<string, string>): KnownConfig {
  const number = (key: string, absent: number): number => {
    const text = values.get(key) ?? ''
    return text === '' ? absent : Number(text)
  }
  const retentionMs = number('retention.ms', 604_800_000)
  const retentionBytes = number('retention.bytes', -1)
  return {
    retentionMs: retentionMs < 0 ? null : retentionMs,
    retentionBytes: retentionBytes < 0 ? null : retentionBytes,
    maxRecordBytes: recordBytesFor(number('max.message.bytes', 1_048_588)),
  }
}
