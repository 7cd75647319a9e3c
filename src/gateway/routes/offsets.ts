/** `/committed/{group}/{instance}` and `/offsets/{timestamp}`: offsets, one for each partition asked for. */
import * as z from 'zod'
import type { Call } from '../../broker.ts'
import type { CommittedOffset, TopicPartition } from '../../record.ts'
import { defineRoute, type Route } from '../route.ts'
import {
  GroupName,
  InstanceName,
  OffsetsAt,
  OptionalTopicPartitionsIn,
  StoredOffsetOut,
  TimeoutQuery,
  TopicPartitionsIn,
} from '../schemas.ts'

const DEFAULT_TIMEOUT_MS = 10_000

/** `/committed/{group}/{instance}` */
export const committed: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/committed/{group}/{instance}',
  operationId: 'committed',
  summary: "A group's committed offsets; without a body all that are stored",
  params: z.object({ group: GroupName, instance: InstanceName }),
  query: TimeoutQuery,
  bodyKind: 'json',
  body: OptionalTopicPartitionsIn,
  answers: { 200: z.array(StoredOffsetOut) },
  errors: ['UNKNOWN_TOPIC_OR_PARTITION', 'INVALID_GROUP_ID', 'INVALID_TOPIC_EXCEPTION', 'GROUP_AUTHORIZATION_FAILED'],
  async handle({ params, query, body }, { broker, principal }) {
    const asked = body === undefined ? undefined : listOf(body)
    principal.requireGroup('consume', params.group)
    principal.requireTopics('consume', asked?.map(({ topic }) => topic) ?? [])
    const offsets = await broker.committed(params.group, asked, callOf(query.timeout))
    const shown =
      asked === undefined ? offsets.filter(({ topic }) => principal.may('consume', 'topics', topic)) : offsets
    return { json: shown.map(storedOffset) }
  },
})

/** `/offsets/{timestamp}` */
export const offsets: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/offsets/{timestamp}',
  operationId: 'offsets',
  summary: 'Offsets at the log start, the log end, or a time',
  params: z.object({ timestamp: OffsetsAt }),
  query: TimeoutQuery,
  bodyKind: 'json',
  body: TopicPartitionsIn,
  answers: { 200: z.array(StoredOffsetOut) },
  errors: ['UNKNOWN_TOPIC_OR_PARTITION', 'INVALID_TOPIC_EXCEPTION'],
  async handle({ params, query, body }, { broker, principal }) {
    const asked = listOf(body)
    principal.requireTopics(
      'consume',
      asked.map(({ topic }) => topic),
    )
    const found = await broker.offsets(asked, params.timestamp, callOf(query.timeout))
    return { json: found.map(({ topic, partition, offset }) => ({ topic, partition, offset })) }
  },
})

function callOf(timeout: number | undefined): Call {
  return { timeoutMs: Math.max(1, timeout ?? DEFAULT_TIMEOUT_MS) }
}

/** Metadata is shown only where there is some, so that old clients see the three fields they know. */
function storedOffset({ topic, partition, offset, metadata }: CommittedOffset): object {
  return metadata === null ? { topic, partition, offset } : { topic, partition, offset, metadata }
}

function listOf(body: TopicPartition | TopicPartition[]): TopicPartition[] {
  return Array.isArray(body) ? body : [body]
}
