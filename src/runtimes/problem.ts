/**
 * Errors of the produce function as problem details (RFC 9457), with `result`, `error` and `status` beside them: the body
 * of Upstash's errors, so that clients written for it find the text where they look.
 */
import { BrokerError, type KedgeError, RecordError, type RecordIssue } from '../errors.ts'
import { asKedgeError, statusOf } from '../gateway/errors.ts'

/** One complaint of a problem: what, and where in the body as a JSON pointer. */
export interface ProblemIssue {
  readonly detail: string
  /** `#/0/value/total`; a value that was sent as text is pointed into as the JSON it holds. */
  readonly pointer: string
}

/** The body of an error answer. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: string
  readonly retriable: boolean
  readonly errors: readonly ProblemIssue[]
  readonly result: ''
  readonly error: string
}

/** Wait that is asked for where the failing side named none. */
const DEFAULT_RETRY_AFTER_MS = 1000

/** The answer to a call that failed. What is not one of our errors is answered without its text. */
export function problemResponse(thrown: unknown, headers: Readonly<Record<string, string>> = {}): Response {
  const error = asKedgeError(thrown)
  const status = error instanceof BrokerError ? brokerStatus(error) : statusOf(error)
  const detail = isOurCredential(error)
    ? `The gateway refused this function's own credentials: ${error.message}`
    : error.message
  const problem: Problem = {
    type: `urn:kedge:error:${error.code.toLowerCase()}`,
    title: titles[status] ?? 'Error',
    status,
    detail,
    code: error.code,
    retriable: error.retriable,
    errors: error instanceof RecordError ? error.issues.map(problemIssue) : [],
    result: '',
    error: detail,
  }
  return new Response(JSON.stringify(problem), {
    status,
    headers: {
      'content-type': 'application/problem+json',
      'kedge-error': error.code,
      'kedge-retriable': String(error.retriable),
      ...(error.limit === undefined ? {} : { 'kedge-limit': error.limit }),
      ...(status === 401 ? { 'www-authenticate': 'Basic realm="kedge", charset="UTF-8"' } : {}),
      ...(status === 503 || status === 429 ? { 'retry-after': retryAfterSeconds(error) } : {}),
      ...headers,
    },
  })
}

const titles: Readonly<Record<number, string>> = {
  400: 'Bad request',
  401: 'No credentials',
  403: 'Forbidden',
  404: 'Not found',
  405: 'Method not allowed',
  409: 'Conflict',
  413: 'Too large',
  422: 'Unprocessable',
  429: 'Too many requests',
  500: 'Internal error',
  501: 'Not supported',
  502: 'Bad gateway',
  503: 'Service unavailable',
  504: 'Timeout',
}

/** The caller is not to blame, and cannot help, when the gateway does not let this function in. */
function brokerStatus(error: BrokerError): number {
  return isOurCredential(error) ? 502 : statusOf(error)
}

function isOurCredential(error: KedgeError): boolean {
  return error instanceof BrokerError && (error.code === 'UNAUTHENTICATED' || /_AUTH\w+_FAILED$/.test(error.code))
}

function retryAfterSeconds(error: KedgeError): string {
  return String(Math.max(1, Math.ceil((error.retryAfterMs ?? DEFAULT_RETRY_AFTER_MS) / 1000)))
}

function problemIssue({ path, message }: RecordIssue): ProblemIssue {
  const parts = path.map((part) => `/${encodeURI(String(part).replaceAll('~', '~0').replaceAll('/', '~1'))}`)
  return { detail: message, pointer: `#${parts.join('')}` }
}
