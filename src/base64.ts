/** Padded standard base64 (RFC 4648, section 4) of bytes, on every runtime and without a library. */

/** A chunk whose characters fit the arguments of one call on every engine. */
const CHUNK = 8_192

const PADDED = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** Base64 of bytes. */
export function base64Of(bytes: Uint8Array): string {
  let binary = ''
  for (let at = 0; at < bytes.length; at += CHUNK) binary += String.fromCharCode(...bytes.subarray(at, at + CHUNK))
  return btoa(binary)
}

/** Bytes of padded base64, or undefined where the text is something else. */
export function bytesOfBase64(text: string): Uint8Array | undefined {
  if (!PADDED.test(text)) return undefined
  const binary = atob(text)
  const bytes = new Uint8Array(binary.length)
  for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at)
  return bytes
}
