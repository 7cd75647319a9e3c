/**
 * The conformance suite of `DeadLetterStore`: one set of cases for every driver. What a store can do comes from its
 * `features`; a missing ability is asserted to be refused, never skipped.
 */
import { afterEach, beforeEach, describe } from 'vitest'

import type { DeadLetter, DeadLetterStore } from '../../../src/dead-letter.ts'
import { abilityCases } from './abilities.ts'
import { closeCases } from './close.ts'
import { listCases } from './list.ts'
import { putCases } from './put.ts'

/** A fresh, empty store for one test. */
export interface OpenedStore {
  readonly store: DeadLetterStore
  /**
   * Every letter that is stored, oldest first, read by the store's own means (a store without `list` is read as its users
   * do: the queue is received).
   */
  readonly stored: () => Promise<readonly DeadLetter[]>
  readonly close: () => Promise<void>
}

export interface DeadLetterStoreHarness {
  readonly open: () => Promise<OpenedStore>
}

/** What the cases get: the store of the running test. */
export type Subject = () => OpenedStore

export function describeDeadLetterStore(name: string, harness: DeadLetterStoreHarness): void {
  describe(`dead-letter store ${name}`, () => {
    let opened: OpenedStore
    beforeEach(async () => {
      opened = await harness.open()
    })
    afterEach(async () => {
      await opened.close()
    })
    const subject: Subject = () => opened

    describe('put', () => {
      putCases(subject)
    })
    describe('list', () => {
      listCases(subject)
    })
    describe('get and delete', () => {
      abilityCases(subject)
    })
    describe('close', () => {
      closeCases(subject)
    })
  })
}
