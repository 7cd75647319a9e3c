/**
 * `npm run prove -- redrive-kill`: a redrive of ten thousand letters is killed fifty times and started again, once over the
 * dead-letter topic, and once over a file and a gateway that knows no idempotency keys. Now and then it is the gateway that
 * dies. Nothing is lost; no letter comes twice where there are keys, and one for each kill where there are none; a second
 * redrive is kept out; the rate is kept.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker } from '../src/broker.ts'
import { logBroker } from '../src/brokers/log.ts'
import { restBroker } from '../src/brokers/rest.ts'
import { createConsumer } from '../src/consumer.ts'
import type { DeadLetter, DeadLetterStore } from '../src/dead-letter.ts'
import { memoryDeadLetters } from '../src/dead-letters/memory.ts'
import { sqliteDeadLetters } from '../src/dead-letters/sqlite.ts'
import { topicDeadLetters } from '../src/dead-letters/topic.ts'
import { randomId } from '../src/random.ts'
import { seeded } from '../test/support/chaos.ts'
import { temporaryFolder } from './embedded-log/folder.ts'
import { gatewayProcess, type GatewayProcess } from './gateway-process.ts'
import type { Proof, ProofOptions, ProofResult } from './proof.ts'
import { appWith, GROUP, REDRIVE_TOPIC, SOURCE } from './redrive-kill/app.ts'
import { judgeRedrive } from './redrive-kill/judge.ts'
import { idsIn, lettersOf, patiently, putAll, recordsIn } from './redrive-kill/letters.ts'
import { startRedrive, type RedriveProcess, type RedriveSettings } from './redrive-kill/redrive-process.ts'
import { withoutKeys } from './redrive-kill/without-keys.ts'

const PARTITIONS = 4
/** Short, for each kill costs it; and a little more until whoever comes next finds the lock lapsed. */
const CLAIM_TTL_MS = 2_000
const LAPSED_MS = 2_100
/** Of the lives, so many are killed as they begin. */
const EARLY = 0.2
const STARTING_MS = 600
const LOOK_MS = 30
const MOST_LAST = 5
/** The longest that the gateway is away: as long as a redrive tries a call, more or less. */
const OUTAGE_MS = 3_000
/** What a redrive may make of that before it is killed itself. */
const AFTER_OUTAGE_MS = 500
const SHOWN = 10
/** A rate that was hardly reached was not kept. */
const LEAST_OF_RATE = 0.4

interface Size {
  readonly letters: number
  readonly kills: number
  readonly perSecond: number
}

const full: Size = { letters: 10_000, kills: 50, perSecond: 150 }
const short: Size = { letters: 80, kills: 3, perSecond: 20 }

interface World {
  readonly name: string
  readonly deadLetters: (folder: string) => string
  readonly open: (folder: string, broker: Broker) => DeadLetterStore
  readonly hasKeys: boolean
}

const worlds: readonly World[] = [
  { name: 'topic', deadLetters: () => 'topic:', open: (_, broker) => topicDeadLetters({ broker }), hasKeys: true },
  {
    name: 'sqlite without keys',
    deadLetters: (folder) => `sqlite:${join(folder, 'letters.db')}`,
    open: (folder) => sqliteDeadLetters({ path: join(folder, 'letters.db') }),
    hasKeys: false,
  },
]

/** A redrive that dies. */
export const redriveKill: Proof = {
  summary: 'a redrive is killed again and again; nothing is lost, hardly anything comes twice, and the rate is kept',
  prove,
}

async function prove(options: ProofOptions): Promise<ProofResult> {
  const size = options.quick ? short : full
  const outcomes = await Promise.all(worlds.map((world, index) => tried(world, size, options, index)))
  return {
    runs: outcomes.reduce((sum, { kills }) => sum + kills, 0),
    violations: outcomes.reduce((sum, { violations }) => sum + violations, 0),
    figures: { letters: size.letters, perSecond: size.perSecond, worlds: outcomes },
  }
}

interface Outcome {
  readonly world: string
  readonly kills: number
  /** Lives that handed letters back before they were killed. */
  readonly moving: number
  readonly keptOut: number
  /** Lives in which the gateway died, and those of them that went on when it was back. */
  readonly outages: number
  readonly outlived: number
  readonly twice: number
  readonly peakPerSecond: number
  readonly violations: number
}

async function tried(world: World, size: Size, { seed, say, stop }: ProofOptions, index: number): Promise<Outcome> {
  using folder = temporaryFolder('redrive')
  const letters = lettersOf(size.letters, PARTITIONS)
  await fill(world, folder.path, letters)
  await using gateway = await gatewayProcess({ KEDGE_BROKER: 'log', KEDGE_DATA: join(folder.path, 'log') })
  await gateway.start()
  await using proxy = await withoutKeys(gateway.url)
  const url = world.hasKeys ? gateway.url : proxy.url
  await using broker = restBroker({ url })
  await using store = world.open(folder.path, broker)
  await using reader = consume(broker)
  const settings: RedriveSettings = {
    url,
    deadLetters: world.deadLetters(folder.path),
    perSecond: size.perSecond,
    claimTtlMs: CLAIM_TTL_MS,
    auditFile: join(folder.path, 'audit.jsonl'),
  }
  const trial = new Trial({ settings, size, broker, gateway, random: seeded(seed + index) })
  const mostTwice = (): number => (world.hasKeys ? 0 : trial.kills + trial.outages)
  while (trial.kills < size.kills && !stop.aborted && (await trial.live())) {
    if (trial.kills % 10 !== 0) continue
    // Nothing may be missing in between either, when a letter stands in both places or in one.
    const left = await patiently(() => idsIn(store))
    const back = await patiently(() => recordsIn(broker, REDRIVE_TOPIC))
    const bounds = { mostTwice: mostTwice(), perSecond: size.perSecond, isFinished: false }
    trial.found.push(...judgeRedrive({ letters, left, back }, bounds).violations)
  }
  if (!stop.aborted) await trial.finish()
  const back = await patiently(() => recordsIn(broker, REDRIVE_TOPIC))
  if (!stop.aborted) await reader.until(back.length)
  const { violations, twice, peak } = judgeRedrive(
    { letters, left: await patiently(() => idsIn(store)), back },
    { mostTwice: mostTwice(), perSecond: size.perSecond, isFinished: !stop.aborted },
  )
  const found = [...trial.found, ...violations]
  if (gateway.ended !== undefined) found.push(`the gateway ended by itself: ${gateway.ended}`)
  if (!stop.aborted) found.push(...unhandled(letters, reader.places), ...notShown(trial, size, peak))
  for (const line of found.slice(0, SHOWN)) say(`  ${world.name}: ${line}`)
  const { kills, moving, keptOut, outages, outlived } = trial
  const figures = { kills, moving, keptOut, outages, outlived, twice, peakPerSecond: peak }
  return { world: world.name, ...figures, violations: found.length }
}

/** What did not happen, without which the rest says nothing. */
function notShown({ kills, moving, keptOut, outages }: Trial, size: Size, peak: number): string[] {
  const lines: string[] = []
  if (kills * 2 < size.kills) lines.push(`${kills} kills before all was done`)
  if (moving * 2 < kills) lines.push(`${moving} of ${kills} lives did work`)
  if (keptOut === 0) lines.push('no second redrive was kept out')
  if (outages === 0) lines.push('the gateway did not die')
  if (peak < size.perSecond * LEAST_OF_RATE) lines.push(`${peak} letters at most went in a second`)
  return lines.map((line) => `nothing was shown: ${line}`)
}

/** Puts the letters where they are to be, and makes the group known. */
async function fill(world: World, folder: string, letters: readonly DeadLetter[]): Promise<void> {
  await using log = logBroker({ dir: join(folder, 'log') })
  await log.createTopic({ topic: SOURCE, partitions: PARTITIONS })
  await log.commit({ groupId: GROUP, groupInstanceId: 'before' }, [{ topic: SOURCE, partition: 0, offset: 0 }])
  await using store = world.open(folder, log)
  await putAll(store, letters)
}

interface TrialScope {
  readonly settings: RedriveSettings
  readonly size: Size
  readonly broker: Broker
  readonly gateway: GatewayProcess
  readonly random: () => number
}

/** The lives of the redrive of one world. */
class Trial {
  kills = 0
  moving = 0
  keptOut = 0
  outages = 0
  outlived = 0
  readonly found: string[] = []
  readonly #settings: RedriveSettings
  readonly #size: Size
  readonly #broker: Broker
  readonly #gateway: GatewayProcess
  readonly #random: () => number

  constructor({ settings, size, broker, gateway, random }: TrialScope) {
    this.#settings = settings
    this.#size = size
    this.#broker = broker
    this.#gateway = gateway
    this.#random = random
  }

  /** Starts a redrive and kills it. False where it was done before. */
  async live(): Promise<boolean> {
    const number = this.kills
    const before = await this.#back()
    await using redrive = startRedrive(this.#settings, `life ${number}`)
    // Every fifth has a rival, which comes while it is at work.
    const hasRival = number % 5 === 1
    if (!hasRival && this.#random() < EARLY) await sleep(STARTING_MS * this.#random())
    else {
      await redrive.started
      if (hasRival) await this.#rival(redrive, number)
      // Most letters go in lives that are killed. By their count and not by time: a machine may be slow.
      const { letters, kills, perSecond } = this.#size
      const onAverage = (0.7 * letters) / (kills * (1 - EARLY))
      const wanted = before + Math.floor(onAverage * (0.5 + this.#random()))
      while (redrive.isRunning && (await this.#back()) < wanted) await sleep(LOOK_MS)
      await sleep((1_000 / perSecond) * this.#random())
      // In another fifth the gateway dies first.
      if (number % 5 === 2 && redrive.isRunning) await this.#outage(redrive)
    }
    if (!redrive.isRunning) {
      const { status, text } = await redrive.ended
      if (status === 0) return false
      const mayFail = number % 5 === 2 && /^ended +failed/m.test(text)
      if (mayFail || isLapsed(text)) return await this.#over(before)
      this.found.push(`life ${number} ended by itself with status ${status}: ${text}`)
      return this.found.length < SHOWN
    }
    await redrive.kill()
    return await this.#over(before)
  }

  /** A life is over, and its lock lapses. */
  async #over(before: number): Promise<true> {
    this.kills += 1
    if ((await this.#back()) > before) this.moving += 1
    await sleep(LAPSED_MS)
    return true
  }

  /** Kills the gateway, and with it whatever stands in it. It is back after a while. */
  async #outage(redrive: RedriveProcess): Promise<void> {
    await this.#gateway.kill()
    this.outages += 1
    await sleep(OUTAGE_MS * this.#random())
    await this.#gateway.start()
    await sleep(AFTER_OUTAGE_MS)
    if (redrive.isRunning) this.outlived += 1
  }

  /** Lets it run to its end; again where it stood still for so long that its lock lapsed. */
  async finish(): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      await using redrive = startRedrive(this.#settings, 'the last')
      const { status, text } = await redrive.ended
      if (status === 0) return
      if (tries < MOST_LAST && isLapsed(text)) continue
      this.found.push(`the last run ended with status ${status}: ${text}`)
      return
    }
  }

  /** Starts a second redrive beside one that has the lock. */
  async #rival(first: RedriveProcess, number: number): Promise<void> {
    await using rival = startRedrive(this.#settings, `rival ${number}`)
    const { status, text } = await Promise.race([rival.ended, first.ended])
    // Done before the rival had come.
    if (!first.isRunning) return
    if (status === 1 && text.includes('another redrive of it is active')) this.keptOut += 1
    else this.found.push(`a second redrive was not kept out: status ${status}: ${text}`)
  }

  #back(): Promise<number> {
    return patiently(() => this.#backNow())
  }

  async #backNow(): Promise<number> {
    const partitions = Array.from({ length: PARTITIONS }, (_, partition) => ({ topic: REDRIVE_TOPIC, partition }))
    const isThere = (await this.#broker.topics()).some(({ topic }) => topic === REDRIVE_TOPIC)
    const ends = isThere ? await this.#broker.offsets(partitions, 'latest') : []
    return ends.reduce((sum, { offset }) => sum + offset, 0)
  }
}

interface Reader extends AsyncDisposable {
  /** Of the records that its handler was called with. */
  readonly places: ReadonlySet<string>
  /** Resolves when its handler was called so often, or nothing came for a while. */
  until(times: number): Promise<void>
}

const PATIENCE_MS = 20_000
const BETWEEN_RUNS_MS = 200

/** The group itself, which reads what comes back. */
function consume(broker: Broker): Reader {
  const places = new Set<string>()
  const stopping = new AbortController()
  const called = { times: 0, lastAt: performance.now() }
  const app = appWith(({ partition, offset }) => {
    called.times += 1
    called.lastAt = performance.now()
    places.add(`${partition}/${offset}`)
  })
  const consumer = createConsumer(app, {
    broker,
    deadLetters: memoryDeadLetters(),
    groupInstanceId: 'reader',
    // What it holds when the gateway dies it cannot give back.
    claimTtlMs: CLAIM_TTL_MS,
  })
  const working = (async () => {
    const { signal } = stopping
    while (!signal.aborted) {
      await consumer.run({ runId: randomId(), signal, budget: { runMs: 5_000 } })
      await sleep(BETWEEN_RUNS_MS)
    }
  })()
  return {
    places,
    async until(times) {
      const isDone = (): boolean => called.times >= times || performance.now() - called.lastAt > PATIENCE_MS
      while (!isDone()) await sleep(20)
    },
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await working
    },
  }
}

/** A process that the machine lets stand still for longer than its lock lasts ends, and says so. */
function isLapsed(text: string): boolean {
  return /^ended +lock-lost/m.test(text)
}

function unhandled(letters: readonly DeadLetter[], places: ReadonlySet<string>): string[] {
  return letters
    .filter(({ record }) => !places.has(`${record.partition}/${record.offset}`))
    .map(({ id }) => `unhandled: ${id} never came to its group`)
}
