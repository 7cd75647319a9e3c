import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { boundExceeded, parseJson, RawJson } from '../../src/gateway/json.ts'

const options = { maxDepth: 64 }
const bounds = { maxDepth: 64, maxItems: 5000, maxRootItems: 1000 }

describe('parseJson', () => {
  test('reads what JSON.parse reads, to the same value', () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom('', ' ', '\n\t'), (text, space) => {
        const spaced = `${space}${text}${space}`

        expect(parseJson(spaced, options)).toEqual(JSON.parse(text))
      }),
    )
  })

  test('refuses what JSON.parse refuses, but for commas before a closing bracket', () => {
    fc.assert(
      fc.property(
        fc.json({ maxDepth: 3 }),
        fc.nat(),
        fc.constantFrom('', 'x', '"', ',', '[', '}', '0', '\\'),
        (text, at, put) => {
          const place = at % (text.length + 1)
          const broken = text.slice(0, place) + put + text.slice(place + (at % 2))
          const lenient = /,\s*[\]}]/.test(broken)
          fc.pre(!lenient)

          expect(outcome(() => parseJson(broken, options))).toEqual(outcome(() => JSON.parse(broken)))
        },
      ),
      { numRuns: 500 },
    )
  })

  test.each([
    ['[1,]', [1]],
    ['{"a":1,}', { a: 1 }],
    ['[{"value":"x",},\n]', [{ value: 'x' }]],
  ])('takes a trailing comma: %s', (text, value) => {
    expect(parseJson(text, options)).toEqual(value)
  })

  test.each([
    '[,]',
    '{,}',
    '[1,,]',
    '[,1]',
    '{"a":1,,}',
    ',',
    '',
    '{"a"}',
    '01',
    '1.',
    '"\u0001"',
    'nul',
    '+1',
    "'a'",
    'NaN',
  ])('refuses %j', (text) => {
    expect(() => parseJson(text, options)).toThrow(expect.objectContaining({ code: 'INVALID_REQUEST' }))
  })

  test('keeps the text of a value that is neither string nor null, without white space and trailing commas', () => {
    const parsed = parseJson('[{"value": {"b" : 12345678901234567890, "a":[ 1e400 , "x , ]",], "b":1 }}]', {
      maxDepth: 64,
      rawMember: 'value',
    })

    expect(parsed).toEqual([{ value: new RawJson('{"b":12345678901234567890,"a":[1e400,"x , ]"],"b":1}') }])
  })

  test('gives a member named __proto__ as a member', () => {
    const parsed = parseJson('{"__proto__":{"polluted":1}}', options)

    expect(Object.keys(parsed as object)).toEqual(['__proto__'])
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })

  test('stops at the depth, however deep the text goes', () => {
    const deep = '['.repeat(1_000_000)

    expect(() => parseJson(deep, options)).toThrow(expect.objectContaining({ limit: 'json-depth' }))
    expect(boundExceeded(deep, bounds)).toBe('maxDepth')
  })

  test('does not count brackets inside strings as depth', () => {
    const text = JSON.stringify([{ value: '[[[["\\"'.repeat(20_000) }])

    expect(boundExceeded(text, { ...bounds, maxDepth: 3 })).toBeUndefined()
    expect(parseJson(text, { maxDepth: 3 })).toEqual(JSON.parse(text))
  })
})

describe('boundExceeded', () => {
  const items = (count: number, comma = ''): string =>
    `[${Array.from({ length: count }, () => '{"a":",,,,[["}').join(',')}${comma}]`
  const padding = ' '.repeat(70_000)

  test.each([
    ['a list as long as it may be', items(1000), undefined],
    ['and a comma at its end', items(1000, ' ,\n'), undefined],
    ['a list that is too long', items(1001), 'maxRootItems'],
    ['a list inside an object', `{"a":${items(1001)}}`, undefined],
    ['one inside that is too long', `{"a":${items(5001)}}`, 'maxItems'],
    [
      'an object with too many members',
      `{${Array.from({ length: 5001 }, (_, index) => `"${index}":1`).join(',')}}`,
      'maxItems',
    ],
    ['many short lists', `{"a":[${Array.from({ length: 4000 }, () => '[1,2,3]').join(',')}]}`, undefined],
    ['brackets that close nothing', ']]]]{}', undefined],
    ['a string without end', '["x', undefined],
  ])('%s', (_what, text, expected) => {
    expect(boundExceeded(padding + text, bounds)).toBe(expected)
  })
})

function outcome(read: () => unknown): unknown {
  try {
    return { value: read() }
  } catch {
    return 'refused'
  }
}
