/** The example as two AWS Lambda functions. */
import { type ConsumeHandler, lambdaConsume, lambdaProduce, type ProduceHandler } from '../../src/runtimes/lambda.ts'
import { githubApp, webhookKey } from './app.ts'

const app = githubApp()

export const produce: ProduceHandler = lambdaProduce(app, { webhookKey })
export const consume: ConsumeHandler = lambdaConsume(app)
