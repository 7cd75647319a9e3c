/**
 * AWS Lambda: hands dead letters back to their group, on a schedule, when somebody invokes the function with a filter, or when a
 * queue of dead letters hands them over. Who may do that is said by IAM: events of an HTTP API are refused, for anybody
 * could send one.
 */
import type { Context, SQSBatchResponse, SQSEvent } from 'aws-lambda'
import * as z from 'zod'
import type { App } from '../app.ts'
import { systemClock } from '../clock.ts'
import { type FunctionsConfig, readConfig } from '../config.ts'
import { deadLetterReasons } from '../dead-letter.ts'
import { ConfigError } from '../errors.ts'
import { createRedrive } from '../redrive.ts'
import type { RedriveReport } from '../redrive.ts'
import type { RedrivePlan } from '../redrive/plan.ts'
import { brokerDrivers } from './broker-drivers.ts'
import { deadLetterDrivers } from './dead-letter-drivers.ts'
import { redriveHanded } from './handed-letters.ts'
import { consoleLog } from './log-line.ts'
import { openBroker } from './open-broker.ts'
import { openDeadLetters, topicDriver } from './open-dead-letters.ts'
import { failureText } from './scheduled-run.ts'

/**
 * Handles an invocation, and answers with what the redrive did, or would do where `dryRun` asks for that; to a batch of a queue
 * with the messages that are to come again.
 */
export type RedriveHandler = (
  event: unknown,
  context: Context,
) => Promise<RedriveReport | RedrivePlan | SQSBatchResponse>

/** Kept of the function's remaining time for the letter in hand, the lock and the audit. */
const MARGIN_MS = 5_000

/** What may be asked for. All of it may be left out. Times are milliseconds since the epoch. */
const Asked = z
  .strictObject({
    filter: z
      .strictObject({
        topic: z.string(),
        reason: z.enum(deadLetterReasons),
        fingerprint: z.string(),
        key: z.string(),
        header: z.strictObject({ key: z.string(), value: z.string() }),
        fromMs: z.number(),
        untilMs: z.number(),
      })
      .partial(),
    maxLetters: z.number(),
    perSecond: z.number(),
    dryRun: z.boolean(),
    actor: z.string(),
  })
  .partial()

/**
 * The redrive function of an app. A run that time cut short is gone on with by the next invocation. An event source mapping of
 * a queue needs `ReportBatchItemFailures`, without which Lambda takes any answer for a success, and deletes the letters.
 * @throws {ConfigError} INVALID_CONFIG at a cold start with wrong settings.
 */
export function lambdaRedrive(app: App): RedriveHandler {
  const config = readConfig('functions', process.env)
  return async (event, context) => {
    try {
      const messages = messagesOf(event)
      if (messages !== undefined) return await handedBack(app, config, messages, context)
      const { dryRun = false, filter = {}, actor = actorOf(context), ...bounds } = askedOf(event)
      await using broker = await openBroker(config.broker, brokerDrivers)
      await using store = await openDeadLetters(config.deadLetters, {
        topic: topicDriver(broker),
        ...deadLetterDrivers,
      })
      const redrive = createRedrive({ broker, store, groupId: app.groupId, app, log: consoleLog })
      if (dryRun) return await redrive.plan(withoutUndefined(filter))
      const time = new AbortController()
      const cancel = systemClock.after(leftMsOf(context), () => time.abort(new Error('The invocation is nearly over.')))
      try {
        const run = { actor, filter: withoutUndefined(filter), signal: time.signal }
        return checked(await redrive.run({ ...run, ...withoutUndefined(bounds) }))
      } finally {
        cancel()
      }
    } catch (failure) {
      console.error(failureText(failure))
      throw failure
    }
  }
}

async function handedBack(
  app: App,
  config: FunctionsConfig,
  messages: SQSEvent['Records'],
  context: Context,
): Promise<SQSBatchResponse> {
  await using broker = await openBroker(config.broker, brokerDrivers)
  const bodies = messages.map(({ body }) => body)
  const letters = { broker, bodies, actor: actorOf(context), timeMs: leftMsOf(context), log: consoleLog }
  const isDone = await redriveHanded(app, letters)
  const left = messages.filter((_message, index) => isDone[index] !== true)
  return { batchItemFailures: left.map(({ messageId }) => ({ itemIdentifier: messageId })) }
}

/** The messages of an event that a queue's mapping made; undefined for any other. */
function messagesOf(event: unknown): SQSEvent['Records'] | undefined {
  if (typeof event !== 'object' || event === null || !('Records' in event) || !Array.isArray(event.Records))
    return undefined
  // Lambda's own shape: nobody else can say that an event comes from a queue of the account.
  const messages = event.Records as SQSEvent['Records']
  return messages.every(({ eventSource }) => eventSource === 'aws:sqs') ? messages : undefined
}

function actorOf({ awsRequestId }: Context): string {
  return `lambda ${awsRequestId}`
}

function leftMsOf(context: Context): number {
  return Math.max(0, context.getRemainingTimeInMillis() - MARGIN_MS)
}

/** A schedule's own event asks for everything; what an invocation says is checked. */
function askedOf(event: unknown): z.output<typeof Asked> {
  if (typeof event !== 'object' || event === null) return {}
  if ('source' in event && event.source === 'aws.events') return {}
  if ('requestContext' in event) {
    throw new ConfigError(
      'Cannot redrive: the event is one of an HTTP API. Invoke the function itself, which IAM guards.',
    )
  }
  const asked = Asked.safeParse(event)
  if (asked.success) return asked.data
  throw new ConfigError(`Cannot redrive: the event cannot be read: ${z.prettifyError(asked.error)}`)
}

/** Thrown so that Lambda counts a failure. */
function checked(report: RedriveReport): RedriveReport {
  const { ended, refused, cause, groupId } = report
  if (refused === 0 && ended !== 'failed' && ended !== 'lock-lost') return report
  throw new Error(`The redrive of ${groupId} ended with ${ended}, ${refused} letters refused: ${cause?.message ?? ''}`)
}

/** What zod gives for a field that was left out, where ours has to be absent. */
function withoutUndefined<T extends object>(fields: T): { [Name in keyof T]: Exclude<T[Name], undefined> } {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined)
  return Object.fromEntries(given) as { [Name in keyof T]: Exclude<T[Name], undefined> }
}
