/** A broker whose polls, claims, releases and commits go into a history, as the process that makes them sees them. */
import type { Broker, PollResult } from '../../src/broker.ts'
import { KedgeError } from '../../src/errors.ts'
import { partitionKey } from '../../src/record.ts'
import type { ConsumerRecord, TopicPartition } from '../../src/record.ts'
import { withCalls } from '../../test/support/consumer.ts'
import type { At, EventOf, HistoryEvent, Item } from './history.ts'

/** What is noted of a call: an event of a history, whose commit it is, or that a run begins to give its claim back. */
export type Noted =
  | HistoryEvent
  | (EventOf<'committing'> & { readonly instance: string; readonly run?: string })
  | { readonly type: 'releasing'; readonly instance: string; readonly run: string }

/** Where it is noted. */
export interface NotedScope {
  /** Whose calls they are. */
  readonly instance: string
  /** Names a call. */
  readonly nextCall: () => number
  readonly note: (event: Noted) => void
  /** What a record is. */
  readonly itemOf: (record: ConsumerRecord) => Item
}

/** Notes what an instance calls. Calls without a run are noted without one. */
export function notedBroker(broker: Broker, { instance, nextCall, note, itemOf }: NotedScope): Broker {
  const told = async <R>(
    kind: 'poll' | 'claim' | 'commit',
    call: number,
    answer: Promise<R>,
    onAnswer: (result: R) => void,
  ): Promise<R> => {
    try {
      const result = await answer
      onAnswer(result)
      return result
    } catch (error) {
      note({ type: 'failed', kind, call, code: error instanceof KedgeError ? error.code : String(error) })
      throw error
    }
  }
  return withCalls(broker, {
    poll: async (request, call) => {
      const id = nextCall()
      const who = { call: id, instance, ...runOf(request.run?.runId) }
      note({ type: 'asked', ...who })
      return await told('poll', id, broker.poll(request, call), (result) =>
        note({ type: 'polled', ...who, ...seen(result, itemOf), overMs: 0 }),
      )
    },
    claim: async (group, claim, call) => {
      const id = nextCall()
      const who = { call: id, instance, run: claim.runId }
      note({ type: 'asked', ...who })
      await told('claim', id, broker.claim(group, claim, call), () => note({ type: 'claimed', ...who }))
    },
    release: async (group, run, call) => {
      note({ type: 'releasing', instance, run })
      await broker.release(group, run, call)
    },
    commit: async (group, commits, options, call) => {
      const id = nextCall()
      const offsets = commits === 'polled' ? [] : commits.map(atOf)
      const what = { call: id, instance, ...runOf(options?.runId), offsets }
      note({ type: 'committing', ...what })
      await told('commit', id, broker.commit(group, commits, options, call), () =>
        note({ type: 'committed', ...what, generationId: options?.generationId }),
      )
    },
  })
}

/** Where a record is. */
export function atOf(record: TopicPartition & { readonly offset: number }): At {
  return { place: partitionKey(record), offset: record.offset }
}

function runOf(run: string | undefined): { readonly run?: string } {
  return run === undefined ? {} : { run }
}

function seen({ generationId, assignment, records, retryAfterMs }: PollResult, itemOf: NotedScope['itemOf']) {
  return {
    generationId,
    assignment: retryAfterMs === undefined ? assignment.map(partitionKey) : undefined,
    records: records.map((record) => ({ ...itemOf(record), ...atOf(record) })),
  }
}
