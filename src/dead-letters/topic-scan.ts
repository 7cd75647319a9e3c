/**
 * Reads the letters that are there out of dead-letter topics, oldest first. Within a partition the order is that of the
 * log; between partitions and topics, that of the records' timestamps. A scan ends where the logs ended when it began, so
 * it ends while letters are put; its cursor is the next offset of every partition, so puts, deletes and retention do not
 * move a page. Beside it stands how far the partition was read to know that: a store that has not read so much, as one that
 * is opened for each page, may do so beyond its budget, and so gets further than the page before.
 */
import type { Broker, Call } from '../broker.ts'
import type { DeadLetter } from '../dead-letter.ts'
import { partitionKey, type Offset, type TopicPartition } from '../record.ts'
import { invalidCursor } from './call.ts'
import { letterOfRecord } from './topic-headers.ts'
import { isOutOfRange, readFrom, type PartitionIndex, type ScanBudget } from './topic-index.ts'

/** One partition on its way to the end it had when the scan began. */
interface Lane extends TopicPartition {
  readonly index: PartitionIndex
  next: Offset
  readonly end: Offset
  buffer: { readonly letter: DeadLetter; readonly offset: Offset; readonly storedAtMs: number }[]
}

/** What a scan works with. */
export interface TopicScanOptions {
  readonly broker: Broker
  readonly partitions: readonly TopicPartition[]
  readonly indexOf: (partition: TopicPartition) => PartitionIndex
  /** Of an earlier scan. @default the log starts */
  readonly cursor: string | undefined
  readonly budget: ScanBudget
}

/** A reading of partitions from a place on. */
export interface TopicScan {
  /** The next letter, or undefined at the end and where the budget is spent. */
  next(): Promise<DeadLetter | undefined>
  /** Where the next page continues, or undefined where nothing is left. */
  cursor(): string | undefined
}

/** Opens a scan, from a cursor or from the log starts. */
export async function openTopicScan(options: TopicScanOptions, call: Call | undefined): Promise<TopicScan> {
  const lanes = await openLanes(options, call)
  const { broker, budget } = options
  return {
    async next() {
      const filled = await Promise.all(lanes.map((lane) => fill(broker, lane, budget, call)))
      // Of a lane that could not be filled nobody knows whether the oldest letter is there.
      if (filled.includes(false)) return undefined
      const lane = oldest(lanes)
      const found = lane?.buffer.shift()
      if (lane === undefined || found === undefined) return undefined
      lane.next = found.offset + 1
      return found.letter
    },
    cursor: () => (lanes.every(isDone) ? undefined : encodeCursor(lanes)),
  }
}

async function openLanes(
  { broker, partitions, indexOf, cursor, budget }: TopicScanOptions,
  call: Call | undefined,
): Promise<Lane[]> {
  if (partitions.length === 0) return []
  const [starts, ends] = await Promise.all([
    broker.offsets(partitions, 'earliest', call),
    broker.offsets(partitions, 'latest', call),
  ])
  const reached = decodeCursor(cursor)
  return partitions.map(({ topic, partition }, at) => {
    const index = indexOf({ topic, partition })
    const end = ends[at]?.offset ?? 0
    const known = reached.get(partitionKey({ topic, partition }))
    const start = starts[at]?.offset ?? 0
    const next = Math.max(start, known?.next ?? 0)
    budget.left += Math.max(0, Math.min(known?.readTo ?? 0, end) - Math.max(start, index.readTo))
    return { topic, partition, index, next, end, buffer: [] }
  })
}

/** Reads on where a lane has nothing at hand. False where the budget is spent first. */
async function fill(broker: Broker, lane: Lane, budget: ScanBudget, call: Call | undefined): Promise<boolean> {
  while (lane.buffer.length === 0 && !isDone(lane)) {
    const found = await lane.index.lettersFrom(lane.next, lane.end, budget, call)
    if (found === undefined) return false
    if (found.offsets.length === 0) lane.next = found.until
    else await read(broker, lane, found.offsets, call)
  }
  return true
}

async function read(broker: Broker, lane: Lane, there: readonly Offset[], call: Call | undefined): Promise<void> {
  const { topic, partition, index } = lane
  const wanted = new Set(there)
  const from = there[0] ?? lane.next
  try {
    for (const record of await readFrom(broker, { topic, partition, offset: from }, undefined, call)) {
      if (!wanted.has(record.offset)) continue
      const letter = letterOfRecord(record)
      if (letter !== undefined) lane.buffer.push({ letter, offset: record.offset, storedAtMs: record.timestampMs })
    }
    if (lane.buffer.length > 0) return
  } catch (error) {
    if (!isOutOfRange(error)) throw error
  }
  // Retention deleted what was there, or the topic was made anew.
  await index.forget()
  lane.next = from + 1
}

function isDone({ next, end }: Lane): boolean {
  return next >= end
}

function oldest(lanes: readonly Lane[]): Lane | undefined {
  let found: Lane | undefined
  let foundMs = Infinity
  for (const lane of lanes) {
    const headMs = lane.buffer[0]?.storedAtMs ?? Infinity
    if (headMs < foundMs) {
      found = lane
      foundMs = headMs
    }
  }
  return found
}

function encodeCursor(lanes: readonly Lane[]): string {
  return lanes
    .map(({ topic, partition, next, index: { readTo } }) => {
      const place = `${topic}/${partition}/${next}`
      return readTo > next ? `${place}/${readTo}` : place
    })
    .join(',')
}

/** How far a listing got in a partition. */
interface Reached {
  readonly next: Offset
  readonly readTo: Offset
}

function decodeCursor(cursor: string | undefined): Map<string, Reached> {
  const reached = new Map<string, Reached>()
  if (cursor === undefined) return reached
  for (const part of cursor.split(',')) {
    const match = /^([\w.-]{1,249}\/\d{1,4})\/(\d{1,16})(?:\/(\d{1,16}))?$/.exec(part)
    const [next, readTo] = [Number(match?.[2]), Number(match?.[3] ?? 0)]
    if (match?.[1] === undefined || !Number.isSafeInteger(next) || !Number.isSafeInteger(readTo)) throw invalidCursor()
    reached.set(match[1], { next, readTo })
  }
  return reached
}
