/** What is left of a world when it ends, and what the checker of histories says of it. */
import type { Broker } from '../../src/broker.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { DeadLetterStoreError, KedgeError } from '../../src/errors.ts'
import { partitionKey } from '../../src/record.ts'
import type { TopicPartition } from '../../src/record.ts'
import { check } from '../history/check.ts'
import type { Item } from '../history/history.ts'
import { atOf } from '../history/noted-broker.ts'
import { contentOf, itemOf } from './witness.ts'
import type { Witness } from './witness.ts'

/** Where a world's records, offsets and letters are. */
export interface Remains {
  readonly broker: Broker
  readonly groupId: string
  readonly places: readonly TopicPartition[]
  readonly letters: DeadLetterStore
}

/** Whether a group has committed everything. */
export async function isAllCommitted({ broker, groupId, places }: Omit<Remains, 'letters'>): Promise<boolean> {
  const ends = await broker.offsets(places, 'latest')
  const committed = await broker.committed(groupId, places)
  return ends.every(({ offset }, index) => offset === 0 || committed[index]?.offset === offset)
}

/** Writes down what is committed. */
export async function observe(
  witness: Witness,
  { broker, groupId }: Pick<Remains, 'broker' | 'groupId'>,
  isLast: boolean,
): Promise<void> {
  const call = witness.ask()
  const committed = await broker.committed(groupId)
  witness.note({ type: 'observed', call, offsets: committed.map(atOf), isLast })
}

/** Everything in a dead-letter store. */
export async function allLetters(store: DeadLetterStore): Promise<DeadLetter[]> {
  const letters: DeadLetter[] = []
  let cursor: string | undefined
  do {
    const page = await store.list({ limit: 1_000, ...(cursor === undefined ? {} : { cursor }) })
    letters.push(...page.items)
    ;({ cursor } = page)
  } while (cursor !== undefined)
  return letters
}

/** Judges what a witness has seen, and what is left. */
export async function judgeWorld(
  witness: Witness,
  { broker, places, letters: store }: Remains,
  isOrdered: boolean,
): Promise<{ readonly violations: string[]; readonly figures: ReturnType<typeof check>['figures'] }> {
  const log = new Map<string, Item[]>()
  for (const at of places) {
    const limits = { maxWaitMs: 0, maxRecords: 100_000, maxBytes: 1 << 30 }
    log.set(partitionKey(at), (await broker.fetch([{ ...at, offset: 0 }], limits)).map(itemOf))
  }
  const letters = (await allLetters(store)).map(({ record }) => ({ ...atOf(record), content: contentOf(record) }))
  const { violations, figures } = check(witness.history, { log, letters }, { mostOverMs: 0, isOrdered })
  return {
    violations: [...witness.complaints, ...violations.map(({ kind, detail }) => `${kind}: ${detail}`)],
    figures,
  }
}

/** A failure of the network, as the port of a dead-letter store has it: in an error class of its own. */
export function asStoreError(error: unknown): unknown {
  if (error instanceof DeadLetterStoreError || !(error instanceof KedgeError)) return error
  return new DeadLetterStoreError(error.code, error.message)
}
