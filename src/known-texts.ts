/**
 * A set of texts to find bytes in without decoding them: a batch has thousands of keys, and a router asks of each only
 * whether it is one of those that its routes name.
 */
import { bytesOf } from './record.ts'

interface Known {
  readonly bytes: Uint8Array
  readonly text: string
}

/** Texts that can be found by their bytes. */
export class KnownTexts {
  readonly #lengths = new Set<number>()
  readonly #byHash = new Map<number, Known[]>()

  constructor(texts: Iterable<string>) {
    for (const text of new Set(texts)) {
      // Text that has no UTF-8 form equals no bytes, and must not be found under that of its replacement characters.
      if (!text.isWellFormed()) continue
      const bytes = bytesOf(text)
      const hash = hashOf(bytes)
      this.#lengths.add(bytes.length)
      this.#byHash.set(hash, [...(this.#byHash.get(hash) ?? []), { bytes, text }])
    }
  }

  /** The text whose UTF-8 bytes these are, or undefined where it is none of the set. */
  find(bytes: Uint8Array): string | undefined {
    if (!this.#lengths.has(bytes.length)) return undefined
    const found = this.#byHash.get(hashOf(bytes))
    if (found === undefined) return undefined
    for (const { bytes: known, text } of found) if (areEqual(known, bytes)) return text
    return undefined
  }
}

/** FNV-1a, 32 bits. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < bytes.length; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193)
  return hash
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false
  return true
}
