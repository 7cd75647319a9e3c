/**
 * One process of one group instance, as a schedule keeps them coming: run after run of a real consumer, until SIGTERM. Then the
 * run ends in order, and the instance leaves its group where it is told to. Whatever it does and sees goes into the journal.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { defineApp } from '../../src/app.ts'
import type { AutoOffsetReset, Broker } from '../../src/broker.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { createRouter } from '../../src/router.ts'
import { seeded } from '../../test/support/chaos.ts'
import { withCalls } from '../../test/support/consumer.ts'
import { Journal, journalled } from './journal.ts'
import { atOf } from '../history/noted-broker.ts'

/** What an instance's process is given, as its only argument. */
export interface InstanceOptions {
  /** Names the process, and begins the names of its runs. */
  readonly name: string
  readonly instance: string
  /** Path of the file. */
  readonly journal: string
  readonly url: string
  readonly groupId: string
  readonly topic: string
  readonly autoOffsetReset: AutoOffsetReset
  readonly seed: number
  /** Longest run; each takes half of it or more. */
  readonly runMs: number
  /** Longest time a handler takes. */
  readonly workMs: number
  readonly sessionTimeoutMs: number
  /** Whether it leaves its group when it is told to end. */
  readonly leaves: boolean
}

/** Most records in one poll. */
export const MAX_POLL_RECORDS = 50
/** Records in handlers at once. */
const CONCURRENCY = 8
/** What a run may have in hand, handled and not committed or not handled yet, when a partition goes to another. */
export const MOST_IN_HAND: number = 2 * MAX_POLL_RECORDS + CONCURRENCY
/** How long a claim lives. */
export const CLAIM_TTL_MS = 1_000
/** Longest wait of one poll. */
export const POLL_WAIT_MS = 300
/** Processes are killed with records in hand that have done nothing to them. */
const MAX_CRASHES = 100
/** Between two runs, at most. */
const PAUSE_MS = 100
const CALL_TIMEOUT_MS = 5_000

if (process.argv[1] === import.meta.filename) {
  const stop = new AbortController()
  process.once('SIGTERM', () => stop.abort())
  // Its parent is gone.
  process.stdin.once('end', () => process.exit(1)).resume()
  await consume(JSON.parse(process.argv[2] ?? '') as InstanceOptions, stop.signal)
  process.exit(0)
}

async function consume(options: InstanceOptions, stop: AbortSignal): Promise<void> {
  const { name, instance, groupId, topic, workMs, runMs } = options
  const random = seeded(options.seed)
  using journal = new Journal(options.journal, name)
  const noted = journalled(restBroker({ url: options.url }), instance, journal)
  let generationId = 0
  const broker = withCalls(noted, {
    poll: async (request, call) => {
      const result = await noted.poll(request, call)
      if (result.retryAfterMs === undefined) generationId = result.generationId
      return result
    },
  })
  const router = createRouter().on({ topic }, async (record) => {
    await sleep(workMs * random())
    journal.note({ type: 'handled', ...atOf(record) })
  })
  const consumer = createConsumer(
    defineApp({ groupId, router, autoOffsetReset: options.autoOffsetReset, maxCrashes: MAX_CRASHES }),
    {
      broker,
      deadLetters: notedLetters(memoryDeadLetters(), journal),
      groupInstanceId: instance,
      concurrency: CONCURRENCY,
      maxPollRecords: MAX_POLL_RECORDS,
      maxPollWaitMs: POLL_WAIT_MS,
      claimTtlMs: CLAIM_TTL_MS,
      sessionTimeoutMs: options.sessionTimeoutMs,
      callTimeoutMs: CALL_TIMEOUT_MS,
    },
  )
  const group = { groupId, groupInstanceId: instance }
  for (let runs = 0; !stop.aborted; runs++) {
    const runId = `${name}.${runs}`
    const report = await consumer.run({ runId, budget: { runMs: runMs * (0.5 + random() / 2) }, signal: stop })
    await sleep(Math.min(report.retryAfterMs ?? PAUSE_MS, PAUSE_MS) * random())
    await commitOnceMore(broker, report, generationId)
  }
  if (options.leaves) await broker.leave(group).catch(() => undefined)
}

/** Notes what becomes a dead letter, which no record here should. */
function notedLetters(store: DeadLetterStore, journal: Journal): DeadLetterStore {
  return {
    ...store,
    async put(letter, call) {
      await store.put(letter, call)
      journal.note({ type: 'dead-lettered', ...atOf(letter.record) })
    },
  }
}

/**
 * As a run does that does not know yet that it is over: the commit is to be refused, and where the claim could not be given back
 * it changes nothing. A commit that was given up may still come; what is older must not be sent behind it while the claim lives.
 */
async function commitOnceMore(broker: Broker, report: RunReport, generationId: number): Promise<void> {
  const { ended, runId, groupId, groupInstanceId, committed, uncommitted } = report
  if (committed.length === 0) return
  if (ended === 'claim-lost') await sleep(2 * CLAIM_TTL_MS)
  else if (uncommitted.length > 0) return
  await broker.commit({ groupId, groupInstanceId }, committed, { runId, generationId }).catch(() => undefined)
}
