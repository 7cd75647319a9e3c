/** What requests are made of: the port's words as paths, headers and body fields of the dialect. */
import type { FetchLimits, GroupInstance, OffsetCommit, PollRequest, RunPosition } from '../../broker.ts'
import { BrokerError, ConfigError } from '../../errors.ts'
import type { TopicPartition } from '../../record.ts'
import { finite } from './wire.ts'

const VISIBLE_ASCII = /^[\x21-\x7e]+$/

/**
 * The address to put paths behind.
 * @throws {ConfigError} when it is none, or holds credentials
 */
export function baseUrlOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new ConfigError(
      `Cannot reach a gateway at ${JSON.stringify(withoutUserInfo(text))}: give an http or https URL.`,
    )
  }
  if (url.username !== '' || url.password !== '') {
    throw new ConfigError('Cannot take credentials from the URL of a gateway: give username and password on their own.')
  }
  return url.href.replace(/\/$/, '')
}

function withoutUserInfo(text: string): string {
  return text.replace(/\/\/[^/@]*@/, '//')
}

/** An instance in the SDK's words. */
export function namesOf({ groupId, groupInstanceId }: GroupInstance): { consumerGroupId: string; instanceId: string } {
  return { consumerGroupId: groupId, instanceId: groupInstanceId }
}

/** Where the claim on an instance is. */
export function claimPath({ groupId, groupInstanceId }: GroupInstance): string[] {
  return ['claims', groupId, groupInstanceId]
}

/** The body fields that bound an answer. */
export function sizeLimits({ maxRecords, maxBytes }: FetchLimits): { maxRecords: number; maxBytes: number } {
  return { maxRecords: finite(maxRecords, 'maxRecords'), maxBytes: finite(maxBytes, 'maxBytes') }
}

/** What a poll says, as far as the SDK can say it. */
export function consumeSettings(request: PollRequest): {
  topics: string[]
  timeout: number
  autoCommit: boolean
  autoCommitInterval?: number
  autoOffsetReset?: 'earliest' | 'latest' | 'none'
} {
  const { topics, maxWaitMs, enableAutoCommit = false, autoCommitIntervalMs, autoOffsetReset } = request
  return {
    topics: [...topics],
    timeout: finite(maxWaitMs, 'maxWaitMs'),
    // Always said: in the dialect it is on unless refused.
    autoCommit: enableAutoCommit,
    ...(autoCommitIntervalMs === undefined ? {} : { autoCommitInterval: autoCommitIntervalMs }),
    ...(autoOffsetReset === undefined ? {} : { autoOffsetReset }),
  }
}

/**
 * The headers in which a run speaks of itself.
 * @throws {BrokerError} INVALID_REQUEST for a run id that is no header
 */
export function runHeaders({ runId, claimTtlMs, generationId }: RunPosition): Record<string, string> {
  if (!VISIBLE_ASCII.test(runId)) {
    throw new BrokerError('INVALID_REQUEST', 'Cannot name a run so: a run id is 1 to 128 visible ASCII characters.')
  }
  return {
    'Kedge-Run': runId,
    ...(claimTtlMs === undefined ? {} : { 'Kedge-Claim-Ttl-Ms': String(claimTtlMs) }),
    ...(generationId === undefined ? {} : { 'Kedge-Generation': String(generationId) }),
  }
}

/** A string of RFC 8941, as the header's specification has it, where the key could be taken for one. */
export function quotedKey(key: string): string {
  if (!VISIBLE_ASCII.test(key)) {
    throw new BrokerError(
      'INVALID_REQUEST',
      'Cannot use the idempotency key: it must be 1 to 255 visible ASCII characters.',
    )
  }
  return key.startsWith('"') ? `"${key.replaceAll(/["\\]/g, String.raw`\$&`)}"` : key
}

/** A partition without what else its object may hold. */
export function wirePartition({ topic, partition }: TopicPartition): TopicPartition {
  return { topic, partition }
}

/** An entry of a commit's body. */
export function wireCommit({ topic, partition, offset, metadata }: OffsetCommit): OffsetCommit {
  return { topic, partition, offset, metadata: metadata ?? null }
}
