/** What the SDK throws, said as a `DeadLetterStoreError`. */
import { SQSServiceException } from '@aws-sdk/client-sqs'

import { DeadLetterStoreError, type ErrorCode, KedgeError } from '../errors.ts'
import { awsFailureOf, awsNameOf } from './aws-errors.ts'

/** Names that say the queue is wrong, and what the setting is then. */
const missingQueue: ReadonlySet<string> = new Set([
  'QueueDoesNotExist',
  'NonExistentQueue',
  'QueueDeletedRecently',
  'InvalidAddress',
])

/** Whether SQS refused a parameter: the family in which "too large" hides. */
export function isInvalidParameter(error: unknown): boolean {
  return error instanceof SQSServiceException && awsNameOf(error).startsWith('InvalidParameterValue')
}

/** The error of a letter over the limit. */
export function tooLarge(id: string, bytes: number, maxBytes: number): DeadLetterStoreError {
  return new DeadLetterStoreError(
    'DEAD_LETTER_TOO_LARGE',
    `Cannot store dead letter ${id} in its queue: it takes ${bytes} bytes and the queue accepts ${maxBytes}. Use a store without that limit for this topic.`,
    { limit: 'MaximumMessageSize' },
  )
}

/** Classifies what `send` threw. Errors of ours pass. */
export function sqsError(error: unknown, id: string, queueUrl: string): KedgeError {
  if (error instanceof KedgeError) return error
  const name = awsNameOf(error)
  const message = error instanceof Error ? error.message : String(error)
  const failed = `Cannot store dead letter ${id} in queue ${queueUrl}: ${name}: ${message}`
  const failure = awsFailureOf(error)
  if (missingQueue.has(name) || failure === 'no region') {
    return refused('INVALID_CONFIG', `${failed}. Check queueUrl and the region.`, error)
  }
  if (failure === 'denied') return refused('CLUSTER_AUTHORIZATION_FAILED', `${failed}. Allow sqs:SendMessage.`, error)
  if (failure === 'unauthenticated') return refused('UNAUTHENTICATED', `${failed}. Check the credentials.`, error)
  if (failure === 'for now') return new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', failed, { cause: error })
  return refused('INVALID_REQUEST', failed, error)
}

function refused(code: ErrorCode, message: string, cause: unknown): DeadLetterStoreError {
  return new DeadLetterStoreError(code, message, { cause, retriable: false })
}
