/** What the SDK throws, said as a `DeadLetterError`. */
import { SQSServiceException } from '@aws-sdk/client-sqs'

import { DeadLetterError, type ErrorCode, KedgeError } from '../errors.ts'

/** Names under which SQS refuses for now. 5xx answers are retriable whatever their name. */
const throttles: ReadonlySet<string> = new Set([
  'RequestThrottled',
  'ThrottlingException',
  'Throttling',
  'TooManyRequestsException',
  'RequestLimitExceeded',
  'KmsThrottled',
  'OverLimit',
  'ServiceUnavailable',
  'InternalFailure',
  'InternalError',
])

/** Names that say the queue is wrong, and what the setting is then. */
const missingQueue: ReadonlySet<string> = new Set([
  'QueueDoesNotExist',
  'NonExistentQueue',
  'QueueDeletedRecently',
  'InvalidAddress',
])

const denied: ReadonlySet<string> = new Set(['AccessDenied', 'AccessDeniedException', 'KmsAccessDenied'])

const unauthenticated: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredToken',
  'ExpiredTokenException',
  'IncompleteSignature',
  'InvalidClientTokenId',
  'InvalidSecurity',
  'MissingAuthenticationToken',
  'SignatureDoesNotMatch',
  'UnrecognizedClientException',
])

/** Whether SQS refused a parameter: the family in which "too large" hides. */
export function isInvalidParameter(error: unknown): boolean {
  return error instanceof SQSServiceException && nameOf(error).startsWith('InvalidParameterValue')
}

/** The error of a letter over the limit. */
export function tooLarge(id: string, bytes: number, maxBytes: number): DeadLetterError {
  return new DeadLetterError(
    'DEAD_LETTER_TOO_LARGE',
    `Cannot store dead letter ${id} in its queue: it takes ${bytes} bytes and the queue accepts ${maxBytes}. Use a store without that limit for this topic.`,
    { limit: 'MaximumMessageSize' },
  )
}

/** Classifies what `send` threw. Errors of ours pass. */
export function sqsError(error: unknown, id: string, queueUrl: string): KedgeError {
  if (error instanceof KedgeError) return error
  const name = nameOf(error)
  const message = error instanceof Error ? error.message : String(error)
  const failed = `Cannot store dead letter ${id} in queue ${queueUrl}: ${name}: ${message}`
  if (missingQueue.has(name) || message === 'Region is missing') {
    return refused('INVALID_CONFIG', `${failed}. Check queueUrl and the region.`, error)
  }
  if (denied.has(name)) return refused('CLUSTER_AUTHORIZATION_FAILED', `${failed}. Allow sqs:SendMessage.`, error)
  if (unauthenticated.has(name)) return refused('UNAUTHENTICATED', `${failed}. Check the credentials.`, error)
  if (isForNow(error, name)) return unavailable(failed, error)
  return refused('INVALID_REQUEST', failed, error)
}

/** The error's name, without the prefix that SQS puts before the names of its older protocol. */
function nameOf(error: unknown): string {
  return error instanceof Error ? error.name.replace(/^AWS\.SimpleQueueService\./, '') : typeof error
}

/** A 5xx, 429 or 408 answer, a throttle by name, or no answer of SQS at all (connection refused, reset, not resolved). */
function isForNow(error: unknown, name: string): boolean {
  const status = statusOf(error)
  if (status === undefined) return !(error instanceof SQSServiceException)
  return throttles.has(name) || status >= 500 || status === 429 || status === 408
}

/** The SDK puts the status of an answer on every error, one that it could not read included. */
function statusOf(error: unknown): number | undefined {
  const { $metadata } = Object(error) as { readonly $metadata?: { readonly httpStatusCode?: number } }
  return $metadata?.httpStatusCode
}

function unavailable(message: string, cause: unknown): DeadLetterError {
  return new DeadLetterError('DEAD_LETTER_STORE_UNAVAILABLE', message, { cause })
}

function refused(code: ErrorCode, message: string, cause: unknown): DeadLetterError {
  return new DeadLetterError(code, message, { cause, retriable: false })
}
