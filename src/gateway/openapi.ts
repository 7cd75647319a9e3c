/** The OpenAPI 3.1 document, made of the route table and its zod schemas, so that it cannot say anything else. */
import * as z from 'zod'
import { statusOf, statusOfCode } from './errors.ts'
import { GatewayError, type ErrorCode } from '../errors.ts'
import type { Method, Route } from './route.ts'
import { ErrorHeaders, ErrorOut } from './schemas.ts'

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
function errorStatuses(route: Route): readonly number[] {
  const codes = [...commonErrors, ...route.errors, ...(route.access === 'public' ? [] : credentialErrors)]
  const statuses = codes.map((code) => statusOf(new GatewayError(code, '')))
  const page = route.path.startsWith('/docs') ? [404] : []
  return [...new Set([...statuses, 431, ...page])].sort((a, b) => a - b)
}

/** The document. */
export function openApiDocument(routes: readonly Route[]): object {
  const paths: Record<string, Record<string, object>> = {}
  const schemas: Components = {}
  for (const route of routes) {
    const path = route.path.replace('+}', '}')
    paths[path] = { ...paths[path], ...operations(route, schemas) }
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
      schemas,
    },
    tags: [],
  }
}

function operations(route: Route, components: Components): Record<string, object> {
  return Object.fromEntries(route.methods.map((method) => [method.toLowerCase(), operation(route, method, components)]))
}

function operation(route: Route, method: Method, components: Components): object {
  const body = requestBody(route, components)
  return {
    operationId: route.methods.length > 1 ? `${route.operationId}${titleCase(method)}` : route.operationId,
    summary: route.summary,
    parameters: [
      ...parameters(route.schemas.params, 'path', components),
      ...parameters(route.schemas.query, 'query', components),
      ...parameters(route.schemas.headers, 'header', components),
    ],
    ...(body === undefined ? {} : { requestBody: body }),
    responses: responses(route, components),
    security:
      route.access === 'public' ? [] : [{ basic: [] }, { bearer: [] }, ...(route.access === 'query' ? [{}] : [])],
  }
}

function requestBody(route: Route, components: Components): object | undefined {
  if (route.bodyKind === 'none') return undefined
  if (route.bodyKind === 'bytes') return { content: { 'application/octet-stream': {} } }
  const { body } = route.schemas
  const isOptional = body?.safeParse(undefined).success ?? true
  return {
    required: !isOptional,
    content: { 'application/json': { schema: body === undefined ? {} : jsonSchema(body, 'input', components) } },
  }
}

function parameters(
  schema: z.ZodType | undefined,
  where: 'path' | 'query' | 'header',
  components: Components,
): object[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = jsonSchema(schema, 'input', components) as ObjectSchema
  return Object.entries(properties).map(([name, property]) => ({
    name: where === 'header' ? headerCase(name) : name,
    in: where,
    required: required.includes(name),
    schema: property,
  }))
}

function answerHeaders(schema: z.ZodType | undefined, components: Components): object | undefined {
  if (schema === undefined) return undefined
  const { properties = {}, required = [] } = jsonSchema(schema, 'output', components) as ObjectSchema
  return Object.fromEntries(
    Object.entries(properties).map(([name, property]) => [
      headerCase(name),
      { required: required.includes(name), schema: property },
    ]),
  )
}

function responses(route: Route, components: Components): Record<string, object> {
  const error = jsonSchema(ErrorOut, 'output', components)
  const headers = answerHeaders(route.answerHeaders, components)
  const errorHeaders = answerHeaders(ErrorHeaders, components)
  const good = Object.entries(route.answers).map(([status, schema]) => [
    status,
    {
      description: route.summary,
      ...(headers === undefined ? {} : { headers }),
      content:
        schema === null ? { '*/*': {} } : { 'application/json': { schema: jsonSchema(schema, 'output', components) } },
    },
  ])
  const bad = errorStatuses(route).map((status) => [
    String(status),
    {
      description: codesOf(route, status).join(', '),
      headers: errorHeaders,
      content: { 'application/json': { schema: error } },
    },
  ])
  return Object.fromEntries([...good, ...bad]) as Record<string, object>
}

function codesOf(route: Route, status: number): readonly string[] {
  const codes = [...commonErrors, ...route.errors, ...credentialErrors].filter((code) => statusOfCode[code] === status)
  return codes.length === 0 ? [status === 431 ? 'LIMIT_EXCEEDED' : 'UNKNOWN_ROUTE'] : codes
}

/** The JSON Schema of an object. */
interface ObjectSchema {
  readonly properties?: Readonly<Record<string, object>>
  readonly required?: readonly string[]
}

/** Named schemas of the document, filled as operations are made of them. */
type Components = Record<string, object>

/** A schema's JSON Schema, draft 2020-12; its named parts go to the document's components. */
function jsonSchema(schema: z.ZodType, io: 'input' | 'output', components: Components): object {
  const made = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override({ jsonSchema }) {
      // The name is in the reference; as an identity it would be resolved as an address.
      delete jsonSchema.id
    },
  })
  const { $schema: _dialect, $defs = {}, ...rest } = inDocument(made)
  Object.assign(components, $defs)
  return rest
}

/** References are absolute in a document, and there named schemas stand elsewhere. */
function inDocument<T>(schema: T): T {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/')) as T
}

function headerCase(name: string): string {
  return name.split('-').map(titleCase).join('-')
}

function titleCase(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1).toLowerCase()
}
