import { describe, expect, test } from 'vitest'

import { deadLetterCauseOf, runCauseOf } from '../../../src/consumer/cause.ts'
import { withoutSecrets } from '../../../src/consumer/secrets.ts'
import { MAX_CAUSE_BYTES } from '../../../src/dead-letter.ts'

// Put together here, so that no scanner of repositories takes them for real ones.
const awsKey = ['AKIA', 'IOSFODNN7EXAMPLE'].join('')
const jwt = ['eyJhbGciOiJIUzI1NiJ9', 'eyJzdWIiOiIxMjM0NTY3ODkwIn0', 'dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U'].join(
  '.',
)
const github = ['ghp', '0123456789abcdefABCDEF0123456789abcd'].join('_')
const keyName = ['PRIVATE', 'KEY'].join(' ')
const pem = `-----BEGIN RSA ${keyName}-----\nMIIEpAIBAAKCAQEA\nhunter2\n-----END RSA ${keyName}-----`

describe('a secret is blotted out of an error', () => {
  test.each([
    ['connect to https://user:hunter2@db.example/x failed', 'connect to https://[secret]@db.example/x failed'],
    ['Authorization: Basic aHVudGVyMg==', 'Authorization: Basic [secret]'],
    ['header was "bearer abc.def-123"', 'header was "bearer [secret]"'],
    ['password=hunter2', 'password=[secret]'],
    ['login with user=a&password=hunter2&x=1 failed', 'login with user=a&password=[secret]&x=1 failed'],
    ["Access denied (password: 'hunter2 and more')", 'Access denied (password: [secret])'],
    ['{"db_password" : "hunter2","host":"db"}', '{"db_password" : [secret],"host":"db"}'],
    ['DB_PASSWD=hunter2; retry', 'DB_PASSWD=[secret]; retry'],
    ['GET /x?token=hunter2&page=2 answered 500', 'GET /x?token=[secret]&page=2 answered 500'],
    ['accessToken: hunter2', 'accessToken: [secret]'],
    ['x-api-key: hunter2', 'x-api-key: [secret]'],
    ['apikey=hunter2)', 'apikey=[secret])'],
    ['client_secret=hunter2,', 'client_secret=[secret],'],
    ['aws_secret_access_key = hunter2/abc+d', 'aws_secret_access_key = [secret]'],
    ['aws_secret_access_key=wJalr/K7MDENG+bPx', 'aws_secret_access_key=[secret]'],
    ['?X-Amz-Credential=a%2Fb&X-Amz-Signature=0123abcd', '?X-Amz-Credential=[secret]&X-Amz-Signature=[secret]'],
    [`key ${awsKey} is not known`, 'key [secret] is not known'],
    [`jwt malformed: ${jwt}`, 'jwt malformed: [secret]'],
    [`bad credentials for ${github}.`, 'bad credentials for [secret].'],
    [`cannot read ${pem} as a key`, 'cannot read [secret] as a key'],
  ])('%j', (text, expected) => {
    expect(runCauseOf(new Error(text)).message).toBe(expected)
    expect(deadLetterCauseOf(new Error(text)).stack).not.toContain('hunter2')
  })
})

test.each([
  'Unexpected token \'<\', "<!DOCTYPE "... is not valid JSON',
  'Unexpected token : in JSON at position 4',
  'password is required',
  'the token has expired',
  'used 12 tokens: too many',
  'no secret with this name',
  'cannot find https://example.com/a@b',
  'keyed access to arn:aws:s3:::bucket is denied',
])('%j has none and stays as it is', (text) => {
  expect(withoutSecrets(text)).toBe(text)
})

describe('a cause', () => {
  test('is at most 4 KiB of UTF-8 in all, cut between characters', () => {
    const error = Object.assign(new Error('€'.repeat(5_000)), { name: 'N'.repeat(500), code: 'C'.repeat(500) })
    error.stack = '🜲'.repeat(5_000)

    const cause = deadLetterCauseOf(error)

    const texts = [cause.name, cause.message, cause.code ?? '', cause.stack ?? '']
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
    expect(bytes).toBeLessThanOrEqual(MAX_CAUSE_BYTES)
    expect(bytes).toBeGreaterThan(MAX_CAUSE_BYTES - 20)
    expect(texts.every((text) => text.isWellFormed() && !text.includes('\ufffd'))).toBe(true)
  })

  test('is made of any text in no time', () => {
    for (const part of [
      'token',
      'token=',
      '"',
      'password:"',
      '//',
      '//a@',
      'eyJaaaaaa.',
      'eyJ-',
      'basic ',
      `-----BEGIN ${keyName}-----`,
      'a_',
    ]) {
      const startedAt = performance.now()
      withoutSecrets(part.repeat(200_000))
      expect(performance.now() - startedAt, JSON.stringify(part)).toBeLessThan(1_000)
    }
  })

  test('is made of whatever was thrown', () => {
    const hostile = {
      get message(): string {
        throw new Error('no')
      },
      get name(): string {
        throw new Error('no')
      },
    }
    const proxy = new Proxy(new Error('x'), {
      getPrototypeOf() {
        throw new Error('no')
      },
    })
    for (const thrown of [undefined, null, 7, 'text', Symbol('x'), {}, [], hostile, () => 1, proxy]) {
      expect(typeof deadLetterCauseOf(thrown).message).toBe('string')
    }
  })
})
