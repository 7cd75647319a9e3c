/** A broker whose polls, claims, releases and commits go into a journal, as the process that makes them sees them. */
import type { Broker, PollResult } from '../../src/broker.ts'
import { KedgeError } from '../../src/errors.ts'
import { partitionKey } from '../../src/record.ts'
import type { TopicPartition } from '../../src/record.ts'
import { withCalls } from '../../test/support/consumer.ts'
import { itemOf } from '../embedded-log/stored.ts'
import type { At, Item } from '../history/history.ts'
import type { Journal } from './journal.ts'

/** Notes what an instance calls. Calls without a run are noted without one. */
export function notedBroker(broker: Broker, instance: string, journal: Journal): Broker {
  return withCalls(broker, {
    poll: async (request, call) => {
      const id = journal.nextCall()
      const run = request.run === undefined ? {} : { run: request.run.runId }
      journal.note({ type: 'asked', call: id, instance, ...run })
      return await noted('poll', id, journal, broker.poll(request, call), (result) =>
        journal.note({ type: 'polled', call: id, instance, ...run, ...seen(result) }),
      )
    },
    claim: async (group, claim, call) => {
      const id = journal.nextCall()
      const run = claim.runId
      journal.note({ type: 'asked', call: id, instance, run })
      await noted('claim', id, journal, broker.claim(group, claim, call), () =>
        journal.note({ type: 'claimed', call: id, instance, run }),
      )
    },
    release: async (group, run, call) => {
      journal.note({ type: 'releasing', instance, run })
      await broker.release(group, run, call)
    },
    commit: async (group, commits, options, call) => {
      const id = journal.nextCall()
      const offsets = commits === 'polled' ? [] : commits.map(atOf)
      const run = options?.runId === undefined ? {} : { run: options.runId }
      journal.note({ type: 'committing', call: id, instance, ...run, offsets })
      await noted('commit', id, journal, broker.commit(group, commits, options, call), () =>
        journal.note({
          type: 'committed',
          call: id,
          instance,
          ...run,
          generationId: options?.generationId,
          offsets,
        }),
      )
    },
  })
}

/** Notes the committed offsets of a group as somebody else reads them. */
export async function observe(broker: Broker, groupId: string, journal: Journal, isLast = false): Promise<void> {
  const call = journal.nextCall()
  journal.note({ type: 'asked', call })
  const offsets = (await broker.committed(groupId)).map(atOf)
  journal.note({ type: 'observed', call, offsets, isLast })
}

/** Where a record is. */
export function atOf(record: TopicPartition & { readonly offset: number }): At {
  return { place: partitionKey(record), offset: record.offset }
}

function seen({ generationId, assignment, records, retryAfterMs }: PollResult): {
  readonly generationId: number
  readonly assignment: readonly string[] | undefined
  readonly records: readonly (Item & At)[]
  readonly overMs: number
} {
  return {
    generationId,
    assignment: retryAfterMs === undefined ? assignment.map(partitionKey) : undefined,
    records: records.map((record) => ({ ...itemOf(record), ...atOf(record) })),
    overMs: 0,
  }
}

async function noted<R>(
  kind: 'poll' | 'claim' | 'commit',
  call: number,
  journal: Journal,
  answer: Promise<R>,
  note: (result: R) => void,
): Promise<R> {
  try {
    const result = await answer
    note(result)
    return result
  } catch (error) {
    journal.note({ type: 'failed', kind, call, code: error instanceof KedgeError ? error.code : String(error) })
    throw error
  }
}
