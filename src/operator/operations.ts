/**
 * An operator's verbs over REST. None waits for a run that is on: its answer is 409 with the time to wait. A backfill keeps
 * nothing between two calls: it works for a bounded time, and is resumed by the next one.
 */
import * as z from 'zod'
import type { Broker } from '../broker.ts'
import { GatewayError, isErrorCode } from '../errors.ts'
import { invalidRequest, statusOfCode } from '../gateway/errors.ts'
import type { Principal } from '../gateway/principal.ts'
import { defineRoute, type Route, type RouteContext } from '../gateway/route.ts'
import { GroupName } from '../gateway/schemas.ts'
import { createOperations } from '../operations.ts'
import type { BackfillReport, Operations } from '../operations.ts'
import { actorOf, asUnsupported } from './asking.ts'
import {
  BackfillIn,
  BackfillOut,
  PausedOut,
  PauseIn,
  ResumeBackfillIn,
  SeekIn,
  SeekOut,
  SkipIn,
  SkipOut,
  StatusOut,
  StopBackfillIn,
  StopBackfillOut,
} from './operations-schemas.ts'
import type { OperatorServices } from './routes.ts'

const params = z.object({ group: GroupName })
const ofAll = ['GROUP_AUTHORIZATION_FAILED', 'INVALID_GROUP_ID', 'GROUP_ID_NOT_FOUND', 'INVALID_RECORD'] as const
const ofChanges = [...ofAll, 'UNKNOWN_TOPIC_OR_PARTITION', 'CLAIM_HELD', 'CLAIM_LOST'] as const
const ofOffsets = [...ofChanges, 'OFFSET_OUT_OF_RANGE'] as const
const ofCommits = [...ofOffsets, 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS'] as const

/** How long a call of a backfill works where nothing is said, milliseconds. */
const DEFAULT_TIME_LIMIT_MS = 10_000

/** The rows of an operator's verbs. */
export function operationsRoutes(services: OperatorServices): readonly Route[] {
  return [
    status(services),
    seek(services),
    skip(services),
    pause(services, 'pause'),
    pause(services, 'resume'),
    backfill(services),
    resumeBackfill(services),
    stopBackfill(services),
  ]
}

function status(services: OperatorServices): Route {
  return defineRoute({
    methods: ['GET'],
    path: '/groups/{group}/operations',
    operationId: 'operations',
    summary: 'Where a group stands, what of it is paused, and its backfills',
    params,
    answers: { 200: StatusOut },
    errors: ofAll,
    async handle({ params: { group } }, { broker, principal }) {
      principal.requireGroup('operate', group)
      return { json: await asUnsupported(async () => (await verbsOf(services, broker, group)).status()) }
    },
  })
}

function seek(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/operations/seek',
    operationId: 'seek',
    summary: "Set a group's committed offsets: to an offset, a time, or an end of the log",
    params,
    bodyKind: 'json',
    body: SeekIn,
    answers: { 200: SeekOut },
    errors: ofCommits,
    async handle({ params: { group }, body: { topic, to, ...body } }, { broker, principal }) {
      principal.requireGroup('operate', group)
      const asked = { ...by(principal, body), topic, to, ...given(body) }
      const partitions = await asUnsupported(async () => (await verbsOf(services, broker, group)).seek(asked))
      return { json: { partitions } }
    },
  })
}

function skip(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/operations/skip',
    operationId: 'skip',
    summary: 'Pass one record over, as if the group had handled it',
    params,
    bodyKind: 'json',
    body: SkipIn,
    answers: { 200: SkipOut },
    errors: ofCommits,
    async handle({ params: { group }, body: { topic, partition, offset, reason, dryRun } }, { broker, principal }) {
      principal.requireGroup('operate', group)
      const asked = { actor: actorOf(principal), reason, topic, partition, offset, dryRun: dryRun === true }
      return { json: await asUnsupported(async () => (await verbsOf(services, broker, group)).skip(asked)) }
    },
  })
}

function pause(services: OperatorServices, verb: 'pause' | 'resume'): Route {
  const summary =
    verb === 'pause'
      ? 'Handle nothing of a group, of a topic of it or of a key of that, until it is resumed'
      : 'Take a pause back'
  return defineRoute({
    methods: ['POST'],
    path: `/groups/{group}/operations/${verb}`,
    operationId: verb,
    summary,
    params,
    bodyKind: 'json',
    body: PauseIn,
    answers: { 200: PausedOut },
    errors: ofChanges,
    async handle({ params: { group }, body = {} }, { broker, principal }) {
      principal.requireGroup('operate', group)
      const { topic, key } = body
      if (key !== undefined && topic === undefined) {
        throw invalidRequest(`Cannot ${verb} a key of group ${group}: there is no topic with it. Say of which topic.`)
      }
      const asked = {
        ...by(principal, body),
        ...(topic === undefined ? {} : { topic }),
        ...(key === undefined ? {} : { key }),
      }
      return { json: await asUnsupported(async () => (await verbsOf(services, broker, group))[verb](asked)) }
    },
  })
}

function backfill(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/operations/backfill',
    operationId: 'backfill',
    summary: 'Begin to replay a range of a topic into one group, for a bounded time',
    params,
    bodyKind: 'json',
    body: BackfillIn,
    answers: { 200: BackfillOut },
    errors: ofOffsets,
    async handle({ params: { group }, body: { topic, from, ...body } }, { principal, ...context }) {
      principal.requireGroup('operate', group)
      const { until, perSecond } = body
      const asked = {
        ...by(principal, body),
        topic,
        from,
        ...given(body),
        ...(until === undefined ? {} : { until }),
        ...(perSecond === undefined ? {} : { perSecond }),
      }
      const work = (verbs: Operations, signal: AbortSignal): Promise<BackfillReport> =>
        verbs.backfill({ ...asked, signal })
      return { json: await bounded(services, group, context, body.timeLimitMs, work) }
    },
  })
}

function resumeBackfill(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/operations/backfill/resume',
    operationId: 'resumeBackfill',
    summary: 'Go on with a backfill that has not ended, for a bounded time',
    params,
    bodyKind: 'json',
    body: ResumeBackfillIn,
    answers: { 200: BackfillOut },
    errors: ofOffsets,
    async handle({ params: { group }, body: { topic, ...body } }, { principal, ...context }) {
      principal.requireGroup('operate', group)
      const asked = { ...by(principal, body), topic }
      const work = (verbs: Operations, signal: AbortSignal): Promise<BackfillReport> =>
        verbs.resumeBackfill({ ...asked, signal })
      return { json: await bounded(services, group, context, body.timeLimitMs, work) }
    },
  })
}

function stopBackfill(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/operations/backfill/stop',
    operationId: 'stopBackfill',
    summary: 'Take a backfill back, wherever it runs',
    params,
    bodyKind: 'json',
    body: StopBackfillIn,
    answers: { 200: StopBackfillOut },
    errors: ofChanges,
    async handle({ params: { group }, body: { topic, ...body } }, { broker, principal }) {
      principal.requireGroup('operate', group)
      const asked = { ...by(principal, body), topic }
      return { json: await asUnsupported(async () => (await verbsOf(services, broker, group)).stopBackfill(asked)) }
    },
  })
}

/**
 * A backfill's call, until its time is over.
 * @throws {GatewayError} what ended it, where that is a failure: an answer of 200 would have its caller ask for ever
 */
async function bounded(
  services: OperatorServices,
  group: string,
  { broker, waiting, request }: Pick<RouteContext, 'broker' | 'waiting' | 'request'>,
  timeLimitMs: number = DEFAULT_TIME_LIMIT_MS,
  work: (verbs: Operations, signal: AbortSignal) => Promise<BackfillReport>,
): Promise<object> {
  const verbs = await verbsOf(services, broker, group)
  return await waiting.run(timeLimitMs, request.signal, async (limitMs, signal) => {
    const time = new AbortController()
    const cancel = services.clock.after(limitMs, () => time.abort(new Error('The time of the call is over.')))
    try {
      const { cause, ...report } = await asUnsupported(() => work(verbs, AbortSignal.any([time.signal, signal])))
      const { ended } = report
      const isFinished = ended === 'done' || ended === 'stopped'
      if (isFinished) return { ...report, finished: true }
      if (ended === 'aborted') {
        return { ...report, finished: false, ended: time.signal.aborted ? 'time-limit' : 'closing' }
      }
      const code = cause?.code ?? ''
      throw new GatewayError(
        isErrorCode(code) && statusOfCode[code] !== null ? code : 'UNKNOWN_SERVER_ERROR',
        `Cannot backfill ${report.topic} of group ${group} to the end: ${report.replayed} records were replayed, then: ${cause?.message ?? ended} Resume it, which goes on from there.`,
      )
    } finally {
      cancel()
    }
  })
}

async function verbsOf(services: OperatorServices, broker: Broker, groupId: string): Promise<Operations> {
  const { clock, random, log } = services
  return await asUnsupported(async () => {
    const app = await services.appOf(groupId)
    return createOperations({ broker, groupId, clock, random, log, ...(app === undefined ? {} : { app }) })
  })
}

function by(principal: Principal, { reason }: { readonly reason?: string | undefined }) {
  return { actor: actorOf(principal), ...(reason === undefined ? {} : { reason }) }
}

function given({
  partition,
  dryRun,
}: {
  readonly partition?: number | undefined
  readonly dryRun?: boolean | undefined
}) {
  return { ...(partition === undefined ? {} : { partition }), ...(dryRun === undefined ? {} : { dryRun }) }
}
