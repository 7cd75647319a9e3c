/**
 * Apache Kafka on loopback, for tests and trials: one broker or several (KRaft, both roles in each), their data in a folder
 * that goes with them. Every broker can be stopped, killed, frozen and started again by itself.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { installKafka } from './install.ts'
import { runProgram, smallHeap } from './programs.ts'

/** What a cluster is started with. */
export interface KafkaOptions {
  /** @default 1 */
  readonly brokers?: number
  /** Of the first broker. @default any free one */
  readonly port?: number
  /** Broker settings beside those that make it quick. */
  readonly settings?: Readonly<Record<string, string>>
  /** More listeners of each broker, by name: their protocol, such as `SASL_PLAINTEXT`. */
  readonly listeners?: Readonly<Record<string, string>>
  /** The ports that clients are told instead of the brokers' own, in their order: a proxy's. Brokers go past it. */
  readonly advertisedPorts?: readonly number[]
  /** Users of SCRAM (SHA-256 and SHA-512), and their passwords, without commas. */
  readonly scramUsers?: Readonly<Record<string, string>>
  readonly onProgress?: (line: string) => void
}

/** One broker of a cluster. */
export interface KafkaNode {
  readonly nodeId: number
  readonly port: number
  /** Of the running process. */
  readonly pid: number | undefined
  /** Ports of the listeners beside the plain one, by name. */
  readonly ports: Readonly<Record<string, number>>
  start(): Promise<void>
  /** Sends SIGTERM, or the signal, and resolves when the process has ended. */
  stop(signal?: NodeJS.Signals): Promise<void>
  /** Freezes the process (SIGSTOP), or lets it go on. */
  freeze(): void
  thaw(): void
}

/** A running cluster. */
export interface KafkaCluster extends AsyncDisposable {
  /** `host:port` of every broker, comma-separated. */
  readonly bootstrapServers: string
  readonly nodes: readonly KafkaNode[]
  /** Runs a main class of Kafka's tools and gives what it printed. */
  tool(mainClass: string, args: readonly string[], input?: string): Promise<string>
  stop(): Promise<void>
}

const START_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 20_000

/** Everything that makes a cluster of one machine answer quickly. */
function quickSettings(brokers: number): Record<string, string> {
  const replicas = String(brokers)
  return {
    'auto.create.topics.enable': 'false',
    'default.replication.factor': replicas,
    'group.initial.rebalance.delay.ms': '0',
    'group.min.session.timeout.ms': '1000',
    'log.cleaner.enable': 'false',
    'log.initial.task.delay.ms': '500',
    'log.retention.check.interval.ms': '500',
    'min.insync.replicas': String(Math.min(brokers, 2)),
    'offsets.topic.num.partitions': '3',
    'offsets.topic.replication.factor': replicas,
    'share.coordinator.state.topic.replication.factor': replicas,
    'share.coordinator.state.topic.min.isr': '1',
    'transaction.state.log.replication.factor': replicas,
    'transaction.state.log.min.isr': '1',
  }
}

/** Fetches Kafka where necessary, and starts a cluster. @throws {Error} with a broker's log when it does not come up */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaCluster> {
  const { brokers = 1, settings = {}, scramUsers = {}, onProgress = () => {} } = options
  // Brokers that are told of a proxy would go through it to each other, too.
  const between = options.advertisedPorts === undefined ? {} : { BROKER: 'PLAINTEXT' }
  const listeners = { ...options.listeners, ...between }
  const classPath = await installKafka(onProgress)
  const dir = await mkdtemp(join(tmpdir(), 'kedge-kafka-'))
  const plans = await planNodes(brokers, Object.keys(listeners), options)
  const directoryIds = plans.map(() => uuid())
  const voters = plans.map(
    ({ nodeId, controller }, index) => `${nodeId}@127.0.0.1:${controller}:${directoryIds[index]}`,
  )
  const clusterId = uuid()
  onProgress(`Starting ${brokers === 1 ? 'a broker' : `${brokers} brokers`} ...`)
  const nodes = await Promise.all(
    plans.map(async (plan) => {
      const folder = join(dir, String(plan.nodeId))
      mkdirSync(folder, { recursive: true })
      const file = join(folder, 'server.properties')
      const lines = { ...quickSettings(brokers), ...serverSettings(plan, plans, folder, listeners), ...settings }
      writeFileSync(
        file,
        Object.entries(lines)
          .map(([key, value]) => `${key}=${value}\n`)
          .join(''),
      )
      const format = ['format', '-t', clusterId, '-c', file, '--initial-controllers', voters.join()]
      await runTool(classPath, 'kafka.tools.StorageTool', [...format, ...scramArguments(scramUsers)])
      return kafkaNode(plan, classPath, folder)
    }),
  )
  const stop = async (): Promise<void> => {
    await Promise.all(nodes.map((node) => node.stop()))
    rmSync(dir, { recursive: true, force: true })
  }
  try {
    await Promise.all(nodes.map((node) => node.start()))
  } catch (failure) {
    await stop()
    throw failure
  }
  return {
    bootstrapServers: plans.map((plan) => `127.0.0.1:${plan.advertised}`).join(),
    nodes,
    tool: (mainClass, args, input) => runTool(classPath, mainClass, args, input),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

interface NodePlan {
  readonly nodeId: number
  readonly port: number
  readonly advertised: number
  readonly controller: number
  readonly ports: Readonly<Record<string, number>>
}

async function planNodes(brokers: number, names: readonly string[], options: KafkaOptions): Promise<NodePlan[]> {
  const free = await freePorts(brokers * (2 + names.length))
  return Array.from({ length: brokers }, (_, index) => {
    const [own = 0, controller = 0, ...rest] = free.splice(0, 2 + names.length)
    const port = index === 0 && options.port !== undefined ? options.port : own
    return {
      nodeId: index + 1,
      port,
      advertised: options.advertisedPorts?.[index] ?? port,
      controller,
      ports: Object.fromEntries(names.map((name, at) => [name, rest[at] ?? 0])),
    }
  })
}

function serverSettings(
  plan: NodePlan,
  plans: readonly NodePlan[],
  folder: string,
  listeners: Readonly<Record<string, string>>,
): Record<string, string> {
  const address = (name: string, port: number): string => `${name}://127.0.0.1:${port}`
  const more = Object.entries(plan.ports).map(([name, port]) => address(name, port))
  const controller = address('CONTROLLER', plan.controller)
  const protocols = { CONTROLLER: 'PLAINTEXT', PLAINTEXT: 'PLAINTEXT', ...listeners }
  return {
    'node.id': String(plan.nodeId),
    'process.roles': 'broker,controller',
    'controller.quorum.bootstrap.servers': plans.map((other) => `127.0.0.1:${other.controller}`).join(),
    'controller.listener.names': 'CONTROLLER',
    listeners: [address('PLAINTEXT', plan.port), controller, ...more].join(),
    'advertised.listeners': [address('PLAINTEXT', plan.advertised), controller, ...more].join(),
    'listener.security.protocol.map': Object.entries(protocols)
      .map((pair) => pair.join(':'))
      .join(),
    'inter.broker.listener.name': listeners['BROKER'] === undefined ? 'PLAINTEXT' : 'BROKER',
    'log.dirs': join(folder, 'data'),
  }
}

function scramArguments(users: Readonly<Record<string, string>>): string[] {
  return Object.entries(users).flatMap(([name, password]) =>
    ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => [
      '--add-scram',
      `${mechanism}=[name=${name},password=${password}]`,
    ]),
  )
}

function kafkaNode(plan: NodePlan, classPath: string, folder: string): KafkaNode {
  let child: ChildProcess | undefined
  const log = join(folder, 'broker.log')
  return {
    nodeId: plan.nodeId,
    port: plan.port,
    get pid() {
      return child?.pid
    },
    ports: plan.ports,
    async start() {
      const args = [...smallHeap, '-cp', classPath, 'kafka.Kafka', join(folder, 'server.properties')]
      const started = spawn('java', args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: folder })
      child = started
      const killed = (): void => void started.kill('SIGKILL')
      process.once('exit', killed)
      started.once('exit', () => process.off('exit', killed))
      const output = createWriteStream(log, { flags: 'a' })
      started.stdout.pipe(output)
      started.stderr.pipe(output)
      const deadline = performance.now() + START_LIMIT_MS
      while (!(await accepts(plan.port))) {
        if (started.exitCode !== null || performance.now() > deadline) {
          throw new Error(`Kafka's broker ${plan.nodeId} did not start:\n${readFileSync(log, 'utf8').slice(-4000)}`)
        }
        await sleep(50)
      }
    },
    async stop(signal = 'SIGTERM') {
      const running = child
      if (running === undefined || running.exitCode !== null || running.signalCode !== null) return
      const ended = once(running, 'exit')
      running.kill('SIGCONT')
      running.kill(signal)
      const late = setTimeout(() => running.kill('SIGKILL'), STOP_LIMIT_MS)
      await ended
      clearTimeout(late)
    },
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
  }
}

async function runTool(classPath: string, mainClass: string, args: readonly string[], input = ''): Promise<string> {
  const output = await runProgram('java', [...smallHeap, '-cp', classPath, mainClass, ...args], input)
  return output.toString()
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      return server
    }),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/** Kafka writes its ids in base64url; one that begins with a dash would be an option of its tools. */
function uuid(): string {
  const id = randomBytes(16).toString('base64url')
  return id.startsWith('-') ? uuid() : id
}
