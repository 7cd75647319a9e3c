/**
 * Redrive over REST: what a group could not handle, looked at and handed back. A run keeps nothing between two calls: it
 * works for a bounded time, answers what it did, and the same call goes on from there.
 */
import * as z from 'zod'
import type { Broker } from '../broker.ts'
import { sleep } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { GatewayError, isErrorCode } from '../errors.ts'
import { type ExistingGroupScope, requireGroup } from '../existing-group.ts'
import { invalidRequest, statusOfCode } from '../gateway/errors.ts'
import { defineRoute, type Route } from '../gateway/route.ts'
import { GroupName } from '../gateway/schemas.ts'
import { readBytes } from '../gateway/text.ts'
import { createRedrive, redriveDefaults } from '../redrive.ts'
import type { Redrive, RedriveFilter, RedriveReport, RedriveRunOptions } from '../redrive.ts'
import { RedriveCalls } from '../redrive/calls.ts'
import { redriveTopicName } from '../return-topic.ts'
import { actorOf, asUnsupported } from './asking.ts'
import {
  contentJson,
  DEFAULT_TIME_LIMIT_MS,
  EditIn,
  EditOut,
  EncodingHeaders,
  filterOf,
  LetterOut,
  letterJson,
  LetterQuery,
  LettersOut,
  ListQuery,
  PlanIn,
  PlanOut,
  RunIn,
  RunOut,
} from './redrive-schemas.ts'
import type { AskedFilter } from './redrive-schemas.ts'
import type { OperatorServices } from './routes.ts'

const params = z.object({ group: GroupName })
const ofAll = ['GROUP_AUTHORIZATION_FAILED', 'INVALID_GROUP_ID', 'DEAD_LETTER_STORE_UNAVAILABLE'] as const

/** The rows of redrive. */
export function redriveRoutes(services: OperatorServices): readonly Route[] {
  return [letters(services), letter(services), plan(services), run(services), edit(services)]
}

function letters(services: OperatorServices): Route {
  return defineRoute({
    methods: ['GET'],
    path: '/groups/{group}/dead-letters',
    operationId: 'deadLetters',
    summary: 'The dead letters of a group, without their content',
    params,
    query: ListQuery,
    answers: { 200: LettersOut },
    errors: [...ofAll, 'GROUP_ID_NOT_FOUND'],
    async handle({ params: { group }, query }, { broker, principal }) {
      principal.requireGroup('operate', group)
      const { limit, cursor, header, ...rest } = query
      const at = header?.indexOf('=') ?? 0
      const asked = {
        ...rest,
        header: header === undefined ? header : { key: header.slice(0, at), value: header.slice(at + 1) },
      }
      const filter = checkedFilter(asked)
      const store = await storeOf(services)
      const place = { ...(limit === undefined ? {} : { limit }), ...(cursor === undefined ? {} : { cursor }) }
      const page = await callsOf(services).make((call) => store.list({ ...filter, ...place, groupId: group }, call))
      const isNone = page.items.length === 0 && cursor === undefined && page.cursor === undefined
      if (isNone) await requireGroup(lettersOf(services, broker, group, 'list'))
      return { json: { letters: page.items.map(letterJson), cursor: page.cursor } }
    },
  })
}

function letter(services: OperatorServices): Route {
  return defineRoute({
    methods: ['GET'],
    path: '/groups/{group}/dead-letters/{letter+}',
    operationId: 'deadLetter',
    summary: 'A dead letter; with content=true its record, for who may also consume its topic',
    params: z.object({ group: GroupName, letter: z.string() }),
    query: LetterQuery,
    headers: EncodingHeaders,
    answers: { 200: LetterOut },
    errors: [...ofAll, 'DEAD_LETTER_NOT_FOUND', 'INVALID_RECORD'],
    async handle({ params: { group, letter: id }, query, headers }, { principal }) {
      principal.requireGroup('operate', group)
      const store = await storeOf(services)
      const found = await callsOf(services).make((call) => store.get(id, call))
      if (found === undefined || found.groupId !== group) throw noLetter(group, id)
      const { record } = found
      const json = { ...letterJson(found), cause: found.cause }
      if (query.content !== true) return { json }
      principal.requireTopics('consume', [record.topic])
      const content = contentJson(record, headers['kedge-encoding'] ?? 'text')
      if (content !== undefined) return { json: { ...json, content } }
      throw new GatewayError(
        'INVALID_RECORD',
        `Cannot show the content of dead letter ${id}: it is not UTF-8. Send Kedge-Encoding: base64.`,
      )
    },
  })
}

function plan(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/redrive/plan',
    operationId: 'redrivePlan',
    summary: 'Count the letters that a redrive would hand back, by what they have in common; writes nothing',
    params,
    bodyKind: 'json',
    body: PlanIn,
    answers: { 200: PlanOut },
    errors: [...ofAll, 'GROUP_ID_NOT_FOUND'],
    async handle({ params: { group }, body }, { broker, principal, request }) {
      principal.requireGroup('operate', group)
      const filter = checkedFilter(body?.filter ?? {})
      const found = await (await redriveOf(services, broker, group)).plan(filter, { signal: request.signal })
      if (found.letters === 0) await requireGroup(lettersOf(services, broker, group, 'plan a redrive of'))
      return { json: found }
    },
  })
}

function run(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/redrive/run',
    operationId: 'redriveRun',
    summary: 'Hand dead letters back to their group, for a bounded time; the same call goes on from there',
    params,
    bodyKind: 'json',
    body: RunIn,
    answers: { 200: RunOut },
    errors: [...ofAll, 'GROUP_ID_NOT_FOUND', 'CLAIM_HELD', 'CLAIM_LOST'],
    async handle({ params: { group }, body }, { broker, principal, waiting, request }) {
      principal.requireGroup('operate', group)
      const { timeLimitMs = DEFAULT_TIME_LIMIT_MS, filter: asked, all, maxRedrives, ...bounds } = body
      const filter = checkedFilter(asked ?? {})
      const { maxLetters = redriveDefaults.maxLetters, perSecond = redriveDefaults.perSecond } = bounds
      if ((Object.keys(filter).length === 0) === (all === undefined)) {
        throw invalidRequest(
          all === undefined
            ? 'Cannot redrive: there is no condition, which means all letters of the group. Give a filter, or "all": true.'
            : 'Cannot redrive: there are conditions, and "all". Give one of them.',
        )
      }
      const redrive = await redriveOf(services, broker, group, maxRedrives)
      const asking = { actor: actorOf(principal), filter, maxLetters, perSecond }
      const ran = await waiting.run(timeLimitMs, request.signal, (limitMs, signal) =>
        runWithin(services, redrive, { ...asking, signal }, limitMs),
      )
      return { json: reportJson(ran) }
    },
  })
}

function edit(services: OperatorServices): Route {
  return defineRoute({
    methods: ['POST'],
    path: '/groups/{group}/redrive/edit',
    operationId: 'redriveEdit',
    summary: 'Hand one dead letter back with another value, which its topic and route must accept',
    params,
    headers: EncodingHeaders,
    bodyKind: 'json',
    body: EditIn,
    answers: { 200: EditOut },
    errors: [...ofAll, 'GROUP_ID_NOT_FOUND', 'CLAIM_HELD', 'CLAIM_LOST', 'DEAD_LETTER_NOT_FOUND', 'INVALID_RECORD'],
    async handle({ params: { group }, headers, body: { id, value } }, { broker, principal }) {
      principal.requireGroup('operate', group)
      requireTopicName(group)
      const bytes = value === null ? null : readBytes(value, headers['kedge-encoding'] ?? 'text', 'the value')
      if ((await asUnsupported(() => services.appOf(group))) === undefined) {
        throw new GatewayError(
          'UNSUPPORTED',
          `Cannot redrive an edited letter of group ${group}: this gateway has not the group's app, which alone can check the value. Use npm run redrive beside the app.`,
        )
      }
      const store = await storeOf(services)
      const found = await callsOf(services).make((call) => store.get(id, call))
      if (found === undefined || found.groupId !== group) throw noLetter(group, id)
      const redrive = await redriveOf(services, broker, group)
      await asUnsupported(() => redrive.edit({ actor: actorOf(principal), id, value: bytes }))
      return { json: { id, redriven: 1 } }
    },
  })
}

/** A run, and whether it was its time that ended it. */
interface TimedRun {
  readonly report: RedriveReport
  readonly isOver: boolean
}

/**
 * Runs until the time is over, and one letter at least: where it takes longer than that to find the first, a call that gave up
 * would be followed by one that finds it no sooner. Keeps the rate over calls that follow each other at once.
 */
async function runWithin(
  { clock }: OperatorServices,
  redrive: Redrive,
  asking: RedriveRunOptions & { readonly perSecond: number; readonly signal: AbortSignal },
  limitMs: number,
): Promise<TimedRun> {
  const time = new AbortController()
  let isOver = false
  let hasMoved = false
  const endWhenMoved = (): void => {
    if (isOver && hasMoved) time.abort(new Error('The time of the call is over.'))
  }
  const cancel = clock.after(limitMs, () => {
    isOver = true
    endWhenMoved()
  })
  try {
    const report = await asUnsupported(() =>
      redrive.run({
        ...asking,
        signal: AbortSignal.any([time.signal, asking.signal]),
        onProgress({ redriven, refused }) {
          hasMoved = redriven + refused > 0
          endWhenMoved()
        },
      }),
    )
    const restMs = ((report.redriven + report.refused) * 1000) / asking.perSecond - report.durationMs
    if (report.ended !== 'done' && restMs > 0) await sleep(clock, restMs, asking.signal).catch(() => undefined)
    return { report, isOver }
  } finally {
    cancel()
  }
}

/** @throws {GatewayError} what ended the run, where that is a failure: an answer of 200 would have its caller ask for ever */
function reportJson({ report, isOver }: TimedRun): object {
  const { ended, cause, redriven } = report
  if (ended === 'done' || ended === 'max-letters') return { ...report, finished: ended === 'done' }
  if (ended === 'aborted') return { ...report, finished: false, ended: isOver ? 'time-limit' : 'stopped' }
  const code = cause?.code ?? ''
  const isOurs = isErrorCode(code) && statusOfCode[code] !== null
  throw new GatewayError(
    isOurs ? code : 'UNKNOWN_SERVER_ERROR',
    `Cannot redrive the letters of group ${report.groupId} to the end: ${redriven} went back, then: ${cause?.message ?? ended} Ask again, which goes on from there.`,
  )
}

function callsOf({ clock, random }: OperatorServices): RedriveCalls {
  return new RedriveCalls({ clock, random, callTimeoutMs: redriveDefaults.callTimeoutMs })
}

/** The group whose letters are asked for, and what for. */
function lettersOf(services: OperatorServices, broker: Broker, groupId: string, verb: string): ExistingGroupScope {
  return { broker, groupId, task: `${verb} the dead letters of group ${groupId}`, calls: callsOf(services) }
}

async function storeOf({ openDeadLetters }: OperatorServices): Promise<DeadLetterStore> {
  return await asUnsupported(openDeadLetters)
}

async function redriveOf(
  services: OperatorServices,
  broker: Broker,
  groupId: string,
  maxRedrives?: number,
): Promise<Redrive> {
  requireTopicName(groupId)
  const { clock, random, log } = services
  return await asUnsupported(async () => {
    const [store, app] = [await services.openDeadLetters(), await services.appOf(groupId)]
    const known = { ...(app === undefined ? {} : { app }), ...(maxRedrives === undefined ? {} : { maxRedrives }) }
    return createRedrive({ broker, store, groupId, clock, random, log, ...known })
  })
}

/** @throws {GatewayError} INVALID_GROUP_ID for a group that no redrive topic can be called after */
function requireTopicName(groupId: string): void {
  if (redriveTopicName('t', groupId) !== undefined) return
  throw new GatewayError(
    'INVALID_GROUP_ID',
    `Cannot redrive the letters of group ${JSON.stringify(groupId)}: no topic can be called after it. Names of letters, digits, dots, dashes and underscores can be.`,
  )
}

/** @throws {GatewayError} INVALID_REQUEST for times that no letter can have */
function checkedFilter(asked: AskedFilter): RedriveFilter {
  const filter = filterOf(asked)
  const { fromMs = 0, untilMs = Number.POSITIVE_INFINITY } = filter
  if (fromMs < untilMs) return filter
  throw invalidRequest(
    `Cannot look for dead letters: none can have failed at or after ${fromMs} and before ${untilMs}. Check fromMs and untilMs.`,
  )
}

/** The same words whether another group has the letter or nobody. */
function noLetter(group: string, id: string): GatewayError {
  return new GatewayError(
    'DEAD_LETTER_NOT_FOUND',
    `Cannot find dead letter ${JSON.stringify(id.slice(0, 600).toWellFormed())} of group ${JSON.stringify(group)}: there is none. List its letters to see their ids.`,
  )
}
