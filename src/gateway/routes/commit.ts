/** `/commit/{group}/{instance}`: stores offsets, exactly as given. */
import * as z from 'zod'
import type { OffsetCommit } from '../../broker.ts'
import { defineRoute, type Route } from '../route.ts'
import { CommitHeaders, CommitIn, GroupName, InstanceName, ResultOut, type CommitBody } from '../schemas.ts'
import { success } from '../success.ts'

/** `/commit/{group}/{instance}` */
export const commit: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/commit/{group}/{instance}',
  operationId: 'commit',
  summary: 'Commit given offsets, or without a body what the instance was last given',
  params: z.object({ group: GroupName, instance: InstanceName }),
  headers: CommitHeaders,
  bodyKind: 'json',
  body: CommitIn,
  answers: { 200: ResultOut },
  errors: [
    'UNKNOWN_MEMBER_ID',
    'UNKNOWN_TOPIC_OR_PARTITION',
    'CLAIM_LOST',
    'ILLEGAL_GENERATION',
    'OFFSET_METADATA_TOO_LARGE',
    'INVALID_GROUP_ID',
    'INVALID_TOPIC_EXCEPTION',
    'GROUP_AUTHORIZATION_FAILED',
  ],
  async handle({ params, headers, body }, { broker, principal }) {
    const offsets = offsetsOf(body)
    principal.requireGroup('consume', params.group)
    if (offsets !== 'polled') {
      principal.requireTopics(
        'consume',
        offsets.map(({ topic }) => topic),
      )
    }
    const runId = headers['kedge-run']
    const generationId = headers['kedge-generation']
    await broker.commit({ groupId: params.group, groupInstanceId: params.instance }, offsets, {
      ...(runId === undefined ? {} : { runId }),
      ...(generationId === undefined ? {} : { generationId }),
    })
    return success
  },
})

function offsetsOf(body: CommitBody): OffsetCommit[] | 'polled' {
  const entries = body === undefined ? [] : Array.isArray(body) ? body : 'topic' in body ? [body] : []
  if (entries.length === 0) return 'polled'
  return entries.map(({ topic, partition, offset, metadata }) => ({
    topic,
    partition,
    offset,
    metadata: metadata ?? null,
  }))
}
