/**
 * Bytes and text at the dialect's edge. Upstash's dialect carries keys, values and header values as JSON strings; with
 * `Kedge-Encoding: base64` they are base64 or null and nothing is lost.
 */
import { GatewayError } from '../errors.ts'
import { base64Of, bytesOfBase64 } from '../base64.ts'
import { bytesOf } from '../record.ts'

/** How keys, values and header values are written in a request and its answer. */
export type Encoding = 'text' | 'base64'

const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Bytes as the dialect shows them: UTF-8 text with U+FFFD for what is not, `""` for null; or base64, null for null. */
export function showBytes(bytes: Uint8Array | null, encoding: Encoding): string | null {
  if (encoding === 'base64') return bytes === null ? null : base64Of(bytes)
  return bytes === null ? '' : decoder.decode(bytes)
}

/** The text of a request's body, or undefined where it is not UTF-8. */
export function strictText(bytes: Uint8Array): string | undefined {
  // The lenient decoder is three times as fast, and puts U+FFFD where it was lenient.
  const text = decoder.decode(bytes)
  if (!text.includes('\ufffd')) return text
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return undefined
  }
}

/**
 * The bytes a request means by a string.
 * @throws {GatewayError} INVALID_RECORD for a lone surrogate in text, or for text that is not base64
 */
export function readBytes(text: string, encoding: Encoding, where: string): Uint8Array {
  if (encoding === 'base64') {
    const bytes = bytesOfBase64(text)
    if (bytes === undefined) {
      throw new GatewayError('INVALID_RECORD', `Cannot read ${where}: it is not base64. Send padded standard base64.`)
    }
    return bytes
  }
  if (!text.isWellFormed()) {
    throw new GatewayError(
      'INVALID_RECORD',
      `Cannot carry ${where} as text: it holds a lone surrogate, which has no UTF-8. Send Kedge-Encoding: base64.`,
    )
  }
  return bytesOf(text)
}
