/**
 * One dead letter as one line of JSON, for stores that hold text. Bytes are base64, `null` stays `null`, so that key,
 * value and headers come back byte for byte. The text is plain ASCII whatever the letter holds: some stores (SQS) refuse
 * characters that are legal in JSON, and bytes and characters are then the same count.
 */
import { base64Of, bytesOfBase64 } from '../base64.ts'
import { deadLetterFingerprint } from '../dead-letter-fingerprint.ts'
import { type DeadLetter, type DeadLetterCause, isDeadLetterReason } from '../dead-letter.ts'
import { DeadLetterStoreError } from '../errors.ts'
import type { ConsumerRecord, Header } from '../record.ts'

/** Names the shape below; another shape gets another name. */
const DEAD_LETTER_FORMAT = 'kedge-dead-letter/1'

/** The letter as ASCII JSON. */
export function encodeDeadLetter(letter: DeadLetter): string {
  const { record } = letter
  return asciiJson({
    format: DEAD_LETTER_FORMAT,
    id: letter.id,
    groupId: letter.groupId,
    reason: letter.reason,
    attempts: letter.attempts,
    failedAtMs: letter.failedAtMs,
    route: letter.route,
    fingerprint: letter.fingerprint,
    redriveCount: letter.redriveCount,
    cause: letter.cause,
    record: {
      topic: record.topic,
      partition: record.partition,
      offset: record.offset,
      timestampMs: record.timestampMs,
      key: base64OrNull(record.key),
      value: base64OrNull(record.value),
      headers: record.headers.map(({ key, value }) => ({ key, value: base64OrNull(value) })),
    },
  })
}

/**
 * The letter in a text that `encodeDeadLetter` made.
 * @throws {DeadLetterStoreError} BAD_RESPONSE for anything else.
 */
export function decodeDeadLetter(text: string): DeadLetter {
  try {
    const letter = objectOf(JSON.parse(text) as unknown)
    if (letter['format'] !== DEAD_LETTER_FORMAT) throw new TypeError(`format is not ${DEAD_LETTER_FORMAT}`)
    return withFingerprint({
      id: stringOf(letter['id']),
      record: recordOf(objectOf(letter['record'])),
      groupId: stringOf(letter['groupId']),
      reason: reasonOf(letter['reason']),
      cause: causeOf(letter['cause']),
      attempts: integerOf(letter['attempts']),
      failedAtMs: integerOf(letter['failedAtMs']),
      route: letter['route'] === null ? null : stringOf(letter['route']),
      fingerprint: letter['fingerprint'] === undefined ? undefined : stringOf(letter['fingerprint']),
      redriveCount: letter['redriveCount'] === undefined ? 0 : integerOf(letter['redriveCount']),
    })
  } catch (cause) {
    throw new DeadLetterStoreError(
      'BAD_RESPONSE',
      'Cannot read a stored dead letter: it is not one that Kedge wrote.',
      {
        cause,
      },
    )
  }
}

/** A letter as it was read from a store: one that was stored before letters had a fingerprint gets its own now. */
export function withFingerprint(
  letter: Omit<DeadLetter, 'fingerprint'> & { readonly fingerprint: string | undefined },
): DeadLetter {
  return { ...letter, fingerprint: letter.fingerprint ?? deadLetterFingerprint(letter) }
}

/** The cause as ASCII JSON. */
export function encodeCause(cause: DeadLetterCause): string {
  return asciiJson(cause)
}

/** @throws {TypeError} where the text is not a cause. */
export function decodeCause(text: string): DeadLetterCause {
  return causeOf(JSON.parse(text) as unknown)
}

/** JSON escapes what is not well-formed by itself; the rest above ASCII is escaped here. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

function recordOf(record: Readonly<Record<string, unknown>>): ConsumerRecord {
  return {
    topic: stringOf(record['topic']),
    partition: integerOf(record['partition']),
    offset: integerOf(record['offset']),
    timestampMs: integerOf(record['timestampMs']),
    key: bytesOrNull(record['key']),
    value: bytesOrNull(record['value']),
    headers: headersOf(record['headers']),
  }
}

function headersOf(value: unknown): Header[] {
  if (!Array.isArray(value)) throw new TypeError('headers are not a list')
  return value.map((entry: unknown) => {
    const header = objectOf(entry)
    return { key: stringOf(header['key']), value: bytesOrNull(header['value']) }
  })
}

function causeOf(value: unknown): DeadLetterCause {
  const { name, message, code, stack } = objectOf(value)
  return {
    name: stringOf(name),
    message: stringOf(message),
    ...(code === undefined ? {} : { code: stringOf(code) }),
    ...(stack === undefined ? {} : { stack: stringOf(stack) }),
  }
}

function reasonOf(value: unknown): DeadLetter['reason'] {
  if (typeof value !== 'string' || !isDeadLetterReason(value)) throw new TypeError('reason is unknown')
  return value
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) throw new TypeError('not an object')
  return value as Readonly<Record<string, unknown>>
}

function stringOf(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('not a text')
  return value
}

function integerOf(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw new TypeError('not a safe integer')
  return value
}

function base64OrNull(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : base64Of(bytes)
}

function bytesOrNull(value: unknown): Uint8Array | null {
  if (value === null) return null
  const bytes = bytesOfBase64(stringOf(value))
  if (bytes === undefined) throw new TypeError('not base64')
  return bytes
}
