import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineApp } from '../../src/app.ts'
import type { AppOptions } from '../../src/app.ts'
import { GroupName } from '../../src/gateway/schemas.ts'
import { headersOf } from '../../src/headers.ts'
import { bytesOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { fieldNames } from '../../src/route-table.ts'
import { reject, DeadLetterError } from '../../src/handler-errors.ts'
import { createRouter } from '../../src/router.ts'
import type { RouteMatch, Router } from '../../src/router.ts'
import { defineTopic } from '../../src/topic.ts'

interface Parts {
  readonly topic?: string
  readonly key?: string | Uint8Array | null
  readonly value?: unknown
  readonly headers?: Record<string, string>
}

function read({ topic = 't', key = null, value = null, headers = {} }: Parts): ConsumerRecord {
  return {
    topic,
    partition: 0,
    offset: 0,
    timestampMs: 0,
    key: typeof key === 'string' ? bytesOf(key) : key,
    value: value === null ? null : bytesOf(typeof value === 'string' ? value : JSON.stringify(value)),
    headers: headersOf(headers),
  }
}

function routerOf(matches: Record<string, RouteMatch>): Router {
  const router = createRouter()
  for (const [name, match] of Object.entries(matches)) router.on(match, () => undefined, { name })
  return router
}

/** The name of the route that a record takes. */
function routed(router: Router, parts: Parts): string | undefined {
  const found = defineApp({ groupId: 'g', router }).table.find(read(parts))
  return typeof found === 'object' ? found.route.name : found
}

function problemsOf(options: Partial<AppOptions>): string {
  try {
    defineApp({ groupId: 'g', ...options })
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'INVALID_CONFIG') return error.message
    throw error
  }
  return ''
}

describe('a router', () => {
  const router = routerOf({
    all: { topic: 't' },
    eu: { topic: 't', key: 'eu' },
    keyless: { topic: 't', key: null },
    resize: { topic: 't', headers: { worker: 'resize' } },
    'eu resize': { topic: 't', key: 'eu', headers: { worker: 'resize' } },
    'keyless resize': { topic: 't', key: null, headers: { worker: 'resize' } },
    opened: { topic: 't', value: { action: 'opened', 'issue.state': 'open', 'labels.0': true } },
    other: { topic: 'other' },
  })

  test.each([
    { parts: { key: 'us' }, to: 'all' },
    { parts: { key: 'eu' }, to: 'eu' },
    { parts: { key: '' }, to: 'all' },
    { parts: {}, to: 'keyless' },
    { parts: { key: new Uint8Array([0xff]) }, to: 'all' },
    { parts: { key: 'us', headers: { worker: 'resize' } }, to: 'resize' },
    { parts: { key: 'us', headers: { worker: 'crop' } }, to: 'all' },
    { parts: { key: 'us', headers: { Worker: 'resize' } }, to: 'all' },
    { parts: { key: 'eu', headers: { worker: 'resize' } }, to: 'eu resize' },
    { parts: { headers: { worker: 'resize' } }, to: 'keyless resize' },
    { parts: { key: 'eu', value: { action: 'opened', issue: { state: 'open' }, labels: [true] } }, to: 'opened' },
    { parts: { key: 'eu', value: { action: 'opened', issue: { state: 'open' }, labels: ['true'] } }, to: 'eu' },
    { parts: { key: 'eu', value: { action: 'opened', issue: null } }, to: 'eu' },
    { parts: { key: 'eu', value: 'not json' }, to: 'eu' },
    { parts: { topic: 'other', key: 'eu' }, to: 'other' },
    { parts: { topic: 'third' }, to: undefined },
  ])('sends $parts to $to', ({ parts, to }) => {
    expect(routed(router, parts)).toBe(to)
  })

  test('does not route by what a value inherits', () => {
    const inherited = routerOf({ a: { topic: 't', value: { 'constructor.name': 'Object' } }, b: { topic: 't' } })

    expect(routed(inherited, { value: {} })).toBe('b')
    expect(routed(routerOf({ a: { topic: 't', value: { __proto__x: 1 } } }), { value: {} })).toBeUndefined()
    expect(
      routed(routerOf({ a: { topic: 't', value: JSON.parse('{"__proto__.a":1}') } }), {
        value: '{"__proto__":{"a":1}}',
      }),
    ).toBe('a')
  })

  test('says that a value is unreadable only where nothing else takes the record', () => {
    const byValue = routerOf({ a: { topic: 't', value: { a: 1 } } })

    expect(routed(byValue, { value: 'not json' })).toBe('unreadable')
    expect(routed(byValue, { value: { a: 2 } })).toBeUndefined()
    expect(routed(byValue, { value: null })).toBeUndefined()
  })

  test('tells null, false, 0 and the empty text apart', () => {
    const values = { null: null, false: false, zero: 0, empty: '' }
    const router = routerOf(
      Object.fromEntries(Object.entries(values).map(([name, a]) => [name, { topic: 't', value: { a } }])),
    )

    for (const [name, a] of Object.entries(values)) expect(routed(router, { value: { a } })).toBe(name)
  })

  test('hands on the JSON it parsed', () => {
    const app = defineApp({ groupId: 'g', router: routerOf({ a: { topic: 't', value: { a: 1 } } }) })

    expect(app.table.find(read({ value: { a: 1, b: 2 } }))).toMatchObject({ json: { a: 1, b: 2 } })
  })

  test.each([
    { path: 'a.b', names: ['a', 'b'] },
    { path: String.raw`a\.b.c`, names: ['a.b', 'c'] },
    { path: String.raw`a\\.b`, names: ['a\\', 'b'] },
    { path: '', names: [''] },
  ])('reads the path $path as $names', ({ path, names }) => {
    expect(fieldNames(path)).toEqual(names)
  })

  test('names routes by their conditions', () => {
    const router = createRouter()
      .on(defineTopic('orders', 'json'), () => undefined)
      .on({ topic: 'orders', key: 'eu', headers: { a: 'b' }, value: { 'c.d': 1 } }, () => undefined)

    expect(router.routes.map(({ name }) => name)).toEqual(['orders', 'orders key=eu header.a=b value.c.d=1'])
  })

  test('takes functions only', () => {
    expect(() => createRouter().on({ topic: 't' }, undefined as never)).toThrow(TypeError)
    expect(() => createRouter().otherwise('drop' as never)).toThrow(TypeError)
  })

  test('reject throws an error with its reason and cause', () => {
    const cause = new Error('why')

    expect(() => reject('unknown customer', { cause })).toThrow(DeadLetterError)
    expect(() => reject('unknown customer')).toThrow('unknown customer')
  })
})

describe('ambiguity', () => {
  test.each<{ what: string; matches: Record<string, RouteMatch> }>([
    { what: 'the same conditions', matches: { a: { topic: 't', key: 'k' }, b: { topic: 't', key: 'k' } } },
    { what: 'no conditions twice', matches: { a: { topic: 't' }, b: { topic: defineTopic('t', 'json') } } },
    { what: 'a key and a header', matches: { a: { topic: 't', key: 'k' }, b: { topic: 't', headers: { h: '1' } } } },
    {
      what: 'two headers',
      matches: { a: { topic: 't', headers: { g: '1' } }, b: { topic: 't', headers: { h: '1' } } },
    },
    {
      what: 'a header and a field',
      matches: { a: { topic: 't', headers: { g: '1' } }, b: { topic: 't', value: { h: 1 } } },
    },
  ])('of $what is refused, naming both routes', ({ matches }) => {
    expect(problemsOf({ router: routerOf(matches) })).toContain('Routes a and b can match one record')
  })

  test.each<{ what: string; matches: Record<string, RouteMatch> }>([
    { what: 'other topics', matches: { a: { topic: 't', key: 'k' }, b: { topic: 'u', key: 'k' } } },
    { what: 'other keys', matches: { a: { topic: 't', key: 'k' }, b: { topic: 't', key: 'l' } } },
    { what: 'a key and none', matches: { a: { topic: 't', key: 'k' }, b: { topic: 't', key: null } } },
    {
      what: 'other values of one header',
      matches: { a: { topic: 't', headers: { h: '1' } }, b: { topic: 't', headers: { h: '2' } } },
    },
    {
      what: 'a contradicting field',
      matches: {
        a: { topic: 't', key: 'k', value: { f: 1 } },
        b: { topic: 't', headers: { h: '1' }, value: { f: 2 } },
      },
    },
    {
      what: 'more conditions',
      matches: { a: { topic: 't', key: 'k' }, b: { topic: 't', key: 'k', headers: { h: '1' } } },
    },
    {
      what: 'a third route that settles it',
      matches: {
        a: { topic: 't', key: 'k' },
        b: { topic: 't', headers: { h: '1' } },
        c: { topic: 't', key: 'k', headers: { h: '1' } },
      },
    },
  ])('is not seen in $what', ({ matches }) => {
    expect(problemsOf({ router: routerOf(matches) })).toBe('')
  })
})

describe('an app', () => {
  test('subscribes to listed topics and those of its routes', () => {
    const orders = defineTopic('orders', z.object({}))

    const app = defineApp({ groupId: 'g', topics: [orders], router: routerOf({ a: { topic: 'tasks' } }) })

    expect(app.subscription).toEqual(['orders', 'tasks'])
    expect([...app.topics.keys()]).toEqual(['orders'])
    expect(app.otherwise).toBe('dead-letter')
  })

  test('lists every problem at once', () => {
    const text = problemsOf({
      groupId: '',
      topics: [
        defineTopic('Upper', 'json'),
        defineTopic('a.b', 'json'),
        defineTopic('a_b', 'json'),
        defineTopic('twin', 'json'),
        defineTopic('twin', 'text'),
      ],
      router: createRouter()
        .on({ topic: defineTopic('lines', 'text'), value: { a: 1 } }, () => undefined)
        .on({ topic: 'x', value: { a: {} as never }, headers: { b: 1 as never }, key: 2 as never }, () => undefined, {
          name: 'x',
        })
        .on({ topic: 'y' }, () => undefined, { name: 'x', attemptTimeoutMs: 0, retry: { maxAttempts: 0 } })
        .on({ topic: 'no good' }, () => undefined),
      retry: { initialMs: 500, maxMs: 100, factor: 0.5, maxAgeMs: -1 },
      attemptTimeoutMs: 100_000_000,
    })

    for (const part of [
      'groupId ""',
      'Topic Upper',
      'a.b and a_b',
      'twin is defined 2 times',
      'lines value.a=1: conditions on the value need a JSON topic',
      'value.a is compared',
      'header b is compared',
      'the key is compared',
      '2 routes are called x',
      'Route x: attemptTimeoutMs is 0',
      'Route x: retry.maxAttempts is 0',
      'Topic "no good"',
      'retry.maxMs is 100',
      'retry.factor is 0.5',
      'retry.maxAgeMs is -1',
      'attemptTimeoutMs is 100000000',
    ])
      expect(text).toContain(part)
  })

  test('needs a topic', () => {
    expect(problemsOf({})).toContain('There is no topic')
  })

  test.each([
    'g',
    'a/b',
    'a?b',
    '%2e%2e',
    '__proto__',
    ' ',
    'größe 🜲',
    'x'.repeat(249),
    '🜲'.repeat(249),
    '',
    '.',
    '..',
    'a\0',
    'a\r\n',
    '\u0085',
    '\u2028',
    '\ud800',
    'x'.repeat(250),
  ])('takes the group id %j where the gateway does', (groupId) => {
    const isTaken = problemsOf({ groupId, topics: [defineTopic('t', 'json')] }) === ''

    expect(isTaken).toBe(GroupName.safeParse(groupId).success)
  })

  test('takes another naming rule, but never one laxer than Kafka', () => {
    expect(problemsOf({ topics: [defineTopic('Upper-1', 'json')], topicNames: /^[A-Z]/g })).toBe('')
    expect(problemsOf({ router: routerOf({ a: { topic: 'a b' } }), topicNames: /./ })).toContain('Topic "a b"')
  })
})
