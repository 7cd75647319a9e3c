/** What the cluster and the client library answer when a call fails, as errors of ours: classified once, here. */
import { GenericError, MultipleErrors, protocolErrorsCodesById, ResponseError, TimeoutError } from '@platformatic/kafka'
import { BrokerError, isErrorCode, isRetriableCode, KedgeError } from '../../errors.ts'
import type { ErrorCode } from '../../errors.ts'

/** Kafka's names for what Kedge has another name for. */
const renamed: Readonly<Record<string, ErrorCode>> = {
  INVALID_CONFIG: 'INVALID_CONFIG_VALUE',
  RECORD_LIST_TOO_LARGE: 'MESSAGE_TOO_LARGE',
  UNKNOWN_TOPIC_ID: 'UNKNOWN_TOPIC_OR_PARTITION',
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: 'NOT_ENOUGH_REPLICAS',
  TOPIC_DELETION_DISABLED: 'POLICY_VIOLATION',
  FENCED_LEADER_EPOCH: 'NOT_LEADER_OR_FOLLOWER',
  UNKNOWN_LEADER_EPOCH: 'NOT_LEADER_OR_FOLLOWER',
  OFFSET_NOT_AVAILABLE: 'LEADER_NOT_AVAILABLE',
  REPLICA_NOT_AVAILABLE: 'LEADER_NOT_AVAILABLE',
  UNSUPPORTED_SASL_MECHANISM: 'SASL_AUTHENTICATION_FAILED',
  ILLEGAL_SASL_STATE: 'SASL_AUTHENTICATION_FAILED',
}

/** The first error that a response names, by Kafka's name; undefined where the failure is not the cluster's answer. */
export function kafkaNameOf(error: unknown): string | undefined {
  const found = error instanceof ResponseError ? error.findBy('code', 'PLT_KFK_PROTOCOL') : null
  const name: unknown = found === null ? undefined : (found as { readonly apiId?: unknown }).apiId
  return typeof name === 'string' ? name : undefined
}

/** The response in which the errors were, which holds what succeeded beside them. */
export function responseOf(error: unknown): unknown {
  // The library keeps it under a name that its type does not have.
  return error instanceof ResponseError ? (error as unknown as { readonly response: unknown }).response : undefined
}

/** Whether a failure says that a connection was lost or never made; what became of the call is then unknown. */
export function isConnectionFailure(error: unknown): boolean {
  return error instanceof GenericError && !(error instanceof MultipleErrors) && error.code === 'PLT_KFK_NETWORK'
}

/** Whether the other side ended a connection, or it broke; not that it was given up because nothing came. */
export function isEndedConnection(error: unknown): boolean {
  return isConnectionFailure(error) && !(error instanceof TimeoutError)
}

/** Whether something was given up because it took too long. */
export function isTimeout(reason: unknown): boolean {
  return reason instanceof BrokerError && reason.code === 'TIMEOUT'
}

/** Any failure of a call as an error of ours. `what` completes "Cannot ...". */
export function failureOf(error: unknown, what: string): Error {
  if (error instanceof KedgeError) return error
  const name = kafkaNameOf(error)
  if (name !== undefined) return namedFailure(name, what, error)
  if (!GenericError.isGenericError(error as Error)) return error instanceof Error ? error : new Error(String(error))
  const generic = error as GenericError
  const reason = reasonsOf(generic).join(': ')
  if (/SASL|AUTHENTICATION/i.test(reason) && !/closed|ECONN|timed out/i.test(reason)) {
    return new BrokerError(
      'SASL_AUTHENTICATION_FAILED',
      `Cannot ${what}: ${reason}. Check mechanism, name and password.`,
      {
        cause: error,
      },
    )
  }
  if (/TLS|certificate|self.signed|SSL|EPROTO|ERR_TLS/i.test(reason)) {
    const details = { cause: error, retriable: false }
    return new BrokerError('NETWORK', `Cannot ${what}: ${reason}. Check the TLS settings of both sides.`, details)
  }
  if (generic.code === 'PLT_KFK_NETWORK')
    return new BrokerError('NETWORK', `Cannot ${what}: ${reason}.`, { cause: error })
  return new BrokerError('BAD_RESPONSE', `Cannot ${what}: ${reason}.`, { cause: error })
}

/** An error that Kafka gives by number. */
export function numberedFailure(number: number, what: string, detail?: string | null): BrokerError {
  const name: string = (protocolErrorsCodesById as Readonly<Record<number, string>>)[number] ?? `error ${number}`
  return namedFailure(name, detail === undefined || detail === null || detail === '' ? what : `${what} (${detail})`)
}

/** An error that Kafka gives by name. */
export function namedFailure(name: string, what: string, cause?: unknown): BrokerError {
  const code = renamed[name] ?? name
  const details = cause === undefined ? {} : { cause }
  if (isErrorCode(code)) {
    return new BrokerError(code, `Cannot ${what}: Kafka answers ${name}.${adviceOf(code)}`, {
      ...details,
      retriable: isRetriableCode(code),
    })
  }
  return new BrokerError('UNKNOWN_SERVER_ERROR', `Cannot ${what}: Kafka answers ${name}.`, details)
}

function adviceOf(code: ErrorCode): string {
  if (code.endsWith('_AUTHORIZATION_FAILED')) return ' Give the user this right in the cluster.'
  if (code === 'INCONSISTENT_GROUP_PROTOCOL') {
    return ' Clients with other assignors use the group: use another group id, or let them offer range or sticky.'
  }
  if (code === 'INVALID_SESSION_TIMEOUT') {
    return ' The cluster allows group.min.session.timeout.ms to group.max.session.timeout.ms.'
  }
  return ''
}

/** Messages of an error and of what caused it, each once, without the dot at their end. */
function reasonsOf(error: unknown): string[] {
  const reasons: string[] = []
  for (let at: unknown = error; at instanceof Error && reasons.length < 5; at = at.cause) {
    const code = 'code' in at && typeof at.code === 'string' && !at.code.startsWith('PLT_') ? ` (${at.code})` : ''
    const inner = at instanceof AggregateError ? at.errors.find((one) => one instanceof Error)?.message : undefined
    const reason = `${(at.message === '' ? (inner ?? at.name) : at.message).replace(/\.$/, '')}${code}`
    if (!reasons.includes(reason)) reasons.push(reason)
  }
  return reasons
}
