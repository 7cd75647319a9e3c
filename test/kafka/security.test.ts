/** Who the driver says it is, whom it believes, and what it says when the cluster refuses: a named error, in time. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Broker } from '../../src/broker.ts'
import { kafkaBroker, type KafkaBrokerOptions } from '../../src/brokers/kafka.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { readConfig } from '../../src/config.ts'
import type { BrokerError } from '../../src/errors.ts'
import type { ErrorCode } from '../../src/errors.ts'
import { openGateway } from '../../src/runtimes/gateway-process.ts'
import { instanceOf, refusal, stored, unusedName } from '../conformance/broker/harness.ts'
import { failOnLeaks } from '../support/leaks.ts'
import { record, valuesOf } from '../support/records.ts'
import { until } from '../support/until.ts'
import { ALICE, type GuardedCluster, MALLORY, MAX_REQUEST_BYTES, startGuardedCluster } from './guarded-cluster.ts'

const mechanisms = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const
const PLENTY = { maxWaitMs: 5_000, maxRecords: 100, maxBytes: 1_000_000 }
/** No refusal takes longer, though a call may take this long. */
const TIMEOUT_MS = 8_000

let cluster: GuardedCluster

beforeAll(async () => {
  cluster = await startGuardedCluster()
  // Rights reach a broker a moment after they were given.
  await using broker = open('SASL', { sasl: { mechanism: 'PLAIN', ...ALICE } })
  const mayProduce = async (): Promise<boolean> => {
    await broker.produce([record('open', 'first')])
    return true
  }
  await until(() => mayProduce().catch(() => false), { what: "Alice's rights", timeoutMs: 20_000 })
})

afterAll(async () => {
  await cluster[Symbol.asyncDispose]()
})

failOnLeaks()

describe('SASL', () => {
  it.each(mechanisms)('signs in by %s', async (mechanism) => {
    await using broker = open('SASL', { sasl: { mechanism, ...ALICE } })

    await expectUsable(broker)
  })

  it.each(mechanisms)('says so when the password is wrong (%s), and does not show it', async (mechanism) => {
    await using broker = open('SASL', { sasl: { mechanism, username: 'alice', password: 'wrong-secret' } })

    const error = await expectUnusable(broker, 'SASL_AUTHENTICATION_FAILED')

    expect(error.retriable).toBe(false)
    expect(causesOf(error)).not.toContain('wrong-secret')
  })

  it.each(mechanisms)('says the same of a user that is not there (%s)', async (mechanism) => {
    await using broker = open('SASL', { sasl: { mechanism, username: 'nobody', password: 'x' } })

    await expectUnusable(broker, 'SASL_AUTHENTICATION_FAILED')
  })

  it('says so when the listener takes another mechanism', async () => {
    await using broker = open('PLAIN', { sasl: { mechanism: 'SCRAM-SHA-256', ...ALICE } })

    const error = await expectUnusable(broker, 'SASL_AUTHENTICATION_FAILED')

    expect(error.message).toMatch(/mechanism/)
  })

  it('says so when the listener wants no credentials', async () => {
    await using broker = open('PLAINTEXT', { sasl: { mechanism: 'PLAIN', ...ALICE } })

    await expectUnusable(broker, 'SASL_AUTHENTICATION_FAILED')
  })

  it('ends when the listener wants credentials and has got none', async () => {
    await using broker = open('SASL')

    await expectUnusable(broker, 'NETWORK')
  })
})

describe('TLS', () => {
  it('believes a certificate that it is given', async () => {
    await using broker = open('TLS', { tls: { ca: cluster.certificate } })

    // Whoever comes without a name may do everything here.
    await expectUsable(broker)
  })

  it('signs in over TLS', async () => {
    await using broker = open('SASLTLS', {
      tls: { ca: cluster.certificate },
      sasl: { mechanism: 'SCRAM-SHA-512', ...ALICE },
    })

    await expectUsable(broker)
  })

  it('believes anybody only where it is told to', async () => {
    await using broker = open('TLS', { tls: { rejectUnauthorized: false } })

    await expectUsable(broker)
  })

  it('does not believe a certificate that nobody vouches for', async () => {
    await using broker = open('TLS', { tls: true })

    const error = await expectUnusable(broker, 'NETWORK')

    expect(error.message).toMatch(/self-signed certificate/)
    expect(error.retriable).toBe(false)
  })

  it('does not believe the certificate of another host', async () => {
    await using broker = open('TLS', { tls: { ca: cluster.certificate, servername: 'other.example' } })

    const error = await expectUnusable(broker, 'NETWORK')

    expect(error.message).toMatch(/other\.example/)
    expect(error.retriable).toBe(false)
  })

  it('ends when it speaks TLS to a listener that does not', async () => {
    await using broker = open('PLAINTEXT', { tls: { ca: cluster.certificate } })

    await expectUnusable(broker, 'NETWORK')
  })

  it('ends when it does not speak TLS to a listener that does', async () => {
    await using broker = open('TLS')

    await expectUnusable(broker, 'NETWORK')
  })
})

describe('the gateway, by its settings', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kedge-kafka-settings-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  function settings(password: string): Record<string, string> {
    const ca = join(folder, 'ca.pem')
    writeFileSync(ca, cluster.certificate)
    return {
      KEDGE_GATEWAY_PORT: '0',
      KEDGE_BROKER: `kafka://${cluster.at.SASLTLS}`,
      KEDGE_KAFKA_TLS: 'true',
      KEDGE_KAFKA_CA: ca,
      KEDGE_KAFKA_SASL_MECHANISM: 'scram-sha-256',
      KEDGE_KAFKA_USERNAME: ALICE.username,
      KEDGE_KAFKA_PASSWORD: password,
    }
  }

  it('serves what its user may see', async () => {
    await using gateway = await openGateway(readConfig('gateway', settings(ALICE.password)))
    await using broker = restBroker({ url: gateway.url })

    expect((await broker.topics()).map(({ topic }) => topic)).toEqual(['open'])
  })

  it('does not start with a wrong password, and does not show it', async () => {
    const config = readConfig('gateway', settings('wrong-secret'))

    const error = await refusal(openGateway(config), 'SASL_AUTHENTICATION_FAILED')

    expect(causesOf(error)).not.toContain('wrong-secret')
  })
})

describe('a user without rights', () => {
  const mallory = (): Broker => open('SASL', { sasl: { mechanism: 'PLAIN', ...MALLORY } })
  const alice = (): Broker => open('SASL', { sasl: { mechanism: 'PLAIN', ...ALICE } })
  const limits = { ...PLENTY, maxWaitMs: 0 }
  const partition = { topic: 'closed', partition: 0 }

  it.each<[string, (broker: Broker) => Promise<unknown>]>([
    ['produce', (broker) => broker.produce([record('closed', 'v')])],
    ['fetch', (broker) => broker.fetch([{ ...partition, offset: 0 }], limits)],
    ['offsets', (broker) => broker.offsets([partition], 'latest')],
    ['poll', (broker) => broker.poll({ group: instanceOf('open'), topics: ['closed'], ...limits })],
    ['commit', (broker) => broker.commit(instanceOf('open'), [{ ...partition, offset: 0 }])],
    ['deleteTopic', (broker) => broker.deleteTopic('closed')],
  ])('is refused the topic by name: %s', async (_name, use) => {
    await using broker = alice()

    const error = await expectRefusal(use(broker), 'TOPIC_AUTHORIZATION_FAILED')

    expect(error.message).toContain('closed')
    expect(error.retriable).toBe(false)
  })

  it.each<[string, (broker: Broker) => Promise<unknown>]>([
    ['poll', (broker) => broker.poll({ group: instanceOf('closed'), topics: ['open'], ...limits })],
    ['claim', (broker) => broker.claim(instanceOf('closed'), { runId: 'run' })],
    ['release', (broker) => broker.release(instanceOf('closed'), 'run')],
    ['commit', (broker) => broker.commit(instanceOf('closed'), [{ topic: 'open', partition: 0, offset: 0 }])],
    ['committed', (broker) => broker.committed('closed', [{ topic: 'open', partition: 0 }])],
    ['committed of all', (broker) => broker.committed('closed')],
    ['leave', (broker) => broker.leave(instanceOf('closed'))],
  ])('is refused the group by name: %s', async (_name, use) => {
    await using broker = alice()

    const error = await expectRefusal(use(broker), 'GROUP_AUTHORIZATION_FAILED')

    expect(error.message).toContain('closed')
    expect(error.retriable).toBe(false)
  })

  it('is refused to make a topic', async () => {
    await using broker = alice()

    const topic = unusedName('closed')
    await expectRefusal(broker.createTopic({ topic }), 'TOPIC_AUTHORIZATION_FAILED', 'CLUSTER_AUTHORIZATION_FAILED')
  })

  it('is told no more of a topic that is not there than of one that is', async () => {
    await using broker = mallory()

    for (const topic of ['open', 'closed', 'none']) {
      await expectRefusal(broker.produce([record(topic, 'v')]), 'TOPIC_AUTHORIZATION_FAILED')
    }
  })

  it('sees none of the topics and groups', async () => {
    await using broker = mallory()

    expect(await broker.topics()).toEqual([])
    expect(await broker.groups()).toEqual([])
  })

  it('sees the topics that it may use', async () => {
    await using broker = alice()

    expect((await broker.topics()).map(({ topic }) => topic)).toEqual(['open'])
  })

  it('is refused for its own record only, with atomic: false', async () => {
    await using broker = alice()

    const [own, other] = await broker.produce([record('open', 'v'), record('closed', 'v')], { atomic: false })

    expect(own && stored([own])).toHaveLength(1)
    expect(other).toMatchObject({ name: 'BrokerError', code: 'TOPIC_AUTHORIZATION_FAILED' })
  })
})

describe('a request that is larger than the broker reads', () => {
  it('is refused, or ended with its connection, and hurts nothing else', async () => {
    await using broker = open('SASL', { sasl: { mechanism: 'PLAIN', ...ALICE } })
    const small = Promise.all([1, 2, 3].map((n) => broker.produce([record('open', `small ${n}`)])))
    const large = broker.produce([record('open', new Uint8Array(MAX_REQUEST_BYTES + 1).fill(1))])

    await expectRefusal(large, 'NETWORK', 'MESSAGE_TOO_LARGE')
    await small.catch(() => {
      // They may have been on the connection that the broker ended; what matters is that it goes on.
    })

    await expectUsable(broker)
  })
})

function open(
  listener: keyof GuardedCluster['at'],
  options: Omit<KafkaBrokerOptions, 'bootstrapServers'> = {},
): Broker {
  return kafkaBroker({ bootstrapServers: [cluster.at[listener]], timeoutMs: TIMEOUT_MS, ...options })
}

/** Produces and polls, so that every kind of connection was made. */
async function expectUsable(broker: Broker): Promise<void> {
  const group = instanceOf(unusedName('open'))
  const value = unusedName('value')
  await broker.produce([record('open', value)])
  const values: string[] = []
  while (!values.includes(value)) {
    const { records } = await broker.poll({ group, topics: ['open'], ...PLENTY, autoOffsetReset: 'earliest' })
    expect(records.length, 'records within the wait').toBeGreaterThan(0)
    values.push(...valuesOf(records))
  }
  await broker.leave(group)
}

/** Expects each kind of first call to be refused, and gives the error of the first. */
async function expectUnusable(broker: Broker, ...codes: readonly ErrorCode[]): Promise<BrokerError> {
  const limits = { ...PLENTY, maxWaitMs: 0 }
  const error = await expectRefusal(broker.produce([record('open', 'v')]), ...codes)
  await expectRefusal(broker.poll({ group: instanceOf('open'), topics: ['open'], ...limits }), ...codes)
  await expectRefusal(broker.topics(), ...codes)
  return error
}

/** Expects a refusal well before the call's own limit. */
async function expectRefusal(call: Promise<unknown>, ...codes: readonly ErrorCode[]): Promise<BrokerError> {
  const before = performance.now()
  const error = await refusal(call, ...codes)
  expect(performance.now() - before, 'milliseconds until the refusal').toBeLessThan(TIMEOUT_MS / 2)
  return error
}

function causesOf(error: Error): string {
  const messages: string[] = []
  for (let at: unknown = error; at instanceof Error; at = at.cause) messages.push(String(at))
  return messages.join('\n')
}
