/** What the SDK throws for a table of DynamoDB, said as an `IdempotencyError`. */
import { DynamoDBServiceException } from '@aws-sdk/client-dynamodb'

import { type ErrorCode, IdempotencyError, KedgeError } from '../errors.ts'

/** Names under which DynamoDB refuses for now. 5xx answers are retriable whatever their name. */
const throttles: ReadonlySet<string> = new Set([
  'InternalServerError',
  'LimitExceededException',
  'ProvisionedThroughputExceededException',
  'RequestLimitExceeded',
  'ReplicatedWriteConflictException',
  'ThrottlingException',
  'TransactionConflictException',
])

const denied: ReadonlySet<string> = new Set(['AccessDeniedException', 'AccessDenied'])

const unauthenticated: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredTokenException',
  'IncompleteSignatureException',
  'InvalidSignatureException',
  'MissingAuthenticationTokenException',
  'UnrecognizedClientException',
])

/** Classifies what a request threw. Errors of ours pass. */
export function dynamoDbError(error: unknown, table: string): KedgeError {
  if (error instanceof KedgeError) return error
  const name = error instanceof Error ? error.name : typeof error
  const message = error instanceof Error ? error.message : String(error)
  const failed = `Cannot use the idempotency store dynamodb: on table ${table}: ${name}: ${message}`
  if (name === 'ResourceNotFoundException' || message === 'Region is missing') {
    return refused('INVALID_CONFIG', `${failed}. Check the table's name and the region.`, error)
  }
  if (denied.has(name)) {
    const actions = 'dynamodb:PutItem, UpdateItem, DeleteItem and GetItem'
    return refused('CLUSTER_AUTHORIZATION_FAILED', `${failed}. Allow ${actions}.`, error)
  }
  if (unauthenticated.has(name)) return refused('UNAUTHENTICATED', `${failed}. Check the credentials.`, error)
  if (isForNow(error, name)) return new IdempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE', failed, { cause: error })
  return refused('INVALID_REQUEST', `${failed}. Is the table's partition key a string called key?`, error)
}

/** A 5xx, 429 or 408 answer, a throttle by name, or no answer of DynamoDB at all. */
function isForNow(error: unknown, name: string): boolean {
  // The SDK puts the status of an answer on every error, one that it could not read included.
  const { $metadata } = Object(error) as { readonly $metadata?: { readonly httpStatusCode?: number } }
  const status = $metadata?.httpStatusCode
  if (status === undefined) return !(error instanceof DynamoDBServiceException)
  return throttles.has(name) || status >= 500 || status === 429 || status === 408
}

function refused(code: ErrorCode, message: string, cause: unknown): IdempotencyError {
  return new IdempotencyError(code, message, { cause, retriable: false })
}
