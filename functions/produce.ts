/** AWS Lambda behind an HTTP API: the produce API for other apps. See serverless.yml. */
import { lambdaProduce, type ProduceHandler } from '../src/runtimes/lambda.ts'
import { app } from './app.ts'

/** What Lambda calls with a request. */
export const handler: ProduceHandler = lambdaProduce(app)
