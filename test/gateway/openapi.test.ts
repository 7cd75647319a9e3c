/**
 * The OpenAPI document and the server must say the same. Requests are made from the document alone: valid ones are never
 * refused for their form, invalid ones never served, every status is declared, every body fits its schema, and a method
 * that is not declared is 405. `FUZZ_SEED` repeats a run.
 */
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { contractRoutes } from '../../scripts/write-protocol.ts'
import { letter } from '../conformance/dead-letter-store/letters.ts'
import type { HttpAnswer } from '../support/http.ts'
import { openHarness, type Harness } from './every-path.ts'
import { nearTo, validFor, type JsonSchema } from './json-schema-arbitrary.ts'

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required: boolean
  readonly schema: JsonSchema
}

interface Operation {
  readonly operationId: string
  readonly parameters: readonly Parameter[]
  readonly requestBody?: { readonly required?: boolean; readonly content: Record<string, { schema?: JsonSchema }> }
  readonly responses: Readonly<Record<string, DeclaredAnswer>>
}

interface DeclaredAnswer {
  readonly content: Readonly<Record<string, { schema?: JsonSchema }>>
  readonly headers?: Readonly<Record<string, { readonly required: boolean; readonly schema: JsonSchema }>>
}

/** What an answer's body and headers must be. */
interface Declared {
  readonly body: ValidateFunction | undefined
  readonly headers: ReadonlyMap<string, { readonly required: boolean; readonly validate: ValidateFunction }>
}

interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

/** What a request is made of; absent parts are left out. */
interface Made {
  readonly parameters: Readonly<Record<string, string | undefined>>
  readonly body: unknown
}

const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const runs = { seed, numRuns: 60 }
const methods = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS', 'TRACE']
const ajv = new Ajv2020({ strict: false, allErrors: false })

const document = await documentOf()
const operations = Object.entries(document.paths).flatMap(([path, byMethod]) =>
  Object.entries(byMethod).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
)

console.log(`fuzz seed: FUZZ_SEED=${seed}`)

test('the document is OpenAPI 3.1 and holds every route of the table', () => {
  expect(document.openapi).toBe('3.1.0')
  expect(operations.map(({ method, path }) => `${method} ${path}`).toSorted()).toEqual(
    contractRoutes()
      .flatMap(({ methods, path }) => methods.map((method) => `${method} ${path.replace('+}', '}')}`))
      .toSorted(),
  )
  expect(new Set(operations.map(({ operation }) => operation.operationId)).size).toBe(operations.length)
})

test('every path parameter is declared, and nothing else', () => {
  for (const { path, operation } of operations) {
    const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
    const declared = operation.parameters.filter((one) => one.in === 'path')

    expect(declared.map(({ name }) => name)).toEqual(named)
    expect(declared.every(({ required }) => required)).toBe(true)
  }
})

describe.each([
  { path: 'hot paths', hotPath: true, keepAlive: true },
  { path: 'hono', hotPath: false, keepAlive: false },
])('the server ($path)', ({ hotPath, keepAlive }) => {
  describe.each(operations)('$method $path', ({ method, path, operation }) => {
    const validators = validatorsOf(operation)
    let harness: Harness
    beforeAll(async () => {
      // A wait would only cost time here.
      harness = await openHarness({ hotPath, limits: { maxWaitMs: 2 } }, { keepAlive })
      await harness.call('POST /produce/blue', [
        { value: 'x' },
        { value: 'y', key: 'k', headers: [{ key: 'h', value: 'v' }] },
      ])
      await harness.call('POST /consume/g/i', { topics: ['blue', 'red'], timeout: 0 })
      for (const offset of [0, 1])
        await harness.letters.put(letter({ groupId: 'g', record: { topic: 'blue', offset } }))
    })
    afterAll(async () => {
      await harness.server.close()
      await harness.broker.close()
    })

    test('serves what it declares', async () => {
      await fc.assert(
        fc.asyncProperty(requestFor(operation), async (made) => {
          const answer = await send(harness, method, path, operation, made)

          expect(answer.status).toBeLessThan(500)
          expectDeclared(answer, validators)
          expect(isRefusedForItsForm(answer), answer.text).toBe(false)
        }),
        runs,
      )
    })

    const invalid = invalidFor(operation)
    if (invalid === undefined) return
    test('refuses what it does not declare', async () => {
      await fc.assert(
        fc.asyncProperty(invalid, async (made) => {
          const answer = await send(harness, method, path, operation, made)

          expect(answer.status).toBeGreaterThanOrEqual(400)
          expect(answer.status).toBeLessThan(500)
          expectError(answer)
        }),
        runs,
      )
    })
  })

  test.each(Object.keys(document.paths))('%s refuses every other method with 405', async (path) => {
    const harness = await openHarness({ hotPath })
    const declared = Object.keys(document.paths[path] ?? {}).map((method) => method.toUpperCase())
    for (const method of methods.filter((one) => !declared.includes(one))) {
      const answer = await harness.call(
        `${method} ${path.replace(/\{\w+\}/g, 'x')}`,
        method === 'TRACE' ? undefined : '{}',
      )

      expect([method, answer.status, answer.headers['allow']]).toEqual([method, 405, declared.join(', ')])
    }
    await harness.server.close()
  })
})

async function documentOf(): Promise<Document> {
  const harness = await openHarness()
  const { json } = await harness.call('GET /openapi.json')
  await harness.server.close()
  return withoutReferences(json, json) as Document
}

/** The document with each reference replaced by what it names. @throws where it names nothing */
function withoutReferences(value: unknown, root: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => withoutReferences(item, root))
  if (typeof value !== 'object' || value === null) return value
  const { $ref: reference, ...rest } = value as Record<string, unknown>
  if (typeof reference === 'string') return withoutReferences({ ...rest, ...named(reference, root) }, root)
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withoutReferences(item, root)]))
}

function named(reference: string, root: unknown): object {
  const found = reference
    .split('/')
    .slice(1)
    .reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], root)
  if (typeof found !== 'object' || found === null) throw new Error(`${reference} names nothing.`)
  return found
}

// --- making requests ----------------------------------------------------------------------------------------------------

function requestFor(operation: Operation): fc.Arbitrary<Made> {
  const parameters = Object.fromEntries(
    operation.parameters.map((one) => {
      const value = validFor(one.schema)
        .map(String)
        .filter((text) => isSendable(one, text))
      return [keyOf(one), one.required ? value : fc.option(value, { nil: undefined, freq: 3 })]
    }),
  )
  return fc.record({ parameters: fc.record(parameters), body: bodyFor(operation) })
}

function bodyFor({ requestBody }: Operation): fc.Arbitrary<unknown> {
  if (requestBody === undefined) return fc.constant(undefined)
  const schema = requestBody.content['application/json']?.schema
  if (schema === undefined) return fc.string()
  const valid = validFor(schema)
  return requestBody.required === true ? valid : fc.option(valid, { nil: undefined })
}

/** A valid request with one part that its schema refuses; undefined where nothing can be wrong. */
function invalidFor(operation: Operation): fc.Arbitrary<Made> | undefined {
  const valid = requestFor(operation)
  const spoiled = operation.parameters.flatMap((one) => {
    const refuses = ajv.compile(one.schema)
    const wrong = fc
      .oneof(fc.constantFrom('..', '-1', '1e3', 'x y', '%', '9007199254740993', ''), fc.string())
      .filter((text) => isSendable(one, text) && !refuses(text) && (one.in !== 'path' || text !== ''))
    const hasWrong = 'pattern' in one.schema || 'enum' in one.schema || 'const' in one.schema || 'anyOf' in one.schema
    const part = fc
      .tuple(valid, wrong)
      .map(([made, text]) => ({ ...made, parameters: { ...made.parameters, [keyOf(one)]: text } }))
    return hasWrong ? [part] : []
  })
  const schema = operation.requestBody?.content['application/json']?.schema
  if (schema !== undefined) {
    const validate = ajv.compile(schema)
    const wrong = nearTo(validFor(schema)).filter((body) => !validate(JSON.parse(JSON.stringify(body))))
    spoiled.push(fc.tuple(valid, wrong).map(([made, body]) => ({ ...made, body })))
    spoiled.push(
      fc.tuple(valid, fc.constantFrom(...malformed)).map(([made, body]) => ({ ...made, body: new Malformed(body) })),
    )
  }
  return spoiled.length === 0 ? undefined : fc.oneof(...spoiled)
}

class Malformed {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}
const malformed = ['{', '[1', '{"topic":}', 'x', '"', '[{]', '{"a":1}}', '\u0000', 'nul']

function keyOf(parameter: Parameter): string {
  return `${parameter.in}:${parameter.name}`
}

/** Whether HTTP can carry the text there as it is. */
function isSendable(parameter: Parameter, text: string): boolean {
  if (parameter.in === 'header') return /^[\x20-\x7e]*$/.test(text) && text.trim() === text
  return text.isWellFormed() && (parameter.in !== 'path' || text !== '')
}

function send(harness: Harness, method: string, path: string, operation: Operation, made: Made): Promise<HttpAnswer> {
  const headers: Record<string, string> = {}
  const query: string[] = []
  let target = path
  for (const parameter of operation.parameters) {
    const value = made.parameters[keyOf(parameter)]
    if (value === undefined) continue
    if (parameter.in === 'header') headers[parameter.name] = value
    else if (parameter.in === 'query') query.push(`${parameter.name}=${encodeURIComponent(value)}`)
    else target = target.replace(`{${parameter.name}}`, () => encodeURIComponent(value))
  }
  const line = `${method} ${target}${query.length === 0 ? '' : `?${query.join('&')}`}`
  const body =
    made.body instanceof Malformed ? made.body.text : made.body === undefined ? undefined : JSON.stringify(made.body)
  return harness.call(line, body, headers)
}

// --- judging answers ----------------------------------------------------------------------------------------------------

function validatorsOf(operation: Operation): ReadonlyMap<number, Declared> {
  return new Map(
    Object.entries(operation.responses).map(([status, { content, headers = {} }]) => {
      const schema = content['application/json']?.schema
      const ofHeaders = Object.entries(headers).map(
        ([name, { required, schema }]) => [name.toLowerCase(), { required, validate: ajv.compile(schema) }] as const,
      )
      return [Number(status), { body: schema && ajv.compile(schema), headers: new Map(ofHeaders) }]
    }),
  )
}

function expectDeclared(answer: HttpAnswer, validators: ReadonlyMap<number, Declared>): void {
  expect([...validators.keys()]).toContain(answer.status)
  const declared = validators.get(answer.status)
  expectDeclaredHeaders(answer, declared?.headers ?? new Map())
  const validate = declared?.body
  const isFit = validate === undefined || validate(answer.json)
  expect(isFit, `${answer.text.slice(0, 500)}\n${JSON.stringify(validate?.errors)}`).toBe(true)
  expect(answer.status < 400 || answer.headers['kedge-error'] !== undefined).toBe(true)
}

/** Every header of ours is declared and as declared, and what is required is there. */
function expectDeclaredHeaders({ headers }: HttpAnswer, declared: Declared['headers']): void {
  const ours = Object.keys(headers).filter((name) => name.startsWith('kedge-') || name === 'retry-after')
  expect([...declared.keys()]).toEqual(expect.arrayContaining(ours))
  for (const [name, { required, validate }] of declared) {
    const value = headers[name]
    expect(value === undefined ? !required : validate(value), `${name}: ${String(value)}`).toBe(true)
  }
}

function expectError(answer: HttpAnswer): void {
  expect(answer.json).toEqual({ result: '', error: expect.any(String), status: answer.status })
  expect(answer.headers['kedge-error']).toMatch(/^[A-Z_]+$/)
}

/** The schemas of server and document are one, so a request that fits the document's is never refused by the server's. */
function isRefusedForItsForm(answer: HttpAnswer): boolean {
  const { error } = (answer.json ?? {}) as { error?: string }
  return answer.headers['kedge-error'] === 'INVALID_REQUEST' && error?.startsWith('Cannot read') === true
}
