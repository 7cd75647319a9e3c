/**
 * Every route and method against every kind of caller. The rows come from the route table: a route without an expectation
 * here fails the suite.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential } from '../../src/gateway/credentials.ts'
import { credentialFor } from '../../src/gateway/credentials.ts'
import type { Scope } from '../../src/gateway/principal.ts'
import { verbs } from '../../src/gateway/principal.ts'
import { contractRoutes } from '../../scripts/write-protocol.ts'
import { openHarness, type Harness } from './every-path.ts'

const scopes: Readonly<Record<string, readonly Scope[]>> = {
  admin: [{ verbs, topics: ['*'], groups: ['*'] }],
  // As a file may have it that was written before there was `operate`.
  formerAdmin: [{ verbs: ['produce', 'consume', 'admin'], topics: ['*'], groups: ['*'] }],
  operator: [{ verbs: ['operate'], groups: ['mine'] }],
  producer: [{ verbs: ['produce'], topics: ['mine.*'] }],
  consumer: [{ verbs: ['consume'], topics: ['mine.*'], groups: ['mine'] }],
  topicsOnly: [{ verbs: ['consume'], topics: ['*'] }],
  groupsOnly: [{ verbs: ['consume'], groups: ['*'] }],
  otherTenant: [{ verbs, topics: ['theirs.*'], groups: ['theirs'] }],
  nothing: [],
}
const callers = [...Object.keys(scopes), 'nobody', 'garbled', 'unknown', 'wrong'] as const

interface Row {
  readonly line: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** Callers that are served. `everybody` also needs no credentials; `all` needs some. */
  readonly allowed: readonly string[] | 'everybody' | 'all'
}

const admins = ['admin', 'formerAdmin']
const produce = [...admins, 'producer']
const consume = [...admins, 'consumer']
const group = [...admins, 'consumer', 'groupsOnly']
const operate = ['admin', 'operator']
const run = { 'kedge-run': 'r' }
const partition = { topic: 'mine.a', partition: 0 }

/** What each operation of the table is called with, and who may. */
const rows: Readonly<Record<string, Row>> = {
  produce: { line: '/produce', body: { topic: 'mine.a', value: 'x' }, allowed: produce },
  produceToTopic: { line: '/produce/mine.a', body: { value: 'x' }, allowed: produce },
  produceMessage: { line: '/produce/mine.a/x', allowed: produce },
  webhook: { line: '/webhook?topic=mine.a', body: 'x', allowed: produce },
  consume: { line: '/consume/mine/i', body: { topic: 'mine.a', timeout: 0 }, allowed: consume },
  consumeTopic: { line: '/consume/mine/i/mine.a?timeout=0', allowed: consume },
  commit: { line: '/commit/mine/i', body: { ...partition, offset: 0 }, allowed: consume },
  committed: { line: '/committed/mine/i', body: partition, allowed: consume },
  fetch: { line: '/fetch', body: { topic: 'mine.a', timeout: 0 }, allowed: [...admins, 'consumer', 'topicsOnly'] },
  offsets: { line: '/offsets/latest', body: partition, allowed: [...admins, 'consumer', 'topicsOnly'] },
  topics: { line: '/topics', allowed: 'all' },
  describeTopic: { line: '/topics/mine.a', allowed: [...admins, 'producer', 'consumer', 'topicsOnly'] },
  createTopic: { line: '/topics/mine.new', body: {}, allowed: admins },
  deleteTopic: { line: '/topics/mine.new', allowed: admins },
  consumers: { line: '/consumers', allowed: 'all' },
  deleteConsumer: { line: '/delete-consumer/mine/i', allowed: group },
  groups: { line: '/groups', allowed: 'all' },
  describeGroup: { line: '/groups/mine', allowed: [...group, 'operator'] },
  claim: { line: '/claims/mine/other', headers: run, allowed: group },
  release: { line: '/claims/mine/other', headers: run, allowed: group },
  deadLetters: { line: '/groups/mine/dead-letters', allowed: operate },
  deadLetter: { line: '/groups/mine/dead-letters/mine/mine.a/0/0', allowed: operate },
  redrivePlan: { line: '/groups/mine/redrive/plan', body: {}, allowed: operate },
  redriveRun: { line: '/groups/mine/redrive/run', body: { all: true }, allowed: operate },
  redriveEdit: { line: '/groups/mine/redrive/edit', body: { id: 'x', value: null }, allowed: operate },
  operations: { line: '/groups/mine/operations', allowed: operate },
  seek: { line: '/groups/mine/operations/seek', body: { topic: 'mine.a', to: 'latest' }, allowed: operate },
  skip: {
    line: '/groups/mine/operations/skip',
    body: { topic: 'mine.a', partition: 0, offset: 0, reason: 'r' },
    allowed: operate,
  },
  pause: { line: '/groups/mine/operations/pause', body: {}, allowed: operate },
  resume: { line: '/groups/mine/operations/resume', body: {}, allowed: operate },
  backfill: { line: '/groups/mine/operations/backfill', body: { topic: 'mine.a', from: 0 }, allowed: operate },
  resumeBackfill: { line: '/groups/mine/operations/backfill/resume', body: { topic: 'mine.a' }, allowed: operate },
  stopBackfill: { line: '/groups/mine/operations/backfill/stop', body: { topic: 'mine.a' }, allowed: operate },
  root: { line: '/', allowed: 'everybody' },
  healthz: { line: '/healthz', allowed: 'everybody' },
  readyz: { line: '/readyz', allowed: 'everybody' },
  openapi: { line: '/openapi.json', allowed: 'everybody' },
  docs: { line: '/docs', allowed: 'everybody' },
  docsFile: { line: '/docs/init.js', allowed: 'everybody' },
}

let harness: Harness
beforeAll(async () => {
  harness = await openHarness({ credentials: await credentials() })
  for (const topic of ['mine.a', 'theirs.a']) await harness.broker.createTopic({ topic })
})
afterAll(async () => {
  await harness.server.close()
  await harness.broker.close()
})

const table = contractRoutes().flatMap((route) => route.methods.map((method) => ({ method, id: route.operationId })))

test.each(table)('$id has a row', ({ id }) => {
  expect(rows[id]).toBeDefined()
})

describe.each(table.filter(({ id }) => rows[id] !== undefined))('$method $id', ({ method, id }) => {
  const row = rows[id]
  if (row === undefined) return

  test.each(callers)('by %s', async (caller) => {
    const answer = await harness.call(`${method} ${row.line}`, row.body, { ...row.headers, ...authorization(caller) })

    expect(expected(row.allowed, caller)).toContain(statusClass(answer.status))
    const isRefused = answer.status === 401 || answer.status === 403
    expect(!isRefused || Object.keys(answer.json as object).join() === 'result,error,status').toBe(true)
  })
})

test('a 401 says how to authenticate', async () => {
  expect((await harness.call('GET /topics')).headers['www-authenticate']).toBe('Basic realm="kedge", charset="UTF-8"')
})

test.each([
  ['query credentials', '/webhook?topic=mine.a&user=producer&pass=secret==', {}, 200],
  ['wrong query credentials', '/webhook?topic=mine.a&user=producer&pass=no', {}, 403],
  ['a header beside them, which wins', '/webhook?topic=mine.a&user=producer&pass=secret==', { caller: 'nothing' }, 403],
  ['query credentials elsewhere', '/produce/mine.a/x?user=producer&pass=secret==', {}, 401],
])('%s', async (_what, line, { caller }: { caller?: string }, status) => {
  const answer = await harness.call(`POST ${line}`, 'x', caller === undefined ? {} : authorization(caller))

  expect(answer.status).toBe(status)
})

test('lists only what a caller may see', async () => {
  await harness.broker.commit({ groupId: 'mine', groupInstanceId: 'i' }, [{ topic: 'mine.a', partition: 0, offset: 0 }])
  await harness.call('POST /consume/theirs/i', { topic: 'theirs.a', timeout: 0 }, authorization('otherTenant'))

  expect((await harness.call('GET /topics', undefined, authorization('consumer'))).json).toEqual({ 'mine.a': 1 })
  expect((await harness.call('GET /topics', undefined, authorization('nothing'))).json).toEqual({})
  expect((await harness.call('GET /groups', undefined, authorization('producer'))).json).toEqual([])
  expect((await harness.call('GET /groups', undefined, authorization('otherTenant'))).json).toMatchObject([
    { groupId: 'theirs' },
  ])
  expect((await harness.call('GET /consumers', undefined, authorization('groupsOnly'))).json).toContainEqual({
    name: 'theirs',
    instances: [{ name: 'i', topics: [] }],
  })
})

test('a batch that names a forbidden topic writes nothing, whether or not the topic exists', async () => {
  const before = await harness.broker.offsets([{ topic: 'mine.a', partition: 0 }], 'latest')

  const answers = []
  for (const topic of ['theirs.a', 'theirs.nope']) {
    const batch = [
      { topic: 'mine.a', value: 'x' },
      { topic, value: 'x' },
    ]
    answers.push(await harness.call('POST /produce', batch, authorization('producer')))
    answers.push(await harness.call('POST /produce', batch, { ...authorization('producer'), 'kedge-results': 'each' }))
  }

  expect(answers.map(({ status }) => status)).toEqual([403, 403, 403, 403])
  expect(new Set(answers.map(({ text }) => text.replace(/theirs\.\w+/, 'T'))).size).toBe(1)
  expect(await harness.broker.offsets([{ topic: 'mine.a', partition: 0 }], 'latest')).toEqual(before)
})

test('two credentials never meet on one idempotency key', async () => {
  const key = { 'idempotency-key': 'same' }

  const one = await harness.call('POST /produce/mine.a', { value: '1' }, { ...authorization('producer'), ...key })
  const other = await harness.call('POST /produce/mine.a', { value: '2' }, { ...authorization('admin'), ...key })

  expect([one.status, other.status]).toEqual([200, 200])
})

async function credentials(): Promise<Credential[]> {
  return Promise.all(Object.entries(scopes).map(([name, scope]) => credentialFor(name, 'secret==', scope)))
}

function authorization(caller: string): Record<string, string> {
  if (caller === 'nobody') return {}
  if (caller === 'garbled') return { authorization: 'Basic garbled' }
  const name = caller === 'wrong' ? 'admin' : caller
  const password = caller === 'wrong' ? 'secret' : 'secret=='
  return { authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}` }
}

function expected(allowed: Row['allowed'], caller: string): readonly string[] {
  if (allowed === 'everybody') return ['served']
  if (caller === 'nobody' || caller === 'garbled') return ['401']
  if (caller === 'unknown' || caller === 'wrong') return ['403']
  return allowed === 'all' || allowed.includes(caller) ? ['served'] : ['403']
}

/** Whoever may call is served, even if with "not found": which rights one has must not depend on what exists. */
function statusClass(status: number): string {
  return status === 401 || status === 403 ? String(status) : 'served'
}
