import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MAX_OFFSET_METADATA_BYTES } from '../../../src/broker.ts'
import { decodeProgress, encodeProgress } from '../../../src/consumer/progress.ts'
import type { OpenRecord, Progress } from '../../../src/consumer/progress.ts'

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

  test.each([null, '', 'somebody else was here', 'kedge1:', 'kedge1:!', 'kedge1://///w', 'kedge1:gICAgICAgICAgIA'])(
    'is unknown in %j',
    (metadata) => {
      expect(decodeProgress(0, metadata)).toBeUndefined()
    },
  )
})
