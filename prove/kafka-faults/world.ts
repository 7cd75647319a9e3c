/** What faults happen to: a Kafka cluster with a proxy before each broker, and two gateways over it. */
import type { Broker } from '../../src/broker.ts'
import { kafkaBroker } from '../../src/brokers/kafka.ts'
import { type KafkaCluster, startKafka } from '../../scripts/kafka/cluster.ts'
import { startProxy, type TcpProxy } from '../../test/support/tcp-proxy.ts'
import { type GatewayProcess, gatewayProcess } from '../gateway-process.ts'

/** Everything that a scenario can break, and a way past the gateways. */
export interface World extends AsyncDisposable {
  readonly cluster: KafkaCluster
  /** Before the broker of the same index; nobody but brokers goes past it. */
  readonly proxies: readonly TcpProxy[]
  readonly gateways: readonly GatewayProcess[]
  readonly urls: readonly string[]
  /** The driver itself: to set up, and to look. */
  readonly direct: Broker
}

/** How a world is made. */
export interface WorldOptions {
  readonly brokers: number
  readonly gateways: number
}

/** A broker that is gone is to be noticed soon. */
const settings = {
  'broker.session.timeout.ms': '3000',
  'broker.heartbeat.interval.ms': '500',
  'replica.lag.time.max.ms': '3000',
}

/** Starts all of it. */
export async function openWorld({ brokers, gateways }: WorldOptions): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const proxies: TcpProxy[] = []
  for (let index = 0; index < brokers; index++) proxies.push(stack.use(await startProxy(1)))
  const cluster = stack.use(await startKafka({ brokers, settings, advertisedPorts: proxies.map(({ port }) => port) }))
  for (const [index, proxy] of proxies.entries()) proxy.forwardTo(cluster.nodes[index]?.port ?? 1)
  const direct = stack.use(kafkaBroker({ bootstrapServers: cluster.bootstrapServers.split(',') }))
  await direct.topics()
  const processes: GatewayProcess[] = []
  for (let index = 0; index < gateways; index++) {
    processes.push(stack.use(await gatewayProcess({ KEDGE_BROKER: `kafka://${cluster.bootstrapServers}` })))
  }
  await Promise.all(processes.map((gateway) => gateway.start()))
  const held = stack.move()
  return {
    cluster,
    proxies,
    gateways: processes,
    urls: processes.map(({ url }) => url),
    direct,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}
