/** Brokers of the platforms that have Node's modules and sockets, beside `rest`, which every platform has. */
import { readFile } from 'node:fs/promises'
import type { Broker } from '../broker.ts'
import type { KafkaTls } from '../brokers/kafka.ts'
import type { KafkaConfig, KafkaTlsFiles } from '../config.ts'
import { ConfigError } from '../errors.ts'
import { noticeLog } from './log-line.ts'
import type { BrokerDrivers } from './open-broker.ts'

/** A Kafka cluster. */
export const brokerDrivers: BrokerDrivers = { kafka: openKafka }

async function openKafka(config: KafkaConfig): Promise<Broker> {
  const { bootstrapServers, sasl, tls, compression, replicationFactor } = config
  const tlsOptions = tls === undefined ? undefined : await tlsOf(tls)
  // Loaded when it is needed: the client costs a start several times what all the rest does.
  const { kafkaBroker } = await import('../brokers/kafka.ts')
  return kafkaBroker({
    bootstrapServers,
    compression,
    log: noticeLog,
    ...(sasl === undefined ? {} : { sasl: { ...sasl, password: sasl.password.reveal() } }),
    ...(tlsOptions === undefined ? {} : { tls: tlsOptions }),
    ...(replicationFactor === undefined ? {} : { replicationFactor }),
  })
}

async function tlsOf({ ca, cert, key }: KafkaTlsFiles): Promise<KafkaTls | true> {
  const files = [
    ['ca', ca, 'KEDGE_KAFKA_CA'] as const,
    ['cert', cert, 'KEDGE_KAFKA_CERT'] as const,
    ['key', key, 'KEDGE_KAFKA_KEY'] as const,
  ]
  const given = await Promise.all(
    files.flatMap(([name, file, setting]) => (file === undefined ? [] : [pemOf(name, file, setting)])),
  )
  return given.length === 0 ? true : Object.fromEntries(given)
}

async function pemOf(name: string, file: string, setting: string): Promise<[string, string]> {
  try {
    const text = await readFile(file, 'utf8')
    if (text.includes('-----BEGIN ')) return [name, text]
  } catch (cause) {
    throw new ConfigError(`Cannot read ${setting}=${file}. Is the path right?`, { cause })
  }
  throw new ConfigError(`Cannot use ${setting}=${file}: it is not a PEM file.`)
}
