/** Bodies: bytes to checked text to JSON, never past the limit. */
import { GatewayError } from '../errors.ts'
import { invalidRequest } from './errors.ts'
import { boundExceeded, parseJson, tooDeep, type JsonBounds } from './json.ts'
import { limitNames, type GatewayLimits } from './limits.ts'
import { strictText } from './text.ts'

/**
 * The JSON of a body, undefined for an empty one. With `keepValues` a record's value that is no string and not null
 * stays the text that was sent.
 * @throws {GatewayError} INVALID_REQUEST for a body that is not UTF-8, not JSON, or too deep; LIMIT_EXCEEDED for lists
 * that are too long
 */
export function parseBody(bytes: Uint8Array, limits: GatewayLimits, keepValues: boolean): unknown {
  const text = bodyText(bytes)
  if (/^[ \t\n\r]*$/.test(text)) return undefined
  const exceeded = boundExceeded(text, boundsOf(limits))
  if (exceeded !== undefined) throw boundError(exceeded, limits)
  const json = parseJson(text, { maxDepth: limits.jsonDepth, ...(keepValues ? { rawMember: 'value' } : {}) })
  if (Array.isArray(json) && json.length > limits.batchRecords) throw boundError('maxRootItems', limits)
  return json
}

/** The JSON of a body where `JSON.parse` takes it and it is not deep, else undefined. */
export function parseFast(bytes: Uint8Array, limits: GatewayLimits): unknown {
  const text = strictText(bytes)
  if (text === undefined || text === '' || boundExceeded(text, boundsOf(limits)) !== undefined) return undefined
  try {
    return JSON.parse(text) as unknown
  } catch {
    // Not an answer yet: the long way reads trailing commas, and says where the mistake is.
    return undefined
  }
}

function boundsOf({ jsonDepth, jsonItems, batchRecords }: GatewayLimits): JsonBounds {
  return { maxDepth: jsonDepth, maxItems: jsonItems, maxRootItems: batchRecords }
}

function boundError(bound: keyof JsonBounds, limits: GatewayLimits): GatewayError {
  if (bound === 'maxDepth') return tooDeep(limits.jsonDepth)
  const [what, limit] =
    bound === 'maxItems'
      ? [
          `a list or object in it has more than ${limits.jsonItems} items. Send a large value as a string`,
          limitNames.jsonItems,
        ]
      : [`it has more than ${limits.batchRecords} entries. Send smaller batches`, limitNames.batchRecords]
  return new GatewayError('LIMIT_EXCEEDED', `Cannot read the body: ${what}.`, { limit })
}

function bodyText(bytes: Uint8Array): string {
  const text = strictText(bytes)
  if (text === undefined) throw invalidRequest('Cannot read the body: it is not UTF-8. Send JSON as UTF-8.')
  return text
}

/** The error of a body over its limit. */
export function bodyTooLarge(maxBytes: number): GatewayError {
  return new GatewayError(
    'LIMIT_EXCEEDED',
    `Cannot read the body: it is larger than ${maxBytes} bytes. Send smaller batches.`,
    { limit: limitNames.bodyBytes },
  )
}

/** A body gathered from its chunks, given up as soon as it is over the limit. */
export async function gather(chunks: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (size > maxBytes) throw bodyTooLarge(maxBytes)
    parts.push(chunk)
  }
  const [only] = parts
  return parts.length === 1 && only !== undefined ? only : joined(parts, size)
}

/** The chunks as one array. */
export function joined(parts: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
