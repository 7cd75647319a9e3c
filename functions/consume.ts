/** AWS Lambda on a schedule: consumes until shortly before its timeout. See serverless.yml. */
import { type ConsumeHandler, lambdaConsume } from '../src/runtimes/lambda.ts'
import { app } from './app.ts'

/** What Lambda calls on a schedule. */
export const handler: ConsumeHandler = lambdaConsume(app)
