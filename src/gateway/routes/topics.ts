/** Topics: list, describe, create, delete. */
import * as z from 'zod'
import type { NewTopic, TopicConfig } from '../../broker.ts'
import { GatewayError } from '../../errors.ts'
import { defineRoute, type Route } from '../route.ts'
import { ResultOut, TopicConfigIn, TopicName, TopicOut, TopicWithOffsetsOut, type TopicConfigBody } from '../schemas.ts'
import { success } from '../success.ts'

const params = z.object({ topic: TopicName })

/** `/topics` */
export const listTopics: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/topics',
  operationId: 'topics',
  summary: 'The topics the caller may see, with their partition counts',
  query: z.object({ describe: z.enum(['true', 'false']).optional() }),
  answers: { 200: z.union([z.record(z.string(), z.int().min(1)), z.array(TopicOut)]) },
  async handle({ query }, { broker, principal }) {
    const topics = (await broker.topics()).filter(({ topic }) => principal.maySee('topics', topic))
    if (query.describe === 'true') return { json: topics }
    return { json: Object.fromEntries(topics.map(({ topic, partitions }) => [topic, partitions])) }
  },
})

/** `GET /topics/{topic}` */
export const describeTopic: Route = defineRoute({
  methods: ['GET'],
  path: '/topics/{topic}',
  operationId: 'describeTopic',
  summary: 'A topic, its settings and where its partitions begin and end',
  params,
  answers: { 200: TopicWithOffsetsOut },
  errors: ['UNKNOWN_TOPIC_OR_PARTITION', 'INVALID_TOPIC_EXCEPTION'],
  async handle({ params: { topic } }, { broker, principal }) {
    principal.requireSight('topics', topic)
    const described = (await broker.topics()).find((one) => one.topic === topic)
    if (described === undefined) {
      throw new GatewayError('UNKNOWN_TOPIC_OR_PARTITION', `Cannot describe topic "${topic}": there is none.`)
    }
    const partitions = Array.from({ length: described.partitions }, (_, partition) => ({ topic, partition }))
    const starts = await broker.offsets(partitions, 'earliest')
    const ends = await broker.offsets(partitions, 'latest')
    const offsets = partitions.map(({ partition }) => ({
      partition,
      logStartOffset: starts[partition]?.offset ?? 0,
      logEndOffset: ends[partition]?.offset ?? 0,
    }))
    return { json: { ...described, offsets } }
  },
})

/** `PUT /topics/{topic}` */
export const createTopic: Route = defineRoute({
  methods: ['PUT'],
  path: '/topics/{topic}',
  operationId: 'createTopic',
  summary: 'Create a topic',
  params,
  bodyKind: 'json',
  body: TopicConfigIn,
  answers: { 201: TopicOut },
  errors: ['TOPIC_ALREADY_EXISTS', 'INVALID_TOPIC_EXCEPTION', 'INVALID_PARTITIONS', 'INVALID_CONFIG_VALUE'],
  async handle({ params: { topic }, body }, { broker, principal }) {
    principal.requireTopics('admin', [topic])
    return { status: 201, json: await broker.createTopic({ topic, ...configOf(body) }) }
  },
})

/** `DELETE /topics/{topic}` */
export const deleteTopic: Route = defineRoute({
  methods: ['DELETE'],
  path: '/topics/{topic}',
  operationId: 'deleteTopic',
  summary: 'Delete a topic with its records and committed offsets',
  params,
  answers: { 200: ResultOut },
  errors: ['UNKNOWN_TOPIC_OR_PARTITION', 'INVALID_TOPIC_EXCEPTION'],
  async handle({ params: { topic } }, { broker, principal }) {
    principal.requireTopics('admin', [topic])
    await broker.deleteTopic(topic)
    return success
  },
})

function configOf(body: TopicConfigBody = {}): TopicConfig & Pick<NewTopic, 'partitions'> {
  return {
    ...(body.partitions === undefined ? {} : { partitions: body.partitions }),
    ...(body.retentionMs === undefined ? {} : { retentionMs: body.retentionMs }),
    ...(body.retentionBytes === undefined ? {} : { retentionBytes: body.retentionBytes }),
    ...(body.maxRecordBytes === undefined ? {} : { maxRecordBytes: body.maxRecordBytes }),
  }
}
