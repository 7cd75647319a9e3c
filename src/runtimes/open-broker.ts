/**
 * From the settings to a function's broker. Drivers that not every platform can have are handed in by the runtime: one
 * table that named them all would put a TCP client into the Worker.
 */
import type { Broker } from '../broker.ts'
import { restBroker } from '../brokers/rest.ts'
import type { FunctionsConfig, KafkaConfig, RestConfig } from '../config.ts'
import { ConfigError } from '../errors.ts'

/** Drivers by the kind of broker they are for, beside `rest`, which every platform has. */
export interface BrokerDrivers {
  readonly kafka?: (config: KafkaConfig) => Promise<Broker>
}

/**
 * Opens the broker that the settings name. Nothing is sent before its first call.
 * @throws {ConfigError} INVALID_CONFIG for a broker this runtime has no driver for, or a file that cannot be read.
 */
export async function openBroker(config: FunctionsConfig['broker'], drivers: BrokerDrivers): Promise<Broker> {
  if (config.kind === 'rest') return gatewayBroker(config)
  if (drivers.kafka !== undefined) return await drivers.kafka(config)
  throw new ConfigError(
    'Cannot open the broker: KEDGE_BROKER names a Kafka cluster, for which this runtime has no driver. Run a gateway in front of the cluster and set UPSTASH_KAFKA_REST_URL instead.',
  )
}

function gatewayBroker({ url, credentials }: RestConfig): Broker {
  return restBroker({
    url,
    ...(credentials === undefined ? {} : { username: credentials.username, password: credentials.password.reveal() }),
  })
}
