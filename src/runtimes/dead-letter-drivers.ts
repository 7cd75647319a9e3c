/** Dead-letter stores of the platforms that have Node's modules, beside `topic`, which every platform has. */
import type { DeadLetterStore } from '../dead-letter.ts'
import { sqsDeadLetters } from '../dead-letters/sqs.ts'
import { ConfigError } from '../errors.ts'
import type { DeadLetterDrivers } from './open-dead-letters.ts'

/** SQS by the queue's URL after `sqs+` (`sqs+http` is for a queue server on the same machine), S3, and a file. */
export const deadLetterDrivers: DeadLetterDrivers = {
  'sqs+https': openQueue,
  'sqs+http': openQueue,
  s3: openBucket,
  sqlite: openFile,
}

function openQueue(url: URL): DeadLetterStore {
  return sqsDeadLetters({ queueUrl: url.href.slice('sqs+'.length) })
}

/** Loaded when it is configured: the client of S3 is as large as all the rest of a function. */
async function openBucket({ hostname, pathname }: URL): Promise<DeadLetterStore> {
  if (hostname === '') {
    throw new ConfigError(
      'Cannot open the dead-letter bucket: the URL has none. Write s3://bucket or s3://bucket/prefix.',
    )
  }
  const { s3DeadLetters } = await import('../dead-letters/s3.ts')
  const prefix = decodeURIComponent(pathname.replace(/^\/+|\/+$/g, ''))
  return s3DeadLetters({ bucket: hostname, ...(prefix === '' ? {} : { prefix }) })
}

/** Loaded when it is configured: no other function needs SQLite. */
async function openFile({ host, pathname }: URL): Promise<DeadLetterStore> {
  if (host !== '' || pathname === '') {
    throw new ConfigError(
      'Cannot open the dead-letter file: the URL names none. Write sqlite:letters.db or sqlite:/path.',
    )
  }
  const { sqliteDeadLetters } = await import('../dead-letters/sqlite.ts')
  return sqliteDeadLetters({ path: decodeURIComponent(pathname) })
}
