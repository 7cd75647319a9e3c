/** The `Idempotency-Key` of a request, as the broker is given it. */
import { base64Of } from '../base64.ts'
import type { ProduceOptions } from '../broker.ts'
import { bytesOf } from '../record.ts'
import type { RouteContext } from './route.ts'
import type { IdempotencyHeader } from './schemas.ts'

/**
 * What a produce is told of the key. Two credentials never meet on one key: each has its own keys, by a digest that also
 * bounds their length.
 */
export async function idempotencyOf(
  headers: IdempotencyHeader,
  { principal, sha256 }: RouteContext,
): Promise<Pick<ProduceOptions, 'idempotencyKey'>> {
  const key = headers['idempotency-key']
  if (key === undefined) return {}
  return { idempotencyKey: base64Of(await sha256(bytesOf(`${principal.name ?? ''}\n${unquotedKey(key)}`))) }
}

/** The key of a header that may be a string of RFC 8941, which escapes quotes and backslashes. */
export function unquotedKey(key: string): string {
  return key.startsWith('"') ? key.slice(1, -1).replaceAll(/\\(["\\])/g, '$1') : key
}
