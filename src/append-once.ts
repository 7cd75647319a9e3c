/**
 * Produces records of Kedge's own: under an idempotency key where the broker knows keys, so that a repetition after a lost
 * answer stores nothing twice, and into a topic that is made when it is missing.
 */
import type { Broker, Call, NewTopic, ProduceResult } from './broker.ts'
import { KedgeError } from './errors.ts'
import type { ProducerRecord, RecordMetadata } from './record.ts'

/** What to append, and how. */
export interface AppendOnce {
  readonly broker: Broker
  readonly records: readonly ProducerRecord[]
  /** The same for the same records, and for no others. 1 to 255 visible ASCII characters. */
  readonly idempotencyKey: string
  /** Makes the topic where there is none. @default it is the broker's error */
  readonly create?: (broker: Broker, call: Call | undefined) => Promise<NewTopic>
}

/**
 * Resolves when the records are durable, with where they are: of a repetition, where they were stored before. Undefined where
 * other records were stored under the key. Rejects as `Broker.produce` does.
 */
export async function appendOnce(append: AppendOnce, call?: Call): Promise<readonly RecordMetadata[] | undefined> {
  const { broker, create } = append
  try {
    return await produceOnce(append, call)
  } catch (error) {
    if (create === undefined || !hasCode(error, 'UNKNOWN_TOPIC_OR_PARTITION')) throw error
    try {
      await broker.createTopic(await create(broker, call), call)
    } catch (failure) {
      if (!hasCode(failure, 'TOPIC_ALREADY_EXISTS')) throw failure
    }
    return await produceOnce(append, call)
  }
}

async function produceOnce(
  { broker, records, idempotencyKey }: AppendOnce,
  call: Call | undefined,
): Promise<readonly RecordMetadata[] | undefined> {
  if (broker.features.idempotencyKeys) {
    try {
      return storedOf(await broker.produce(records, { idempotencyKey }, call))
    } catch (error) {
      // Stored before, perhaps with another time in it.
      if (hasCode(error, 'IDEMPOTENCY_KEY_REUSED')) return undefined
      if (!hasCode(error, 'UNSUPPORTED')) throw error
    }
  }
  return storedOf(await broker.produce(records, {}, call))
}

/** An atomic produce has no errors among its results. */
function storedOf(results: readonly ProduceResult[]): readonly RecordMetadata[] {
  return results.filter((result): result is RecordMetadata => 'offset' in result)
}

function hasCode(error: unknown, code: KedgeError['code']): boolean {
  return error instanceof KedgeError && error.code === code
}
