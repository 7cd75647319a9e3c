/**
 * Records that a platform handed over, as a broker: they can be polled, each once for each run, and what is committed says
 * which of them are settled. So a batch of an event goes through the same run as what is polled from a log.
 *
 * Nothing outlives the object. Whatever else a run asks for (a retry topic, a dead-letter topic) goes through to the broker
 * behind it, which is opened when it is needed.
 */
import type { Broker, BrokerFeatures, OffsetCommit, PollRequest, PollResult } from '../broker.ts'
import { BrokerError } from '../errors.ts'
import type { CommittedOffset, ConsumerRecord, TopicPartition } from '../record.ts'
import { partitionKey } from '../record.ts'

/** Options of `batchBroker`. */
export interface BatchBrokerOptions {
  /** Opens the broker that everything goes to which is not about the batch. @default refused with UNSUPPORTED */
  readonly through?: () => Promise<Broker>
  /** Metadata of the committed offsets before the batch, by `partitionKey`: what is known of its records already. */
  readonly metadata?: ReadonlyMap<string, string>
}

const features: BrokerFeatures = Object.freeze({
  atomicProduce: false,
  idempotencyKeys: true,
  claims: true,
  topicAdmin: true,
  autoCommit: false,
  offsetMetadata: true,
  retention: true,
})

/** A batch has been one since it was handed over. */
const GENERATION = 1

/** A broker over records of any topics and partitions. Those of one partition are in the order of their offsets. */
export function batchBroker(records: readonly ConsumerRecord[], options: BatchBrokerOptions = {}): Broker {
  const { through = refuse, metadata = new Map<string, string>() } = options
  const partitions = Map.groupBy(records, partitionKey)
  const committed = new Map<string, CommittedOffset>()
  for (const [key, [first]] of partitions) {
    if (first === undefined) continue
    const { topic, partition, offset } = first
    committed.set(key, { topic, partition, offset, metadata: metadata.get(key) ?? null })
  }
  const assignment = Array.from(committed.values(), ({ topic, partition }) => ({ topic, partition }))
  let isClosed = false
  const check = (): void => {
    if (isClosed) throw new BrokerError('CLOSED', 'The batch is closed: its answer was given.')
  }
  const offsetOf = (place: TopicPartition): CommittedOffset =>
    committed.get(partitionKey(place)) ?? { ...place, offset: -1, metadata: null }

  return {
    features,
    async poll({ run, maxRecords, maxBytes, maxWaitMs }: PollRequest): Promise<PollResult> {
      check()
      // A caller that would wait must not ask in a circle: nothing more ever comes.
      if (maxWaitMs > 0) throw new BrokerError('UNSUPPORTED', 'A batch has all its records: poll it without waiting.')
      const named = new Map(run?.positions?.map((position) => [partitionKey(position), position.offset]))
      const answer: ConsumerRecord[] = []
      let bytes = 0
      for (const [key, held] of partitions) {
        const from = named.get(key) ?? committed.get(key)?.offset ?? 0
        for (const record of held) {
          if (record.offset < from) continue
          bytes += (record.key?.length ?? 0) + (record.value?.length ?? 0)
          if (answer.length > 0 && (answer.length >= maxRecords || bytes > maxBytes)) break
          answer.push(record)
        }
      }
      return { records: answer, generationId: GENERATION, assignment }
    },
    async claim() {
      check()
    },
    async release() {
      check()
    },
    async commit(_group, offsets) {
      check()
      if (offsets === 'polled') throw new BrokerError('UNSUPPORTED', 'A batch is committed by offsets.')
      for (const { topic, partition, offset, metadata = null } of offsets satisfies readonly OffsetCommit[]) {
        committed.set(partitionKey({ topic, partition }), { topic, partition, offset, metadata })
      }
    },
    async committed(_groupId, asked) {
      check()
      return asked === undefined ? [...committed.values()] : asked.map(offsetOf)
    },
    produce: async (...args) => (await through()).produce(...args),
    fetch: async (...args) => (await through()).fetch(...args),
    offsets: async (...args) => (await through()).offsets(...args),
    topics: async (...args) => (await through()).topics(...args),
    createTopic: async (...args) => (await through()).createTopic(...args),
    deleteTopic: async (...args) => (await through()).deleteTopic(...args),
    groups: async (...args) => (await through()).groups(...args),
    leave: async (...args) => (await through()).leave(...args),
    async close() {
      isClosed = true
    },
    async [Symbol.asyncDispose]() {
      isClosed = true
    },
  }
}

async function refuse(): Promise<never> {
  throw new BrokerError('UNSUPPORTED', 'A batch has no broker behind it: name one, or keep dead letters elsewhere.')
}
