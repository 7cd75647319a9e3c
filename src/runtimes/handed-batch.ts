/**
 * Batches that a platform hands over (a Lambda event, a queue): one run over their records, and which of them are to come
 * again. Retry, order, dead letters and idempotency are those of any other run.
 */
import type { App } from '../app.ts'
import type { Broker } from '../broker.ts'
import { batchBroker } from '../brokers/batch.ts'
import type { FunctionsConfig } from '../config.ts'
import { decodeProgress, encodeProgress } from '../consumer/progress.ts'
import type { RunReport } from '../consumer/report.ts'
import type { ConsumerRecord } from '../record.ts'
import { murmur2 } from '../partitioner.ts'
import { bytesOf, partitionKey } from '../record.ts'
import { runApp, type ScheduledRun } from './scheduled-run.ts'

/** What a platform hands over. */
export interface HandedBatch extends Omit<ScheduledRun, 'broker' | 'countsAttempts'> {
  readonly records: readonly ConsumerRecord[]
  /** How often each record was handed over before, by `partitionKey` and offset, where the platform counts. */
  readonly attemptsOf?: (record: ConsumerRecord) => number
  /** Opens the broker for what is not about the batch. */
  readonly through: () => Promise<Broker>
}

/** What became of a batch. */
export interface BatchOutcome {
  readonly report: RunReport
  /** Records that are neither handled nor durable elsewhere, in the order in which they came. */
  readonly unsettled: readonly ConsumerRecord[]
}

/**
 * Runs the app over a batch. A partition that stops, and a breaker that opens, leave records unsettled; they do not throw.
 * @throws {ConfigError} as `scheduledRun` does
 */
export async function runBatch(app: App, config: FunctionsConfig, batch: HandedBatch): Promise<BatchOutcome> {
  const { records, attemptsOf, through, ...run } = batch
  let opened: Promise<Broker> | undefined
  const metadata = attemptsOf === undefined ? new Map<string, string>() : metadataOf(records, attemptsOf)
  await using broker = batchBroker(records, { through: () => (opened ??= through()), metadata })
  try {
    // What a platform hands over is not paused by leaving it: it would count how often it came. And it sees to its offsets.
    const handed = { ...app, operationsTopic: undefined, onOffsetAnomaly: undefined }
    // What a commit says of attempts ends with the batch, whatever the app keeps; only a platform that counts knows more.
    const countsAttempts = attemptsOf !== undefined
    const report = await runApp(handed, config, { ...run, broker, countsAttempts, stopWhenEmpty: true })
    const open = new Set<ConsumerRecord>()
    for (const { topic, partition, offset, metadata } of await broker.committed(app.groupId)) {
      const progress = decodeProgress(offset, metadata)
      const openOffsets = new Set(progress?.open.map((one) => one.offset))
      for (const record of records) {
        if (record.topic !== topic || record.partition !== partition || record.offset < offset) continue
        if (progress === undefined || record.offset >= progress.settledTo || openOffsets.has(record.offset))
          open.add(record)
      }
    }
    return { report, unsettled: records.filter((record) => open.has(record)) }
  } finally {
    await (await opened?.catch(() => undefined))?.close()
  }
}

/**
 * The place of a message that has none but its id: the same for the same id, and for no other as far as anybody will see.
 * Without it every batch would name its dead letters as the one before did.
 */
export function placeOfId(id: string): { readonly partition: number; readonly offset: number } {
  const [a, b, c] = ['a', 'b', 'c'].map((salt) => murmur2(bytesOf(`${salt} ${id}`)) >>> 0) as [number, number, number]
  return { partition: a & 0x7fff_ffff, offset: (b & 0x1f_ffff) * 2 ** 32 + c }
}

/** What an earlier commit would have said of records that were handed over before. */
function metadataOf(
  records: readonly ConsumerRecord[],
  attemptsOf: (record: ConsumerRecord) => number,
): Map<string, string> {
  const metadata = new Map<string, string>()
  for (const [key, held] of Map.groupBy<string, ConsumerRecord>(records, partitionKey)) {
    const [first] = held
    const last = held.at(-1)
    if (first === undefined || last === undefined) continue
    const open = held.map((record) => ({ offset: record.offset, attempts: attemptsOf(record), dueAtMs: 0 }))
    const encoded = encodeProgress(first.offset, { settledTo: last.offset + 1, open }).metadata
    if (encoded !== null) metadata.set(key, encoded)
  }
  return metadata
}
