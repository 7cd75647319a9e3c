/**
 * Dead letters as messages of a Cloudflare Queue, through a Worker's binding: for a consumer that alarms or repairs.
 *
 * One message per letter, its body the letter's JSON (codec.ts) as text. A queue may deliver a message more than once, and
 * a put whose answer was lost is there twice; the letter's id says so. A queue can neither be listed nor searched, so
 * reading is not offered here: consume the queue, and read each body with `decodeDeadLetter`.
 * @see https://developers.cloudflare.com/queues/platform/limits/
 */
import type { Call } from '../broker.ts'
import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterStore } from '../dead-letter.ts'
import { DeadLetterStoreError } from '../errors.ts'
import { attempt, checkCall, unsupported } from './call.ts'
import { encodeDeadLetter } from './codec.ts'

/** What of a Worker's producer binding is used. */
export interface QueueBinding {
  send(body: string, options: { readonly contentType: 'text' }): Promise<unknown>
}

/** Options of `queueDeadLetters`. */
export interface QueueDeadLettersOptions {
  /** The binding, as the Worker's environment has it. */
  readonly queue: QueueBinding
  /** Longest time of one put when its call names none, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

const queueDeadLettersDefaults = { timeoutMs: 10_000, clock: systemClock } as const

/** 128 KB, where 1 KB is 1,000 bytes, less about 100 bytes that the platform adds to a message and counts with it. */
export const MAX_QUEUE_MESSAGE_BYTES = 127_900

const features: DeadLetterFeatures = Object.freeze({
  deduplicates: false,
  list: false,
  listOrder: 'none',
  get: false,
  delete: false,
  maxLetterBytes: MAX_QUEUE_MESSAGE_BYTES,
})

/** Opens a store over a binding. Nothing is sent before the first put. */
export function queueDeadLetters(options: QueueDeadLettersOptions): DeadLetterStore {
  const { queue } = options
  const timeoutMs = options.timeoutMs ?? queueDeadLettersDefaults.timeoutMs
  const clock = options.clock ?? queueDeadLettersDefaults.clock
  let isClosed = false

  async function put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall('queue', isClosed, call)
    const body = encodeDeadLetter(letter)
    if (body.length > MAX_QUEUE_MESSAGE_BYTES) throw tooLarge(letter.id, body.length)
    const limits = { signal: call?.signal, timeoutMs: call?.timeoutMs ?? timeoutMs }
    await attempt(`store dead letter ${letter.id} in its queue`, limits, clock, async () => {
      try {
        await queue.send(body, { contentType: 'text' })
      } catch (failure) {
        throw queueError(failure, letter.id)
      }
    })
  }

  /** Refuses what a queue cannot do. */
  const refuse =
    (what: string) =>
    async (_asked?: unknown, call?: Call): Promise<never> => {
      checkCall('queue', isClosed, call)
      throw unsupported('queue', what)
    }

  return {
    features,
    put,
    list: refuse('list letters'),
    get: refuse('look a letter up'),
    delete: refuse('delete a letter'),
    async close() {
      isClosed = true
    },
    async [Symbol.asyncDispose]() {
      await this.close()
    },
  }
}

function tooLarge(id: string, bytes: number, cause?: unknown): DeadLetterStoreError {
  return new DeadLetterStoreError(
    'DEAD_LETTER_TOO_LARGE',
    `Cannot store dead letter ${id} in its queue: it takes ${bytes} bytes and a message may have ${MAX_QUEUE_MESSAGE_BYTES}. Put it elsewhere with a claim check, or use a store without that limit.`,
    { limit: 'maxLetterBytes', cause },
  )
}

/** The platform tells its errors apart by their text only; all but its size limit may pass. */
function queueError(failure: unknown, id: string): DeadLetterStoreError {
  const said = failure instanceof Error ? failure.message : String(failure)
  if (/payload too large|exceeds (the )?(message size )?limit/i.test(said)) {
    return new DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', `Cannot store dead letter ${id} in its queue: ${said}.`, {
      cause: failure,
    })
  }
  return new DeadLetterStoreError(
    'DEAD_LETTER_STORE_UNAVAILABLE',
    `Cannot store dead letter ${id} in its queue: ${said}.`,
    {
      cause: failure,
    },
  )
}
