/**
 * The one place where error codes become HTTP: code to status, and an error to its answer. PROTOCOL.md's table is
 * generated from `statusOfCode`, and a test holds the two together.
 */
import { GatewayError, KedgeError, type ErrorCode } from '../errors.ts'
import type { GatewayResponse } from './request.ts'

/** The HTTP status of each code; null for codes that cannot arise while a request is served. */
export const statusOfCode: Readonly<Record<ErrorCode, number | null>> = {
  CLOSED: 503,
  UNSUPPORTED: 501,
  ABORTED: 503,
  TIMEOUT: 504,
  NETWORK: 503,
  BAD_RESPONSE: 502,
  INVALID_CONFIG: null,
  UNKNOWN_ROUTE: 404,
  METHOD_NOT_ALLOWED: 405,
  UNSUPPORTED_MEDIA_TYPE: 415,
  SLOW_REQUEST: 408,
  UNAUTHENTICATED: 401,
  NO_COMMITTED_OFFSET: 400,
  CLAIM_HELD: 409,
  CLAIM_LOST: 409,
  IDEMPOTENCY_KEY_IN_FLIGHT: 409,
  IDEMPOTENCY_KEY_REUSED: 422,
  LIMIT_EXCEEDED: 413,
  OVERLOADED: 429,
  DEAD_LETTER_TOO_LARGE: null,
  DEAD_LETTER_STORE_UNAVAILABLE: 503,
  DEAD_LETTER_NOT_FOUND: 404,
  DEAD_LETTER_ID_TAKEN: null,
  IDEMPOTENCY_STORE_UNAVAILABLE: null,
  RECORD_IN_PROGRESS: null,
  LOCK_LOST: null,
  HANDLER_TIMEOUT: null,
  HANDLER_FAILED: null,
  UNKNOWN_SERVER_ERROR: 500,
  OFFSET_OUT_OF_RANGE: 400,
  CORRUPT_MESSAGE: 503,
  UNKNOWN_TOPIC_OR_PARTITION: 404,
  LEADER_NOT_AVAILABLE: 503,
  NOT_LEADER_OR_FOLLOWER: 503,
  REQUEST_TIMED_OUT: 504,
  MESSAGE_TOO_LARGE: 413,
  OFFSET_METADATA_TOO_LARGE: 400,
  COORDINATOR_LOAD_IN_PROGRESS: 503,
  COORDINATOR_NOT_AVAILABLE: 503,
  NOT_COORDINATOR: 503,
  INVALID_TOPIC_EXCEPTION: 400,
  NOT_ENOUGH_REPLICAS: 503,
  ILLEGAL_GENERATION: 409,
  INCONSISTENT_GROUP_PROTOCOL: 409,
  INVALID_GROUP_ID: 400,
  UNKNOWN_MEMBER_ID: 404,
  INVALID_SESSION_TIMEOUT: 400,
  REBALANCE_IN_PROGRESS: 503,
  TOPIC_AUTHORIZATION_FAILED: 403,
  GROUP_AUTHORIZATION_FAILED: 403,
  CLUSTER_AUTHORIZATION_FAILED: 403,
  INVALID_TIMESTAMP: 400,
  TOPIC_ALREADY_EXISTS: 409,
  INVALID_PARTITIONS: 400,
  INVALID_CONFIG_VALUE: 400,
  INVALID_REQUEST: 400,
  POLICY_VIOLATION: 403,
  KAFKA_STORAGE_ERROR: 503,
  SASL_AUTHENTICATION_FAILED: 403,
  NON_EMPTY_GROUP: 409,
  GROUP_ID_NOT_FOUND: 404,
  FENCED_INSTANCE_ID: 409,
  INVALID_RECORD: 400,
}

/** Limits on the request's head, which HTTP answers with a status of its own. */
const headLimits: ReadonlySet<string> = new Set(['http-headers', 'http-header-bytes'])

/** The status an error is answered with. */
export function statusOf(error: KedgeError): number {
  if (error.code === 'LIMIT_EXCEEDED' && error.limit !== undefined && headLimits.has(error.limit)) return 431
  return statusOfCode[error.code] ?? 500
}

/**
 * Any thrown thing as an error with a code. What is not ours is answered as UNKNOWN_SERVER_ERROR without its text, which
 * may name files or secrets; the caller reports the original.
 */
export function asKedgeError(thrown: unknown): KedgeError {
  if (thrown instanceof KedgeError) return thrown
  return new GatewayError('UNKNOWN_SERVER_ERROR', 'The gateway failed to serve the request. Its log says why.', {
    cause: thrown,
  })
}

/** The answer of an error: the dialect's body, and our headers for clients that know them. */
export function errorResponse(error: KedgeError, extra: Readonly<Record<string, string>> = {}): GatewayResponse {
  const status = statusOf(error)
  const headers: Record<string, string> = { 'Kedge-Error': error.code, 'Kedge-Retriable': String(error.retriable) }
  const limit = error.limit ?? (error.code === 'MESSAGE_TOO_LARGE' ? 'record-bytes' : undefined)
  if (limit !== undefined) headers['Kedge-Limit'] = limit
  if (error.retryAfterMs !== undefined) Object.assign(headers, retryAfterHeaders(error.retryAfterMs))
  if (status === 401) headers['WWW-Authenticate'] = 'Basic realm="kedge", charset="UTF-8"'
  return { status, headers: { ...headers, ...extra }, body: errorBody(error) }
}

/** When to ask again, exactly and in the whole seconds of HTTP. */
export function retryAfterHeaders(retryAfterMs: number): Record<string, string> {
  return {
    'Kedge-Retry-After-Ms': String(Math.max(0, Math.ceil(retryAfterMs))),
    'Retry-After': String(Math.max(1, Math.ceil(retryAfterMs / 1000))),
  }
}

/** The body of an error: `{result:"",error,status}`, one shape for all. */
function errorBody(error: KedgeError): string {
  return JSON.stringify({ result: '', error: error.message, status: statusOf(error) })
}

/** The error of a request that cannot be understood. */
export function invalidRequest(message: string, limit?: string): GatewayError {
  return new GatewayError('INVALID_REQUEST', message, limit === undefined ? {} : { limit })
}
