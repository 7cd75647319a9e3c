/** `/claims/{group}/{instance}`: a run takes, renews and gives back its claim on an instance. */
import * as z from 'zod'
import type { ErrorCode } from '../../errors.ts'
import { defineRoute, type Route } from '../route.ts'
import { ClaimHeaders, GroupName, InstanceName, ReleaseHeaders, ResultOut } from '../schemas.ts'
import { success } from '../success.ts'

const params = z.object({ group: GroupName, instance: InstanceName })
const errors: readonly ErrorCode[] = ['CLAIM_HELD', 'INVALID_GROUP_ID', 'GROUP_AUTHORIZATION_FAILED']

/** `POST /claims/{group}/{instance}` */
export const claim: Route = defineRoute({
  methods: ['POST'],
  path: '/claims/{group}/{instance}',
  operationId: 'claim',
  summary: 'Take or renew the claim of a run on an instance',
  params,
  headers: ClaimHeaders,
  answers: { 200: ResultOut },
  errors,
  async handle({ params, headers }, { broker, principal }) {
    principal.requireGroup('consume', params.group)
    const ttl = headers['kedge-claim-ttl-ms']
    await broker.claim(
      { groupId: params.group, groupInstanceId: params.instance },
      { runId: headers['kedge-run'], ...(ttl === undefined ? {} : { claimTtlMs: ttl }) },
    )
    return success
  },
})

/** `DELETE /claims/{group}/{instance}` */
export const release: Route = defineRoute({
  methods: ['DELETE'],
  path: '/claims/{group}/{instance}',
  operationId: 'release',
  summary: 'Give the claim of a run back',
  params,
  headers: ReleaseHeaders,
  answers: { 200: ResultOut },
  errors,
  async handle({ params, headers }, { broker, principal }) {
    principal.requireGroup('consume', params.group)
    await broker.release({ groupId: params.group, groupInstanceId: params.instance }, headers['kedge-run'])
    return success
  },
})
