/** The topics through which letters come back: which letter goes where, whether it may, and how it gets there. */
import type { App } from '../app.ts'
import { appendOnce } from '../append-once.ts'
import type { Broker, GroupInstance, TopicDescription } from '../broker.ts'
import { returnTopicLike } from '../consumer/return-topics.ts'
import type { DeadLetter } from '../dead-letter.ts'
import { digestOf } from '../digest.ts'
import { KedgeError } from '../errors.ts'
import type { ConsumerRecord, TopicPartition } from '../record.ts'
import { redriveTopicName, returning } from '../return-topic.ts'
import type { RedriveCalls } from './calls.ts'

/** What handing letters back needs. */
export interface RedriveTopicsScope {
  readonly broker: Broker
  readonly groupId: string
  readonly app: App | undefined
  readonly maxRedrives: number
  readonly calls: RedriveCalls
}

/** Whether a letter may come back, or why not. */
export type Verdict = 'redrivable' | 'quarantined' | 'unread'

/** Of an idempotency key. */
const MAX_KEY_LENGTH = 255

/** The redrive topics of one group. */
export class RedriveTopics {
  readonly #scope: RedriveTopicsScope
  #existing: ReadonlyMap<string, TopicDescription> | undefined
  /** Topics that are ready, with their number of partitions. */
  readonly #ready = new Map<string, number>()

  constructor(scope: RedriveTopicsScope) {
    this.#scope = scope
  }

  /** Whether a letter may come back. Asks the broker for its topics once, and not at all where there is an app. */
  async verdictOf({ record, redriveCount }: Pick<DeadLetter, 'record' | 'redriveCount'>): Promise<Verdict> {
    if (!(await this.isRead(record.topic))) return 'unread'
    return redriveCount >= this.#scope.maxRedrives ? 'quarantined' : 'redrivable'
  }

  /**
   * Makes a letter's record durable in its redrive topic. The same letter goes in once where the broker knows keys; with
   * another value it is another record. Rejects as the broker does.
   */
  async append(letter: DeadLetter, record: ConsumerRecord = letter.record): Promise<void> {
    const { broker, groupId, calls } = this.#scope
    const name = redriveTopicName(record.topic, groupId) ?? ''
    const partitions = await this.prepare(name, record.topic)
    const { attempts } = letter
    const redriveCount = letter.redriveCount + 1
    const back = returning(name, { groupId, record, attempts, dueAtMs: 0, redriveCount })
    // Into the partition that it came from, so that records keep their order whether or not they have keys.
    const placed = record.partition < partitions ? { ...back, partition: record.partition } : back
    // The time of the failure tells a letter from a later one of the same name: a group that was set back and failed again
    // has one, and under the old key it would be taken for stored.
    const edited = record === letter.record ? '' : await editOf(record)
    const place = `redrive/${letter.id}/${redriveCount}/${letter.failedAtMs}${edited}`
    const idempotencyKey = place.length <= MAX_KEY_LENGTH ? place : await digestOf(place)
    await calls.make((call) => appendOnce({ broker, records: [placed], idempotencyKey }, call))
  }

  /** Whether the group reads what comes back to a topic. Asks the broker as `verdictOf` does. */
  async isRead(source: string): Promise<boolean> {
    const { app, groupId } = this.#scope
    const name = redriveTopicName(source, groupId)
    if (name === undefined || name === source) return false
    if (app !== undefined) return app.returnTopics.get(name)?.source === source
    // What somebody put into a topic of this group is none of its records: nobody reads a redrive topic of a redrive topic.
    if (source.endsWith(`.${groupId}-redrive`)) return false
    return (await this.#topics()).has(name)
  }

  async #topics(): Promise<ReadonlyMap<string, TopicDescription>> {
    const { broker, calls } = this.#scope
    const all =
      this.#existing ?? new Map((await calls.make((call) => broker.topics(call))).map((one) => [one.topic, one]))
    this.#existing = all
    return all
  }

  /** Makes the topic where it is missing, and sees to it that the group begins at its start. Gives its partitions. */
  async prepare(name: string, source: string): Promise<number> {
    const known = this.#ready.get(name)
    if (known !== undefined) return known
    const { app } = this.#scope
    const partitions = (await this.#topics()).get(name)?.partitions ?? (await this.#make(name, source))
    if (app !== undefined && app.autoOffsetReset !== 'earliest') await this.#commitStart(name, partitions)
    this.#ready.set(name, partitions)
    return partitions
  }

  async #make(name: string, source: string): Promise<number> {
    const { broker, calls } = this.#scope
    const topic = await calls.make((call) => returnTopicLike(broker, { source, name, longestMs: 0 }, call))
    try {
      return (await calls.make((call) => broker.createTopic(topic, call))).partitions
    } catch (error) {
      if (!(error instanceof KedgeError) || error.code !== 'TOPIC_ALREADY_EXISTS') throw error
      const found = (await calls.make((call) => broker.topics(call))).find((one) => one.topic === name)
      return found?.partitions ?? topic.partitions ?? 1
    }
  }

  /** A group that begins at the end of what it has never read would pass over what is put there before it first looks. */
  async #commitStart(name: string, partitions: number): Promise<void> {
    const { broker, groupId, calls } = this.#scope
    const all = Array.from({ length: partitions }, (_, partition): TopicPartition => ({ topic: name, partition }))
    const [committed, starts, ends] = await Promise.all([
      calls.make((call) => broker.committed(groupId, all, call)),
      calls.make((call) => broker.offsets(all, 'earliest', call)),
      calls.make((call) => broker.offsets(all, 'latest', call)),
    ])
    // Where there are records already, whoever reads them may be about to commit.
    const fresh = starts.filter(
      ({ offset }, index) => (committed[index]?.offset ?? -1) < 0 && ends[index]?.offset === offset,
    )
    if (fresh.length === 0) return
    const instance: GroupInstance = { groupId, groupInstanceId: 'redrive' }
    await calls.make((call) => broker.commit(instance, fresh, {}, call))
  }
}

/** What of a record an edit changes, as a part of its key. */
async function editOf({ value }: ConsumerRecord): Promise<string> {
  return value === null ? '/null' : `/${await digestOf(value)}`
}
