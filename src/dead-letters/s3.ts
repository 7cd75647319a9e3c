/**
 * Dead letters as objects in Amazon S3 or whatever speaks its API (`objects.ts` has their names and their order).
 *
 * A put resolves when S3 holds the object; S3 is strongly consistent, so it is then listed and read everywhere. Objects are
 * created under the condition `If-None-Match: *`, so that of two letters of one record the first is kept. One request per
 * put, and one more where something is there already; the SDK's own retries off.
 * @see https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
 */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
} from '@aws-sdk/client-s3'

import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { ConfigError, DeadLetterStoreError, type ErrorCode, KedgeError } from '../errors.ts'
import { awsFailureOf, awsNameOf, awsStatusOf } from './aws-errors.ts'
import { type LetterBucket, ObjectDeadLetters, type ObjectPage, type ObjectsFrom } from './objects.ts'

/** Options of `s3DeadLetters`. */
export interface S3DeadLettersOptions {
  readonly bucket: string
  /** Where the letters are in the bucket. @default 'dead-letters' */
  readonly prefix?: string
  /**
   * A client of your own, made with `maxAttempts: 1`; not closed with the store. The four options below are then not read.
   * @default one made of the options below
   */
  readonly client?: S3Client
  /** @default the SDK's own search */
  readonly region?: string
  /** Another server than AWS's. */
  readonly endpoint?: string
  /** Name the bucket in the path and not in the host, as most other servers want it. @default false */
  readonly forcePathStyle?: boolean
  /** @default the SDK's credential chain */
  readonly credentials?: NonNullable<S3ClientConfig['credentials']>
  /** Most objects read by one list, which then ends its page early. @default 1000 */
  readonly maxScanObjects?: number
  /** Longest time of one call that names none itself, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

const s3DeadLettersDefaults = {
  prefix: 'dead-letters',
  maxScanObjects: 1000,
  timeoutMs: 10_000,
  clock: systemClock,
} as const

/**
 * Opens a store over a bucket. Nothing is sent before the first call.
 * @throws {ConfigError} for a bucket without a name.
 */
export function s3DeadLetters(options: S3DeadLettersOptions): DeadLetterStore {
  if (options.bucket === '') throw new ConfigError('Cannot open the dead-letter bucket: bucket is empty. Name one.')
  return new ObjectDeadLetters(letterBucket(options), {
    prefix: options.prefix ?? s3DeadLettersDefaults.prefix,
    maxScanObjects: options.maxScanObjects ?? s3DeadLettersDefaults.maxScanObjects,
    timeoutMs: options.timeoutMs ?? s3DeadLettersDefaults.timeoutMs,
    clock: options.clock ?? s3DeadLettersDefaults.clock,
  })
}

function letterBucket(options: S3DeadLettersOptions): LetterBucket {
  const client = options.client ?? clientFor(options)
  const { bucket: Bucket } = options
  return {
    name: 's3',
    async create(Key, Body, abortSignal) {
      await checkAttempts(client)
      const put = new PutObjectCommand({ Bucket, Key, Body, ContentType: 'application/json', IfNoneMatch: '*' })
      try {
        await client.send(put, { abortSignal })
        return true
      } catch (error) {
        // It is there already: the first is kept.
        if (awsStatusOf(error) === 412) return false
        throw error
      }
    },
    async read(Key, abortSignal) {
      await checkAttempts(client)
      try {
        const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }), { abortSignal })
        return await Body?.transformToString()
      } catch (error) {
        if (awsNameOf(error) === 'NoSuchKey') return undefined
        throw error
      }
    },
    list: async (from, abortSignal) => await listed(client, Bucket, from, abortSignal),
    async delete(Key, abortSignal) {
      await checkAttempts(client)
      // S3 deletes what is not there as gladly as what is.
      try {
        await client.send(new HeadObjectCommand({ Bucket, Key }), { abortSignal })
      } catch (error) {
        if (awsNameOf(error) === 'NotFound') return false
        throw error
      }
      await client.send(new DeleteObjectCommand({ Bucket, Key }), { abortSignal })
      return true
    },
    errorOf: (failure, what) => s3Error(failure, what, Bucket),
    close() {
      if (options.client === undefined) client.destroy()
    },
  }
}

function clientFor({ region, endpoint, forcePathStyle, credentials }: S3DeadLettersOptions): S3Client {
  return new S3Client({
    maxAttempts: 1,
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(forcePathStyle === undefined ? {} : { forcePathStyle }),
    ...(credentials === undefined ? {} : { credentials }),
  })
}

/** A client that retries by itself would break the port: one attempt per call, the policy above decides. */
async function checkAttempts(client: S3Client): Promise<void> {
  const maxAttempts = await client.config.maxAttempts()
  if (maxAttempts <= 1) return
  throw new DeadLetterStoreError(
    'INVALID_CONFIG',
    `Cannot use the S3 client for dead letters: it makes up to ${maxAttempts} attempts. Make it with maxAttempts: 1.`,
  )
}

async function listed(
  client: S3Client,
  Bucket: string,
  { prefix, after, limit }: ObjectsFrom,
  abortSignal: AbortSignal,
): Promise<ObjectPage> {
  await checkAttempts(client)
  const command = new ListObjectsV2Command({
    Bucket,
    Prefix: prefix,
    MaxKeys: limit,
    ...(after === undefined ? {} : { StartAfter: after }),
  })
  const { Contents = [], IsTruncated = false } = await client.send(command, { abortSignal })
  return { objects: Contents.map(({ Key = '', Size = 0 }) => ({ key: Key, bytes: Size })), isTruncated: IsTruncated }
}

function s3Error(error: unknown, what: string, bucket: string): Error {
  if (error instanceof KedgeError) return error
  const name = awsNameOf(error)
  const failed = `Cannot ${what} in bucket ${bucket}: ${name}: ${error instanceof Error ? error.message : String(error)}`
  const refused = (code: ErrorCode, advice = ''): DeadLetterStoreError =>
    new DeadLetterStoreError(code, failed + advice, { cause: error, retriable: false })
  const failure = awsFailureOf(error)
  if (failure === 'no region' || name === 'NoSuchBucket' || name === 'PermanentRedirect') {
    return refused('INVALID_CONFIG', '. Check the bucket and the region.')
  }
  if (failure === 'denied') {
    return refused(
      'CLUSTER_AUTHORIZATION_FAILED',
      '. Allow s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket.',
    )
  }
  if (failure === 'unauthenticated') return refused('UNAUTHENTICATED', '. Check the credentials.')
  if (failure === 'for now') return new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', failed, { cause: error })
  return name === 'EntityTooLarge' ? refused('DEAD_LETTER_TOO_LARGE') : refused('INVALID_REQUEST')
}
