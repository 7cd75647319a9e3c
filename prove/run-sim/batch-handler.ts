/**
 * What a batch handler of a simulation makes of its records. It fails as real ones do: it does all or nothing, goes from record
 * to record and breaks off, names what failed, or names what nobody gave it; it hangs, and its process dies on the way.
 */
import { BatchError } from '../../src/handler-errors.ts'
import type { BatchFailure } from '../../src/handler-errors.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { textOf } from '../../src/record.ts'
import type { Ordering } from '../../src/router.ts'

/** How a batch handler goes about its records. */
export type Manner = 'all or nothing' | 'one by one' | 'names' | 'names a stranger'

const manners: readonly Manner[] = ['all or nothing', 'one by one', 'one by one', 'names', 'names', 'names']
const STRANGERS = 0.03

/** A manner by chance. */
export function chooseManner(random: () => number): Manner {
  if (random() < STRANGERS) return 'names a stranger'
  return manners[Math.floor(random() * manners.length)] ?? 'names'
}

/** What one call does. */
export interface BatchWork {
  readonly manner: Manner
  /** What waits for what. */
  readonly ordering: Ordering
  /** How the handler fails at a record; undefined where it does not. */
  readonly failureOf: (record: ConsumerRecord<unknown>) => Failure | undefined
  /** The effect of a record. Says whether the process lives. */
  readonly effect: (record: ConsumerRecord<unknown>) => boolean
}

/** How a handler fails at a record. */
export type Failure = 'hangs' | { readonly error: unknown }

/** Does it. Throws what the handler throws; gives a promise that never settles where it hangs, or its process is dead. */
export function handleTogether(
  records: readonly ConsumerRecord<unknown>[],
  work: BatchWork,
): Promise<never> | undefined {
  const { manner, failureOf, effect } = work
  if (manner === 'names') return nameThose(records, work)
  if (manner === 'names a stranger') {
    throw new BatchError([{ record: records.length, error: new Error('of another batch') }])
  }
  if (manner === 'all or nothing') {
    for (const record of records) {
      const failure = failureOf(record)
      if (failure !== undefined) return fail(failure)
    }
  }
  for (const record of records) {
    const failure = manner === 'one by one' ? failureOf(record) : undefined
    if (failure !== undefined) return fail(failure)
    if (!effect(record)) return forEver()
  }
  return undefined
}

/** Goes on behind a record that failed, but for those that wait for it: they are named too. */
function nameThose(
  records: readonly ConsumerRecord<unknown>[],
  { ordering, failureOf, effect }: BatchWork,
): Promise<never> | undefined {
  const failures: BatchFailure[] = []
  const stopped = new Set<string>()
  for (const [index, record] of records.entries()) {
    const chain = chainOf(record, ordering)
    const failure = stopped.has(chain) ? { error: new Error('behind one that failed') } : failureOf(record)
    if (failure === 'hangs') return forEver()
    if (failure !== undefined) {
      stopped.add(chain)
      failures.push({ record: index % 2 === 0 ? record : index, error: failure.error })
    } else if (!effect(record)) return forEver()
  }
  if (failures.length > 0) throw new BatchError(failures)
  return undefined
}

function chainOf({ key, offset }: ConsumerRecord<unknown>, ordering: Ordering): string {
  if (ordering === 'partition') return ''
  return ordering === 'key' && key !== null ? `key ${textOf(key)}` : `offset ${offset}`
}

function fail(failure: Failure): Promise<never> {
  if (failure === 'hangs') return forEver()
  throw failure.error
}

function forEver(): Promise<never> {
  return new Promise(() => {})
}
