/**
 * A world for consumer runs in which everything is left to chance: topics, routes, handlers, policies, failing brokers and
 * stores, runs that die, clocks that jump. It keeps a model of what really became of each record, and notes every promise
 * of a run that was broken on the way. The promises, as the notes call them:
 * P1 a commit says of no record that it is settled when it is not; P2 what waits for each other is handled in order, one at
 * a time; P3 what a commit settled is not handled again, and attempts and deadlines go on; P4 a run ends, and a topic too;
 * P5 counts are what happened; P6 no more is handled at once than may be;
 * P7 what is set aside for the deaths of its process was named by a run before.
 *
 * It is one file because what chance does and what the model expects of it have to be read together.
 */
import { defineApp } from '../../src/app.ts'
import type { App } from '../../src/app.ts'
import type { Broker, OffsetCommit } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import type { Clock } from '../../src/clock.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunOptions } from '../../src/consumer.ts'
import type { Lanes } from '../../src/consumer/lanes.ts'
import { decodeProgress } from '../../src/consumer/progress.ts'
import type { OpenRecord } from '../../src/consumer/progress.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { deadLetterId } from '../../src/dead-letter.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { BrokerError, DeadLetterStoreError } from '../../src/errors.ts'
import { DeadLetterError, RetryAfterError, SkipError, StopError } from '../../src/handler-errors.ts'
import { bytesOf } from '../../src/record.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { returned } from '../../src/return-topic.ts'
import { createRouter } from '../../src/router.ts'
import type { HandlerContext, RouteOptions } from '../../src/router.ts'
import { Chaos, seeded } from './chaos.ts'
import { FakeClock } from './clock.ts'
import { withCalls } from './consumer.ts'

const GROUP = 'g'
const CLAIM_TTL_MS = 3_000
const HOUR_MS = 3_600_000

/** How a record's handler behaves. */
type Kind = 'ok' | 'fails' | 'never' | 'later' | 'rejects' | 'skips' | 'stops'

interface RouteSpec {
  readonly name: string
  readonly topic: string
  readonly options: RouteOptions
  readonly stages: number
  readonly maxAttempts: number
}

interface Place {
  readonly topic: string
  readonly partition: number
  readonly offset: number
}

/** A copy of a record in a retry topic. */
interface Copy extends Place {
  readonly stage: number
  readonly attempts: number
  readonly dueAtMs: number
}

/** A record, what its handler does with it, and what became of it. */
interface Subject extends Place {
  readonly id: string
  readonly key: string | null
  /** Undefined: no route takes it. */
  readonly route: RouteSpec | undefined
  readonly kind: Kind
  /** With `fails` and `later`: so many times. */
  readonly failures: number
  /** Undefined: its handler answers at once. */
  readonly durationMs: number | undefined
  readonly copies: Copy[]
  calls: number
  /** A commit has said that it is settled. */
  wasCovered: boolean
  /** A run that died left it in its partition and in a retry topic. */
  wasDouble: boolean
  isHandled: boolean
  isSkipped: boolean
  letter: DeadLetter | undefined
}

/** What the newest commit of a partition says. */
interface Durable {
  readonly offset: number
  readonly settledTo: number
  readonly open: ReadonlyMap<number, OpenRecord>
}

/** One run, as the model sees it. */
interface Life {
  readonly number: number
  readonly chaos: Chaos
  readonly concurrency: number
  /** What commits knew before the run. */
  readonly found: ReadonlyMap<string, Durable>
  readonly active: Set<Subject>
  readonly attempts: Map<string, number>
  readonly polled: Place[]
  /** Monotonic times before which a record may not be tried again. */
  readonly notBefore: Map<string, number>
  readonly timers: Set<object>
  handled: number
  skipped: number
  puts: number
  /** Another instance runs beside it, so that partitions move. */
  readonly hasRival: boolean
}

/** A run that was started. */
interface Started {
  readonly life: Life
  readonly plan: LifePlan
  report?: RunReport
  error?: unknown
}

/** What a run is made with. */
interface LifePlan {
  readonly budgetMs: number
  readonly stopWhenEmpty: boolean
  readonly lost: number
  readonly diesAt?: number
  readonly lostLetters: number
  readonly maxMetadata?: number
}

/** A world made of a seed. */
export class World {
  /** Promises that were broken. */
  readonly broken: string[] = []
  readonly #trace: string[] = []
  readonly clock: FakeClock = new FakeClock()
  readonly #random: () => number
  readonly #broker: Broker
  readonly #letters: DeadLetterStore = memoryDeadLetters()
  readonly #routes: RouteSpec[] = []
  readonly #subjects = new Map<string, Subject>()
  readonly #copies = new Map<string, { readonly subject: Subject; readonly copy: Copy }>()
  readonly #durable = new Map<string, Durable>()
  readonly #options: Parameters<typeof defineApp>[0]
  readonly #concurrency: number | undefined
  readonly #maxPollRecords: number
  /** How far the wall clock is off. */
  #skewMs = 0
  #isCalm = false
  /** A broker that took no metadata made a run forget what it had committed. */
  /** Records that a commit named as being called, and the newest run that did. */
  readonly #named = new Map<string, number>()
  #hasForgotten = false
  #lives = 0
  readonly #lanes = new Set<Lanes>()

  constructor(seed: number) {
    this.#random = seeded(seed)
    this.#broker = memoryBroker({ clock: this.clock })
    this.#concurrency = this.#chance(0.6) ? this.#int(1, 8) : undefined
    this.#maxPollRecords = this.#pick([2, 5, 20, 500])
    this.#options = {
      groupId: GROUP,
      topics: [],
      attemptTimeoutMs: this.#pick([1_000, 30_000]),
      breaker: this.#chance(0.7) ? null : { minDeadLetters: this.#int(1, 5) },
      parking: { maxRecords: this.#pick([1, 4, 1_000]), whenFull: this.#chance(0.7) ? 'wait' : 'dead-letter' },
      retry: { maxAttempts: this.#int(1, 4), initialMs: this.#pick([0, 100, 2_000]) },
    }
  }

  /** Everything that is known, for a message. */
  describe(): string {
    const routes = this.#routes.map(({ name, options }) => `${name} ${JSON.stringify(options)}`)
    const records = [...this.#subjects.values()].map(({ id, key, route, kind, failures, durationMs, calls }) =>
      [id, `key ${key}`, route?.name, kind, failures, durationMs, `${calls} calls`].join(' '),
    )
    const { breaker, parking, retry } = this.#options
    const app = JSON.stringify({ breaker, parking, retry, concurrency: this.#concurrency, poll: this.#maxPollRecords })
    return [...this.broken.slice(0, 10), app, ...routes, ...records, ...this.#trace.slice(-40)].join('\n')
  }

  /** Runs with failures, and then as many without as it takes. */
  async live(): Promise<void> {
    await this.#begin()
    const lives = this.#int(2, 8)
    for (let life = 0; life < lives && this.broken.length === 0; life++) {
      if (this.#chance(0.3)) await this.#produce(this.#int(1, 10))
      await this.#run(this.#chance(0.2) ? [this.#chaoticPlan(), this.#chaoticPlan()] : [this.#chaoticPlan()])
      await this.clock.advance(this.#pick([0, 100, 5_000, 100_000]))
      if (this.#chance(0.2)) this.#skewMs = this.#int(-HOUR_MS, HOUR_MS)
    }
    this.#isCalm = true
    await this.clock.advance(CLAIM_TTL_MS)
    for (let life = 0; life < 80 && this.broken.length === 0; life++) {
      await this.#run([{ budgetMs: 60_000, stopWhenEmpty: true, lost: 0, lostLetters: 0 }])
      if (this.#isOver()) break
      await this.clock.advance(life < 4 ? 60_000 : 2 * HOUR_MS)
    }
    this.#checkEnd()
  }

  /** For a spy on the lanes of the present runs. */
  onLanes(lanes: Lanes): void {
    this.#lanes.add(lanes)
  }

  #chaoticPlan(): LifePlan {
    return {
      budgetMs: this.#pick([500, 2_000, 10_000, 30_000]),
      stopWhenEmpty: this.#chance(0.5),
      lost: this.#pick([0, 0, 0.05, 0.2]),
      lostLetters: this.#pick([0, 0, 0.3, 0.9]),
      ...(this.#chance(0.3) ? { diesAt: this.#int(1, 60) } : {}),
      ...(this.#chance(0.05) ? { maxMetadata: 12 } : {}),
    }
  }

  async #begin(): Promise<void> {
    for (let number = 0, topics = this.#int(1, 2); number < topics; number++) {
      const topic = `t${number}`
      await this.#broker.createTopic({ topic, partitions: this.#int(1, 3), retentionMs: null })
      const routes = this.#int(1, 3)
      for (let route = 0; route < routes; route++) this.#routes.push(this.#newRoute(topic, `r${route}`))
    }
    await this.#produce(this.#int(5, 60))
  }

  #newRoute(topic: string, header: string): RouteSpec {
    const ordering = this.#pick(['partition', 'key', 'key', 'none'] as const)
    const isOnce = this.#chance(0.2)
    const maxAttempts = isOnce ? 1 : this.#int(1, 4)
    const initialMs = this.#pick([0, 50, 1_000, 20_000])
    const topicDelaysMs =
      ordering === 'none' && !isOnce && this.#chance(0.5) ? [2_000, 60_000].slice(this.#int(0, 1)) : []
    const options: RouteOptions = {
      name: `${topic} ${header}`,
      ordering,
      ...(this.#chance(0.5) ? { concurrency: this.#int(1, 4) } : {}),
      ...(isOnce ? { delivery: 'at-most-once' } : {}),
      retry: isOnce ? {} : { maxAttempts, initialMs, maxMs: 4 * initialMs, topicDelaysMs },
    }
    return { name: `${topic} ${header}`, topic, options, stages: topicDelaysMs.length, maxAttempts }
  }

  async #produce(count: number): Promise<void> {
    const topics = await this.#broker.topics()
    const sources = topics.filter(({ topic }) => /^t\d$/.test(topic))
    for (let record = 0; record < count; record++) {
      const { topic, partitions } = this.#pick(sources)
      const partition = this.#int(0, partitions - 1)
      const routes = this.#routes.filter((route) => route.topic === topic)
      const route = this.#chance(0.05) ? undefined : this.#pick(routes)
      const key = this.#chance(0.15) ? null : `k${this.#int(0, 3)}`
      const header = route === undefined ? 'nobody' : (route.name.split(' ')[1] ?? '')
      const [stored] = await this.#broker.produce([
        {
          topic,
          partition,
          key: key === null ? null : bytesOf(key),
          value: bytesOf('value'),
          headers: [{ key: 'r', value: bytesOf(header) }],
        },
      ])
      if (stored === undefined || stored instanceof BrokerError) throw new Error('A record was not stored.')
      const { offset } = stored
      const id = idOf({ topic, partition, offset })
      const kind = this.#pick<Kind>([
        'ok',
        'ok',
        'ok',
        'ok',
        'fails',
        'fails',
        'never',
        'later',
        'rejects',
        'skips',
        'stops',
      ])
      this.#subjects.set(id, {
        id,
        topic,
        partition,
        offset,
        key,
        route,
        kind,
        failures: this.#int(1, 3),
        durationMs: this.#chance(0.4) ? undefined : this.#pick([0, 10, 100, 700, 3_000]),
        copies: [],
        calls: 0,
        wasCovered: false,
        wasDouble: false,
        isHandled: false,
        isSkipped: false,
        letter: undefined,
      })
    }
  }

  /** Runs side by side, each of an instance of its own; those that die are over before they are done. */
  async #run(plans: readonly LifePlan[]): Promise<void> {
    this.#lanes.clear()
    const startedAt = this.clock.monotonic()
    const runs = plans.map((plan, index) => this.#start(plan, `instance-${index}`, plans.length > 1))
    const isOver = ({ life, report, error }: Started): boolean =>
      life.chaos.isDead || report !== undefined || error !== undefined
    for (let step = 0; !runs.every(isOver); step++) {
      await this.clock.advance(step < 2 ? step : 500)
      const late = runs.find((run) => !isOver(run) && this.clock.monotonic() - startedAt > run.plan.budgetMs + 1_000)
      if (late !== undefined) return this.#breaks(`P4: run ${late.life.number} does not end`)
    }
    for (const { life, plan, report, error } of runs) {
      if (error !== undefined) this.#breaks(`run ${life.number} crashed: ${String((error as Error).stack)}`)
      if (report !== undefined && !life.chaos.isDead) this.#checkReport(life, plan, report)
    }
    if (runs.some(({ life }) => life.chaos.isDead)) await this.clock.advance(CLAIM_TTL_MS + 1)
  }

  #start(plan: LifePlan, groupInstanceId: string, hasRival: boolean): Started {
    const { lost, diesAt } = plan
    const random = this.#random
    const chaos = new Chaos({ random, ...(diesAt === undefined ? {} : { diesAt }) })
    const app = this.#app(() => life)
    const life: Life = {
      number: this.#lives++,
      chaos,
      concurrency: this.#concurrency ?? Math.max(4, ...app.routes.map(({ options }) => options.concurrency ?? 0)),
      found: new Map(this.#durable),
      active: new Set(),
      attempts: new Map(),
      polled: [],
      notBefore: new Map(),
      timers: new Set(),
      handled: 0,
      skipped: 0,
      puts: 0,
      hasRival,
    }
    const consumer = createConsumer(app, {
      broker: this.#unreliable(this.#watched(life, plan), chaos, lost),
      deadLetters: this.#store(life, plan),
      groupInstanceId,
      clock: this.#clockOf(life),
      random,
      maxPollRecords: this.#maxPollRecords,
      maxPollWaitMs: 1_000,
      claimTtlMs: CLAIM_TTL_MS,
      sessionTimeoutMs: this.#pick([10_000, 120_000]),
      commitIntervalMs: 500,
      ...(this.#concurrency === undefined ? {} : { concurrency: this.#concurrency }),
    })
    const options: RunOptions = {
      runId: `run-${life.number}`,
      budget: { runMs: plan.budgetMs },
      stopWhenEmpty: plan.stopWhenEmpty,
    }
    const started: Started = { life, plan }
    void consumer.run(options).then(
      (report) => (started.report = report),
      (error: unknown) => (started.error = error),
    )
    return started
  }

  #app(lifeOf: () => Life): App {
    const router = createRouter()
    for (const route of this.#routes) {
      const header = route.name.split(' ')[1] ?? ''
      router.on(
        { topic: route.topic, headers: { r: header } },
        (record, context) => this.#handle(lifeOf(), route, record, context),
        route.options,
      )
    }
    return defineApp({ ...this.#options, router })
  }

  #clockOf(life: Life): Clock {
    return {
      now: () => this.clock.now() + this.#skewMs,
      monotonic: () => this.clock.monotonic(),
      after: (delayMs, fire) => {
        const timer = {}
        life.timers.add(timer)
        const cancel = this.clock.after(delayMs, () => {
          life.timers.delete(timer)
          fire()
        })
        return () => {
          life.timers.delete(timer)
          cancel()
        }
      },
    }
  }

  #handle(life: Life, route: RouteSpec, record: ConsumerRecord, context: HandlerContext): unknown {
    if (life.chaos.isDead) return new Promise(() => undefined)
    const subject = this.#subjects.get(idOf(record))
    if (subject === undefined) return this.#breaks(`a handler got ${idOf(record)}, which nobody produced`)
    this.#checkCall(life, route, subject, context.attempt)
    this.#trace.push(
      `${this.clock.monotonic()} run ${life.number} call ${subject.id} attempt ${context.attempt} ${route.name}`,
    )
    subject.calls += 1
    life.attempts.set(subject.id, context.attempt)
    life.active.add(subject)
    const settle = (): void => {
      life.active.delete(subject)
      this.#outcome(life, subject)
    }
    if (subject.durationMs === undefined) return settle()
    const { durationMs } = subject
    return new Promise<void>((resolve, reject) => {
      const cancel = this.clock.after(durationMs, () => {
        if (life.chaos.isDead) return
        try {
          settle()
          resolve()
        } catch (error) {
          reject(error)
        }
      })
      context.signal.addEventListener('abort', () => {
        cancel()
        life.active.delete(subject)
        reject(new Error('aborted'))
      })
    })
  }

  #outcome(life: Life, subject: Subject): void {
    const { kind, failures, calls, id } = subject
    if (kind === 'rejects') throw new DeadLetterError('never')
    if (kind === 'skips') {
      subject.isSkipped = true
      life.skipped += 1
      throw new SkipError('not needed')
    }
    if (kind === 'stops' && !this.#isCalm) throw new StopError('not now')
    if (kind === 'never' || ((kind === 'fails' || kind === 'later') && calls <= failures)) {
      if (kind !== 'later') throw new Error('not yet')
      const delayMs = this.#pick([10, 1_000, 30_000])
      life.notBefore.set(id, this.clock.monotonic() + delayMs)
      throw new RetryAfterError(delayMs)
    }
    subject.isHandled = true
    life.handled += 1
  }

  /** P2, P3 and P6, when a handler is called. */
  #checkCall(life: Life, route: RouteSpec, subject: Subject, attempt: number): void {
    const { id, topic, partition, offset, key } = subject
    const what = `run ${life.number}: ${id} (${route.name}, attempt ${attempt})`
    if (subject.route !== route) this.#breaks(`${what} came to another route than ${subject.route?.name}`)
    if (life.active.size >= life.concurrency) this.#breaks(`P6: ${what} is one more than ${life.concurrency}`)
    const beside = [...life.active].filter((other) => other.route === route)
    const most = route.options.concurrency ?? Number.POSITIVE_INFINITY
    if (beside.length >= most) this.#breaks(`P6: ${what} is one more than ${most} of its route`)
    // A run that died between storing a copy and committing leaves both, and each is handled.
    const isDouble = subject.copies.length > 0
    if (life.active.has(subject) && !isDouble) this.#breaks(`P2: ${what} is being handled already`)
    const isOnce = route.options.delivery === 'at-most-once'
    if (isOnce && subject.calls > 0 && !this.#hasForgotten) this.#breaks(`P1: ${what} is handled more than once`)
    if (isOnce && !this.#isCovered(subject)) this.#breaks(`P1: ${what} is handled before it is committed`)
    // Until it hears that a partition moved, a run goes on with what it has.
    if (life.hasRival) return
    const places = [subject, ...subject.copies].filter((place) => !this.#isCovered(place))
    if (!isOnce && places.length === 0) this.#breaks(`P3: ${what} is settled by a commit`)
    const [place, ...others] = places
    if (others.length > 0) subject.wasDouble = true
    if (place !== undefined && !subject.wasDouble) this.#checkAttempt(life, subject, place, attempt, what)
    if ((life.notBefore.get(id) ?? 0) > this.clock.monotonic()) this.#breaks(`P3: ${what} comes too soon`)
    const limit = route.maxAttempts * (route.stages + 1)
    if (attempt > limit) this.#breaks(`P3: ${what} is more than ${limit} attempts`)
    if (isDouble) return
    for (const other of this.#subjects.values()) {
      if (other === subject || other.topic !== topic || other.partition !== partition) continue
      const isPartition = (one: Subject): boolean => (one.route?.options.ordering ?? 'partition') === 'partition'
      const isOneKey = (one: Subject): boolean =>
        one.route?.options.ordering === 'key' && one.key !== null && one.key === key
      const mustWait = isPartition(subject) || isPartition(other) || (isOneKey(subject) && isOneKey(other))
      if (!mustWait) continue
      if (life.active.has(other) && other.copies.length === 0) this.#breaks(`P2: ${what} beside ${other.id}`)
      if (other.offset < offset && !this.#isSettled(other)) this.#breaks(`P2: ${what} before ${other.id}`)
    }
  }

  #checkAttempt(life: Life, { id }: Subject, place: Place | Copy, attempt: number, what: string): void {
    const known = [this.#durable, life.found].map((all) => all.get(partitionOf(place))?.open.get(place.offset))
    const copied = 'attempts' in place ? place.attempts : 0
    const before = Math.max(life.attempts.get(id) ?? 0, ...known.map((one) => one?.attempts ?? 0), copied)
    if (attempt !== before + 1) this.#breaks(`P3: ${what} follows attempt ${before}`)
    const dueAtMs = Math.max('dueAtMs' in place ? place.dueAtMs : 0, ...known.map((one) => (one?.dueAtMs ?? 0) - 1_000))
    const now = this.clock.now() + this.#skewMs
    if (now < dueAtMs) this.#breaks(`P3: ${what} comes ${dueAtMs - now} ms too soon`)
  }

  /** Whether the newest commit says that a record is settled. */
  #isCovered(place: Place): boolean {
    return isCoveredBy(this.#durable, place)
  }

  #isSettled(subject: Subject): boolean {
    return (
      subject.isHandled ||
      subject.isSkipped ||
      subject.letter !== undefined ||
      subject.copies.length > 0 ||
      (subject.route?.options.delivery === 'at-most-once' && subject.wasCovered)
    )
  }

  /** The broker as it is, with what is done to it written down. */
  #watched(life: Life, { maxMetadata }: LifePlan): Broker {
    const broker = this.#broker
    return withCalls(broker, {
      poll: async (request, call) => {
        const answer = await broker.poll(request, call)
        life.polled.push(...answer.records)
        return answer
      },
      commit: async (group, offsets, options, call) => {
        if (offsets === 'polled') throw new Error('A run names its offsets.')
        if (maxMetadata !== undefined && offsets.some(({ metadata }) => (metadata?.length ?? 0) > maxMetadata)) {
          this.#hasForgotten = true
          throw new BrokerError('OFFSET_METADATA_TOO_LARGE', 'too large')
        }
        await broker.commit(group, offsets, options, call)
        for (const offset of offsets) this.#committed(life, offset)
        this.#checkLanes(life)
      },
      produce: async (records, options, call) => {
        const results = await broker.produce(records, options, call)
        for (const [index, record] of records.entries()) {
          const result = results[index]
          const back = returned({ ...record, partition: 0, offset: 0, timestampMs: 0, headers: record.headers ?? [] })
          const subject = back === undefined ? undefined : this.#subjects.get(idOf(back.record))
          if (back === undefined || subject === undefined || result === undefined || result instanceof BrokerError) {
            this.#breaks(`run ${life.number} produced something else`)
            continue
          }
          const { topic, partition, offset } = result
          if (this.#copies.has(idOf(result))) continue
          const stage = Number(topic.slice(-1))
          const copy = { topic, partition, offset, stage, attempts: back.attempts, dueAtMs: back.dueAtMs }
          subject.copies.push(copy)
          this.#copies.set(idOf(copy), { subject, copy })
        }
        return results
      },
    })
  }

  #unreliable(broker: Broker, chaos: Chaos, lost: number): Broker {
    const random = this.#random
    const wrap =
      <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        await chaos.step()
        if (random() < lost) throw new BrokerError('NETWORK', 'lost')
        const answer = await call(...args)
        await chaos.step()
        if (random() < lost) throw new BrokerError('NETWORK', 'lost')
        return answer
      }
    return withCalls(broker, {
      poll: wrap(broker.poll.bind(broker)),
      commit: wrap(broker.commit.bind(broker)),
      committed: wrap(broker.committed.bind(broker)),
      claim: wrap(broker.claim.bind(broker)),
      release: wrap(broker.release.bind(broker)),
      produce: wrap(broker.produce.bind(broker)),
      topics: wrap(broker.topics.bind(broker)),
      createTopic: wrap(broker.createTopic.bind(broker)),
    })
  }

  #store(life: Life, { lostLetters }: LifePlan): DeadLetterStore {
    const store = this.#letters
    const fails = (): boolean => this.#random() < lostLetters
    const lost = (): Error =>
      this.#chance(0.5)
        ? new DeadLetterStoreError('NETWORK', 'lost')
        : new DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', 'too large', { limit: 'maxLetterBytes' })
    return {
      ...store,
      put: async (letter, call) => {
        await life.chaos.step()
        if (fails()) throw lost()
        await store.put(letter, call)
        life.puts += 1
        const subject = this.#subjects.get(idOf(letter.record))
        if (subject === undefined || letter.id !== deadLetterId(GROUP, subject))
          this.#breaks(`a letter of ${letter.id}`)
        else {
          if (letter.reason === 'crashed') this.#checkCrashed(life, subject)
          subject.letter ??= letter
        }
        await life.chaos.step()
        if (fails()) throw lost()
      },
    }
  }

  /** P7: what is set aside for a death was named by a run before, and some run has died. */
  #checkCrashed(life: Life, { id, copies, ...place }: Subject): void {
    const isNamed = [place, ...copies].some((one) => (this.#named.get(idOf(one)) ?? life.number) < life.number)
    if (!isNamed) this.#breaks(`P7: run ${life.number}: ${id} is set aside, and nobody had named it`)
  }

  /** P1, when a commit is durable. */
  #committed(life: Life, { topic, partition, offset, metadata = null }: OffsetCommit): void {
    const progress = decodeProgress(offset, metadata)
    if (metadata !== null && progress === undefined) this.#breaks(`P1: run ${life.number}: no progress in ${metadata}`)
    const durable = {
      offset,
      settledTo: progress?.settledTo ?? offset,
      open: new Map(progress?.open.map((one) => [one.offset, one])),
    }
    this.#durable.set(partitionOf({ topic, partition }), durable)
    for (const suspect of progress?.suspects ?? []) {
      if (suspect.isCalled) this.#named.set(idOf({ topic, partition, offset: suspect.offset }), life.number)
    }
    this.#trace.push(
      `${this.clock.monotonic()} run ${life.number} commit ${topic}[${partition}] ${offset} to ${durable.settledTo} open ${JSON.stringify([...durable.open.values()])}`,
    )
    const where = `P1: run ${life.number}: a commit says`
    for (const subject of this.#subjects.values()) {
      if (subject.topic !== topic || subject.partition !== partition || !this.#isCovered(subject)) continue
      subject.wasCovered = true
      if (!this.#isSettled(subject)) this.#breaks(`${where} that ${subject.id} is settled`)
    }
    for (const { subject, copy } of this.#copies.values()) {
      if (copy.topic !== topic || copy.partition !== partition || !this.#isCovered(copy)) continue
      const isFurther = subject.copies.some(({ stage }) => stage > copy.stage)
      const isSettled = subject.isHandled || subject.isSkipped || subject.letter !== undefined || isFurther
      if (!isSettled) this.#breaks(`${where} that the copy of ${subject.id} in ${idOf(copy)} is settled`)
    }
  }

  /** P5: what the lanes count is what is there. */
  #checkLanes({ number }: Life): void {
    for (const lanes of this.#lanes) {
      let waiting = 0
      let parked = 0
      for (const lane of lanes.all) {
        if (lane.isGone) continue
        waiting += lane.waiting.length
        for (const { isParked, isLeft } of lane.entries) {
          if (isParked) parked += 1
          else if (!isLeft) waiting += 1
        }
      }
      if (waiting !== lanes.waiting) this.#breaks(`P5: run ${number}: ${lanes.waiting} wait, ${waiting} are there`)
      if (parked !== lanes.parked) this.#breaks(`P5: run ${number}: ${lanes.parked} parked, ${parked} are there`)
      if (lanes.waitingBytes < 0 || lanes.parkedBytes < 0) this.#breaks(`P5: run ${number}: bytes below nothing`)
    }
  }

  /** P4 and P5, when a run is over. */
  #checkReport(life: Life, plan: LifePlan, report: RunReport): void {
    this.#trace.push(`${JSON.stringify(report)} of ${JSON.stringify(plan)}`)
    const what = `run ${life.number} (${report.ended})`
    this.#checkLanes(life)
    if (report.durationMs > plan.budgetMs) this.#breaks(`P4: ${what} took ${report.durationMs} ms`)
    if (life.timers.size > 0) this.#breaks(`P4: ${what} left ${life.timers.size} timers`)
    const { polled, handled, skipped, unfinished, remembered } = report
    const letters = Object.values(report.deadLettered).reduce((sum, count) => sum + count, 0)
    if (unfinished < 0) this.#breaks(`P5: ${what}: ${unfinished} unfinished`)
    if (polled > life.polled.length) this.#breaks(`P5: ${what}: ${polled} polled of ${life.polled.length}`)
    const isSame = life.hasRival
      ? handled <= life.handled && skipped <= life.skipped
      : handled === life.handled && skipped === life.skipped
    if (!isSame) this.#breaks(`P5: ${what}: ${handled} + ${skipped} handled of ${life.handled} + ${life.skipped}`)
    if (letters > life.puts) this.#breaks(`P5: ${what}: ${letters} letters of ${life.puts}`)
    if (plan.lost > 0 || plan.maxMetadata !== undefined || report.uncommitted.length > 0) return
    if (plan.lostLetters > 0 || life.hasRival) return
    const again = life.polled.filter((place) => !this.#isCovered(place)).length
    const before = life.polled.filter((place) => isCoveredBy(life.found, place)).length
    // Behind what holds a partition up nobody asks whether a record is settled already.
    if (again + before !== unfinished + remembered) {
      this.#breaks(
        `P5: ${what}: ${unfinished} unfinished, ${remembered} remembered; ${again} come again, ${before} are old`,
      )
    }
  }

  #isOver(): boolean {
    for (const subject of this.#subjects.values()) if (!this.#isCovered(subject)) return false
    for (const { copy } of this.#copies.values()) if (!this.#isCovered(copy)) return false
    return true
  }

  /** Every record is accounted for, in the way that was promised. */
  #checkEnd(): void {
    if (this.broken.length > 0) return
    if (!this.#isOver()) {
      const open = [...this.#subjects.values()].filter((subject) => !this.#isCovered(subject)).map(({ id }) => id)
      this.#breaks(`P4: never settled: ${open.join(', ')}`)
    }
    for (const subject of this.#subjects.values()) {
      const problem = this.#endProblem(subject)
      if (problem !== undefined) this.#breaks(`end: ${subject.id}: ${problem}`)
    }
  }

  #endProblem({ route, kind, failures, durationMs, isHandled, isSkipped, letter, calls }: Subject): string | undefined {
    if (route === undefined) return letter?.reason === 'unroutable' ? undefined : 'is no dead letter'
    if (route.options.delivery === 'at-most-once') return undefined
    const mayTimeOut = durationMs !== undefined && durationMs > 0
    if (letter?.reason === 'timeout' && mayTimeOut) return undefined
    // Runs die here for no fault of a record, and one that was named then may be set aside.
    if (letter?.reason === 'crashed') return undefined
    if (kind === 'ok' || kind === 'stops') {
      if (letter !== undefined && !mayTimeOut) return `is a dead letter: ${letter.reason}`
      return isHandled || letter !== undefined ? undefined : 'was never handled'
    }
    if (kind === 'skips') return isSkipped || letter !== undefined ? undefined : 'was not skipped'
    if (kind === 'rejects') return letter === undefined ? 'is no dead letter' : undefined
    if (kind === 'never') return letter === undefined ? `is no dead letter after ${calls} calls` : undefined
    if (isHandled || letter?.reason === 'exhausted') {
      const isSure = !mayTimeOut && failures < route.maxAttempts && this.#options.parking?.whenFull === 'wait'
      return isSure && letter !== undefined && this.#keepsProgress() ? 'is a dead letter too soon' : undefined
    }
    return 'was never handled'
  }

  #keepsProgress(): boolean {
    return this.#routes.some(({ options }) => options.ordering !== 'partition')
  }

  #breaks(what: string): undefined {
    this.broken.push(what)
    return undefined
  }

  #chance(share: number): boolean {
    return this.#random() < share
  }

  #int(min: number, max: number): number {
    return min + Math.floor(this.#random() * (max - min + 1))
  }

  #pick<T>(from: readonly T[]): T {
    // An index below the length; the lists are never empty.
    return from[this.#int(0, from.length - 1)] as T
  }
}

function idOf({ topic, partition, offset }: Place): string {
  return `${topic}[${partition}]@${offset}`
}

function partitionOf({ topic, partition }: Omit<Place, 'offset'>): string {
  return `${topic}[${partition}]`
}

function isCoveredBy(durable: ReadonlyMap<string, Durable>, place: Place): boolean {
  const known = durable.get(partitionOf(place))
  if (known === undefined) return false
  return place.offset < known.offset || (place.offset < known.settledTo && !known.open.has(place.offset))
}
