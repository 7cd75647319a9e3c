/** Values that satisfy a JSON Schema, and strings that are likely to matter, for the keywords our schemas use. */
import * as fc from 'fast-check'

export type JsonSchema = Readonly<Record<string, unknown>>

/** Names that exist in the fuzzed gateway, names that do not, and names that break things. */
const pool = fc.constantFrom(
  'blue',
  'red',
  'nope',
  'g',
  'g/blue/0/0',
  'i',
  'earliest',
  'latest',
  '0',
  '5',
  '1000',
  'a.b-c_d',
  '__proto__',
  'ü',
  'true',
  'x'.repeat(249),
)
const text = fc.oneof(
  pool,
  fc.string(),
  fc.string({ unit: 'grapheme', maxLength: 5 }),
  fc.base64String({ maxLength: 16 }),
)

/** Values that satisfy the schema. @throws {TypeError} for a keyword this does not know */
export function validFor(schema: JsonSchema): fc.Arbitrary<unknown> {
  const { anyOf, enum: choices, const: only, type } = schema
  if (Array.isArray(anyOf)) return fc.oneof(...anyOf.map((one) => validFor(one as JsonSchema)))
  if (Array.isArray(choices)) return fc.constantFrom(...(choices as unknown[]))
  if (only !== undefined) return fc.constant(only)
  if (Array.isArray(type)) return fc.oneof(...type.map((one: unknown) => validFor({ ...schema, type: one })))
  switch (type) {
    case undefined:
      return fc.jsonValue({ maxDepth: 3 })
    case 'null':
      return fc.constant(null)
    case 'boolean':
      return fc.boolean()
    case 'string':
      return stringFor(schema)
    case 'integer':
      return integerFor(schema)
    case 'array':
      return fc.array(validFor(schema['items'] as JsonSchema), { maxLength: 4 })
    case 'object':
      return objectFor(schema)
    default:
      throw new TypeError(`Cannot make values for ${JSON.stringify(schema)}: the type is not known here.`)
  }
}

function stringFor({ pattern }: JsonSchema): fc.Arbitrary<string> {
  if (typeof pattern !== 'string') return text
  const regex = new RegExp(pattern, 'u')
  // fast-check makes strings for patterns without look-ahead; the pool has some for the others.
  const made = pattern.includes('(?!') ? fc.string({ minLength: 1, maxLength: 8 }) : fc.stringMatching(regex)
  return fc.oneof(text, made).filter((candidate) => regex.test(candidate))
}

function integerFor({
  minimum = Number.MIN_SAFE_INTEGER,
  maximum = Number.MAX_SAFE_INTEGER,
}: JsonSchema): fc.Arbitrary<number> {
  const bounds = { min: minimum as number, max: maximum as number }
  const least = Math.max(bounds.min, -2)
  const small = fc.integer({ min: least, max: Math.min(bounds.max, least + 5) })
  return fc.oneof({ arbitrary: small, weight: 4 }, fc.integer(bounds), fc.constantFrom(bounds.min, bounds.max))
}

function objectFor({ properties = {}, required = [], additionalProperties }: JsonSchema): fc.Arbitrary<unknown> {
  const known = Object.entries(properties as Record<string, JsonSchema>).map(
    ([name, one]) => [name, validFor(one)] as const,
  )
  const model = Object.fromEntries(known)
  const plain = fc.record(model, { requiredKeys: required as string[] })
  if (additionalProperties === false) return plain
  const more = fc.dictionary(
    fc.string({ maxLength: 3 }).filter((name) => !(name in model)),
    fc.jsonValue({ maxDepth: 1 }),
    { maxKeys: 1 },
  )
  return fc.tuple(plain, more).map(([one, other]) => ({ ...other, ...one }))
}

/** Values near a valid one: a part replaced, dropped, or wrapped. Most are invalid; the caller checks. */
export function nearTo(valid: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const odd = fc.oneof(
    fc.constantFrom<unknown>(null, -1, 0.5, 2 ** 31, 2 ** 53, '', '..', 'a b', true, [], {}, [[]], 'x'.repeat(300)),
    fc.jsonValue({ maxDepth: 2 }),
  )
  return fc.oneof(
    odd,
    fc.tuple(valid, fc.nat(), odd, fc.boolean()).map(([value, at, put, drop]) => disturbed(value, at, put, drop)),
  )
}

function disturbed(value: unknown, at: number, put: unknown, drop: boolean): unknown {
  if (Array.isArray(value) && value.length > 0) {
    const index = at % value.length
    return value.map((item, position) => (position === index ? disturbed(item, at >> 2, put, drop) : (item as unknown)))
  }
  if (typeof value === 'object' && value !== null && Object.keys(value).length > 0) {
    const entries = Object.entries(value)
    const index = at % entries.length
    const kept = drop ? entries.filter((_, position) => position !== index) : entries
    return Object.fromEntries(
      kept.map(([name, item], position) => [name, !drop && position === index ? put : (item as unknown)]),
    )
  }
  return put
}
