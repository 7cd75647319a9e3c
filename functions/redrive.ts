/** AWS Lambda on a schedule, or invoked with a filter: hands dead letters back to their group. See docs/redrive.md. */
import { lambdaRedrive, type RedriveHandler } from '../src/runtimes/lambda-redrive.ts'
import { app } from './app.ts'

/** What Lambda calls on a schedule, or with `{ filter, maxLetters, perSecond, dryRun, actor }`. */
export const handler: RedriveHandler = lambdaRedrive(app)
