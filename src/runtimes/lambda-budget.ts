/** What a run may spend of an invocation on AWS Lambda. */
import type { Context } from 'aws-lambda'
import type { FunctionsConfig } from '../config.ts'

/** Kept of the function's remaining time for what comes after the run: answering, and Lambda's own work. */
const MARGIN_MS = 500

/** The time that is left of the invocation, less a margin, and what the settings say. */
export function lambdaBudget(
  { runMs, runSubrequests }: FunctionsConfig,
  context: Context,
): { untilMs: number; runMs?: number; maxCalls?: number } {
  return {
    untilMs: Date.now() + context.getRemainingTimeInMillis() - MARGIN_MS,
    ...(runMs === undefined ? {} : { runMs }),
    ...(runSubrequests === undefined ? {} : { maxCalls: runSubrequests }),
  }
}
