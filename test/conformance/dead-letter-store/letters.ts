/** Builders of dead letters for tests; a test names only what it is about. */
import { deadLetterFingerprint } from '../../../src/dead-letter-fingerprint.ts'
import { type DeadLetter, type DeadLetterFeatures, deadLetterId } from '../../../src/dead-letter.ts'
import { type ConsumerRecord, bytesOf } from '../../../src/record.ts'

export type LetterParts = Partial<Omit<DeadLetter, 'id' | 'record'>> & { readonly record?: Partial<ConsumerRecord> }

/** A letter of `orders[0]` at offset 0 in group `shop`, unless told otherwise. Its id follows from its coordinates. */
export function letter(parts: LetterParts = {}): DeadLetter {
  const record: ConsumerRecord = {
    topic: 'orders',
    partition: 0,
    offset: 0,
    timestampMs: 1_700_000_000_000,
    key: bytesOf('key'),
    value: bytesOf('value'),
    headers: [],
    ...parts.record,
  }
  const groupId = parts.groupId ?? 'shop'
  const made = {
    id: deadLetterId(groupId, record, parts.redriveCount),
    groupId,
    reason: 'exhausted',
    cause: { name: 'Error', message: 'it failed' },
    attempts: 3,
    failedAtMs: 1_700_000_060_000,
    route: 'orders',
    redriveCount: 0,
    ...parts,
    record,
  } as const
  return { ...made, fingerprint: parts.fingerprint ?? deadLetterFingerprint(made) }
}

/** A letter at an offset of `orders[0]`, failing that many milliseconds later than the one at 0. */
export function letterAt(offset: number, parts: LetterParts = {}): DeadLetter {
  return letter({
    failedAtMs: 1_700_000_060_000 + offset,
    ...parts,
    record: { ...parts.record, offset },
  })
}

/** Every byte there is. */
export const allBytes: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) => byte)

/** Bytes that no UTF-8 text has. */
export const invalidUtf8: Uint8Array = Uint8Array.of(0xc3, 0x28, 0xff, 0xfe, 0xed, 0xa0, 0x80)

/**
 * Letters in the order in which a store lists them that were put in the order given; for a store that promises no order, in
 * one of their own.
 */
export function inListOrder(
  { features }: { readonly features: DeadLetterFeatures },
  letters: readonly DeadLetter[],
): readonly DeadLetter[] {
  if (features.listOrder === 'put') return letters
  const nameOf = ({ groupId, record }: DeadLetter): string =>
    [groupId, record.topic, record.partition, String(record.offset).padStart(16, '0')].join('/')
  return letters.toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))
}

/** A letter as plain data, so that two compare by their bytes and not by the class that holds them. */
export function plain(letters: readonly DeadLetter[]): unknown {
  return letters.map((letter) => ({
    ...letter,
    record: {
      ...letter.record,
      key: plainBytes(letter.record.key),
      value: plainBytes(letter.record.value),
      headers: letter.record.headers.map(({ key, value }) => [key, plainBytes(value)]),
    },
  }))
}

function plainBytes(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : Buffer.from(bytes).toString('hex')
}
