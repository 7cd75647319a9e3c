/** A key's entry as JSON, for stores that hold text. */
import { base64Of, bytesOfBase64 } from '../base64.ts'
import { IdempotencyError } from '../errors.ts'
import type { Entry } from './entry.ts'

/** Names the shape of a stored entry; another shape gets another number. */
const VERSION = 1

/** The entry as JSON. */
export function encodeEntry({ owner, expiresAtMs, outcome }: Entry): string {
  return JSON.stringify({ version: VERSION, owner, expiresAtMs, outcome: outcome === null ? null : base64Of(outcome) })
}

/** The entry in a text that `encodeEntry` made. @throws {IdempotencyError} BAD_RESPONSE for anything else. */
export function decodeEntry(text: string): Entry {
  try {
    const { version, owner, expiresAtMs, outcome } = Object(JSON.parse(text) as unknown) as Record<string, unknown>
    if (version !== VERSION) throw new TypeError(`the version is not ${VERSION}`)
    if (typeof owner !== 'string' || !Number.isSafeInteger(expiresAtMs)) throw new TypeError('fields are missing')
    const bytes = typeof outcome === 'string' ? bytesOfBase64(outcome) : null
    if (bytes === undefined || (bytes === null && outcome !== null)) throw new TypeError('the outcome is not base64')
    return { owner, expiresAtMs: Number(expiresAtMs), outcome: bytes }
  } catch (cause) {
    throw new IdempotencyError(
      'BAD_RESPONSE',
      'Cannot read what is stored under an idempotency key: this version of Kedge did not write it. Use another namespace, or the version that did.',
      { cause },
    )
  }
}
