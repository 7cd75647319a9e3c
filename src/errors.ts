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
  CLOSED: { retriable: false, description: 'The call came after close().' },
  UNSUPPORTED: { retriable: false, description: 'This driver cannot honour the call; it never silently does less.' },
  ABORTED: {
    retriable: false,
    description: 'The call was given up because its signal was aborted for no reason of its own.',
  },
  TIMEOUT: { retriable: true, description: 'No answer within the time the caller allowed. The outcome is unknown.' },
  NETWORK: {
    retriable: true,
    description: 'The other side could not be reached or the connection was lost. The outcome is unknown.',
  },
  BAD_RESPONSE: { retriable: false, description: 'The other side answered with something that is not its protocol.' },
  INVALID_CONFIG: { retriable: false, description: 'A setting is missing, unknown, or outside its range.' },
  UNKNOWN_ROUTE: { retriable: false, description: 'The gateway has no such path.' },
  METHOD_NOT_ALLOWED: { retriable: false, description: 'The path exists, but not for this method.' },
  UNSUPPORTED_MEDIA_TYPE: {
    retriable: false,
    description: 'The body is compressed or otherwise encoded in a way the gateway does not read.',
  },
  SLOW_REQUEST: { retriable: true, description: 'The request did not arrive whole in the time the server allows.' },
  UNAUTHENTICATED: { retriable: false, description: 'No credentials, or credentials that cannot be read.' },
  NO_COMMITTED_OFFSET: {
    retriable: false,
    description: 'Nothing is committed for a partition and the offset reset policy is none.',
  },
  CLAIM_HELD: { retriable: true, description: "Another run's claim on this group and instance is live." },
  CLAIM_LOST: {
    retriable: false,
    description: 'The run no longer holds the claim on its group and instance; its commits are refused.',
  },
  IDEMPOTENCY_KEY_IN_FLIGHT: {
    retriable: true,
    description: 'A produce with the same idempotency key has not ended yet.',
  },
  IDEMPOTENCY_KEY_REUSED: { retriable: false, description: 'The idempotency key was used before with other records.' },
  LIMIT_EXCEEDED: { retriable: false, description: 'A named limit on size or count was exceeded.' },
  OVERLOADED: { retriable: true, description: 'A named limit on work in progress was reached; try again later.' },
  DEAD_LETTER_TOO_LARGE: {
    retriable: false,
    description: 'The dead letter is larger than its store accepts. It is never trimmed to fit.',
  },
  DEAD_LETTER_STORE_UNAVAILABLE: {
    retriable: true,
    description: 'The dead-letter store could not be reached or refused to store for now.',
  },
  DEAD_LETTER_NOT_FOUND: { retriable: false, description: 'The dead-letter store has no such letter of this group.' },
  IDEMPOTENCY_STORE_UNAVAILABLE: {
    retriable: true,
    description: 'The idempotency store could not be reached or refused to serve for now.',
  },
  RECORD_IN_PROGRESS: {
    retriable: true,
    description: "Another attempt holds the lock on the record's idempotency key and has not ended yet.",
  },
  LOCK_LOST: {
    retriable: false,
    description: 'The lock on an idempotency key lapsed and is no longer held by the one who took it.',
  },
  HANDLER_TIMEOUT: { retriable: true, description: 'A handler did not settle within its per-attempt timeout.' },
  HANDLER_FAILED: { retriable: true, description: 'A handler threw or rejected.' },
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
