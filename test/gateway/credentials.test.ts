import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { authenticator, credentialFor, equalInConstantTime, parseCredentials } from '../../src/gateway/credentials.ts'
import { nameMatches, Principal, verbs, type Scope } from '../../src/gateway/principal.ts'

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString('base64')}`

describe('authenticator', async () => {
  const auth = authenticator([
    await credentialFor('ann', 'se:cret==', [{ verbs: ['produce'], topics: ['*'] }]),
    await credentialFor('bob', 'ü', []),
  ])

  test.each([
    ['Basic', basic('ann:se:cret==')],
    ['a lower-case scheme', basic('ann:se:cret==').replace('Basic', 'basic')],
    ['Bearer with the pair', basic('ann:se:cret==').replace('Basic', 'Bearer')],
    ['base64 without padding', basic('ann:se:cret==').replaceAll('=', '')],
  ])('knows the caller by %s', async (_what, header) => {
    expect((await auth.authenticate(header)).name).toBe('ann')
  })

  test('reads names and passwords as UTF-8', async () => {
    expect((await auth.authenticate(basic('bob:ü'))).name).toBe('bob')
  })

  test.each([
    ['nothing', undefined],
    ['no scheme', 'ann:se:cret=='],
    ['no pair', basic('ann')],
    ['no base64', 'Basic ???'],
    ['no UTF-8', `Basic ${Buffer.from([0xff, 0x3a, 0xfe]).toString('base64')}`],
    ['another scheme', 'Digest username="ann"'],
  ])('asks for credentials where there are %s', async (_what, header) => {
    await expect(auth.authenticate(header)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
  })

  test('refuses an unknown name and a wrong password with the same words', async () => {
    const wrong = await auth.authenticate(basic('ann:nope')).catch((error: unknown) => error)
    const unknown = await auth.authenticate(basic('eve:nope')).catch((error: unknown) => error)

    expect(wrong).toMatchObject({ code: 'SASL_AUTHENTICATION_FAILED' })
    expect(unknown).toEqual(wrong)
  })

  test('takes the query only where there is no header', async () => {
    const query = { user: 'ann', pass: 'se:cret==' }

    expect((await auth.authenticate(undefined, query)).name).toBe('ann')
    await expect(auth.authenticate(basic('ann:nope'), query)).rejects.toMatchObject({
      code: 'SASL_AUTHENTICATION_FAILED',
    })
  })

  test.each(['__proto__', 'constructor', 'toString'])('has no credential named %s', async (name) => {
    await expect(auth.authenticate(basic(`${name}:x`))).rejects.toMatchObject({ code: 'SASL_AUTHENTICATION_FAILED' })
  })
})

describe('parseCredentials', () => {
  const entry = { username: 'ann', passwordSha256: 'a'.repeat(64), scopes: [{ verbs: ['consume'], groups: ['g*'] }] }

  test('reads the file format', () => {
    expect(parseCredentials(JSON.stringify({ credentials: [entry] }), 'f.json')).toEqual([entry])
  })

  test.each([
    ['not JSON', 'x'],
    ['a plain password', JSON.stringify({ credentials: [{ ...entry, passwordSha256: 'secret' }] })],
    ['an unknown verb', JSON.stringify({ credentials: [{ ...entry, scopes: [{ verbs: ['write'] }] }] })],
    ['an unknown field', JSON.stringify({ credentials: [{ ...entry, password: 'x' }] })],
    [
      'a star in the middle',
      JSON.stringify({ credentials: [{ ...entry, scopes: [{ verbs: ['consume'], topics: ['a*b'] }] }] }),
    ],
    ['a colon in the name', JSON.stringify({ credentials: [{ ...entry, username: 'a:b' }] })],
    ['a name twice', JSON.stringify({ credentials: [entry, entry] })],
  ])('refuses %s, naming the file', (_what, text) => {
    expect(() => parseCredentials(text, 'f.json')).toThrow(/f\.json/)
  })
})

describe('Principal', () => {
  test('of a file that was written before there was operate may what it could, and does not operate', () => {
    const everything = { verbs: ['produce', 'consume', 'admin'], topics: ['*'], groups: ['*'] }
    const entry = { username: 'ann', passwordSha256: 'a'.repeat(64), scopes: [everything] }
    const [ann] = parseCredentials(JSON.stringify({ credentials: [entry] }), 'f.json')
    const principal = new Principal('ann', ann?.scopes ?? [])

    for (const verb of ['produce', 'consume', 'admin'] as const) {
      principal.requireTopics(verb, ['a', 'b'])
      principal.requireGroup(verb, 'g')
    }
    expect(principal.maySee('groups', 'g')).toBe(true)
    expect(() => principal.requireGroup('operate', 'g')).toThrow(/Cannot operate group "g"/)
    expect(() => principal.requireTopics('operate', ['a'])).toThrow(/Cannot operate topic "a"/)
  })

  test('operates the groups that its scope names, and reads no topic by that', () => {
    const principal = new Principal('ann', [{ verbs: ['operate'], groups: ['shop', 'web.*'] }])

    expect(['shop', 'web.a', 'other', 'sho'].map((group) => principal.may('operate', 'groups', group))).toEqual([
      true,
      true,
      false,
      false,
    ])
    expect(principal.may('consume', 'groups', 'shop')).toBe(false)
    expect(principal.may('consume', 'topics', 'orders')).toBe(false)
  })

  test('agrees with a plain reading of its scopes, and refuses what they do not name', () => {
    const name = fc.constantFrom('a', 'ab', 'a.b', 'b', '')
    const patterns = fc.array(fc.constantFrom('a', 'a*', 'a.*', 'b', '*'), { maxLength: 2 })
    const scope = fc.record({
      verbs: fc.subarray([...verbs], { minLength: 1 }),
      topics: fc.option(patterns, { nil: undefined }),
      groups: fc.option(patterns, { nil: undefined }),
    })
    fc.assert(
      fc.property(
        fc.array(scope, { maxLength: 3 }),
        fc.constantFrom(...verbs),
        name,
        fc.boolean(),
        (scopes, verb, name, ofTopic) => {
          const resource = ofTopic ? 'topics' : 'groups'
          const expected = scopes.some(
            (one: Scope) =>
              one.verbs.includes(verb) && (one[resource] ?? []).some((pattern) => plainMatch(pattern, name)),
          )

          expect(new Principal('p', scopes).may(verb, resource, name)).toBe(expected)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test.each([
    ['users.*', 'users.a', true],
    ['users.*', 'users', false],
    ['*', 'x', true],
    ['a', 'ab', false],
  ])('%s covers %s: %s', (pattern, name, covers) => {
    expect(nameMatches(pattern, name)).toBe(covers)
  })
})

test('equalInConstantTime compares every byte and the length', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4 }), fc.uint8Array({ maxLength: 4 }), (one, other) => {
      expect(equalInConstantTime(one, other)).toBe(Buffer.compare(one, other) === 0)
    }),
  )
})

function plainMatch(pattern: string, name: string): boolean {
  if (pattern === '*') return true
  return pattern.endsWith('*') ? name.slice(0, pattern.length - 1) === pattern.slice(0, -1) : name === pattern
}
