/**
 * Dead letters as objects in Cloudflare R2, through a Worker's binding (`objects.ts` has their names and their order).
 *
 * A put resolves when R2 holds the object; R2 is strongly consistent, so it is then listed and read everywhere.
 * @see https://developers.cloudflare.com/r2/api/workers/workers-api-reference/
 */
import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { DeadLetterStoreError, KedgeError } from '../errors.ts'
import { type LetterBucket, ObjectDeadLetters } from './objects.ts'

/** What of a Worker's R2 binding is used. */
export interface R2Binding {
  /** Resolves with null where the condition does not hold. */
  put(
    key: string,
    value: string,
    options: {
      readonly onlyIf: { readonly etagDoesNotMatch: string }
      readonly httpMetadata: { readonly contentType: string }
    },
  ): Promise<unknown>
  get(key: string): Promise<{ text(): Promise<string> } | null>
  head(key: string): Promise<unknown>
  list(options: { readonly prefix: string; readonly limit: number; readonly startAfter?: string }): Promise<{
    readonly objects: readonly { readonly key: string; readonly size: number }[]
    readonly truncated: boolean
  }>
  delete(key: string): Promise<void>
}

/** Options of `r2DeadLetters`. */
export interface R2DeadLettersOptions {
  /** The binding, as the Worker's environment has it. */
  readonly bucket: R2Binding
  /** Where the letters are in the bucket. @default 'dead-letters' */
  readonly prefix?: string
  /** Most objects read by one list, which then ends its page early. @default 500 */
  readonly maxScanObjects?: number
  /** Longest time of one call that names none itself, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

// A Worker's invocation may make 1,000 calls of its bindings.
const r2DeadLettersDefaults = {
  prefix: 'dead-letters',
  maxScanObjects: 500,
  timeoutMs: 10_000,
  clock: systemClock,
} as const

/** Opens a store over a binding. Nothing is asked before the first call. */
export function r2DeadLetters({ bucket, ...options }: R2DeadLettersOptions): DeadLetterStore {
  return new ObjectDeadLetters(letterBucket(bucket), {
    prefix: options.prefix ?? r2DeadLettersDefaults.prefix,
    maxScanObjects: options.maxScanObjects ?? r2DeadLettersDefaults.maxScanObjects,
    timeoutMs: options.timeoutMs ?? r2DeadLettersDefaults.timeoutMs,
    clock: options.clock ?? r2DeadLettersDefaults.clock,
  })
}

function letterBucket(bucket: R2Binding): LetterBucket {
  return {
    name: 'r2',
    async create(key, text) {
      const created = await bucket.put(key, text, {
        onlyIf: { etagDoesNotMatch: '*' },
        httpMetadata: { contentType: 'application/json' },
      })
      return created !== null
    },
    read: async (key) => await (await bucket.get(key))?.text(),
    async list({ prefix, after, limit }) {
      const { objects, truncated } = await bucket.list({
        prefix,
        limit,
        ...(after === undefined ? {} : { startAfter: after }),
      })
      return { objects: objects.map(({ key, size }) => ({ key, bytes: size })), isTruncated: truncated }
    },
    async delete(key) {
      if ((await bucket.head(key)) === null) return false
      await bucket.delete(key)
      return true
    },
    errorOf: r2Error,
    // A binding is the platform's to close.
    close() {},
  }
}

/** R2 tells its errors apart by numbers in their text only, and a store cannot do other than come again. */
function r2Error(failure: unknown, what: string): Error {
  if (failure instanceof KedgeError) return failure
  const said = failure instanceof Error ? failure.message : String(failure)
  return new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', `Cannot ${what} in r2: ${said}.`, { cause: failure })
}
