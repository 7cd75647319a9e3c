import { expect, test } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { whereRecordsAre } from '../../src/runtimes/gateway-process.ts'

const user = { KEDGE_KAFKA_USERNAME: 'kedge', KEDGE_KAFKA_PASSWORD: 'hunter2' }

test.each<[Record<string, string>, string]>([
  [{}, 'in .kedge'],
  [{ KEDGE_BROKER: 'memory' }, 'in memory: nothing survives a restart'],
  [{ KEDGE_BROKER: 'kafka://a:1,[::1]' }, 'in Kafka at a:1,[::1]:9092'],
  [{ KEDGE_BROKER: 'kafka://a', KEDGE_KAFKA_TLS: 'true' }, 'in Kafka at a:9092 (TLS)'],
  [
    { KEDGE_BROKER: 'kafka://a', KEDGE_KAFKA_TLS: 'true', ...user, KEDGE_KAFKA_SASL_MECHANISM: 'scram-sha-256' },
    'in Kafka at a:9092 (TLS, SCRAM-SHA-256 as kedge)',
  ],
])('the records of %j are said to be %s', (env, where) => {
  expect(whereRecordsAre(readConfig('gateway', env).broker)).toBe(where)
})
