/** What callers may ask of a broker of ours; everything else is refused by a named error before anything is touched. */
import type {
  FetchLimits,
  GroupInstance,
  NewTopic,
  OffsetCommit,
  PollRequest,
  RunPosition,
  TopicDescription,
} from './broker.ts'
import { DEFAULT_MAX_RECORD_BYTES, DEFAULT_RETENTION_MS, MAX_OFFSET, MAX_OFFSET_METADATA_BYTES } from './broker.ts'
import { BrokerError } from './errors.ts'
import type { ErrorCode } from './errors.ts'
import { bytesOf } from './record.ts'

const TOPIC_NAME = /^[a-zA-Z0-9._-]{1,249}$/
const MAX_PARTITIONS = 1000
const MAX_NAME_LENGTH = 255
/** It travels as an HTTP header. */
const RUN_ID = /^[\x21-\x7e]{1,128}$/

/** @throws {BrokerError} INVALID_TOPIC_EXCEPTION, INVALID_PARTITIONS, INVALID_CONFIG_VALUE */
export function checkNewTopic(topic: NewTopic): TopicDescription {
  const name = topic.topic
  if (!TOPIC_NAME.test(name) || name === '.' || name === '..') {
    refuse(
      'INVALID_TOPIC_EXCEPTION',
      `Cannot create topic ${JSON.stringify(name.slice(0, 260))}: a name is 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and not '.' or '..'.`,
    )
  }
  const partitions = topic.partitions ?? 1
  if (!isWhole(partitions, 1, MAX_PARTITIONS)) {
    refuse(
      'INVALID_PARTITIONS',
      `Cannot create topic ${name} with ${partitions} partitions: it takes 1 to ${MAX_PARTITIONS}.`,
    )
  }
  const retentionMs = topic.retentionMs === undefined ? DEFAULT_RETENTION_MS : topic.retentionMs
  const retentionBytes = topic.retentionBytes ?? null
  const maxRecordBytes = topic.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES
  const config: [string, number | null, number][] = [
    ['retentionMs', retentionMs, 1],
    ['retentionBytes', retentionBytes, 1],
    ['maxRecordBytes', maxRecordBytes, 1],
  ]
  for (const [setting, value, least] of config) {
    if (value !== null && !isWhole(value, least, MAX_OFFSET)) {
      refuse(
        'INVALID_CONFIG_VALUE',
        `Cannot create topic ${name} with ${setting} ${value}: it takes a whole number of at least ${least}.`,
      )
    }
  }
  return { topic: name, partitions, retentionMs, retentionBytes, maxRecordBytes }
}

/** @throws {BrokerError} INVALID_GROUP_ID, INVALID_REQUEST */
export function checkGroup({ groupId, groupInstanceId }: GroupInstance): void {
  if (groupId.length === 0 || groupId.length > MAX_NAME_LENGTH) {
    refuse('INVALID_GROUP_ID', `Invalid group id of ${groupId.length} characters: it takes 1 to ${MAX_NAME_LENGTH}.`)
  }
  if (groupInstanceId.length === 0 || groupInstanceId.length > MAX_NAME_LENGTH) {
    refuse(
      'INVALID_REQUEST',
      `Invalid group instance id of ${groupInstanceId.length} characters: it takes 1 to ${MAX_NAME_LENGTH}.`,
    )
  }
}

/** @throws {BrokerError} INVALID_REQUEST */
export function checkLimits({ maxWaitMs, maxRecords, maxBytes }: FetchLimits): void {
  if (!(maxWaitMs >= 0)) refuse('INVALID_REQUEST', `Invalid maxWaitMs ${maxWaitMs}: it takes 0 or more milliseconds.`)
  if (!isWhole(maxRecords, 1, MAX_OFFSET))
    refuse('INVALID_REQUEST', `Invalid maxRecords ${maxRecords}: it takes at least 1.`)
  if (!(maxBytes >= 0)) refuse('INVALID_REQUEST', `Invalid maxBytes ${maxBytes}: it takes 0 or more bytes.`)
}

/** @throws {BrokerError} INVALID_REQUEST, INVALID_GROUP_ID, INVALID_SESSION_TIMEOUT */
export function checkPoll(request: PollRequest): void {
  checkGroup(request.group)
  checkLimits(request)
  if (request.topics.length === 0) refuse('INVALID_REQUEST', 'Cannot poll without a topic: name at least one.')
  const session = request.sessionTimeoutMs
  if (session !== undefined && !isWhole(session, 1000, 1_800_000)) {
    refuse('INVALID_SESSION_TIMEOUT', `Invalid session timeout ${session} ms: it takes 1000 to 1800000.`)
  }
  const interval = request.autoCommitIntervalMs
  if (interval !== undefined && !isWhole(interval, 0, MAX_OFFSET)) {
    refuse('INVALID_REQUEST', `Invalid auto-commit interval ${interval} ms: it takes 0 or more.`)
  }
  if (request.run === undefined) return
  checkRun(request.run)
  if (request.enableAutoCommit === true) {
    refuse(
      'INVALID_REQUEST',
      'Cannot poll for a run with auto-commit: a run commits what it has handled. Turn auto-commit off.',
    )
  }
  for (const position of request.run.positions ?? []) checkCommit(position)
}

/** @throws {BrokerError} INVALID_REQUEST */
export function checkRun({ runId, claimTtlMs }: Pick<RunPosition, 'runId' | 'claimTtlMs'>): void {
  if (!RUN_ID.test(runId)) {
    refuse('INVALID_REQUEST', `Invalid run id of ${runId.length} characters: it takes 1 to 128 of visible ASCII.`)
  }
  if (claimTtlMs !== undefined && !isWhole(claimTtlMs, 1000, 900_000)) {
    refuse('INVALID_REQUEST', `Invalid claim time to live ${claimTtlMs} ms: it takes 1000 to 900000.`)
  }
}

/** @throws {BrokerError} INVALID_REQUEST, OFFSET_METADATA_TOO_LARGE */
export function checkCommit(entry: OffsetCommit): OffsetCommit {
  if (!isWhole(entry.offset, 0, MAX_OFFSET)) {
    refuse(
      'INVALID_REQUEST',
      `Invalid offset ${entry.offset} for ${entry.topic}[${entry.partition}]: it takes a whole number from 0 to ${MAX_OFFSET}.`,
    )
  }
  const bytes = bytesOf(entry.metadata ?? '').length
  if (bytes > MAX_OFFSET_METADATA_BYTES) {
    refuse(
      'OFFSET_METADATA_TOO_LARGE',
      `Cannot commit ${entry.topic}[${entry.partition}] with ${bytes} bytes of metadata: it takes at most ${MAX_OFFSET_METADATA_BYTES}.`,
    )
  }
  return entry
}

/** Whether a value is an integer within a range. */
export function isWhole(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most
}

function refuse(code: ErrorCode, message: string): never {
  throw new BrokerError(code, message)
}
