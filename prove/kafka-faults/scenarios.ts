/** What is done to a world while a group works in it. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { KafkaNode } from '../../scripts/kafka/cluster.ts'
import type { TcpProxy } from '../../test/support/tcp-proxy.ts'
import type { GatewayProcess } from '../gateway-process.ts'
import { addPartitions, coordinatorOf, leaderOf, untilInSync } from './brokers.ts'
import type { Load } from './load.ts'
import { joinStuckMember } from './stuck-member.ts'
import type { World } from './world.ts'

/** What a scenario works with. */
export interface Stage {
  readonly world: World
  readonly load: Load
  readonly groupId: string
  /** The topic that is produced to. */
  readonly topic: string
  readonly quick: boolean
  readonly random: () => number
  /** Resolves when all instances hold what there is, in one generation, which it gives. */
  readonly settled: () => Promise<number>
  /** Puts a number of the scenario's own among its figures. */
  readonly note: (name: string, value: number) => void
  /** Counts as a violation where it does not hold. */
  readonly expect: (holds: boolean, what: string) => void
}

/** One kind of trouble. */
export interface Scenario {
  readonly name: string
  readonly brokers: 1 | 3
  /** The trouble, from its first moment to the last; the group works before, meanwhile and after. Gives how often it struck. */
  readonly strike: (stage: Stage) => Promise<number>
}

/** All of them, those over one cluster together. */
export const scenarios: readonly Scenario[] = [
  { name: 'gateway-kill', brokers: 1, strike: killGateways },
  { name: 'network', brokers: 1, strike: breakNetwork },
  { name: 'broker-frozen', brokers: 1, strike: freezeBroker },
  { name: 'broker-kill', brokers: 1, strike: killBroker },
  { name: 'stuck-member', brokers: 1, strike: holdBarrier },
  { name: 'topics-change', brokers: 1, strike: changeTopics },
  { name: 'failover', brokers: 3, strike: failOver },
]

/** Each gateway dies at random moments and comes back, sometimes both at once. The group does not notice. */
async function killGateways({ world, quick, random, settled, load, expect }: Stage): Promise<number> {
  const generation = await settled()
  const until = performance.now() + (quick ? 12_000 : 120_000)
  const kills = await Promise.all(
    world.gateways.map(async (gateway: GatewayProcess) => {
      let kills = 0
      while (performance.now() < until) {
        await sleep(500 + (quick ? 3_000 : 5_000) * random())
        await gateway.kill()
        kills += 1
        await gateway.start()
      }
      return kills
    }),
  )
  await settled()
  expect(load.generation === generation, `a kill rebalanced: generation ${generation} became ${load.generation}`)
  return kills.reduce((sum, count) => sum + count, 0)
}

/** Connections to the broker are cut, refused, stalled, delayed and forgotten. */
async function breakNetwork({ world, quick }: Stage): Promise<number> {
  const [proxy] = world.proxies as [TcpProxy]
  const rounds = quick ? 1 : 3
  for (let round = 0; round < rounds; round++) {
    proxy.cut()
    await sleep(1_000)
    proxy.delay(100)
    await sleep(quick ? 2_000 : 5_000)
    proxy.delay(0)
    proxy.stall()
    await sleep(quick ? 2_000 : 5_000)
    proxy.flow()
    await sleep(1_000)
    proxy.halfOpen()
    await sleep(quick ? 2_000 : 20_000)
  }
  proxy.refuse()
  proxy.cut()
  await sleep(quick ? 3_000 : 30_000)
  await proxy.accept()
  return rounds * 4 + 1
}

async function freezeBroker({ world, quick }: Stage): Promise<number> {
  const [node] = world.cluster.nodes as [KafkaNode]
  node.freeze()
  await sleep(quick ? 5_000 : 30_000)
  node.thaw()
  return 1
}

async function killBroker({ world, quick }: Stage): Promise<number> {
  const [node] = world.cluster.nodes as [KafkaNode]
  await node.stop('SIGKILL')
  await sleep(quick ? 1_000 : 5_000)
  await node.start()
  return 1
}

/** A member of another client takes part, hangs, and a new instance wants to join. */
async function holdBarrier({ world, load, groupId, topic, quick, settled }: Stage): Promise<number> {
  await settled()
  const stuck = await joinStuckMember(world.cluster.bootstrapServers, groupId, topic)
  await sleep(1_000)
  load.join('late')
  await sleep(quick ? 3_000 : 20_000)
  await stuck[Symbol.asyncDispose]()
  return 1
}

/**
 * Partitions come, a topic that is subscribed comes, subscriptions change: each rebalances as often as it must. That is once, for
 * each instance whose subscription changes; and once more where somebody joins while the leader decides, which has it begin anew.
 */
async function changeTopics({ world, load, topic, settled, note, expect }: Stage): Promise<number> {
  const before = await settled()
  await addPartitions(world.cluster, topic, 4)
  const grown = await settled()
  note('rebalancesForPartitions', grown - before)
  expect(grown > before && grown <= before + 2, `added partitions rebalanced ${grown - before} times`)

  const instances = load.instances
  const late = `${topic}.late`
  for (const instance of instances) load.subscribe(instance, [topic, late])
  await sleep(2_000)
  await world.direct.createTopic({ topic: late, partitions: 4 })
  load.produce([late])
  const subscribed = await settled()
  const times = subscribed - grown
  note('rebalancesForSubscriptions', times)
  expect(times >= 1 && times <= 2 * instances.length, `changed subscriptions rebalanced ${times} times`)
  return 2
}

/** The broker that coordinates the group dies and comes back, then one that leads most partitions. */
async function failOver({ world, groupId, topic, quick, settled }: Stage): Promise<number> {
  await settled()
  const rounds = quick ? 1 : 3
  for (let round = 0; round < rounds; round++) {
    for (const find of quick ? [coordinatorOf] : [coordinatorOf, leaderOf]) {
      const nodeId = await find(world.cluster, find === coordinatorOf ? groupId : topic)
      const node = world.cluster.nodes.find((one) => one.nodeId === nodeId)
      await untilInSync(world.cluster, topic)
      if (node === undefined) throw new Error(`There is no broker ${nodeId}.`)
      await node.stop('SIGKILL')
      await sleep(quick ? 5_000 : 10_000)
      await node.start()
      await sleep(quick ? 1_000 : 5_000)
    }
  }
  return quick ? rounds : 2 * rounds
}
