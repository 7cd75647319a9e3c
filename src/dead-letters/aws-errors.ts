/** What the AWS SDK throws, told apart by what all services have in common: names and statuses. */

/** Names under which a service refuses for now. 5xx answers are retriable whatever their name. */
const throttles: ReadonlySet<string> = new Set([
  'RequestThrottled',
  'ThrottlingException',
  'Throttling',
  'TooManyRequestsException',
  'RequestLimitExceeded',
  'SlowDown',
  'KmsThrottled',
  'OverLimit',
  'ServiceUnavailable',
  'InternalFailure',
  'InternalError',
  // S3 says so of two writers of one object.
  'ConditionalRequestConflict',
  'OperationAborted',
  'RequestTimeout',
])

const denied: ReadonlySet<string> = new Set([
  'AccessDenied',
  'AccessDeniedException',
  'AllAccessDisabled',
  'KmsAccessDenied',
])

const unauthenticated: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredToken',
  'ExpiredTokenException',
  'IncompleteSignature',
  'InvalidAccessKeyId',
  'InvalidClientTokenId',
  'InvalidSecurity',
  'InvalidToken',
  'MissingAuthenticationToken',
  'SignatureDoesNotMatch',
  'TokenRefreshRequired',
  'UnrecognizedClientException',
])

/** What an error of the SDK means for a caller. */
export type AwsFailure = 'for now' | 'denied' | 'unauthenticated' | 'no region' | 'refused'

/** The kind of what the SDK threw. */
export function awsFailureOf(error: unknown): AwsFailure {
  const name = awsNameOf(error)
  if (error instanceof Error && error.message === 'Region is missing') return 'no region'
  if (denied.has(name)) return 'denied'
  if (unauthenticated.has(name)) return 'unauthenticated'
  return isForNow(error, name) ? 'for now' : 'refused'
}

/** The error's name, without the prefix that SQS puts before the names of its older protocol. */
export function awsNameOf(error: unknown): string {
  return error instanceof Error ? error.name.replace(/^AWS\.SimpleQueueService\./, '') : typeof error
}

/** The SDK puts the status of an answer on every error, one that it could not read included. */
export function awsStatusOf(error: unknown): number | undefined {
  const { $metadata } = Object(error) as { readonly $metadata?: { readonly httpStatusCode?: number } }
  return $metadata?.httpStatusCode
}

/** A 5xx, 429 or 408 answer, a throttle by name, or no answer of the service at all (refused, reset, not resolved). */
function isForNow(error: unknown, name: string): boolean {
  const status = awsStatusOf(error)
  // `$fault` is on what the service itself said.
  if (status === undefined) return !('$fault' in Object(error))
  return throttles.has(name) || status >= 500 || status === 429 || status === 408
}
