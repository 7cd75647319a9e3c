/**
 * One row of the route table: what a path takes, what it answers, and the one port call between. From the rows come the
 * server, its 405 answers, the OpenAPI document and the tests' matrices.
 */
import type * as z from 'zod'
import type { Broker } from '../broker.ts'
import { GatewayError, isErrorCode, type ErrorCode } from '../errors.ts'
import type { GatewayLimits } from './limits.ts'
import { invalidRequest } from './errors.ts'
import { parseBody } from './body.ts'
import { pathPattern, queryOf, queryPairs, type PathPattern } from './path.ts'
import type { Principal } from './principal.ts'
import type { GatewayRequest, GatewayResponse } from './request.ts'
import { itemSchemaOf } from './schemas.ts'
import type { Sha256 } from './credentials.ts'
import type { WaitingCalls } from './waiting.ts'

/** A method that a route may take. */
export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

/** What a handler has besides its input. */
export interface RouteContext {
  readonly broker: Broker
  readonly principal: Principal
  readonly limits: GatewayLimits
  readonly waiting: WaitingCalls
  readonly sha256: Sha256
  readonly request: GatewayRequest
}

/** How a route takes its body. `records` keeps values that are not strings as the JSON text that was sent. */
export type BodyKind = 'none' | 'json' | 'records' | 'bytes'

/** What a request brought, checked. */
export interface Input<P, Q, H, B> {
  readonly params: P
  readonly query: Q
  readonly headers: H
  readonly body: B
}

/** An answer in JSON; `headers` beside it. */
export interface Answer {
  /** @default 200 */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly json: unknown
}

/** A route as its file writes it down. */
export interface RouteDefinition<P, Q, H, B, F> {
  readonly methods: readonly Method[]
  readonly path: `/${string}`
  readonly operationId: string
  readonly summary: string
  /** `public` needs no credentials; `query` also takes them as `user` and `pass` in the query. @default 'header' */
  readonly access?: 'public' | 'header' | 'query'
  readonly params?: z.ZodType<P>
  readonly query?: z.ZodType<Q>
  readonly headers?: z.ZodType<H>
  readonly bodyKind?: BodyKind
  readonly body?: z.ZodType<B>
  /** Reads the commonest valid bodies without the schema, into a form of its own; undefined sends a body the long way. */
  readonly readFast?: (body: Uint8Array, params: P, context: RouteContext) => F | undefined
  /** The schema of each good answer by status; null for one that is not JSON. */
  readonly answers: Readonly<Record<number, z.ZodType | null>>
  /** Headers of a good answer that are part of the contract. */
  readonly answerHeaders?: z.ZodType
  /** Codes beside those that any route can answer. */
  readonly errors?: readonly ErrorCode[]
  handle(
    input: Input<P, Q, H, B | F>,
    context: RouteContext,
  ): Promise<Answer | GatewayResponse> | Answer | GatewayResponse
}

/** A route as the gateway serves it. */
export interface Route {
  readonly methods: readonly Method[]
  readonly path: string
  readonly pattern: PathPattern
  readonly operationId: string
  readonly summary: string
  readonly access: 'public' | 'header' | 'query'
  readonly bodyKind: BodyKind
  readonly schemas: {
    readonly params: z.ZodType | undefined
    readonly query: z.ZodType | undefined
    readonly headers: z.ZodType | undefined
    readonly body: z.ZodType | undefined
  }
  readonly answers: Readonly<Record<number, z.ZodType | null>>
  readonly answerHeaders: z.ZodType | undefined
  readonly errors: readonly ErrorCode[]
  /** Checks the request and serves it. `params` are the path's, decoded. */
  serve(params: Readonly<Record<string, string>>, context: RouteContext): Promise<GatewayResponse>
}

/** Makes a row of the table; inside `handle` everything is checked and typed. */
export function defineRoute<P = undefined, Q = undefined, H = undefined, B = undefined, F = never>(
  definition: RouteDefinition<P, Q, H, B, F>,
): Route {
  const { bodyKind = 'none', access = 'header', errors = [] } = definition
  const headerNames = definition.headers === undefined ? [] : shapeKeys(definition.headers)
  return {
    methods: definition.methods,
    path: definition.path,
    pattern: pathPattern(definition.path),
    operationId: definition.operationId,
    summary: definition.summary,
    access,
    bodyKind,
    schemas: {
      params: definition.params,
      query: definition.query,
      headers: definition.headers,
      body: definition.body,
    },
    answers: definition.answers,
    answerHeaders: definition.answerHeaders,
    errors,
    async serve(rawParams, context) {
      const { request } = context
      const params = check(definition.params, rawParams, 'the path')
      const query = definition.query && check(definition.query, queryPairs(queryOf(request.target)), 'the query')
      const headers = definition.headers && check(definition.headers, pick(request, headerNames), 'the headers')
      const body = bodyKind === 'none' ? undefined : await readBody(definition, params, context)
      const input = { params, query: query as Q, headers: headers as H, body: body as B }
      const answer = await definition.handle(input, context)
      if ('body' in answer) return answer
      const status = answer.status ?? 200
      const text = JSON.stringify(answer.json)
      return answer.headers === undefined ? { status, body: text } : { status, headers: answer.headers, body: text }
    },
  }
}

async function readBody<P, Q, H, B, F>(
  definition: RouteDefinition<P, Q, H, B, F>,
  params: P,
  context: RouteContext,
): Promise<unknown> {
  const bytes = await context.request.readBody(context.limits.bodyBytes)
  if (definition.bodyKind === 'bytes') return bytes
  const fast = definition.readFast?.(bytes, params, context)
  if (fast !== undefined) return fast
  const json = parseBody(bytes, context.limits, definition.bodyKind === 'records')
  const item = definition.body && itemSchemaOf(definition.body)
  if (item === undefined || !Array.isArray(json)) return check(definition.body, json, 'the body')
  return json.map((one: unknown, index) => check(item, one, `entry ${index} of the body`))
}

/** The value as its schema reads it. `T` is undefined where there is no schema. */
function check<T>(schema: z.ZodType<T> | undefined, value: unknown, where: string): T {
  if (schema === undefined) return undefined as T
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw schemaError(result.error, where)
}

/** The first complaint of a schema as an error: its own code where it has one, and where in the request it is. */
function schemaError(error: z.ZodError, where: string): GatewayError {
  const issue = deepestIssue(error.issues)
  const code: unknown = issue.code === 'custom' ? issue.params?.['code'] : undefined
  const place = issue.path.length === 0 ? where : `${pathText(issue.path)} in ${where}`
  const message = `Cannot read ${place}: ${issue.message}.`
  return typeof code === 'string' && isErrorCode(code) ? new GatewayError(code, message) : invalidRequest(message)
}

/** Of a union's complaints, the one that got furthest into the value says most. */
function deepestIssue(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue {
  const flat = issues.flatMap(flatten)
  return flat.reduce((best, issue) => (issue.path.length > best.path.length ? issue : best))
}

function flatten(issue: z.core.$ZodIssue): z.core.$ZodIssue[] {
  if (issue.code !== 'invalid_union') return [issue]
  const inner = issue.errors.flat().flatMap(flatten)
  return inner.length === 0 ? [issue] : inner.map((one) => ({ ...one, path: [...issue.path, ...one.path] }))
}

function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`),
    '',
  )
}

function pick(request: GatewayRequest, names: readonly string[]): Record<string, string | undefined> {
  const picked: Record<string, string | undefined> = {}
  for (const name of names) picked[name] = request.header(name)
  return picked
}

function shapeKeys(schema: z.ZodType): readonly string[] {
  return 'shape' in schema && typeof schema.shape === 'object' && schema.shape !== null ? Object.keys(schema.shape) : []
}
