/** The plain SDK against a real gateway on a socket, with the gateway's broker at hand. */
import { Kafka } from '@upstash/kafka'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { ServeGatewayOptions } from '../../src/runtimes/node-gateway.ts'
import { FakeClock } from '../support/clock.ts'
import { startGateway } from '../support/gateway.ts'

export interface SdkSetup extends AsyncDisposable {
  readonly kafka: Kafka
  readonly url: string
  /** The broker behind the gateway, which lives by `clock`. */
  readonly broker: Broker
  readonly clock: FakeClock
}

/** A gateway over a memory broker with the topics `blue` (1 partition) and `red` (3), and the SDK as users make it. */
export async function withSdk(options: Omit<ServeGatewayOptions, 'broker'> = {}): Promise<SdkSetup> {
  const clock = new FakeClock()
  const broker = memoryBroker({ clock })
  await broker.createTopic({ topic: 'blue' })
  await broker.createTopic({ topic: 'red', partitions: 3 })
  const server = await startGateway(broker, options)
  return {
    kafka: new Kafka({ url: server.url, username: 'user', password: 'pass' }),
    url: server.url,
    broker,
    clock,
    async [Symbol.asyncDispose]() {
      await server.close()
      await broker.close()
    },
  }
}

export const me = { consumerGroupId: 'group', instanceId: 'instance' }
