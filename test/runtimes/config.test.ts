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
      broker: { kind: 'log', dir: '.kedge' },
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

    expect(readConfig('gateway', env).broker).toEqual({ kind: 'log', dir: '.kedge' })
  })

  test('reports all problems together and suggests the name that was meant', () => {
    const env = { KEDGE_GATEWAY_PORT: 'abc', KEDGE_TOPIC: 'x', KEDGE_BROKER: 'redis', KEDGE_TOPICS: 'a:0' }

    const failure = failureOf(() => readConfig('gateway', env))

    expect(failure).toBeInstanceOf(ConfigError)
    expect(failure).toMatchObject({ code: 'INVALID_CONFIG' })
    expect(failure.message).toContain('4 settings are wrong')
    expect(failure.message).toContain('KEDGE_GATEWAY_PORT="abc": must be a whole number from 0 to 65535')
    expect(failure.message).toContain('KEDGE_TOPIC: there is no such setting; did you mean KEDGE_TOPICS?')
    expect(failure.message).toContain('KEDGE_BROKER="redis": must be log, memory or kafka://host:port')
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
    expect(readConfig('functions', { UPSTASH_KAFKA_REST_URL: 'https://gateway.example/kafka/' }).broker).toEqual({
      kind: 'rest',
      url: 'https://gateway.example/kafka',
      credentials: undefined,
    })
  })

  test.each([
    [{}, 'unset'],
    [{ KEDGE_PRODUCE_AUTH: 'none' }, 'none'],
    [{ KEDGE_PRODUCE_USERNAME: 'shop', KEDGE_PRODUCE_PASSWORD: 'p' }, 'basic'],
  ])('produce authentication of %j is %s', (env, expected) => {
    expect(readConfig('functions', { ...gatewayUrl, ...env }).produceAuth).toBe(expected)
  })
})

test.each([
  ['', undefined],
  ['1000', 1000],
  ['1800000', 1_800_000],
])('a session timeout of %j is %j', (value, expected) => {
  const env = { ...gatewayUrl, KEDGE_SESSION_TIMEOUT_MS: value }

  expect(readConfig('functions', env).sessionTimeoutMs).toBe(expected)
  expect(() => readConfig('functions', { ...env, KEDGE_SESSION_TIMEOUT_MS: '1800001' })).toThrow(ConfigError)
})

describe('a Kafka cluster', () => {
  const cluster = { KEDGE_BROKER: 'kafka://127.0.0.1:9092' }
  const user = { KEDGE_KAFKA_USERNAME: 'u', KEDGE_KAFKA_PASSWORD: 'hunter2' }

  test.each([
    ['kafka://localhost:19092', ['localhost:19092']],
    ['kafka://localhost', ['localhost:9092']],
    ['kafka://kafka_1.internal:9093/', ['kafka_1.internal:9093']],
    ['kafka://a:1,b:65535, 10.0.0.1', ['a:1', 'b:65535', '10.0.0.1:9092']],
    ['kafka://[::1]:9092,[2001:db8::7]', ['[::1]:9092', '[2001:db8::7]:9092']],
  ])('%s names %j', (address, bootstrapServers) => {
    expect(readConfig('gateway', { KEDGE_BROKER: address }).broker).toEqual({
      kind: 'kafka',
      bootstrapServers,
      sasl: undefined,
      tls: undefined,
      compression: 'none',
      replicationFactor: undefined,
    })
  })

  test.each([
    ['kafka://', /is no broker/],
    ['kafka:a:9092', /must be log, memory or kafka/],
    ['kafka+ssl://a:9092', /must be log, memory or kafka/],
    ['kafka://a:9092,', /"" is no broker/],
    ['kafka://a:0', /"a:0" is no broker/],
    ['kafka://a:65536', /port 1 to 65535/],
    ['kafka://a:b', /is no broker/],
    ['kafka://::1', /is no broker/],
    ['kafka://[::1', /is no broker/],
    ['kafka://[1::2::3]:9092', /is no broker/],
    ['kafka://a b:9092', /is no broker/],
    ['kafka://a/topic', /is no broker/],
    ['kafka://a:9092?ssl=true', /must end with the brokers/],
    ['kafka://a:9092#x', /must end with the brokers/],
  ])('%s is refused', (address, reason) => {
    expect(failureOf(() => readConfig('gateway', { KEDGE_BROKER: address })).message).toMatch(reason)
  })

  test.each(['kafka://u:hunter2@a:9092', 'kafka://a:9092,u:hun/ter2@b'])(
    '%s: credentials are shown to nobody',
    (address) => {
      const { message } = failureOf(() => readConfig('gateway', { KEDGE_BROKER: address }))

      expect(message).toContain('KEDGE_BROKER="kafka://[secret]@')
      expect(message).toContain('KEDGE_KAFKA_PASSWORD')
      expect(message).not.toMatch(/hun/)
    },
  )

  test('is told everything that its settings say', () => {
    const { broker } = readConfig('gateway', {
      ...cluster,
      ...user,
      KEDGE_KAFKA_SASL_MECHANISM: 'scram-sha-512',
      KEDGE_KAFKA_TLS: 'true',
      KEDGE_KAFKA_CA: 'ca.pem',
      KEDGE_KAFKA_CERT: 'cert.pem',
      KEDGE_KAFKA_KEY: 'key.pem',
      KEDGE_KAFKA_COMPRESSION: 'zstd',
      KEDGE_KAFKA_REPLICATION_FACTOR: '3',
    })

    expect(broker).toMatchObject({
      sasl: { mechanism: 'SCRAM-SHA-512', username: 'u' },
      tls: { ca: 'ca.pem', cert: 'cert.pem', key: 'key.pem' },
      compression: 'zstd',
      replicationFactor: 3,
    })
    expect(inspect(broker, { depth: 9 }) + JSON.stringify(broker)).not.toContain('hunter2')
  })

  test.each([
    ['a user without a mechanism', user, /KEDGE_KAFKA_SASL_MECHANISM: is not set, but KEDGE_KAFKA_USERNAME is/],
    ['a mechanism without a user', { KEDGE_KAFKA_SASL_MECHANISM: 'plain' }, /KEDGE_KAFKA_PASSWORD: is not set/],
    [
      'a mechanism there is not',
      { ...user, KEDGE_KAFKA_SASL_MECHANISM: 'gssapi' },
      /plain, scram-sha-256, scram-sha-512/,
    ],
    [
      'a certificate without its key',
      { KEDGE_KAFKA_TLS: 'true', KEDGE_KAFKA_CERT: 'c' },
      /KEDGE_KAFKA_KEY: is not set/,
    ],
    [
      'authorities without TLS',
      { KEDGE_KAFKA_CA: 'c' },
      /KEDGE_KAFKA_CA="c": is set, but the connection is not encrypted/,
    ],
    ['TLS that is neither', { KEDGE_KAFKA_TLS: 'yes' }, /must be true or false/],
    ['an unknown compression', { KEDGE_KAFKA_COMPRESSION: 'brotli' }, /none, gzip, snappy, lz4, zstd/],
    ['no copies', { KEDGE_KAFKA_REPLICATION_FACTOR: '0' }, /from 1 to 32767/],
    ['a misspelt setting', { KEDGE_KAFKA_USER: 'u' }, /did you mean KEDGE_KAFKA_USERNAME/],
  ])('%s is refused', (_what, env, reason) => {
    const { message } = failureOf(() => readConfig('gateway', { ...cluster, ...env }))

    expect(message).toMatch(reason)
    expect(message).not.toContain('hunter2')
  })

  test.each(['log', 'memory', ''])('its settings are refused with the broker %j', (broker) => {
    const env = { KEDGE_BROKER: broker, ...user, KEDGE_KAFKA_SASL_MECHANISM: 'plain' }

    const { message } = failureOf(() => readConfig('gateway', env))

    expect(message).toContain('3 settings are wrong')
    expect(message).toContain('KEDGE_KAFKA_PASSWORD=[secret]: is set, but KEDGE_BROKER names no Kafka cluster')
  })

  test('stands in for the gateway where a function is given it, and not beside one', () => {
    const { broker } = readConfig('functions', cluster)
    const both = failureOf(() => readConfig('functions', { ...cluster, ...gatewayUrl }))

    expect(broker).toMatchObject({ kind: 'kafka', bootstrapServers: ['127.0.0.1:9092'] })
    expect(both.message).toContain('UPSTASH_KAFKA_REST_URL: is set, and KEDGE_BROKER names a Kafka cluster')
    expect(readConfig('functions', { KEDGE_BROKER: 'log', ...gatewayUrl }).broker.kind).toBe('rest')
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
