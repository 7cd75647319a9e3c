/** Values as applications send them: a JSON document as text, so that quotes must be escaped on the way in and out. */

/** A JSON document of exactly so many bytes, all ASCII. */
export function jsonValue(bytes: number): string {
  const filler = 'The quick brown fox jumps over the lazy dog; '
  const empty = JSON.stringify({ id: 'order-000001', total: 12.5, paid: true, note: '' })
  const note = filler.repeat(Math.ceil(bytes / filler.length)).slice(0, Math.max(0, bytes - empty.length))
  return JSON.stringify({ id: 'order-000001', total: 12.5, paid: true, note })
}
