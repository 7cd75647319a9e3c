/** `/consume/{group}/{instance}`: reads as a member of a group. */
import * as z from 'zod'
import type { PollRequest, PollResult, RunPosition } from '../../broker.ts'
import type { ErrorCode } from '../../errors.ts'
import { invalidRequest, retryAfterHeaders } from '../errors.ts'
import { recordsJson } from '../records-json.ts'
import type { GatewayResponse } from '../request.ts'
import { defineRoute, type Route, type RouteContext } from '../route.ts'
import {
  ConsumeAnswerHeaders,
  ConsumeHeaders,
  ConsumeIn,
  GroupName,
  InstanceName,
  Message,
  TimeoutQuery,
  TopicName,
  type ConsumeBody,
} from '../schemas.ts'
import { fetchLimits } from './fetch.ts'

const errors: readonly ErrorCode[] = [
  'UNKNOWN_TOPIC_OR_PARTITION',
  'NO_COMMITTED_OFFSET',
  'CLAIM_HELD',
  'CLAIM_LOST',
  'ILLEGAL_GENERATION',
  'INVALID_SESSION_TIMEOUT',
  'INVALID_GROUP_ID',
  'INVALID_TOPIC_EXCEPTION',
  'GROUP_AUTHORIZATION_FAILED',
]

/** `/consume/{group}/{instance}` */
export const consume: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/consume/{group}/{instance}',
  operationId: 'consume',
  summary: 'Read the next records of a group as one of its instances',
  params: z.object({ group: GroupName, instance: InstanceName }),
  headers: ConsumeHeaders,
  bodyKind: 'json',
  body: ConsumeIn,
  answers: { 200: z.array(Message) },
  answerHeaders: ConsumeAnswerHeaders,
  errors,
  handle: ({ params, headers, body }, context) => poll(params, headers, body, context),
})

/** `/consume/{group}/{instance}/{topic}` */
export const consumeTopic: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/consume/{group}/{instance}/{topic}',
  operationId: 'consumeTopic',
  summary: 'Read the next records of one topic as an instance of a group',
  params: z.object({ group: GroupName, instance: InstanceName, topic: TopicName }),
  query: TimeoutQuery,
  headers: ConsumeHeaders,
  answers: { 200: z.array(Message) },
  answerHeaders: ConsumeAnswerHeaders,
  errors,
  handle: ({ params, query, headers }, context) =>
    poll(params, headers, { topic: params.topic, timeout: query.timeout }, context),
})

async function poll(
  names: { group: string; instance: string },
  headers: ConsumeHeaders,
  body: ConsumeBody,
  { broker, principal, limits, waiting, request }: RouteContext,
): Promise<GatewayResponse> {
  const topics = [...new Set([...(body.topic === undefined ? [] : [body.topic]), ...(body.topics ?? [])])]
  if (topics.length === 0) throw invalidRequest('Cannot consume: no topic is named. Send "topic" or "topics".')
  principal.requireGroup('consume', names.group)
  principal.requireTopics('consume', topics)
  const run = runOf(headers, body)
  const { maxWaitMs, ...most } = fetchLimits(body, limits)
  const poll: Omit<PollRequest, 'maxWaitMs'> = {
    group: { groupId: names.group, groupInstanceId: names.instance },
    topics,
    ...most,
    ...(run === undefined ? {} : { run }),
    autoOffsetReset: headers['kafka-auto-offset-reset'] ?? 'latest',
    enableAutoCommit: headers['kafka-enable-auto-commit'] ?? run === undefined,
    ...defined('autoCommitIntervalMs', headers['kafka-auto-commit-interval']),
    ...defined('sessionTimeoutMs', headers['kafka-session-timeout-ms']),
  }
  const result = await waiting.run(maxWaitMs, request.signal, (wait, signal) =>
    broker.poll({ ...poll, maxWaitMs: wait }, { signal }),
  )
  const encoding = headers['kedge-encoding'] ?? 'text'
  return { status: 200, headers: groupHeaders(result), body: recordsJson(result.records, encoding) }
}

/** What a run says of itself in its headers and body. */
function runOf(headers: ConsumeHeaders, body: ConsumeBody): RunPosition | undefined {
  const runId = headers['kedge-run']
  if (runId === undefined) {
    if (body.positions === undefined) return undefined
    throw invalidRequest('Cannot consume from "positions" without a run: send Kedge-Run as well.')
  }
  if (headers['kafka-enable-auto-commit'] === true) {
    throw invalidRequest('Cannot consume as a run with auto-commit: a run commits for itself. Leave one of them out.')
  }
  return {
    runId,
    ...defined('claimTtlMs', headers['kedge-claim-ttl-ms']),
    ...defined('generationId', headers['kedge-generation']),
    ...defined('positions', body.positions),
  }
}

/** What the instance holds; or when to come again, where its join still waits and nobody can say. */
function groupHeaders(result: PollResult): Record<string, string> {
  const { generationId, assignment, retryAfterMs, formerRunLapsed } = result
  if (retryAfterMs !== undefined) return retryAfterHeaders(retryAfterMs)
  return {
    'Kedge-Generation': String(generationId),
    'Kedge-Assignment': assignmentText(assignment),
    ...(formerRunLapsed === true ? { 'Kedge-Former-Run': 'lapsed' } : {}),
  }
}

/** An assignment as a header: `orders=0-2,5;bills=1`. */
function assignmentText(assignment: PollResult['assignment']): string {
  const byTopic = Map.groupBy(assignment, ({ topic }) => topic)
  return Array.from(byTopic, ([topic, held]) => `${topic}=${rangesOf(held.map(({ partition }) => partition))}`).join(
    ';',
  )
}

function rangesOf(partitions: readonly number[]): string {
  const ranges: { first: number; last: number }[] = []
  for (const partition of [...partitions].sort((a, b) => a - b)) {
    const range = ranges.at(-1)
    if (range !== undefined && partition === range.last + 1) range.last = partition
    else ranges.push({ first: partition, last: partition })
  }
  return ranges.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(',')
}

/** An option that is there only where it has a value. */
function defined<K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } {
  // The key is one of K, which the type of a computed property does not say.
  return (value === undefined ? {} : { [name]: value }) as { [P in K]?: V }
}
