import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { matchPath, pathPattern, queryPairs } from '../../src/gateway/path.ts'

const toTopic = pathPattern('/produce/{topic}')
const withMessage = pathPattern('/produce/{topic}/{message+}')

describe('matchPath', () => {
  test.each([
    ['/produce/blue', { topic: 'blue' }],
    ['/produce/blue/', { topic: 'blue' }],
    ['/produce/%C3%BC', { topic: 'ü' }],
    ['/produce/a%2Fb', { topic: 'a/b' }],
    ['/produce/__proto__', { topic: '__proto__' }],
    ['/produce', undefined],
    ['/produce//', undefined],
    ['/produce/a/b', undefined],
    ['/Produce/a', undefined],
  ])('reads %s', (path, params) => {
    expect(matchPath(toTopic, path)).toEqual(params)
  })

  test.each([
    ['/produce/t/a', 'a'],
    ['/produce/t/a/', 'a/'],
    ['/produce/t/http://x/y%20z?', 'http://x/y z?'],
    ['/produce/t/%2F', '/'],
    ['/produce/t/a+b', 'a+b'],
    ['/produce/t/{"a":1}', '{"a":1}'],
  ])('takes all that is left as the message: %s', (path, message) => {
    expect(matchPath(withMessage, path)).toEqual({ topic: 't', message })
  })

  test('has no message where the path ends after the topic', () => {
    expect(matchPath(withMessage, '/produce/t/')).toBeUndefined()
  })

  test.each(['/produce/%', '/produce/%zz', '/produce/%ff'])(
    'refuses %s, which is not percent-encoded UTF-8',
    (path) => {
      expect(() => matchPath(toTopic, path)).toThrow(expect.objectContaining({ code: 'INVALID_REQUEST' }))
    },
  )

  test('gives any segment back as it was encoded', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (name) => {
        expect(matchPath(toTopic, `/produce/${encodeURIComponent(name)}`)).toEqual({ topic: name })
      }),
    )
  })
})

describe('queryPairs', () => {
  test.each([
    ['user=a$b&pass=abc==', { user: 'a$b', pass: 'abc==' }],
    ['key=a+b%2B', { key: 'a b+' }],
    ['a&b=', { a: '', b: '' }],
    ['', {}],
    ['__proto__=x', Object.fromEntries([['__proto__', 'x']])],
  ])('reads %s', (query, pairs) => {
    expect(queryPairs(query)).toEqual(pairs)
  })
})
