import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { RecordError } from '../../src/errors.ts'
import { bytesOf, textOf } from '../../src/record.ts'
import type { StandardSchema } from '../../src/standard-schema.ts'
import { checkValue, defineTopic, readValue, writeValue } from '../../src/topic.ts'
import type { Topic } from '../../src/topic.ts'

const orders = defineTopic('orders', z.object({ id: z.string(), total: z.number() }))

function issuesOf(run: () => unknown): RecordError {
  try {
    run()
  } catch (error) {
    if (error instanceof RecordError) return error
    throw error
  }
  throw new Error('It did not throw.')
}

const nestingZod: z.ZodType = z.object({ in: z.array(z.lazy(() => nestingZod)) })
const nestingValibot: v.GenericSchema = v.object({ in: v.array(v.lazy(() => nestingValibot)) })

describe('a topic', () => {
  test.each(['', '.', '..', 'a b', 'a/b', 'é', '\0', 'a\r\n', 'x'.repeat(250)])('cannot be called %j', (name) => {
    expect(() => defineTopic(name, 'json')).toThrow(expect.objectContaining({ code: 'INVALID_CONFIG' }))
  })

  test.each(['a', 'A-b_c.9', '__proto__', 'x'.repeat(249)])('can be called %j', (name) => {
    expect(defineTopic(name, 'json').name).toBe(name)
  })

  test.each([0, -1, 1.5, Number.NaN, 2 ** 31])('cannot have a record limit of %d', (maxRecordBytes) => {
    expect(() => defineTopic('a', 'json', { maxRecordBytes })).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIG' }),
    )
  })

  test('needs a schema', () => {
    expect(() => defineTopic('a', {} as 'json')).toThrow(TypeError)
  })

  test.each([
    { topic: defineTopic('t', 'json'), value: { a: [1, 'é', null] }, bytes: '{"a":[1,"é",null]}' },
    { topic: defineTopic('t', 'json'), value: null, bytes: 'null' },
    { topic: defineTopic('t', 'text'), value: 'plain', bytes: 'plain' },
    { topic: defineTopic('t', v.string(), { format: 'text' }), value: '', bytes: '' },
    { topic: orders as Topic, value: { id: 'a', total: 1 }, bytes: '{"id":"a","total":1}' },
  ])('writes $value as $bytes and reads it back', ({ topic, value, bytes }) => {
    const written = writeValue(topic, value)

    expect(textOf(written)).toBe(bytes)
    expect(checkValue(topic, readValue(topic, written))).toEqual(value)
  })

  test('of bytes leaves them alone', () => {
    const images = defineTopic('images', 'bytes')
    const bytes = new Uint8Array([0, 255, 128])

    expect(writeValue(images, bytes)).toBe(bytes)
    expect(readValue(images, bytes)).toBe(bytes)
  })

  test('reads JSON behind a byte order mark', () => {
    expect(readValue(orders, bytesOf('\uFEFF{"id":1}'))).toEqual({ id: 1 })
  })

  test.each([
    { what: 'cut JSON', bytes: bytesOf('{"id":') },
    { what: 'an empty value', bytes: new Uint8Array() },
    { what: 'bytes that are not UTF-8', bytes: new Uint8Array([0x22, 0xff, 0x22]) },
  ])('refuses $what without showing it', ({ bytes }) => {
    const error = issuesOf(() => readValue(orders, bytes))

    expect(error.code).toBe('INVALID_RECORD')
    expect(error.message).not.toContain('"id"')
  })

  test.each([undefined, () => 1, Symbol('a'), 1n])('refuses to write %s as JSON', (value) => {
    expect(issuesOf(() => writeValue(defineTopic('t', 'json'), value)).code).toBe('INVALID_RECORD')
  })

  test('refuses a value that contains itself', () => {
    const loop: { self?: unknown } = {}
    loop.self = loop

    expect(issuesOf(() => writeValue(defineTopic('t', 'json'), loop)).code).toBe('INVALID_RECORD')
  })

  test('tells every issue, with the way to it', () => {
    const error = issuesOf(() => checkValue(orders, { id: 1, total: 'x' }))

    expect(error.issues.map(({ path }) => path)).toEqual([['id'], ['total']])
  })

  test('does not repeat the value that a library quotes in its message', () => {
    const topic = defineTopic('t', v.object({ card: v.pipe(v.string(), v.digits()), n: v.string() }))

    const error = issuesOf(() => checkValue(topic, { card: '4111-secret', n: 77 }))

    expect(error.issues).toHaveLength(2)
    expect(JSON.stringify([error.message, error.issues])).not.toMatch(/4111|77/)
  })

  test.each([
    ['zod', (): StandardSchema => nestingZod],
    ['valibot', (): StandardSchema => nestingValibot],
  ])('refuses a value that is nested too deeply for a schema of %s that contains itself', async (_name, schema) => {
    const value = readValue(orders, bytesOf(`${'{"in":['.repeat(50_000)}${']}'.repeat(50_000)}`))

    const checked = async (): Promise<unknown> => await checkValue(defineTopic('t', schema()), value)

    await expect(checked).rejects.toMatchObject({ code: 'INVALID_RECORD', issues: [{ path: [] }] })
  })

  test('takes what a broken schema throws for no fault of the value', () => {
    const broken = defineTopic(
      't',
      v.pipe(
        v.number(),
        v.transform((n) => n.toFixed(-1)),
      ),
    )

    expect(() => checkValue(broken, 1)).toThrow(/digits/)
  })

  test('waits for a schema that answers later', async () => {
    const topic = defineTopic(
      't',
      z.string().refine(async (text) => text !== 'bad'),
    )

    await expect(checkValue(topic, 'good')).resolves.toBe('good')
    await expect(checkValue(topic, 'bad')).rejects.toThrow(RecordError)
  })

  test('takes null as a tombstone where it has tombstones, and asks the schema where not', () => {
    const kept = defineTopic('t', z.object({}), { tombstones: true })

    expect(writeValue(kept, null)).toBeNull()
    expect(checkValue(kept, readValue(kept, null))).toBeNull()
    expect(() => checkValue(orders, readValue(orders, null))).toThrow(RecordError)
    expect(checkValue(defineTopic('t', z.null()), null)).toBeNull()
    expect(() => checkValue(defineTopic('t', 'bytes'), null)).toThrow(RecordError)
  })
})
