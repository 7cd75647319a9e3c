/** `/produce` in its three forms. */
import * as z from 'zod'
import type { ProducerRecord } from '../../record.ts'
import { BrokerError, type ErrorCode } from '../../errors.ts'
import { parseFast } from '../body.ts'
import { idempotencyOf } from '../idempotency-key.ts'
import { checkLimits, fastRecords, metadata, producerRecord, resultOf } from '../records.ts'
import { defineRoute, type Answer, type Method, type Route, type RouteContext } from '../route.ts'
import {
  Metadata,
  ProduceHeaders,
  ProduceMessageHeaders,
  RecordErrorOut,
  RecordsIn,
  TopicName,
  TopicRecordsIn,
} from '../schemas.ts'

const methods: readonly Method[] = ['GET', 'POST']
const errors: readonly ErrorCode[] = [
  'UNKNOWN_TOPIC_OR_PARTITION',
  'MESSAGE_TOO_LARGE',
  'INVALID_RECORD',
  'INVALID_TIMESTAMP',
  'INVALID_TOPIC_EXCEPTION',
  'IDEMPOTENCY_KEY_IN_FLIGHT',
  'IDEMPOTENCY_KEY_REUSED',
]
const answers = { 200: z.array(Metadata), 207: z.array(z.union([Metadata, RecordErrorOut])) }

/** Records the fast reader made already; everything else came through the schema. */
class ReadRecords {
  readonly records: readonly ProducerRecord[]
  constructor(records: readonly ProducerRecord[]) {
    this.records = records
  }
}

/** `/produce/{topic}` */
export const produceToTopic: Route = defineRoute({
  methods,
  path: '/produce/{topic}',
  operationId: 'produceToTopic',
  summary: 'Append one record or a list of records to a topic',
  params: z.object({ topic: TopicName }),
  headers: ProduceHeaders,
  bodyKind: 'records',
  body: RecordsIn,
  readFast: (body, { topic }, context) => readFast(body, topic, context),
  answers,
  errors,
  handle({ params, headers, body }, context) {
    const encoding = headers['kedge-encoding'] ?? 'text'
    const records =
      body instanceof ReadRecords
        ? body.records
        : listOf(body).map((item, index) => producerRecord(params.topic, item, encoding, `record ${index}`))
    return produce(records, headers, context)
  },
})

/** `/produce` */
export const produceRecords: Route = defineRoute({
  methods,
  path: '/produce',
  operationId: 'produce',
  summary: 'Append one record or a list of records, each to the topic it names',
  headers: ProduceHeaders,
  bodyKind: 'records',
  body: TopicRecordsIn,
  readFast: (body, _params, context) => readFast(body, undefined, context),
  answers,
  errors,
  handle({ headers, body }, context) {
    const encoding = headers['kedge-encoding'] ?? 'text'
    const records =
      body instanceof ReadRecords
        ? body.records
        : listOf(body).map((item, index) => producerRecord(item.topic, item, encoding, `record ${index}`))
    return produce(records, headers, context)
  },
})

/** `/produce/{topic}/{message}` */
export const produceMessage: Route = defineRoute({
  methods,
  path: '/produce/{topic}/{message+}',
  operationId: 'produceMessage',
  summary: 'Append one record whose value is the rest of the path',
  params: z.object({ topic: TopicName, message: z.string() }),
  query: z.object({ key: z.string().optional() }),
  headers: ProduceMessageHeaders,
  answers: { 200: Metadata },
  errors,
  async handle({ params, query, headers }, context) {
    const encoding = headers['kedge-encoding'] ?? 'text'
    const body = { value: params.message, key: query.key }
    const record = producerRecord(params.topic, body, encoding, 'the record')
    const [result] = await append([record], await idempotencyOf(headers, context), context)
    return { json: result instanceof BrokerError ? resultOf(result) : result && metadata(result) }
  },
})

function readFast(body: Uint8Array, topic: string | undefined, context: RouteContext): ReadRecords | undefined {
  if (context.request.header('kedge-encoding') !== undefined) return undefined
  const records = fastRecords(parseFast(body, context.limits), body.length, topic)
  return records && new ReadRecords(records)
}

async function produce(
  records: readonly ProducerRecord[],
  headers: ProduceHeaders,
  context: RouteContext,
): Promise<Answer> {
  const isEach = headers['kedge-results'] === 'each'
  const results = await append(records, { atomic: !isEach, ...(await idempotencyOf(headers, context)) }, context)
  return { status: results.some((result) => result instanceof BrokerError) ? 207 : 200, json: results.map(resultOf) }
}

/** The one way to the port: rights for every topic first, so that a refused batch writes nothing and tells nothing. */
function append(
  records: readonly ProducerRecord[],
  options: { atomic?: boolean; idempotencyKey?: string },
  { broker, principal, limits }: RouteContext,
): ReturnType<RouteContext['broker']['produce']> {
  principal.requireTopics(
    'produce',
    records.map((record) => record.topic),
  )
  checkLimits(records, limits)
  return broker.produce(records, options)
}

function listOf<T>(body: T | readonly T[]): readonly T[] {
  return Array.isArray(body) ? body : [body as T]
}
