/**
 * Cloudflare Workers: HTTP requests go to the produce function, cron ticks and batches of queues become consumer runs. Settings are variables
 * and secrets of the Worker, read once for each isolate.
 */
import type { App } from '../app.ts'
import { type FunctionsConfig, readConfig } from '../config.ts'
import { workerDeadLetterDrivers } from './worker-dead-letter-drivers.ts'
import type { ConsumerRecord } from '../record.ts'
import { bytesOf } from '../record.ts'
import { placeOfId, runBatch } from './handed-batch.ts'
import { redriveHanded } from './handed-letters.ts'
import { consoleLog } from './log-line.ts'
import { openBroker } from './open-broker.ts'
import { problemResponse } from './problem.ts'
import { produceApp, type ProduceOptions } from './produce-app.ts'
import { failureText, scheduledRun } from './scheduled-run.ts'
import { workerIdempotencyDrivers } from './worker-idempotency-drivers.ts'

/** Variables, secrets and other bindings of the Worker. */
export type WorkerEnv = Readonly<Record<string, unknown>>

/** A message of a Cloudflare Queue, as far as it is read. */
export interface QueueMessage {
  readonly id: string
  readonly timestamp: Date
  readonly body: unknown
  /** 1 the first time. */
  readonly attempts: number
  ack(): void
  retry(): void
}

/** A batch of a Cloudflare Queue, as far as it is read. */
export interface QueueBatch {
  readonly queue: string
  readonly messages: readonly QueueMessage[]
}

/** What a Worker exports. */
export interface Worker {
  fetch(request: Request, env: WorkerEnv): Promise<Response>
  scheduled(controller: unknown, env: WorkerEnv): Promise<void>
  queue(batch: QueueBatch, env: WorkerEnv): Promise<void>
}

/** Options of `worker`. */
export interface WorkerOptions extends ProduceOptions {
  /** The topic whose routes take the messages of a queue, by the queue's name. @default the topic of that name */
  readonly queueTopics?: Readonly<Record<string, string>>
  /** Queues of dead letters, by their names: their messages go back to the group instead. @default none */
  readonly letterQueues?: readonly string[]
}

/** Leaves enough of the minute for the next tick to find the claim free. */
const DEFAULT_RUN_MS = 55_000
/** Sub-requests of one invocation on the free plan. */
const DEFAULT_SUBREQUESTS = 50

/** A queue's messages that are put off for longer are left to its own next try. */
const QUEUE_RUN_MS = 60_000

/** A Worker for an app. */
export function worker(app: App, { queueTopics = {}, letterQueues = [], ...options }: WorkerOptions = {}): Worker {
  const opened = new WeakMap<WorkerEnv, Opened>()

  async function open(env: WorkerEnv): Promise<Opened> {
    let functions = opened.get(env)
    if (functions === undefined) {
      const config = readConfig('functions', env)
      const onFailure = (failure: unknown): void => console.error(failureText(failure))
      const produce = produceApp(app, await openBroker(config.broker, {}), config, { onFailure, ...options })
      functions = { config, produce: async (request) => await produce.fetch(request) }
      opened.set(env, functions)
    }
    return functions
  }

  return {
    async fetch(request, env) {
      try {
        const functions = await open(env)
        return await functions.produce(request)
      } catch (failure) {
        console.error(failureText(failure))
        return problemResponse(failure)
      }
    },
    async scheduled(_controller, env) {
      try {
        const { config } = await open(env)
        await using broker = await openBroker(config.broker, {})
        await scheduledRun(app, config, {
          broker,
          runId: crypto.randomUUID(),
          budget: {
            runMs: config.runMs ?? DEFAULT_RUN_MS,
            maxCalls: config.runSubrequests ?? DEFAULT_SUBREQUESTS,
          },
          log: consoleLog,
          idempotency: workerIdempotencyDrivers(env),
          deadLetters: workerDeadLetterDrivers(env),
        })
      } catch (failure) {
        console.error(failureText(failure))
        throw failure
      }
    },
    async queue({ queue, messages }, env) {
      try {
        const { config } = await open(env)
        if (letterQueues.includes(queue)) {
          await handBack(app, config, messages)
          return
        }
        const topic = queueTopics[queue] ?? queue
        const records = messages.flatMap((message, offset) => recordOf(message, { topic, offset }))
        const { unsettled } = await runBatch(app, config, {
          records,
          attemptsOf: ({ offset }) => Math.max(0, (messages[offset]?.attempts ?? 1) - 1),
          placeOf: ({ offset }) => placeOfId(messages[offset]?.id ?? ''),
          through: () => openBroker(config.broker, {}),
          runId: crypto.randomUUID(),
          budget: {
            runMs: config.runMs ?? QUEUE_RUN_MS,
            maxCalls: config.runSubrequests ?? DEFAULT_SUBREQUESTS,
          },
          log: consoleLog,
          deadLetters: workerDeadLetterDrivers(env),
          idempotency: workerIdempotencyDrivers(env),
        })
        const settled = new Set(records.map(({ offset }) => offset))
        for (const { offset } of unsettled) settled.delete(offset)
        answer(messages, (offset) => settled.has(offset))
      } catch (failure) {
        console.error(failureText(failure))
        throw failure
      }
    },
  }
}

async function handBack(app: App, config: FunctionsConfig, messages: readonly QueueMessage[]): Promise<void> {
  await using broker = await openBroker(config.broker, {})
  const isDone = await redriveHanded(app, {
    broker,
    bodies: messages.map(({ body }) => (typeof body === 'string' ? body : '')),
    actor: `worker ${crypto.randomUUID()}`,
    timeMs: config.runMs ?? QUEUE_RUN_MS,
    log: consoleLog,
  })
  answer(messages, (index) => isDone[index] === true)
}

function answer(messages: readonly QueueMessage[], isDone: (index: number) => boolean): void {
  for (const [index, message] of messages.entries()) {
    if (isDone(index)) message.ack()
    else message.retry()
  }
}

/** None for a body that JSON cannot say: that one is sent back, and the others must not go with it. */
function recordOf(
  { id, timestamp, body }: QueueMessage,
  { topic, offset }: { readonly topic: string; readonly offset: number },
): ConsumerRecord[] {
  try {
    const place = { topic, partition: 0, offset, timestampMs: timestamp.getTime() }
    return [{ ...place, key: null, value: bytesOfBody(body), headers: [] }]
  } catch (failure) {
    const cause = failure instanceof Error ? failure.message : String(failure)
    console.error(
      `Cannot read message ${id} for topic ${topic}: its body cannot be JSON (${cause}). Send JSON, text or bytes.`,
    )
    return []
  }
}

/** Text and bytes as they are; what was sent as JSON or as a structured value is JSON. */
function bytesOfBody(body: unknown): Uint8Array {
  if (typeof body === 'string') return bytesOf(body)
  if (body instanceof Uint8Array) return body
  if (body instanceof ArrayBuffer) return new Uint8Array(body)
  return bytesOf(JSON.stringify(body) ?? 'null')
}

interface Opened {
  readonly config: FunctionsConfig
  produce(request: Request): Promise<Response>
}
