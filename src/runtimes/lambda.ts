/**
 * AWS Lambda: HTTP API events go to the produce function, schedule ticks become consumer runs that end before the
 * function's timeout does. Settings are environment variables, read once for each cold start.
 */
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2, Context } from 'aws-lambda'
import { handle } from 'hono/aws-lambda'
import type { App } from '../app.ts'
import { readConfig } from '../config.ts'
import type { RunReport } from '../consumer/report.ts'
import { brokerDrivers } from './broker-drivers.ts'
import { deadLetterDrivers } from './dead-letter-drivers.ts'
import { idempotencyDrivers } from './idempotency-drivers.ts'
import { lambdaBudget } from './lambda-budget.ts'
import { consoleLog } from './log-line.ts'
import { openBroker } from './open-broker.ts'
import { produceApp, type ProduceOptions } from './produce-app.ts'
import { failureText, scheduledRun } from './scheduled-run.ts'

/** Handles the events of an HTTP API. */
export type ProduceHandler = (
  event: APIGatewayProxyEventV2,
  context: Context,
) => Promise<APIGatewayProxyStructuredResultV2>

/** Handles a tick of a schedule, whatever it carries, and answers with what the run did. */
export type ConsumeHandler = (event: unknown, context: Context) => Promise<RunReport>

/**
 * The produce function of an app.
 * @throws {ConfigError} INVALID_CONFIG at a cold start with wrong settings.
 */
export function lambdaProduce(app: App, options: ProduceOptions = {}): ProduceHandler {
  const config = readConfig('functions', process.env)
  const onFailure = (failure: unknown): void => console.error(failureText(failure))
  // Begun at the cold start, before the first call asks for it; a failure is each call's.
  const opening = openBroker(config.broker, brokerDrivers).then((broker) =>
    handle(produceApp(app, broker, config, { onFailure, ...options })),
  )
  opening.catch(() => undefined)
  return async (event, context) => {
    const serve = await opening
    // Hono's types know an older context; the function never reads it.
    return (await serve(postWithBody(event) as never, context as never)) as APIGatewayProxyStructuredResultV2
  }
}

/**
 * The consume function of an app: one run within the invocation.
 * @throws {ConfigError} INVALID_CONFIG at a cold start with wrong settings.
 */
export function lambdaConsume(app: App): ConsumeHandler {
  const config = readConfig('functions', process.env)
  return async (_event, context) => {
    try {
      // For this run alone: between two invocations the process stands still, and its connections are lost.
      await using broker = await openBroker(config.broker, brokerDrivers)
      return await scheduledRun(app, config, {
        // Lambda may deliver one event twice, under one request id; two runs with one id would share a claim.
        runId: `${context.awsRequestId}.${crypto.randomUUID()}`,
        budget: lambdaBudget(config, context),
        log: consoleLog,
        broker,
        deadLetters: deadLetterDrivers,
        idempotency: idempotencyDrivers,
      })
    } catch (failure) {
      console.error(failureText(failure))
      throw failure
    }
  }
}

/** The dialect allows a body with GET; the Request that Hono makes of the event does not. Both mean the same here. */
function postWithBody(event: APIGatewayProxyEventV2): APIGatewayProxyEventV2 {
  const { http } = event.requestContext
  if (event.body === undefined || http.method !== 'GET') return event
  return { ...event, requestContext: { ...event.requestContext, http: { ...http, method: 'POST' } } }
}
