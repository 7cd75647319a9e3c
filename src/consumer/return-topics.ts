/** Makes the topics that bring records back to a group, where they are missing. */
import type { App } from '../app.ts'
import { DEFAULT_MAX_RECORD_BYTES, DEFAULT_RETENTION_MS } from '../broker.ts'
import type { Broker, Call, NewTopic } from '../broker.ts'
import { KedgeError } from '../errors.ts'

/** What the header that says where a record came from takes at most. */
const HEADER_BYTES = 4_096

/** A topic for records of `source`: as many partitions, room for the largest record, kept for twice the longest wait. */
export async function returnTopicLike(
  broker: Broker,
  { source, name, longestMs }: { readonly source: string; readonly name: string; readonly longestMs: number },
  call: Call | undefined,
): Promise<NewTopic> {
  const like = (await broker.topics(call)).find(({ topic }) => topic === source)
  const topic: NewTopic = {
    topic: name,
    partitions: like?.partitions ?? 1,
    maxRecordBytes: (like?.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES) + HEADER_BYTES,
  }
  // A driver without retention keeps its records in any case and refuses to be asked.
  return broker.features.retention ? { ...topic, retentionMs: Math.max(DEFAULT_RETENTION_MS, 2 * longestMs) } : topic
}

/** Makes those of the app's topics that are missing, as far as their sources exist. Says whether there were any. */
export async function makeReturnTopics(app: App, broker: Broker, call: Call): Promise<boolean> {
  const existing = new Set((await broker.topics(call)).map(({ topic }) => topic))
  const missing = [...app.returnTopics.values()].filter(
    ({ name, source }) => existing.has(source) && !existing.has(name),
  )
  const longestMs = longestWaitMs(app)
  for (const { name, source } of missing) {
    try {
      await broker.createTopic(await returnTopicLike(broker, { source, name, longestMs }, call), call)
    } catch (error) {
      if (!(error instanceof KedgeError) || error.code !== 'TOPIC_ALREADY_EXISTS') throw error
    }
  }
  return missing.length > 0
}

/** The longest that a record waits in a retry topic. */
export function longestWaitMs({ retry, routes }: App): number {
  return Math.max(
    0,
    ...[retry, ...routes.map(({ options }) => options.retry)].flatMap((one) => one?.topicDelaysMs ?? []),
  )
}
