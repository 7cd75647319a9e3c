/** A gateway, producers that send to it, and the processes of instances that consume from it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AutoOffsetReset, Broker } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { Producers } from '../embedded-log/producers.ts'
import { storedItems } from '../embedded-log/stored.ts'
import type { GatewayProcess } from '../gateway-process.ts'
import { check, type Verdict } from '../history/check.ts'
import type { InstanceOptions } from './instance.ts'
import { type Entry, historyOf, Journal, JournalReader, observe } from './journal.ts'

/** Where a scenario plays. */
export interface WorldOptions {
  readonly gateway: GatewayProcess
  /** Path of a file that is not there yet. */
  readonly journal: string
  /** Also the name of the group. It is made here. */
  readonly topic: string
  readonly partitions: number
  readonly recordsPerSecond: number
  readonly random: () => number
}

/** What differs from process to process. */
export type ProcessOptions = Pick<InstanceOptions, 'instance' | 'runMs' | 'workMs' | 'sessionTimeoutMs' | 'leaves'>

/** A process of an instance. */
export interface InstanceProcess {
  readonly name: string
  readonly instance: string
  readonly isThere: boolean
  /** Sends the signal. */
  signal(signal: NodeJS.Signals): void
  /** Sends the signal, and resolves when the process is gone. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

/** Of one key each, so many that no partition has much more than the others. */
const PRODUCERS = 64
const OBSERVE_MS = 300
const LIMIT_MS = 30_000
const LOOK_MS = 10
const program = join(import.meta.dirname, 'instance.ts')
/** A wrong reset shows: as records that are skipped, or as a refused poll. */
const resets: readonly AutoOffsetReset[] = ['latest', 'none']

/** One world, with a topic and a group of its own. */
export class World implements AsyncDisposable {
  /** What was seen that may not be, beside what the checker finds. */
  readonly complaints: string[] = []
  readonly counts: Record<string, number> = {}
  /** The gateway itself; what is called through it is in nobody's name. */
  readonly broker: Broker
  readonly journal: Journal
  readonly #options: WorldOptions
  readonly #reader: JournalReader
  readonly #processes: Instance[] = []
  readonly #acknowledged = new Set<string>()
  readonly #handled = new Set<string>()
  readonly #told = new Map<string, number>()
  readonly #ending = new AbortController()
  readonly #producers: Producers
  #producing: Promise<void> = Promise.resolve()
  #observing: Promise<void> = Promise.resolve()

  private constructor(options: WorldOptions) {
    const { gateway, journal, topic, recordsPerSecond, random } = options
    this.#options = options
    this.broker = restBroker({ url: gateway.url })
    this.#reader = new JournalReader(journal)
    this.journal = new Journal(journal, 'world')
    this.#producers = new Producers({
      url: gateway.url,
      topic,
      producers: PRODUCERS,
      recordsPerSecond,
      hasKey: () => true,
      random,
      note: (event) => this.journal.note(event),
    })
  }

  /** Makes the topic, and commits for the group that it begins with its first record; the producers begin. */
  static async open(options: WorldOptions): Promise<World> {
    const world = new World(options)
    const { topic, partitions } = options
    await world.broker.createTopic({ topic, partitions })
    const offsets = Array.from({ length: partitions }, (_, partition) => ({ topic, partition, offset: 0 }))
    await world.broker.commit({ groupId: topic, groupInstanceId: 'nobody' }, offsets)
    world.#producing = world.#producers.work()
    world.#observing = world.#observe()
    return world
  }

  /** Everything that was noted so far. */
  get entries(): readonly Entry[] {
    this.#look()
    return this.#reader.entries
  }

  get processes(): readonly InstanceProcess[] {
    return this.#processes.filter(({ isThere }) => isThere)
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by
  }

  /** Starts a process of an instance. */
  start(options: ProcessOptions): InstanceProcess {
    const { gateway, journal, topic, random } = this.#options
    const number = this.#processes.length
    const started = new Instance({
      ...options,
      name: `${options.instance}-${number}`,
      journal,
      url: gateway.url,
      groupId: topic,
      topic,
      autoOffsetReset: resets[number % resets.length] ?? 'none',
      seed: Math.floor(random() * 2 ** 32),
    })
    this.#processes.push(started)
    return started
  }

  /** Resolves when the instances that have processes, and no others, were told of one generation. */
  async settled(): Promise<void> {
    await this.until('the instances share the partitions', async () => {
      const wanted = new Set(this.processes.map(({ instance }) => instance))
      const groups = await this.broker.groups().catch(() => [])
      const group = groups.find(({ groupId }) => groupId === this.#options.topic)
      if (group === undefined || group.members.length !== wanted.size) return false
      this.#look()
      return group.members.every(
        ({ groupInstanceId }) => wanted.has(groupInstanceId) && this.#told.get(groupInstanceId) === group.generationId,
      )
    })
  }

  /** @throws where it does not become so in time */
  async until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = performance.now() + LIMIT_MS
    while (!(await isSo())) {
      if (performance.now() > deadline) throw new Error(`It did not come about in ${LIMIT_MS} ms that ${what}.`)
      await sleep(LOOK_MS)
    }
  }

  /** Lets everything be handled that was acknowledged, ends all processes, and judges what happened. */
  async finish(): Promise<Verdict> {
    const { topic, partitions } = this.#options
    this.#producers.stop()
    await this.#producing
    await this.#drained()
    this.#ending.abort()
    await Promise.all(this.#processes.map((one) => one.end('SIGTERM')))
    await this.#observing
    await observe(this.broker, topic, this.journal, true)
    for (const { failure } of this.#processes) if (failure !== undefined) this.complaints.push(failure)
    const log = await storedItems(this.broker, topic, partitions)
    const verdict = check(historyOf(this.entries), { log }, { mostOverMs: 0 })
    const letters = this.entries.filter(({ event }) => event.type === 'dead-lettered').length
    if (letters > 0) this.complaints.push(`${letters} records became dead letters, and all can be handled`)
    for (const code of ['NO_COMMITTED_OFFSET', 'OFFSET_OUT_OF_RANGE']) {
      const count = verdict.figures.failures[`poll ${code}`] ?? 0
      if (count > 0) this.complaints.push(`${count} polls were answered ${code}, and every partition has an offset`)
    }
    return verdict
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#producers.stop()
    this.#ending.abort()
    await Promise.all(this.#processes.map((one) => one.end('SIGKILL')))
    await Promise.all([this.#producing, this.#observing])
    this.#reader[Symbol.dispose]()
    this.journal[Symbol.dispose]()
  }

  /** Waits until everything is handled that was acknowledged, or nothing more is handled for a while. */
  async #drained(): Promise<void> {
    let handled = -1
    let deadline = 0
    for (;;) {
      this.#look()
      if (this.#acknowledged.isSubsetOf(this.#handled)) return
      if (this.#handled.size > handled) deadline = performance.now() + LIMIT_MS
      else if (performance.now() > deadline) return
      handled = this.#handled.size
      await sleep(LOOK_MS)
    }
  }

  #look(): void {
    for (const { event } of this.#reader.read()) {
      if (event.type === 'acknowledged') this.#acknowledged.add(`${event.place}@${event.offset}`)
      if (event.type === 'handled' || event.type === 'dead-lettered')
        this.#handled.add(`${event.place}@${event.offset}`)
      if (event.type === 'polled' && event.assignment !== undefined) this.#told.set(event.instance, event.generationId)
    }
  }

  async #observe(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      // Nothing is seen while the gateway is gone.
      await observe(this.broker, this.#options.topic, this.journal).catch(() => undefined)
      await sleep(OBSERVE_MS)
    }
  }
}

class Instance implements InstanceProcess {
  readonly name: string
  readonly instance: string
  readonly #child: ChildProcess
  #isToEnd = false
  #errors = ''

  constructor(options: InstanceOptions) {
    this.name = options.name
    this.instance = options.instance
    this.#child = spawn(process.execPath, [program, JSON.stringify(options)], {
      stdio: ['pipe', 'ignore', 'pipe'],
      // Most of a start is compiling, which the one before has done.
      env: { ...process.env, NODE_COMPILE_CACHE: join(dirname(options.journal), 'compiled') },
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#errors += text))
  }

  get isThere(): boolean {
    return !this.#isToEnd && !this.#isGone
  }

  /** What it said when it ended by itself, which it should never do. */
  get failure(): string | undefined {
    const { exitCode, signalCode } = this.#child
    if (exitCode === null ? signalCode === null || this.#isToEnd : exitCode === 0 && this.#isToEnd) return undefined
    return `${this.name} ended with ${exitCode ?? signalCode}: ${this.#errors}`
  }

  get #isGone(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (this.#isGone) return
    this.#isToEnd = true
    const ended = once(this.#child, 'exit')
    this.#child.kill(signal)
    await ended
  }
}
