import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MAX_OFFSET_METADATA_BYTES } from '../../../src/broker.ts'
import { bytesOfBase64 } from '../../../src/base64.ts'
import { decodeProgress, encodeProgress, MAX_SUSPECTS } from '../../../src/consumer/progress.ts'
import type { OpenRecord, Progress, SuspectRecord } from '../../../src/consumer/progress.ts'

const openRecord = fc.record({
  gap: fc.integer({ min: 1, max: 100_000 }),
  attempts: fc.integer({ min: 0, max: 200 }),
  dueSeconds: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 4_000_000_000 })),
})

/** A commit's offset, and what is known beyond it: the first open record is where the commit is. */
const known = fc
  .tuple(fc.integer({ min: 0, max: 2 ** 50 }), fc.array(openRecord, { minLength: 1, maxLength: 2_000 }), fc.nat(1_000))
  .map(([offset, records, after]): { offset: number; progress: Progress } => {
    const open: OpenRecord[] = []
    let at = offset
    for (const { gap, attempts, dueSeconds } of records) {
      open.push({ offset: at, attempts, dueAtMs: dueSeconds * 1000 })
      at += gap
    }
    return { offset, progress: { settledTo: (open.at(-1)?.offset ?? offset) + 1 + after, open } }
  })

describe('progress', () => {
  test('comes back from metadata, whole or from its beginning, and always fits', () => {
    fc.assert(
      fc.property(known, ({ offset, progress }) => {
        const { metadata, reach } = encodeProgress(offset, progress)

        const read = decodeProgress(offset, metadata)

        expect(metadata?.length ?? 0).toBeLessThanOrEqual(MAX_OFFSET_METADATA_BYTES)
        if (read === undefined) return
        expect(read.settledTo).toBe(reach)
        expect(read.open).toEqual(progress.open.filter((one) => one.offset < reach))
        expect(reach === progress.settledTo || progress.open.some((one) => one.offset === reach)).toBe(true)
      }),
    )
  })

  test('needs no metadata where an offset says as much', () => {
    const fresh = { attempts: 0, dueAtMs: 0 }
    expect(encodeProgress(5, { settledTo: 5, open: [] }).metadata).toBeNull()
    expect(encodeProgress(5, { settledTo: 6, open: [{ offset: 5, ...fresh }] }).metadata).toBeNull()
    expect(encodeProgress(5, { settledTo: 7, open: [{ offset: 5, ...fresh }] }).metadata).not.toBeNull()
    expect(encodeProgress(5, { settledTo: 6, open: [{ offset: 5, attempts: 1, dueAtMs: 0 }] }).metadata).not.toBeNull()
  })

  test('carries who is suspected, and who is called, however much else there is to say', () => {
    const suspected = fc.array(fc.record({ gap: fc.nat(2 ** 40), strikes: fc.integer({ min: 0, max: 200 }) }), {
      minLength: 1,
      maxLength: 2 * MAX_SUSPECTS,
    })
    fc.assert(
      fc.property(known, suspected, fc.nat(), ({ offset, progress }, some, pick) => {
        const suspects = some.map(({ gap, strikes }, index): SuspectRecord => ({
          offset: offset + gap,
          strikes,
          isCalled: index === pick % some.length,
        }))
        const { metadata, reach } = encodeProgress(offset, { ...progress, suspects })

        const read = decodeProgress(offset, metadata)

        expect(metadata?.length ?? 0).toBeLessThanOrEqual(MAX_OFFSET_METADATA_BYTES)
        expect(read?.settledTo).toBe(reach)
        expect(read?.suspects?.[0]).toEqual(suspects.find(({ isCalled }) => isCalled))
        expect(read?.suspects).toHaveLength(Math.min(suspects.length, MAX_SUSPECTS))
      }),
    )
  })

  test('forgets open records before it forgets who is called', () => {
    const open = Array.from({ length: 1_500 }, (_, n) => ({ offset: n, attempts: 1, dueAtMs: 1_700_000_000_000 }))
    const suspects = Array.from({ length: 20 }, (_, n) => ({ offset: 1_480 + n, strikes: 1, isCalled: n === 19 }))

    const { metadata } = encodeProgress(0, { settledTo: 1_500, open, suspects })

    expect(metadata?.length).toBeLessThanOrEqual(MAX_OFFSET_METADATA_BYTES)
    expect(decodeProgress(0, metadata)?.suspects?.[0]).toEqual({ offset: 1_499, strikes: 1, isCalled: true })
  })

  test('says of open records what it said before suspects were known, in the same place', () => {
    const open = [{ offset: 7, attempts: 2, dueAtMs: 5_000 }]
    const { metadata: before } = encodeProgress(7, { settledTo: 9, open })
    const { metadata: now } = encodeProgress(7, {
      settledTo: 9,
      open,
      suspects: [{ offset: 7, strikes: 1, isCalled: true }],
    })

    const bytes = [before, now].map((text) => [...(bytesOfBase64(padded(text?.slice('kedge1:'.length) ?? '')) ?? [])])

    expect(bytes[1]).toEqual([...(bytes[0] ?? []), 0, 3])
    expect(decodeProgress(7, before)?.suspects).toBeUndefined()
  })

  test.each([null, '', 'somebody else was here', 'kedge1:', 'kedge1:!', 'kedge1://///w', 'kedge1:gICAgICAgICAgIA'])(
    'is unknown in %j',
    (metadata) => {
      expect(decodeProgress(0, metadata)).toBeUndefined()
    },
  )
})

function padded(text: string): string {
  return text + '='.repeat((4 - (text.length % 4)) % 4)
}
