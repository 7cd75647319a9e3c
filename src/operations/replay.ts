/**
 * Replays ranges of a topic into a group: page after page into its redrive topic, which no other group reads, each durable
 * before it is remembered as done. Whoever is killed in between does the page again, under the same idempotency key where the
 * broker knows keys.
 */
import { appendOnce } from '../append-once.ts'
import type { FetchLimits } from '../broker.ts'
import { sleep } from '../clock.ts'
import { runCauseOf } from '../consumer/cause.ts'
import { KedgeError } from '../errors.ts'
import { fetchFrom } from '../fetch-from.ts'
import { GroupLock, isLockLost } from '../group-lock.ts'
import type { BackfillProgress, BackfillReport } from '../operations.ts'
import { randomId } from '../random.ts'
import type { ConsumerRecord, Offset } from '../record.ts'
import { RedriveCalls } from '../redrive/calls.ts'
import { Pace } from '../redrive/pace.ts'
import { RedriveTopics } from '../redrive/topics.ts'
import { redriveTopicName, returning } from '../return-topic.ts'
import type { OperationsSettings } from './frame.ts'
import type { BackfillOrder } from './state.ts'
import { OperationsTopic } from './topic.ts'

/** How a replay is watched. */
export interface ReplayWatch {
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: BackfillProgress) => void) | undefined
}

/** A page is a tenth of a second's worth, and no more than this. */
const MAX_PAGE = 500
const limits: Omit<FetchLimits, 'maxRecords'> = { maxWaitMs: 1_000, maxBytes: 4_194_304 }
/** How often a replay asks whether it was stopped, milliseconds. */
const STOP_CHECK_MS = 1_000

/** Replays what an order says and is not done yet. Failures are in the report. @throws {BrokerError} CLAIM_HELD */
export async function replay(
  settings: OperationsSettings,
  order: BackfillOrder,
  watch: ReplayWatch,
): Promise<BackfillReport> {
  const { broker, groupId, clock, claimTtlMs } = settings
  const runId = randomId()
  const instance = { groupId: `${groupId}-operations`, groupInstanceId: `backfill-${order.id}` }
  const lock = new GroupLock({
    broker,
    instance,
    task: `backfill ${order.topic} of group ${groupId}`,
    holder: 'another process that does it',
    runId,
    claimTtlMs,
    clock,
    calls: new RedriveCalls(settings),
  })
  await lock.take()
  const calls = new RedriveCalls({ ...settings, before: () => lock.keep() })
  const work = new Replay(settings, order, watch, { calls, runId, lock })
  const startedAt = clock.monotonic()
  let ended: BackfillReport['ended']
  let cause: BackfillReport['cause']
  try {
    ended = await work.run()
  } catch (error) {
    ended = isLockLost(error) ? 'lock-lost' : 'failed'
    cause = runCauseOf(error)
  } finally {
    await lock.release()
  }
  const durationMs = clock.monotonic() - startedAt
  return {
    groupId,
    id: order.id,
    topic: order.topic,
    ended,
    ...work.progress,
    ...(cause === undefined ? {} : { cause }),
    durationMs,
  }
}

interface ReplayParts {
  readonly calls: RedriveCalls
  readonly runId: string
  readonly lock: GroupLock
}

/** One replay. */
class Replay {
  readonly #settings: OperationsSettings
  readonly #order: BackfillOrder
  readonly #watch: ReplayWatch
  readonly #parts: ReplayParts
  readonly #pace: Pace
  readonly #pageSize: number
  #checkedAt: number
  #replayed = 0
  #left: number

  constructor(settings: OperationsSettings, order: BackfillOrder, watch: ReplayWatch, parts: ReplayParts) {
    this.#settings = settings
    this.#order = order
    this.#watch = watch
    this.#parts = parts
    this.#pace = new Pace(settings.clock, order.perSecond)
    this.#pageSize = Math.min(MAX_PAGE, Math.max(1, Math.floor(order.perSecond / 10)))
    this.#checkedAt = settings.clock.monotonic()
    this.#left = order.ranges.reduce((sum, { from, until }) => sum + until - from, 0)
  }

  get progress(): BackfillProgress {
    return { replayed: this.#replayed, left: this.#left }
  }

  /** Says why it ended. */
  async run(): Promise<'done' | 'stopped' | 'aborted'> {
    const { broker, groupId, app } = this.#settings
    const { topic, ranges } = this.#order
    const { calls } = this.#parts
    const name = redriveTopicName(topic, groupId) ?? ''
    const partitions = await new RedriveTopics({ broker, groupId, app, maxRedrives: 1, calls }).prepare(name, topic)
    const places = await this.#places()
    this.#left = ranges.reduce((sum, { partition, from, until }) => sum + until - (places.get(partition) ?? from), 0)
    for (const { partition, from, until } of ranges) {
      let next = places.get(partition) ?? from
      while (next < until) {
        if (!(await this.#mayGoOn())) return this.#watch.signal?.aborted === true ? 'aborted' : 'stopped'
        const records = await this.#page(partition, next, until)
        if (records.length > 0) await this.#append(name, records, partition < partitions)
        const after = records.length === 0 ? until : (records.at(-1)?.offset ?? next) + 1
        await this.#remember(partition, after)
        this.#replayed += records.length
        this.#left -= after - next
        next = after
        this.#watch.onProgress?.(this.progress)
      }
    }
    return 'done'
  }

  /** Where earlier processes have come to, by partition. What another order left there says nothing. */
  async #places(): Promise<ReadonlyMap<number, Offset>> {
    const { broker, groupId } = this.#settings
    const { id, topic, ranges } = this.#order
    const all = ranges.map(({ partition }) => ({ topic, partition }))
    const found = await this.#parts.calls.make((call) => broker.committed(`${groupId}-operations`, all, call))
    return new Map(found.filter(({ metadata }) => metadata === id).map(({ partition, offset }) => [partition, offset]))
  }

  /** The next records, none where there are none before `until`. What retention deleted meanwhile cannot be had. */
  async #page(partition: number, next: Offset, until: Offset): Promise<readonly ConsumerRecord[]> {
    const { broker, log } = this.#settings
    const { topic } = this.#order
    const { calls } = this.#parts
    const read = async (offset: Offset): Promise<readonly ConsumerRecord[]> => {
      const asked = { ...limits, maxRecords: Math.min(this.#pageSize, until - next) }
      return await calls.make((call) => fetchFrom(broker, { topic, partition, offset }, asked, call))
    }
    try {
      return (await read(next)).filter(({ offset }) => offset < until)
    } catch (error) {
      if (!(error instanceof KedgeError) || error.code !== 'OFFSET_OUT_OF_RANGE') throw error
      const [start] = await calls.make((call) => broker.offsets([{ topic, partition }], 'earliest', call))
      const offset = start?.offset ?? until
      // Above the log's end there is no range any more: the topic was made anew.
      if (offset <= next) throw error
      log?.({
        level: 'warn',
        event: 'backfill deleted by retention',
        topic,
        partition,
        offset: next,
        logStartOffset: offset,
      })
      return offset >= until ? [] : (await read(offset)).filter((record) => record.offset < until)
    }
  }

  async #append(name: string, records: readonly ConsumerRecord[], hasPartition: boolean): Promise<void> {
    const { broker, groupId } = this.#settings
    const [first, last] = [records[0], records.at(-1)]
    const back = records.map((record) => {
      const one = returning(name, { groupId, record, attempts: 0, dueAtMs: 0, redriveCount: 0 })
      return hasPartition ? { ...one, partition: record.partition } : one
    })
    const idempotencyKey = `backfill/${this.#order.id}/${first?.partition}/${first?.offset}-${last?.offset}`
    await this.#parts.calls.make((call) => appendOnce({ broker, records: back, idempotencyKey }, call))
    for (const _ of records) this.#pace.spend()
  }

  async #remember(partition: number, offset: Offset): Promise<void> {
    const { broker, groupId } = this.#settings
    const { id, topic } = this.#order
    const { calls, runId } = this.#parts
    const instance = { groupId: `${groupId}-operations`, groupInstanceId: `backfill-${id}` }
    await calls.make((call) => broker.commit(instance, [{ topic, partition, offset, metadata: id }], { runId }, call))
  }

  /** Waits until the rate allows the next page. False where it was stopped or given up. */
  async #mayGoOn(): Promise<boolean> {
    const { clock } = this.#settings
    const { signal } = this.#watch
    const { lock } = this.#parts
    for (;;) {
      if (signal?.aborted === true || !(await this.#isInForce())) return false
      const { waitMs } = this.#pace
      if (waitMs === 0) return true
      // Rejects when the signal is aborted, which the loop sees by itself.
      await sleep(clock, Math.min(waitMs, lock.renewEveryMs, STOP_CHECK_MS), signal).catch(() => undefined)
      await lock.keep()
    }
  }

  async #isInForce(): Promise<boolean> {
    const { broker, groupId, app, clock } = this.#settings
    if (clock.monotonic() - this.#checkedAt < STOP_CHECK_MS) return true
    const { state } = await OperationsTopic.open({ broker, groupId, app, calls: this.#parts.calls })
    this.#checkedAt = clock.monotonic()
    return state.backfills.some(({ id }) => id === this.#order.id)
  }
}
