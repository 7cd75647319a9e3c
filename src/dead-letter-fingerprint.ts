/**
 * What dead letters of one failure have in common, as a short text: the fingerprint. Letters with equal fingerprints failed
 * in the same place for the same reason, whichever record it was, so that a thousand letters can be read as three failures.
 *
 * It is made of the topic, the route, the reason, the cause's name and code, and the cause's message without what differs
 * from record to record. The same parts give the same fingerprint in every version of Kedge: letters that are stored keep
 * theirs, and a change of these rules would tear their groups apart.
 */
import type { DeadLetterCause, DeadLetterReason } from './dead-letter.ts'
import { bytesOf } from './record.ts'

/** The parts of a letter that its fingerprint is made of. */
export interface FingerprintParts {
  readonly record: { readonly topic: string }
  readonly route: string | null
  readonly reason: DeadLetterReason
  readonly cause: DeadLetterCause
}

/** Characters of a message that count. A cause of ours has fewer; a foreign one must not make the patterns slow. */
const MAX_MESSAGE_CHARS = 4096

const day = '(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*'
const month = '(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*'
const time = String.raw`\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?`
const zone = String.raw`(?: ?(?:z|utc|gmt)?(?:[+-]\d{2}:?\d{2})?\b)?`

/** What differs from record to record, and what stands for it. The order matters: a timestamp is full of numbers. */
const varying: readonly (readonly [RegExp, string])[] = [
  // A quote inside a word is an apostrophe. What is quoted ends on its line.
  [/(?<!\w)"[^"\n]*"|(?<!\w)'[^'\n]*'(?!\w)|`[^`\n]*`|“[^”\n]*”|‘[^’\n]*’(?!\w)|«[^»\n]*»/g, '<text>'],
  [/\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b/gi, '<uuid>'],
  [new RegExp(String.raw`\b\d{4}-\d{2}-\d{2}(?:[t ]${time}${zone})?`, 'gi'), '<time>'],
  [new RegExp(String.raw`\b${day},? \d{1,2} ${month} \d{4} ${time}${zone}`, 'gi'), '<time>'],
  [new RegExp(String.raw`\b${day} ${month} \d{1,2} (?:\d{4} )?${time}${zone}`, 'gi'), '<time>'],
  [new RegExp(String.raw`\b${time}${zone}`, 'gi'), '<time>'],
  // One placeholder for both: a hexadecimal id may happen to have no letter.
  [/\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b/gi, '<number>'],
  [/(?<!\w)[+-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?|\d+(?:[.,]\d+)*/gi, '<number>'],
]

/** The fingerprint of a letter: 16 hexadecimal digits. */
export function deadLetterFingerprint({ record, route, reason, cause }: FingerprintParts): string {
  const parts = [record.topic, route, reason, cause.name, cause.code ?? null, messageShape(cause.message)]
  // JSON keeps the parts apart: no two lists of parts have one text.
  return hashOf(JSON.stringify(parts))
}

function messageShape(message: string): string {
  let shape = message.slice(0, MAX_MESSAGE_CHARS)
  for (const [pattern, placeholder] of varying) shape = shape.replaceAll(pattern, placeholder)
  return shape.replaceAll(/\s+/g, ' ').trim()
}

const FNV_OFFSET = 0xcbf29ce484222325n
const FNV_PRIME = 0x100000001b3n

/**
 * FNV-1a with 64 bits: synchronous on every platform, which SHA-256 is not. Groups need no protection against somebody who
 * wants two messages to meet.
 * @see https://datatracker.ietf.org/doc/html/rfc9923
 */
function hashOf(text: string): string {
  let hash = FNV_OFFSET
  for (const byte of bytesOf(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME)
  return hash.toString(16).padStart(16, '0')
}
