/**
 * Every error Kedge throws. One base, few classes, many codes: the code is the contract, the message is for people and
 * follows one formula: what failed: on what: with what value: what to do. No secrets and no record values in messages.
 *
 * Wrong argument *types* from a caller are `TypeError`; bad data and failing systems are the classes below.
 */
import { kafkaErrors } from './kafka-errors.ts'

/**
 * Codes of Kedge's own, beside Kafka's. A code never disappears within a major version.
 * `retriable` says whether the same call may succeed later without anybody changing anything.
 */
export const ownErrors = {
  CLOSED: { retriable: false },
  UNSUPPORTED: { retriable: false },
  ABORTED: { retriable: false },
  TIMEOUT: { retriable: true },
  NETWORK: { retriable: true },
  BAD_RESPONSE: { retriable: false },
  INVALID_CONFIG: { retriable: false },
  UNKNOWN_ROUTE: { retriable: false },
  METHOD_NOT_ALLOWED: { retriable: false },
  UNSUPPORTED_MEDIA_TYPE: { retriable: false },
  SLOW_REQUEST: { retriable: true },
  UNAUTHENTICATED: { retriable: false },
  NO_COMMITTED_OFFSET: { retriable: false },
  CLAIM_HELD: { retriable: true },
  CLAIM_LOST: { retriable: false },
  IDEMPOTENCY_KEY_IN_FLIGHT: { retriable: true },
  IDEMPOTENCY_KEY_REUSED: { retriable: false },
  LIMIT_EXCEEDED: { retriable: false },
  OVERLOADED: { retriable: true },
  DEAD_LETTER_TOO_LARGE: { retriable: false },
  DEAD_LETTER_STORE_UNAVAILABLE: { retriable: true },
  DEAD_LETTER_NOT_FOUND: { retriable: false },
  DEAD_LETTER_ID_TAKEN: { retriable: false },
  IDEMPOTENCY_STORE_UNAVAILABLE: { retriable: true },
  RECORD_IN_PROGRESS: { retriable: true },
  LOCK_LOST: { retriable: false },
  HANDLER_TIMEOUT: { retriable: true },
  HANDLER_FAILED: { retriable: true },
} as const

/** A code of Kedge's own. */
export type OwnErrorCode = keyof typeof ownErrors
/** A code of Kafka's. */
export type KafkaErrorName = keyof typeof kafkaErrors
/** Every code an error of ours may have. */
export type ErrorCode = OwnErrorCode | KafkaErrorName

/** Whether the same call may succeed later without anybody changing anything. */
export function isRetriableCode(code: ErrorCode): boolean {
  return code in ownErrors ? ownErrors[code as OwnErrorCode].retriable : kafkaErrors[code as KafkaErrorName].retriable
}

/** Whether `text` is one of the codes, for codes that arrive from another process. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ownErrors, text) || Object.hasOwn(kafkaErrors, text)
}

/** What an error may carry besides its code and message. */
export interface ErrorDetails {
  readonly cause?: unknown
  /** Overrides what the code says, for a cause that is known better. */
  readonly retriable?: boolean
  /** How long to wait before trying again, where the other side said so. */
  readonly retryAfterMs?: number
  /** The name of the limit that was exceeded. */
  readonly limit?: string
}

/** The base of every error of ours. Tell them apart by `name` and `code`. */
export abstract class KedgeError extends Error {
  abstract override readonly name: string
  readonly code: ErrorCode
  readonly retriable: boolean
  readonly retryAfterMs: number | undefined
  readonly limit: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.retriable = details.retriable ?? isRetriableCode(code)
    this.retryAfterMs = details.retryAfterMs
    this.limit = details.limit
  }
}

/** A broker refused or failed a call. Carries Kafka's own number where the code is one of Kafka's. */
export class BrokerError extends KedgeError {
  override readonly name = 'BrokerError' as const
  /** Kafka's error number, or undefined for a code of Kedge's own. */
  get errorCode(): number | undefined {
    return this.code in kafkaErrors ? kafkaErrors[this.code as KafkaErrorName].errorCode : undefined
  }
}

/** A setting is wrong; thrown at start, before any work. */
export class ConfigError extends KedgeError {
  override readonly name = 'ConfigError' as const
  constructor(message: string, details: ErrorDetails = {}) {
    super('INVALID_CONFIG', message, details)
  }
}

/** One complaint of a schema: where in the value, and what. */
export interface RecordIssue {
  readonly path: readonly (string | number)[]
  readonly message: string
}

/** A record that its topic's schema refuses or that cannot be encoded. Names coordinates, never the value. */
export class RecordError extends KedgeError {
  override readonly name = 'RecordError' as const
  readonly issues: readonly RecordIssue[]
  constructor(message: string, issues: readonly RecordIssue[] = [], details: ErrorDetails = {}) {
    super('INVALID_RECORD', message, details)
    this.issues = issues
  }
}

/** What user code threw, wrapped once; `cause` is the thrown thing as it was. */
export class HandlerError extends KedgeError {
  override readonly name = 'HandlerError' as const
  constructor(code: 'HANDLER_FAILED' | 'HANDLER_TIMEOUT', message: string, details: ErrorDetails = {}) {
    super(code, message, details)
  }
}

/** A dead-letter store refused or failed a call. */
export class DeadLetterStoreError extends KedgeError {
  override readonly name = 'DeadLetterStoreError' as const
}

/** An idempotency store refused or failed a call. */
export class IdempotencyError extends KedgeError {
  override readonly name = 'IdempotencyError' as const
}

/** A request that the gateway itself refuses, before any broker is asked. */
export class GatewayError extends KedgeError {
  override readonly name = 'GatewayError' as const
}

/** Every error of ours, for an exhaustive `switch` on `name`. */
export type AnyKedgeError =
  | BrokerError
  | ConfigError
  | RecordError
  | HandlerError
  | DeadLetterStoreError
  | IdempotencyError
  | GatewayError

/** The error thrown for an aborted call: the signal's own reason where it is an error, else one with code ABORTED. */
export function abortError(signal: AbortSignal): Error {
  return signal.reason instanceof Error
    ? signal.reason
    : new BrokerError('ABORTED', 'The call was aborted by its caller.', { cause: signal.reason })
}
