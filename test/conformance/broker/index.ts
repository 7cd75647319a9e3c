/** The conformance suite of the `Broker` port: every driver runs it whole. */
import { describe, expect, test } from 'vitest'
import { abort } from './abort.ts'
import { claims } from './claims.ts'
import { close } from './close.ts'
import { commit } from './commit.ts'
import { concurrency } from './concurrency.ts'
import { errors } from './errors.ts'
import { fetch } from './fetch.ts'
import { groups } from './groups.ts'
import type { BrokerHarness, CaseGroup } from './harness.ts'
import { caseAdder } from './harness.ts'
import { idempotency } from './idempotency.ts'
import { limits } from './limits.ts'
import { offsets } from './offsets.ts'
import { positions } from './positions.ts'
import { produce } from './produce.ts'
import { rebalance } from './rebalance.ts'
import { retention } from './retention.ts'
import { topics } from './topics.ts'

const groupsOfCases: Readonly<Record<string, CaseGroup>> = {
  produce,
  idempotency,
  fetch,
  offsets,
  topics,
  groups,
  rebalance,
  commit,
  claims,
  positions,
  retention,
  limits,
  errors,
  abort,
  close,
  concurrency,
}

/** Runs the whole suite over the brokers that `harness` opens, one fresh broker a case. */
export function describeBroker(name: string, harness: BrokerHarness): void {
  describe(`broker: ${name}`, () => {
    const met = new Set<string>()
    for (const [group, addCases] of Object.entries(groupsOfCases)) {
      describe(group, () => {
        addCases(caseAdder(harness, group, met))
      })
    }

    test('names only cases that exist among its deviations', () => {
      expect((harness.deviations ?? []).map(({ test }) => test)).toEqual([...met])
    })
  })
}
