import { describe, expect, test } from 'vitest'
import { headersBytes, headersOf, headerText, lastHeader } from '../../src/headers.ts'
import { bytesOf } from '../../src/record.ts'

describe('headers', () => {
  test('become bytes, from an object or from a list with duplicates', () => {
    expect(headersOf({ a: '1', b: null })).toEqual([
      { key: 'a', value: bytesOf('1') },
      { key: 'b', value: null },
    ])
    expect(
      headersOf([
        { key: 'a', value: '1' },
        { key: 'a', value: new Uint8Array([255]) },
      ]),
    ).toEqual([
      { key: 'a', value: bytesOf('1') },
      { key: 'a', value: new Uint8Array([255]) },
    ])
  })

  test('the last of several with one key speaks for it', () => {
    const headers = headersOf([
      { key: 'a', value: '1' },
      { key: 'b', value: 'x' },
      { key: 'a', value: '2' },
    ])

    expect(headerText(headers, 'a')).toBe('2')
    expect(lastHeader(headers, 'c')).toBeUndefined()
  })

  test.each([null, new Uint8Array([0xff, 0xfe])])('%o has no text', (value) => {
    expect(headerText([{ key: 'a', value }], 'a')).toBeUndefined()
  })

  test.each([
    { key: 'a', value: 'b', bytes: 2 },
    { key: 'é', value: '', bytes: 2 },
    { key: '漢', value: 'xy', bytes: 5 },
    { key: '🚢', value: null, bytes: 4 },
  ])('$key and $value have $bytes bytes', ({ key, value, bytes }) => {
    expect(headersBytes(headersOf([{ key, value }]))).toBe(bytes)
  })
})
