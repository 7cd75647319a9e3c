import { readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { configurationDocument, configurationPath } from '../../scripts/write-configuration.ts'
import { readConfig, Secret, settingDescriptions } from '../../src/config.ts'
import { ConfigError } from '../../src/errors.ts'

const gatewayUrl = { UPSTASH_KAFKA_REST_URL: 'http://127.0.0.1:8790' }

describe('readConfig', () => {
  test('gives the documented defaults for an empty environment', () => {
    const config = readConfig('start', {})

    expect(config).toMatchObject({
      host: '127.0.0.1',
      port: 8790,
      broker: 'log',
      dataDir: '.kedge',
      topics: [],
      credentials: undefined,
      workerPort: 8787,
    })
  })

  test('reads topics with and without partitions', () => {
    expect(readConfig('gateway', { KEDGE_TOPICS: 'blue:3, red' }).topics).toEqual([
      { topic: 'blue', partitions: 3 },
      { topic: 'red', partitions: 1 },
    ])
  })

  test('passes over what is not its own: other names, bindings that are no text, empty values', () => {
    const env = { PATH: '/bin', KEDGE_BUCKET: { get: () => undefined }, KEDGE_DATA: '', ...gatewayUrl }

    expect(readConfig('gateway', env).dataDir).toBe('.kedge')
  })

  test('reports all problems together and suggests the name that was meant', () => {
    const env = { KEDGE_GATEWAY_PORT: 'abc', KEDGE_TOPIC: 'x', KEDGE_BROKER: 'redis', KEDGE_TOPICS: 'a:0' }

    const failure = failureOf(() => readConfig('gateway', env))

    expect(failure).toBeInstanceOf(ConfigError)
    expect(failure).toMatchObject({ code: 'INVALID_CONFIG' })
    expect(failure.message).toContain('4 settings are wrong')
    expect(failure.message).toContain('KEDGE_GATEWAY_PORT="abc": must be a whole number from 0 to 65535')
    expect(failure.message).toContain('KEDGE_TOPIC: there is no such setting; did you mean KEDGE_TOPICS?')
    expect(failure.message).toContain('KEDGE_BROKER="redis": must be log or memory')
    expect(failure.message).toContain('KEDGE_TOPICS="a:0": write each topic as name or name:partitions')
  })

  test.each(['0', '80', '65535'])('takes port %j', (port) => {
    expect(readConfig('gateway', { KEDGE_GATEWAY_PORT: port }).port).toBe(Number(port))
  })

  test.each(['65536', '-1', '1e3', '80.5', ' 80', '0x50'])('refuses port %j', (port) => {
    expect(() => readConfig('gateway', { KEDGE_GATEWAY_PORT: port })).toThrow(ConfigError)
  })

  test('wants a user name and its password together', () => {
    const failure = failureOf(() => readConfig('gateway', { KEDGE_PASSWORD: 'hunter2' }))

    expect(failure.message).toContain('KEDGE_USERNAME: is not set, but KEDGE_PASSWORD is')
    expect(failure.message).not.toContain('hunter2')
  })

  test('needs the address of the gateway for the functions, without credentials in it', () => {
    expect(failureOf(() => readConfig('functions', {})).message).toContain('UPSTASH_KAFKA_REST_URL is not set')
    expect(
      failureOf(() => readConfig('functions', { UPSTASH_KAFKA_REST_URL: 'http://u:p@gateway.example' })).message,
    ).toContain('must not hold credentials')
    expect(readConfig('functions', { UPSTASH_KAFKA_REST_URL: 'https://gateway.example/kafka/' }).gatewayUrl).toBe(
      'https://gateway.example/kafka',
    )
  })

  test.each([
    [{}, 'unset'],
    [{ KEDGE_PRODUCE_AUTH: 'none' }, 'none'],
    [{ KEDGE_PRODUCE_USERNAME: 'shop', KEDGE_PRODUCE_PASSWORD: 'p' }, 'basic'],
  ])('produce authentication of %j is %s', (env, expected) => {
    expect(readConfig('functions', { ...gatewayUrl, ...env }).produceAuth).toBe(expected)
  })
})

describe('Secret', () => {
  test('shows itself nowhere but through reveal', () => {
    const secret = new Secret('hunter2')

    expect([String(secret), JSON.stringify({ secret }), inspect({ secret }, { depth: 9 })].join()).not.toContain(
      'hunter2',
    )
    expect(secret.reveal()).toBe('hunter2')
  })
})

test.each(settingDescriptions)('$name is described', (setting) => {
  expect(setting.description).toMatch(/^[A-Z`].*\.$/s)
  expect(setting.legal).not.toBe('')
  expect(setting.default).not.toBe('')
})

test('docs/configuration.md is what npm run docs writes', () => {
  expect(readFileSync(configurationPath, 'utf8')).toBe(configurationDocument())
})

function failureOf(act: () => unknown): Error {
  try {
    act()
  } catch (failure) {
    if (failure instanceof Error) return failure
  }
  throw new Error('expected it to throw')
}
