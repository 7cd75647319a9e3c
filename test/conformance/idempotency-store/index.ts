/**
 * The conformance suite of `IdempotencyStore`: one set of cases for every driver. What a store can do comes from its
 * `features`; what a store that is not linearizable does instead is asserted, never skipped.
 */
import { afterEach, beforeEach, describe } from 'vitest'

import { abandonCases } from './abandon.ts'
import { beginCases } from './begin.ts'
import { closeCases } from './close.ts'
import { completeCases } from './complete.ts'
import { concurrencyCases } from './concurrency.ts'
import { effectivelyOnceCases } from './effectively-once.ts'
import { limitCases } from './limits.ts'
import type { OpenedIdempotencyStore, Subject } from './subject.ts'

export interface IdempotencyStoreHarness {
  readonly open: () => Promise<OpenedIdempotencyStore>
}

export function describeIdempotencyStore(name: string, harness: IdempotencyStoreHarness): void {
  describe(`idempotency store ${name}`, () => {
    let opened: OpenedIdempotencyStore
    beforeEach(async () => {
      opened = await harness.open()
    })
    afterEach(async () => {
      await opened.close()
    })
    const subject: Subject = () => opened

    describe('begin', () => {
      beginCases(subject)
    })
    describe('complete', () => {
      completeCases(subject)
    })
    describe('abandon', () => {
      abandonCases(subject)
    })
    describe('at once', () => {
      concurrencyCases(subject)
    })
    describe('effectively once', () => {
      effectivelyOnceCases(subject)
    })
    describe('limits', () => {
      limitCases(subject)
    })
    describe('close', () => {
      closeCases(subject)
    })
  })
}
