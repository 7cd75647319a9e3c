/** Dead-letter stores of the platforms that have Node's modules, beside `topic`, which every platform has. */
import { sqsDeadLetters } from '../dead-letters/sqs.ts'
import type { DeadLetterDrivers } from './open-dead-letters.ts'

/** SQS by the queue's URL after `sqs+`; `sqs+http` is for a queue server on the same machine. */
export const deadLetterDrivers: DeadLetterDrivers = { 'sqs+https': openQueue, 'sqs+http': openQueue }

function openQueue(url: URL): ReturnType<typeof sqsDeadLetters> {
  return sqsDeadLetters({ queueUrl: url.href.slice('sqs+'.length) })
}
