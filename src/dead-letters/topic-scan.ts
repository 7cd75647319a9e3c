/**
 * Reads dead letters out of topics, oldest first. Within a partition the order is that of the log; between partitions and
 * topics, that of the records' timestamps. A scan ends where the logs ended when it began, so it ends while letters are
 * put; its cursor is the next offset of every partition, so puts and retention do not move a page.
 */
import type { Broker, Call, TopicDescription } from '../broker.ts'
import type { DeadLetter } from '../dead-letter.ts'
import { BrokerError } from '../errors.ts'
import type { ConsumerRecord, Offset, TopicPartition } from '../record.ts'
import { invalidCursor } from './call.ts'
import { letterOfRecord } from './topic-headers.ts'

const FETCH_LIMITS = { maxWaitMs: 0, maxRecords: 500, maxBytes: 4_194_304 } as const

/** One partition on its way to the end it had when the scan began. */
interface Lane extends TopicPartition {
  next: Offset
  readonly end: Offset
  buffer: ConsumerRecord[]
}

/** A reading of topics from a place on. */
export interface TopicScan {
  /** The next record's letter (undefined for a record that is none), or 'end'. */
  next(): Promise<{ readonly letter: DeadLetter | undefined } | 'end'>
  /** Where the next page continues, or undefined where nothing is left. */
  cursor(): string | undefined
}

/** Opens a scan over whole topics, from a cursor or from the log starts. */
export async function openTopicScan(
  broker: Broker,
  topics: readonly TopicDescription[],
  cursor: string | undefined,
  call: Call | undefined,
): Promise<TopicScan> {
  const lanes = await openLanes(broker, topics, cursor, call)
  return {
    async next() {
      await Promise.all(lanes.map((lane) => fill(broker, lane, call)))
      const lane = oldest(lanes)
      const record = lane?.buffer.shift()
      if (lane === undefined || record === undefined) return 'end'
      lane.next = record.offset + 1
      return { letter: letterOfRecord(record) }
    },
    cursor: () => (lanes.every(({ next, end }) => next >= end) ? undefined : encodeCursor(lanes)),
  }
}

async function openLanes(
  broker: Broker,
  topics: readonly TopicDescription[],
  cursor: string | undefined,
  call: Call | undefined,
): Promise<Lane[]> {
  const partitions = topics.flatMap(({ topic, partitions }) =>
    Array.from({ length: partitions }, (_, partition) => ({ topic, partition })),
  )
  if (partitions.length === 0) return []
  const [starts, ends] = await Promise.all([
    broker.offsets(partitions, 'earliest', call),
    broker.offsets(partitions, 'latest', call),
  ])
  const reached = decodeCursor(cursor)
  return partitions.map(({ topic, partition }, index) => {
    const start = starts[index]?.offset ?? 0
    const next = Math.max(start, reached.get(`${topic}/${partition}`) ?? 0)
    return { topic, partition, next, end: ends[index]?.offset ?? 0, buffer: [] }
  })
}

async function fill(broker: Broker, lane: Lane, call: Call | undefined): Promise<void> {
  if (lane.buffer.length > 0 || lane.next >= lane.end) return
  const { topic, partition } = lane
  try {
    const records = await broker.fetch([{ topic, partition, offset: lane.next }], FETCH_LIMITS, call)
    lane.buffer = records.filter(({ offset }) => offset < lane.end)
    if (lane.buffer.length === 0) lane.next = lane.end
  } catch (error) {
    if (!(error instanceof BrokerError) || error.code !== 'OFFSET_OUT_OF_RANGE') throw error
    // Retention deleted what the lane was about to read.
    const [start] = await broker.offsets([{ topic, partition }], 'earliest', call)
    lane.next = Math.max(lane.next + 1, start?.offset ?? lane.end)
    await fill(broker, lane, call)
  }
}

function oldest(lanes: readonly Lane[]): Lane | undefined {
  let found: Lane | undefined
  let foundMs = Infinity
  for (const lane of lanes) {
    const headMs = lane.buffer[0]?.timestampMs ?? Infinity
    if (headMs < foundMs) {
      found = lane
      foundMs = headMs
    }
  }
  return found
}

function encodeCursor(lanes: readonly Lane[]): string {
  return lanes.map(({ topic, partition, next }) => `${topic}/${partition}/${next}`).join(',')
}

function decodeCursor(cursor: string | undefined): Map<string, Offset> {
  const reached = new Map<string, Offset>()
  if (cursor === undefined) return reached
  for (const part of cursor.split(',')) {
    const match = /^([\w.-]{1,249}\/\d{1,4})\/(\d{1,16})$/.exec(part)
    if (match?.[1] === undefined || !Number.isSafeInteger(Number(match[2]))) throw invalidCursor()
    reached.set(match[1], Number(match[2]))
  }
  return reached
}
