/**
 * A store for letters that are too large for it: the letter goes whole into another store, and a reference to it takes its
 * place. Whoever lists or gets through this store sees the letters and never the references.
 *
 * The letter is durable before its reference is: a reference never points at nothing, and what a failure leaves behind is an
 * object without a reference at worst. A reference is a letter like any other, with the same id, cause and coordinates, so
 * that filters and alarms of the store work on it; only the record's value and headers are elsewhere.
 */
import type { Call } from '../broker.ts'
import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import { ConfigError, DeadLetterStoreError } from '../errors.ts'
import { bytesOf, textOf } from '../record.ts'
import { checkCall, matches, sharedCall } from './call.ts'
import { encodeDeadLetter } from './codec.ts'

/** Options of `claimCheck`. */
export interface ClaimCheckOptions {
  /** Where large letters go: any store without a limit that can give a letter back. */
  readonly objects: DeadLetterStore
  /**
   * Letters of more bytes than this, as JSON, go there. What the store refuses as too large goes there in any case.
   * @default the store's `maxLetterBytes`, less 1 KiB for what it adds to a letter
   */
  readonly overBytes?: number
  /** Longest time of one call that names none itself, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

const claimCheckDefaults = { timeoutMs: 10_000, clock: systemClock } as const

/** What a reference says of its letter. */
interface Claim {
  readonly format: string
  readonly letterBytes: number
}

/** The header by which a reference is known; it is its only one. */
const CLAIM_HEADER = 'kedge-claim-check'
/** What a store may add to a letter's JSON, as SQS counts attributes with the body. */
const MAX_ADDED_BYTES = 1_024
/** A key that is no longer than this stays in the reference, so that lists by key find it. */
const MAX_KEPT_KEY_BYTES = 1_024
/** Letters fetched at the same time: a Worker may have six connections. */
const MAX_FETCHES = 6
/** Most letters fetched for one page, which is to end within its call, and their bytes together. One letter is always taken. */
const MAX_PAGE_REFERENCES = 120
const MAX_PAGE_BYTES = 8_388_608

/** What is left of a call's time, for so many parts. */
type LeftOfCall = ReturnType<typeof sharedCall>

/**
 * Gives a store that keeps its large letters in another. Both are closed with it.
 * @throws {ConfigError} where the other store cannot give letters back.
 */
export function claimCheck(store: DeadLetterStore, options: ClaimCheckOptions): DeadLetterStore {
  return new ClaimCheck(store, options)
}

/**
 * The letter that a reference stands for; any other letter as it is. For consumers of a queue, which meet references.
 * @throws {DeadLetterStoreError} BAD_RESPONSE where the letter is gone and its reference is not.
 */
export async function claimedLetter(letter: DeadLetter, objects: DeadLetterStore, call?: Call): Promise<DeadLetter> {
  if (!isClaimReference(letter)) return letter
  const whole = await objects.get(letter.id, call)
  if (whole !== undefined) return whole
  throw new DeadLetterStoreError(
    'BAD_RESPONSE',
    `Cannot read dead letter ${letter.id}: its reference is stored and the letter itself is gone from the store of large letters. Delete the reference, or bring the letter back.`,
  )
}

class ClaimCheck implements DeadLetterStore {
  readonly #store: DeadLetterStore
  readonly #objects: DeadLetterStore
  readonly #overBytes: number
  readonly #timeoutMs: number
  readonly #clock: Clock
  #isClosed = false

  constructor(store: DeadLetterStore, { objects, overBytes, timeoutMs, clock }: ClaimCheckOptions) {
    if (!objects.features.get) {
      throw new ConfigError(
        'Cannot make a claim check: the store of large letters cannot give a letter back. Name one that has get.',
      )
    }
    const { maxLetterBytes } = store.features
    this.#store = store
    this.#objects = objects
    this.#overBytes = overBytes ?? (maxLetterBytes === null ? Infinity : maxLetterBytes - MAX_ADDED_BYTES)
    this.#timeoutMs = timeoutMs ?? claimCheckDefaults.timeoutMs
    this.#clock = clock ?? claimCheckDefaults.clock
  }

  get features(): DeadLetterFeatures {
    const { features } = this.#store
    const { deduplicates, delete: deletes, maxLetterBytes } = this.#objects.features
    return {
      ...features,
      deduplicates: features.deduplicates && deduplicates,
      delete: features.delete && deletes,
      maxLetterBytes,
    }
  }

  async put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall('claim check', this.#isClosed, call)
    const left = sharedCall(call, this.#timeoutMs, this.#clock)
    // A letter that looks like a reference would be taken for one, so it becomes one.
    const isLarge = isClaimReference(letter) || encodeDeadLetter(letter).length > this.#overBytes
    if (!isLarge) {
      try {
        return await this.#store.put(letter, left())
      } catch (error) {
        if (!(error instanceof DeadLetterStoreError) || error.code !== 'DEAD_LETTER_TOO_LARGE') throw error
      }
    }
    await this.#objects.put(letter, left(2))
    await this.#store.put(referenceTo(letter), left())
  }

  async list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall('claim check', this.#isClosed, call)
    const left = sharedCall(call, this.#timeoutMs, this.#clock)
    const { items, ...rest } = await this.#page(withoutWhatReferencesLack(query), left)
    const letters: DeadLetter[] = []
    for (let at = 0; at < items.length; at += MAX_FETCHES) {
      const fetched = items.slice(at, at + MAX_FETCHES).map((item) => this.#wholeOf(item, left))
      letters.push(...(await Promise.all(fetched)).filter((letter) => letter !== undefined))
    }
    return { ...rest, items: letters.filter((letter) => matches(letter, query)) }
  }

  async get(id: string, call?: Call): Promise<DeadLetter | undefined> {
    checkCall('claim check', this.#isClosed, call)
    const left = sharedCall(call, this.#timeoutMs, this.#clock)
    const letter = await this.#store.get(id, left(2))
    return letter === undefined ? undefined : await this.#wholeOf(letter, left)
  }

  async delete(id: string, call?: Call): Promise<boolean> {
    checkCall('claim check', this.#isClosed, call)
    const left = sharedCall(call, this.#timeoutMs, this.#clock)
    // The reference first: what is left by a failure between the two is found by nobody and harms nobody.
    const wasThere = await this.#store.delete(id, left(2))
    return (await this.#objects.delete(id, left())) || wasThere
  }

  /** A page of the store, with no more references than one call may fetch and hold. */
  async #page(query: DeadLetterQuery, left: LeftOfCall): Promise<Page<DeadLetter>> {
    const page = await this.#store.list(query, left(2))
    const limit = fittingOf(page.items)
    return limit === page.items.length ? page : await this.#store.list({ ...query, limit }, left(2))
  }

  /** The letter that a reference stands for; undefined where somebody deleted both since the reference was read. */
  async #wholeOf(letter: DeadLetter, left: LeftOfCall): Promise<DeadLetter | undefined> {
    try {
      return await claimedLetter(letter, this.#objects, left())
    } catch (error) {
      const isGone = error instanceof DeadLetterStoreError && error.code === 'BAD_RESPONSE'
      // The reference is deleted first: where it is still there, its letter is lost.
      if (!isGone || !this.#store.features.get || (await this.#store.get(letter.id, left())) !== undefined) throw error
      return undefined
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([this.#store.close(), this.#objects.close()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function referenceTo(letter: DeadLetter): DeadLetter {
  const { record } = letter
  const isKeyKept = record.key !== null && record.key.length <= MAX_KEPT_KEY_BYTES
  const claim = JSON.stringify({ format: `${CLAIM_HEADER}/1`, letterBytes: encodeDeadLetter(letter).length })
  return {
    ...letter,
    record: {
      ...record,
      key: isKeyKept ? record.key : null,
      value: null,
      headers: [{ key: CLAIM_HEADER, value: bytesOf(claim) }],
    },
  }
}

/** Whether a letter is a reference, whose record is in another store. */
export function isClaimReference({ record }: DeadLetter): boolean {
  return record.value === null && record.headers.length === 1 && record.headers[0]?.key === CLAIM_HEADER
}

/** How many letters of a page, at its beginning, may be in one that is given with its references' letters. */
function fittingOf(items: readonly DeadLetter[]): number {
  let references = 0
  let bytes = 0
  for (const [at, item] of items.entries()) {
    if (!isClaimReference(item)) continue
    references += 1
    bytes += claimedBytesOf(item)
    if (at > 0 && (references > MAX_PAGE_REFERENCES || bytes > MAX_PAGE_BYTES)) return at
  }
  return items.length
}

/** What a reference says of the size of its letter; 0 where it says nothing. */
function claimedBytesOf({ record }: DeadLetter): number {
  try {
    const { letterBytes } = Object(JSON.parse(textOf(record.headers[0]?.value ?? bytesOf('{}')))) as Partial<Claim>
    return typeof letterBytes === 'number' ? letterBytes : 0
  } catch {
    return 0
  }
}

/** What a reference says no more is asked of the letters behind them. */
function withoutWhatReferencesLack({ header: _header, key, ...query }: DeadLetterQuery): DeadLetterQuery {
  return key === undefined || bytesOf(key).length > MAX_KEPT_KEY_BYTES ? query : { ...query, key }
}
