/**
 * The embedded log: a `Broker` over a `LogStore`. One process, one event loop; the store is synchronous, so whatever a
 * call checks still holds when it acts on it. An answer to a write means that its transaction is durable.
 */
import type {
  Broker,
  BrokerFeatures,
  Call,
  CommitOptions,
  FetchLimits,
  GroupDescription,
  GroupInstance,
  NewTopic,
  OffsetCommit,
  OffsetSpec,
  PollRequest,
  PollResult,
  ProduceOptions,
  ProduceResult,
  RunPosition,
  TopicDescription,
} from '../broker.ts'
import { systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { abortError, BrokerError } from '../errors.ts'
import { partitionKey } from '../record.ts'
import type {
  CommittedOffset,
  ConsumerRecord,
  ProducerRecord,
  TopicPartition,
  TopicPartitionOffset,
} from '../record.ts'
import { firstAtOrAfter } from './batch.ts'
import { GroupCoordinator } from './group-coordinator.ts'
import { IdempotencyKeys } from './idempotency.ts'
import { Answer, Topics } from './partitions.ts'
import type { Partition } from './partitions.ts'
import { fingerprintOf, planProduce, ProduceBatch } from './produce.ts'
import { retentionOf } from './retention.ts'
import type { LogStore } from './store.ts'
import { checkLimits, checkNewTopic } from '../broker-validation.ts'
import { Waiters } from './waiters.ts'
import { Writer } from './writer.ts'
import type { Defer } from './writer.ts'

/** How the engine tells time and gathers writes. */
export interface EngineOptions {
  /** @default systemClock */
  readonly clock?: Clock
  /** Lets what waits in the event loop have its turn first, so that writes gather. @default queueMicrotask */
  readonly defer?: Defer
  /** How often old records are looked for, milliseconds, while the log is used. @default 60000 */
  readonly retentionCheckMs?: number
}

const features: BrokerFeatures = {
  atomicProduce: true,
  idempotencyKeys: true,
  claims: true,
  topicAdmin: true,
  autoCommit: true,
  offsetMetadata: true,
  retention: true,
}

/** A broker over a store, which it owns from now on. */
export function embeddedBroker(store: LogStore, options: EngineOptions = {}): Broker {
  return new Engine(store, options)
}

class Engine implements Broker {
  readonly features: BrokerFeatures = features
  readonly #store: LogStore
  readonly #clock: Clock
  readonly #topics: Topics
  readonly #waiters = new Waiters()
  readonly #writer: Writer
  readonly #groups: GroupCoordinator
  readonly #keys: IdempotencyKeys
  readonly #retentionCheckMs: number
  #retentionDueAt: number
  #batch: ProduceBatch | undefined
  #closed = false

  constructor(store: LogStore, options: EngineOptions) {
    this.#store = store
    this.#clock = options.clock ?? systemClock
    this.#topics = new Topics(store)
    this.#writer = new Writer(store, options.defer ?? queueMicrotask)
    this.#keys = new IdempotencyKeys(store)
    this.#retentionCheckMs = options.retentionCheckMs ?? 60_000
    this.#retentionDueAt = this.#clock.monotonic()
    this.#groups = new GroupCoordinator({
      store,
      writer: this.#writer,
      topics: this.#topics,
      waiters: this.#waiters,
      clock: this.#clock,
      isClosed: () => this.#closed,
    })
  }

  async produce(
    records: readonly ProducerRecord[],
    options: ProduceOptions = {},
    call?: Call,
  ): Promise<ProduceResult[]> {
    this.#check(call)
    this.#retain()
    const { idempotencyKey: key } = options
    if (key === undefined) {
      if (records.length === 0) return []
      const plan = planProduce(this.#topics, records, options)
      return await within(
        call,
        this.#clock,
        () => new Promise((resolve, reject) => this.#append({ ...plan, resolve, reject })),
      )
    }
    const fingerprint = fingerprintOf(records, options)
    const nowMs = this.#clock.now()
    const stored = this.#keys.begin(key, fingerprint, nowMs)
    if (stored !== undefined) return stored
    const written = new Promise<ProduceResult[]>((resolve, reject) => {
      this.#append({
        ...planProduce(this.#topics, records, options),
        remember: (store, results) => this.#keys.remember(store, key, fingerprint, results, nowMs),
        resolve,
        reject,
      })
    }).finally(() => this.#keys.end(key))
    return await within(call, this.#clock, () => written)
  }

  async fetch(from: readonly TopicPartitionOffset[], limits: FetchLimits, call?: Call): Promise<ConsumerRecord[]> {
    this.#check(call)
    checkLimits(limits)
    this.#retain()
    return await within(call, this.#clock, (signal) => this.#fetchNow(from, limits, signal))
  }

  async #fetchNow(
    from: readonly TopicPartitionOffset[],
    limits: FetchLimits,
    signal: AbortSignal | undefined,
  ): Promise<ConsumerRecord[]> {
    const wanted = new Map(from.map((entry) => [partitionKey(entry), entry]))
    const giveUpAt = this.#clock.monotonic() + limits.maxWaitMs
    for (;;) {
      const answer = new Answer(limits)
      for (const { topic, partition, offset } of wanted.values()) {
        const found = this.#topics.partition({ topic, partition })
        checkOffset(found, offset)
        answer.read(this.#store, found, offset)
      }
      const left = giveUpAt - this.#clock.monotonic()
      if (answer.records.length > 0 || left <= 0 || wanted.size === 0) return answer.records
      await this.#waiters.wait([...wanted.keys()], left, this.#clock, signal)
      if (signal?.aborted === true) throw abortError(signal)
      if (this.#closed) return []
    }
  }

  async poll(request: PollRequest, call?: Call): Promise<PollResult> {
    this.#check(call)
    this.#retain()
    return await within(call, this.#clock, (signal) => this.#groups.poll(request, signal))
  }

  async claim(group: GroupInstance, run: Pick<RunPosition, 'runId' | 'claimTtlMs'>, call?: Call): Promise<void> {
    this.#check(call)
    await within(call, this.#clock, () => this.#groups.claim(group, run))
  }

  async release(group: GroupInstance, runId: string, call?: Call): Promise<void> {
    this.#check(call)
    await within(call, this.#clock, () => this.#groups.release(group, runId))
  }

  async commit(
    group: GroupInstance,
    offsets: readonly OffsetCommit[] | 'polled',
    options: CommitOptions = {},
    call?: Call,
  ): Promise<void> {
    this.#check(call)
    await within(call, this.#clock, () => this.#groups.commit(group, offsets, options))
  }

  async committed(groupId: string, partitions?: readonly TopicPartition[], call?: Call): Promise<CommittedOffset[]> {
    this.#check(call)
    return this.#groups.committed(groupId, partitions)
  }

  async offsets(partitions: readonly TopicPartition[], at: OffsetSpec, call?: Call): Promise<TopicPartitionOffset[]> {
    this.#check(call)
    this.#retain()
    return partitions.map(({ topic, partition }) => {
      const found = this.#topics.partition({ topic, partition })
      return { topic, partition, offset: this.#offsetAt(found, at) }
    })
  }

  async topics(call?: Call): Promise<TopicDescription[]> {
    this.#check(call)
    return this.#topics.all().map((topic) => topic.description)
  }

  async createTopic(topic: NewTopic, call?: Call): Promise<TopicDescription> {
    this.#check(call)
    const description = checkNewTopic(topic)
    const name = description.topic
    const refuseExisting = (): void => {
      if (!this.#topics.has(name)) return
      throw new BrokerError('TOPIC_ALREADY_EXISTS', `Cannot create topic ${name}: it exists.`)
    }
    refuseExisting()
    // Whatever waits is written first; a second creation of the same topic that waits among it is found by the check.
    this.#writer.flush()
    refuseExisting()
    let ids: number[] = []
    const created = this.#writer.run(
      (store) => {
        ids = store.createTopic(description)
      },
      () => {
        const start = { logStartOffset: 0, logEndOffset: 0, bytes: 0 }
        this.#topics.add(
          description,
          ids.map((id, partition) => ({ id, topic: name, partition, ...start })),
        )
      },
    )
    this.#writer.flush()
    await created
    return description
  }

  async deleteTopic(topic: string, call?: Call): Promise<void> {
    this.#check(call)
    this.#topics.get(topic)
    this.#writer.flush()
    const { partitions } = this.#topics.get(topic)
    const deleted = this.#writer.run(
      (store) => store.deleteTopic(topic),
      () => this.#topics.delete(topic),
    )
    this.#writer.flush()
    await deleted
    await this.#groups.topicDeleted(topic)
    for (const partition of partitions) this.#waiters.wake(partitionKey(partition))
  }

  async groups(call?: Call): Promise<GroupDescription[]> {
    this.#check(call)
    return await this.#groups.groups()
  }

  async leave(group: GroupInstance, call?: Call): Promise<void> {
    this.#check(call)
    await within(call, this.#clock, () => this.#groups.leave(group))
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#writer.flush()
    this.#closed = true
    this.#waiters.wakeAll()
    // The woken calls answer before the store goes.
    await Promise.resolve()
    this.#store.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #check(call: Call | undefined): void {
    if (call?.signal?.aborted === true) throw abortError(call.signal)
    if (this.#closed) throw new BrokerError('CLOSED', 'The log is closed: open it again.')
  }

  /** Joins a produce to the others of this turn. */
  #append(produce: Parameters<ProduceBatch['add']>[0]): void {
    const open = this.#batch
    if (open !== undefined) {
      open.add(produce)
      return
    }
    const batch = new ProduceBatch()
    this.#batch = batch
    batch.add(produce)
    const closeBatch = (): void => {
      if (this.#batch === batch) this.#batch = undefined
    }
    this.#writer.add({
      write: (store) => {
        closeBatch()
        batch.write(store, this.#clock.now())
      },
      done: () => batch.done(this.#waiters),
      fail: (error) => {
        closeBatch()
        batch.fail(error)
      },
    })
  }

  #offsetAt(partition: Partition, at: OffsetSpec): number {
    if (at === 'earliest') return partition.logStartOffset
    if (at === 'latest') return partition.logEndOffset
    const batch = this.#store.batchAtTime(partition.id, at)
    const offset = batch === undefined ? undefined : firstAtOrAfter(batch, at)
    if (offset !== undefined) return Math.max(offset, partition.logStartOffset)
    return partition.logEndOffset
  }

  /** Deletes what retention no longer keeps, now and then. */
  #retain(): void {
    const now = this.#clock.monotonic()
    if (now < this.#retentionDueAt) return
    this.#retentionDueAt = now + this.#retentionCheckMs
    const nowMs = this.#clock.now()
    const expired = this.#topics.all().flatMap((topic) => retentionOf(this.#store, topic, nowMs))
    this.#writer.add({
      write: (store) => {
        store.pruneIdempotencyKeys(nowMs)
        for (const { partition, logStartOffset } of expired) {
          store.truncate(partition.id, logStartOffset, partition.logEndOffset)
        }
      },
      done: () => {
        for (const { partition, logStartOffset, bytes } of expired) {
          partition.logStartOffset = logStartOffset
          partition.bytes -= bytes
        }
      },
      // The writer answers every later write with the failure; what was to be deleted is still there.
      fail: () => {},
    })
  }
}

function checkOffset(partition: Partition, offset: number): void {
  if (offset >= partition.logStartOffset && offset <= partition.logEndOffset && Number.isSafeInteger(offset)) return
  throw new BrokerError(
    'OFFSET_OUT_OF_RANGE',
    `Cannot fetch ${partition.topic}[${partition.partition}] at offset ${offset}: the log has offsets ${partition.logStartOffset} to ${partition.logEndOffset}.`,
  )
}

/**
 * Gives a call up when its signal is aborted or its time is over. What writes goes on to its end; what waits is told by
 * the signal it is handed.
 */
function within<T>(call: Call | undefined, clock: Clock, work: (signal?: AbortSignal) => Promise<T>): Promise<T> {
  const { signal, timeoutMs } = call ?? {}
  if (signal === undefined && timeoutMs === undefined) return work()
  const controller = new AbortController()
  return new Promise((resolve, reject) => {
    const giveUp = (reason: Error): void => {
      reject(reason)
      controller.abort(reason)
    }
    const onAbort = (): void => {
      if (signal !== undefined) giveUp(abortError(signal))
    }
    const cancel =
      timeoutMs === undefined
        ? undefined
        : clock.after(timeoutMs, () => {
            giveUp(new BrokerError('TIMEOUT', `The log did not answer within ${timeoutMs} ms; the outcome is unknown.`))
          })
    signal?.addEventListener('abort', onAbort, { once: true })
    work(controller.signal)
      .then(resolve, reject)
      .finally(() => {
        cancel?.()
        signal?.removeEventListener('abort', onAbort)
      })
  })
}
