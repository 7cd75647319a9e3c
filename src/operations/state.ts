/**
 * What operators of a group have ordered, as the last record of its operations topic has it: each record holds the whole of
 * it, beside the audit of the verb that wrote it. So who wants to know reads one record, and the topic is the history.
 */
import type { Broker, Call, NewTopic } from '../broker.ts'
import { BrokerError, KedgeError } from '../errors.ts'
import { fetchFrom } from '../fetch-from.ts'
import type { ConsumerRecord, Offset, TopicPartition } from '../record.ts'
import { bytesOf, exactTextOf } from '../record.ts'

/** What is paused. */
export interface Paused {
  /** The whole group. */
  readonly group: boolean
  /** Names, sorted. What comes back to a topic waits with it. */
  readonly topics: readonly string[]
  /** Sorted. What has one of them waits, and what its route's order has wait for that. */
  readonly keys: readonly PausedKey[]
}

/** A key of a topic. */
export interface PausedKey {
  readonly topic: string
  /** As UTF-8 text. */
  readonly key: string
}

/** A backfill that was started, and has neither ended nor been stopped. */
export interface BackfillOrder {
  readonly id: string
  readonly topic: string
  /** What is replayed of each partition: from an offset, up to another one that is not replayed any more. */
  readonly ranges: readonly { readonly partition: number; readonly from: Offset; readonly until: Offset }[]
  readonly perSecond: number
}

/** Everything that is in force. */
export interface OperationsState {
  readonly paused: Paused
  /** At most one for each topic. */
  readonly backfills: readonly BackfillOrder[]
}

/** The state, and where the next record of the topic would be. */
export interface StateRead {
  readonly state: OperationsState
  readonly endOffset: Offset
  /** Whether there is an operations topic. */
  readonly exists: boolean
}

/** The state of a group that no operator ever touched. */
export const untouched: OperationsState = Object.freeze({
  paused: Object.freeze({ group: false, topics: [], keys: [] }),
  backfills: [],
})

/** Makes one call, as its caller counts and repeats them. */
export type MakeCall = <T>(work: (call: Call) => Promise<T>) => Promise<T>

const MARK = 'kedge-operations-1'
/** So many records of somebody else's are passed over in search of the last one of ours. */
const MAX_STRANGERS = 20
const limits = { maxWaitMs: 0, maxRecords: 1, maxBytes: 1_048_576 }

/** A record's value: the audit of a verb, and what is in force from then on. */
export function encodeState(state: OperationsState, audit: object): Uint8Array {
  return bytesOf(JSON.stringify({ kedge: MARK, audit, ...state }))
}

/** What a record says is in force; undefined where it is none of ours. */
function decodeState({ value }: Pick<ConsumerRecord, 'value'>): OperationsState | undefined {
  try {
    const read: unknown = JSON.parse(exactTextOf(value ?? new Uint8Array()) ?? '')
    if (typeof read !== 'object' || read === null || !('kedge' in read) || read.kedge !== MARK) return undefined
    // The mark says who wrote it, and that was `encodeState`.
    const { paused, backfills } = read as unknown as OperationsState
    return { paused: { ...untouched.paused, ...paused }, backfills }
  } catch {
    return undefined
  }
}

/**
 * Reads what is in force: two calls, one where there is no such topic.
 * @throws {BrokerError} INVALID_RECORD where the topic ends with records of somebody else · as the broker does
 */
export async function readState(broker: Broker, topic: string, make: MakeCall): Promise<StateRead> {
  const at: TopicPartition = { topic, partition: 0 }
  let endOffset: Offset
  try {
    const [end] = await make((call) => broker.offsets([at], 'latest', call))
    endOffset = end?.offset ?? 0
  } catch (error) {
    if (hasCode(error, 'UNKNOWN_TOPIC_OR_PARTITION')) return { state: untouched, endOffset: 0, exists: false }
    throw error
  }
  for (let offset = endOffset - 1; offset >= 0; offset--) {
    const record = await recordAt(broker, { ...at, offset }, make)
    if (record === 'deleted') break
    const state = record === undefined ? undefined : decodeState(record)
    if (state !== undefined) return { state, endOffset, exists: true }
    if (endOffset - offset >= MAX_STRANGERS) throw noneOfOurs(topic)
  }
  return { state: untouched, endOffset, exists: true }
}

/** The newest state among records that came since; undefined where there is none. */
export async function readNewer(
  broker: Broker,
  topic: string,
  from: Offset,
  call: Call,
): Promise<Pick<StateRead, 'state' | 'endOffset'> | undefined> {
  const records = await broker.fetch([{ topic, partition: 0, offset: from }], { ...limits, maxRecords: 100 }, call)
  const last = records.at(-1)
  if (last === undefined) return undefined
  const state = records.map(decodeState).findLast((one) => one !== undefined)
  return state === undefined ? undefined : { state, endOffset: last.offset + 1 }
}

/** The topic to make where there is none. */
export function newOperationsTopic({ features }: Broker, topic: string): NewTopic {
  return { topic, partitions: 1, ...(features.retention ? { retentionMs: null } : {}) }
}

async function recordAt(
  broker: Broker,
  at: TopicPartition & { readonly offset: Offset },
  make: MakeCall,
): Promise<ConsumerRecord | 'deleted' | undefined> {
  try {
    const [record] = await make((call) => fetchFrom(broker, at, limits, call))
    return record
  } catch (error) {
    // Below the log start there is nothing more.
    if (hasCode(error, 'OFFSET_OUT_OF_RANGE')) return 'deleted'
    throw error
  }
}

function noneOfOurs(topic: string): BrokerError {
  return new BrokerError(
    'INVALID_RECORD',
    `Cannot read what operators have paused: the last ${MAX_STRANGERS} records of ${topic} were not written by Kedge. Find out who produces there, and keep them out.`,
  )
}

function hasCode(error: unknown, code: KedgeError['code']): boolean {
  return error instanceof KedgeError && error.code === code
}
