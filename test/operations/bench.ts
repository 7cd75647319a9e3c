/** An app whose handler fails on demand, with the verbs of an operator over it, on each kind of broker. */
import type { Broker } from '../../src/broker.ts'
import { logBroker } from '../../src/brokers/log.ts'
import { defineApp } from '../../src/app.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { StopError } from '../../src/handler-errors.ts'
import type { LogEvent } from '../../src/logger.ts'
import { createOperations } from '../../src/operations.ts'
import type { Operations, OperationsOptions } from '../../src/operations.ts'
import type { OperationAudit } from '../../src/operations/frame.ts'
import { textOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import { finish, openBench, TOPIC, withCalls } from '../support/consumer.ts'
import type { Bench, BenchOptions } from '../support/consumer.ts'

/** Every kind of broker whose clock a test can drive. */
export const systems: readonly (BenchOptions & { readonly name: string })[] = [
  { name: 'memory' },
  { name: 'log', openBroker: (clock) => logBroker({ memory: true, clock }) },
]

export const OPERATIONS_TOPIC = 'g.operations'

export interface OperationsBench extends Bench {
  /** Values that stop their partition. */
  readonly poison: Set<string>
  /** Values that were handled, in their order. */
  readonly handled: string[]
  readonly audits: OperationAudit[]
  readonly lines: LogEvent[]
  operations(options?: Partial<OperationsOptions>): Operations
  /** The verbs of a tool that knows of no app. */
  tool(): Operations
  /** Lets time pass until a verb is done. */
  done<T>(verb: Promise<T>): Promise<T>
  /** What a verb is refused with. */
  refusal(verb: Promise<unknown>): Promise<{ readonly code?: string; readonly message: string }>
  /** What a group of its own reads of the topic. */
  readByOther(): Promise<string[]>
}

/** A broker whose leader moves now and then: every other fetch has nothing, whatever is there. */
export function moving(broker: Broker): Broker {
  let fetches = 0
  return withCalls(broker, {
    fetch: async (...args) => (fetches++ % 2 === 0 ? [] : await broker.fetch(...args)),
  })
}

/** Opens a bench whose runs heed operators. */
export async function openOperationsBench(options: BenchOptions = {}): Promise<OperationsBench> {
  const handled: string[] = []
  const poison = new Set<string>()
  const audits: OperationAudit[] = []
  const lines: LogEvent[] = []
  const router = createRouter().on({ topic: TOPIC }, ({ value }) => {
    const text = textOf(value)
    if (poison.has(text)) throw new StopError('it cannot be')
    handled.push(text)
  })
  const base = await openBench({ ...options, app: { router, operations: true, ...options.app } })
  const { broker, app, clock } = base
  const scope = { broker, groupId: app.groupId, clock, random: (): number => 0.5 }
  return Object.assign(base, {
    poison,
    handled,
    audits,
    lines,
    operations: (more: Partial<OperationsOptions> = {}) =>
      createOperations({
        ...scope,
        app,
        audit: (record) => void audits.push(record),
        log: (event) => void lines.push(event),
        ...more,
      }),
    tool: () => createOperations(scope),
    done: <T>(verb: Promise<T>): Promise<T> => finish(clock, verb),
    async refusal(verb: Promise<unknown>) {
      const error: unknown = await finish(clock, verb).catch((failure: unknown) => failure)
      if (!(error instanceof Error)) throw new Error('It was not refused.')
      return error
    },
    async readByOther() {
      const seen: string[] = []
      const other = createRouter().on({ topic: TOPIC }, ({ value }) => void seen.push(textOf(value as Uint8Array)))
      const consumer = createConsumer(defineApp({ groupId: 'other', router: other, redrive: true }), {
        broker,
        deadLetters: memoryDeadLetters(),
        groupInstanceId: 'i',
        clock,
      })
      await finish<RunReport>(clock, consumer.run({ runId: `other-${clock.now()}`, stopWhenEmpty: true }))
      return seen
    },
  })
}
