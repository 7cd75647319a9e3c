/** The OpenAPI 3.1 document, made of the route table and its zod schemas, so that it cannot say anything else. */
import * as z from 'zod'
import { statusOf, statusOfCode } from './errors.ts'
import { GatewayError, type ErrorCode } from '../errors.ts'
import type { Method, Route } from './route.ts'
import { ErrorOut } from './schemas.ts'

/** Codes that any call may answer, whatever it does. */
const commonErrors: readonly ErrorCode[] = [
  'INVALID_REQUEST',
  'SLOW_REQUEST',
  'UNSUPPORTED_MEDIA_TYPE',
  'LIMIT_EXCEEDED',
  'OVERLOADED',
  'UNKNOWN_SERVER_ERROR',
  'UNSUPPORTED',
  'CLOSED',
  'KAFKA_STORAGE_ERROR',
  'TIMEOUT',
]
const credentialErrors: readonly ErrorCode[] = [
  'UNAUTHENTICATED',
  'SASL_AUTHENTICATION_FAILED',
  'TOPIC_AUTHORIZATION_FAILED',
]

/** The statuses a route may answer an error with, ascending. */
export function errorStatuses(route: Route): readonly number[] {
  const codes = [...commonErrors, ...route.errors, ...(route.access === 'public' ? [] : credentialErrors)]
  const statuses = codes.map((code) => statusOf(new GatewayError(code, '')))
  const page = route.path.startsWith('/docs') ? [404] : []
  return [...new Set([...statuses, 431, ...page])].sort((a, b) => a - b)
}

/** The document. */
export function openApiDocument(routes: readonly Route[]): object {
  const paths: Record<string, Record<string, object>> = {}
  for (const route of routes) {
    const path = route.path.replace('+}', '}')
    paths[path] = { ...paths[path], ...operations(route) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Kedge gateway',
      version: '1.0.0',
      description:
        "Kafka's log, groups and offsets over REST, in the dialect of Upstash Kafka and with extensions of Kedge's own. PROTOCOL.md says more.",
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    paths,
    components: {
      securitySchemes: {
        basic: { type: 'http', scheme: 'basic' },
        bearer: { type: 'http', scheme: 'bearer', description: 'base64 of username:password' },
      },
      schemas: { Error: jsonSchema(ErrorOut, 'output') },
    },
    tags: [],
  }
}

function operations(route: Route): Record<string, object> {
  return Object.fromEntries(route.methods.map((method) => [method.toLowerCase(), operation(route, method)]))
}

function operation(route: Route, method: Method): object {
  const body = requestBody(route)
  return {
    operationId: route.methods.length > 1 ? `${route.operationId}${titleCase(method)}` : route.operationId,
    summary: route.summary,
    parameters: [
      ...parameters(route.schemas.params, 'path'),
      ...parameters(route.schemas.query, 'query'),
      ...parameters(route.schemas.headers, 'header'),
    ],
    ...(body === undefined ? {} : { requestBody: body }),
    responses: responses(route),
    security:
      route.access === 'public' ? [] : [{ basic: [] }, { bearer: [] }, ...(route.access === 'query' ? [{}] : [])],
  }
}

function requestBody(route: Route): object | undefined {
  if (route.bodyKind === 'none') return undefined
  if (route.bodyKind === 'bytes') return { content: { 'application/octet-stream': {} } }
  const { body } = route.schemas
  const isOptional = body?.safeParse(undefined).success ?? true
  return {
    required: !isOptional,
    content: { 'application/json': { schema: body === undefined ? {} : jsonSchema(body, 'input') } },
  }
}

function parameters(schema: z.ZodType | undefined, where: 'path' | 'query' | 'header'): object[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = jsonSchema(schema, 'input') as {
    properties?: Record<string, object>
    required?: string[]
  }
  return Object.entries(properties).map(([name, property]) => ({
    name: where === 'header' ? headerCase(name) : name,
    in: where,
    required: required.includes(name),
    schema: property,
  }))
}

function responses(route: Route): Record<string, object> {
  const good = Object.entries(route.answers).map(([status, schema]) => [
    status,
    {
      description: route.summary,
      content: schema === null ? { '*/*': {} } : { 'application/json': { schema: jsonSchema(schema, 'output') } },
    },
  ])
  const bad = errorStatuses(route).map((status) => [
    String(status),
    {
      description: codesOf(route, status).join(', '),
      headers: { 'Kedge-Error': { schema: { type: 'string' } }, 'Kedge-Retriable': { schema: { type: 'string' } } },
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
    },
  ])
  return Object.fromEntries([...good, ...bad]) as Record<string, object>
}

function codesOf(route: Route, status: number): readonly string[] {
  const codes = [...commonErrors, ...route.errors, ...credentialErrors].filter((code) => statusOfCode[code] === status)
  return codes.length === 0 ? [status === 431 ? 'LIMIT_EXCEEDED' : 'UNKNOWN_ROUTE'] : codes
}

/** A schema's JSON Schema, draft 2020-12, inlined. */
export function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    reused: 'inline',
    override({ jsonSchema }) {
      // Shared schemas have names for people; inlined they need no identity.
      delete jsonSchema.id
    },
  })
  return rest
}

function headerCase(name: string): string {
  return name.split('-').map(titleCase).join('-')
}

function titleCase(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1).toLowerCase()
}
