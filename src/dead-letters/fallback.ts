/**
 * Several stores in the order in which they are tried: a letter is put where it can be had, so that one store that is down,
 * or too small for one letter, stops no partition.
 *
 * A put resolves as soon as one store has the letter durably, and rejects only when none has. A store that failed is asked
 * last for some seconds, so that an outage costs its timeout once and not once for each letter; it is never left out, for
 * it may be the only one that is back. Reading is over all the stores that can: the letters of the first, then of the next.
 */
import type { Call } from '../broker.ts'
import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import { ConfigError, DeadLetterStoreError, KedgeError, abortError } from '../errors.ts'
import { attempt, checkCall, invalidCursor, listLimit, sharedCall, unsupported } from './call.ts'

/** Options of `fallbackDeadLetters`. */
export interface FallbackDeadLettersOptions {
  /** How long a store that failed is asked last, milliseconds. @default 10000 */
  readonly unhealthyMs?: number
  /** Longest time of one call that names none itself, all stores together, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

const fallbackDeadLettersDefaults = { unhealthyMs: 10_000, timeoutMs: 10_000, clock: systemClock } as const

/** Most characters of an error that tells what all stores said. */
const MAX_MESSAGE_CHARS = 4_096

/** A store with what is known of it. */
interface Member {
  readonly store: DeadLetterStore
  /** Monotonic time until which it is asked last. */
  unhealthyUntil: number
}

/**
 * Gives a store of several. All are closed with it.
 * @throws {ConfigError} for no store at all.
 */
export function fallbackDeadLetters(
  stores: readonly DeadLetterStore[],
  options: FallbackDeadLettersOptions = {},
): DeadLetterStore {
  if (stores.length === 0) throw new ConfigError('Cannot make a chain of dead-letter stores: none is given. Give one.')
  return new FallbackDeadLetters(stores, options)
}

class FallbackDeadLetters implements DeadLetterStore {
  readonly #members: readonly Member[]
  readonly #unhealthyMs: number
  readonly #timeoutMs: number
  readonly #clock: Clock
  #isClosed = false

  constructor(stores: readonly DeadLetterStore[], options: FallbackDeadLettersOptions) {
    this.#members = stores.map((store) => ({ store, unhealthyUntil: -Infinity }))
    this.#unhealthyMs = options.unhealthyMs ?? fallbackDeadLettersDefaults.unhealthyMs
    this.#timeoutMs = options.timeoutMs ?? fallbackDeadLettersDefaults.timeoutMs
    this.#clock = options.clock ?? fallbackDeadLettersDefaults.clock
  }

  /** `deduplicates` is said of each store: a letter whose first put was lost on the way may be in two of them. */
  get features(): DeadLetterFeatures {
    const all = this.#members.map(({ store }) => store.features)
    const limits = all.flatMap(({ maxLetterBytes }) => maxLetterBytes ?? [])
    return {
      deduplicates: all.every(({ deduplicates }) => deduplicates),
      list: all.some(({ list }) => list),
      listOrder: all.length === 1 ? (all[0]?.listOrder ?? 'none') : 'none',
      get: all.some(({ get }) => get),
      delete: all.some((features) => features.delete),
      maxLetterBytes: limits.length === all.length ? Math.max(...limits) : null,
    }
  }

  async put(letter: DeadLetter, call?: Call): Promise<void> {
    checkCall('fallback', this.#isClosed, call)
    const share = sharedCall(call, this.#timeoutMs, this.#clock)
    const members = this.#healthiestFirst()
    const failures: unknown[] = []
    for (const [tried, member] of members.entries()) {
      try {
        await this.#within(`store dead letter ${letter.id}`, share(members.length - tried), (limits) =>
          member.store.put(letter, limits),
        )
        member.unhealthyUntil = -Infinity
        return
      } catch (failure) {
        if (call?.signal?.aborted === true) throw abortError(call.signal)
        // Of two letters with one id in two stores, whoever deletes one would delete both.
        if (failure instanceof KedgeError && failure.code === 'DEAD_LETTER_ID_TAKEN') throw failure
        failures.push(failure)
        // What a store says of one letter, its size say, is no news of the store.
        if (isRetriable(failure)) member.unhealthyUntil = this.#clock.monotonic() + this.#unhealthyMs
      }
    }
    throw allFailed(letter.id, failures)
  }

  async list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall('fallback', this.#isClosed, call)
    const limit = listLimit(query)
    const stores = this.#able('list', 'list letters')
    const share = sharedCall(call, this.#timeoutMs, this.#clock)
    const { cursor, ...conditions } = query
    const from = placeOf(cursor, stores.length)
    const items: DeadLetter[] = []
    for (const [at, store] of stores.entries()) {
      if (at < from.at) continue
      if (items.length === limit) return { items, cursor: `${at}:` }
      const rest = { ...conditions, limit: limit - items.length }
      const asked = at === from.at && from.cursor !== '' ? { ...rest, cursor: from.cursor } : rest
      const page = await this.#within('list dead letters', share(stores.length - at), (limits) =>
        store.list(asked, limits),
      )
      items.push(...page.items)
      if (page.cursor !== undefined) return { items, cursor: `${at}:${page.cursor}` }
    }
    return { items }
  }

  async get(id: string, call?: Call): Promise<DeadLetter | undefined> {
    checkCall('fallback', this.#isClosed, call)
    const stores = this.#able('get', 'look a letter up')
    const share = sharedCall(call, this.#timeoutMs, this.#clock)
    const failures: unknown[] = []
    for (const [at, store] of stores.entries()) {
      try {
        const limits = share(stores.length - at)
        const letter = await this.#within(`read dead letter ${id}`, limits, (limits) => store.get(id, limits))
        if (letter !== undefined) return letter
      } catch (failure) {
        if (call?.signal?.aborted === true) throw abortError(call.signal)
        failures.push(failure)
      }
    }
    // A store that could not be asked may have it: that is no "there is none".
    if (failures.length > 0) throw failures[0]
    return undefined
  }

  async delete(id: string, call?: Call): Promise<boolean> {
    checkCall('fallback', this.#isClosed, call)
    const stores = this.#able('delete', 'delete a letter')
    const { timeoutMs, signal } = sharedCall(call, this.#timeoutMs, this.#clock)()
    const limits = signal === undefined ? { timeoutMs } : { timeoutMs, signal }
    const outcomes = await Promise.allSettled(
      stores.map((store) => this.#within(`delete dead letter ${id}`, limits, (own) => store.delete(id, own))),
    )
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    // One that could not be asked may still have it.
    if (failed !== undefined) throw failed.reason
    return outcomes.some((outcome) => outcome.status === 'fulfilled' && outcome.value)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all(this.#members.map(({ store }) => store.close()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #healthiestFirst(): readonly Member[] {
    const now = this.#clock.monotonic()
    const isHealthy = ({ unhealthyUntil }: Member): boolean => unhealthyUntil <= now
    return [...this.#members.filter(isHealthy), ...this.#members.filter((member) => !isHealthy(member))]
  }

  #able(ability: 'list' | 'get' | 'delete', what: string): readonly DeadLetterStore[] {
    const stores = this.#members.map(({ store }) => store).filter(({ features }) => features[ability])
    if (stores.length === 0) throw unsupported('fallback', what)
    return stores
  }

  /** Holds a store to its time, whether or not it does so itself: the next one must have its share. */
  async #within<T>(
    what: string,
    limits: Call & { readonly timeoutMs: number },
    work: (limits: Call) => Promise<T>,
  ): Promise<T> {
    const { signal, timeoutMs } = limits
    return await attempt(what, { signal, timeoutMs }, this.#clock, (own) => work({ ...limits, signal: own }))
  }
}

/** Which store a cursor goes on in, and from where. */
function placeOf(cursor: string | undefined, stores: number): { readonly at: number; readonly cursor: string } {
  if (cursor === undefined) return { at: 0, cursor: '' }
  const [, at = '', rest = ''] = /^(\d{1,3}):(.*)$/s.exec(cursor) ?? []
  if (at === '' || Number(at) >= stores) throw invalidCursor()
  return { at: Number(at), cursor: rest }
}

function isRetriable(failure: unknown): boolean {
  return failure instanceof KedgeError && failure.retriable
}

function allFailed(id: string, failures: readonly unknown[]): DeadLetterStoreError {
  const known = failures.filter((failure) => failure instanceof KedgeError)
  const retriable = known.some((failure) => failure.retriable)
  const [first] = known
  const room = Math.floor(MAX_MESSAGE_CHARS / failures.length / 2)
  const said = failures.map((failure) => (failure instanceof Error ? failure.message : String(failure)).slice(0, room))
  const waits = known.flatMap(({ retryAfterMs }) => retryAfterMs ?? [])
  return new DeadLetterStoreError(
    retriable || first === undefined ? 'DEAD_LETTER_STORE_UNAVAILABLE' : first.code,
    `Cannot store dead letter ${id} in any of ${failures.length} stores: ${said.join(' | ')}`.slice(
      0,
      MAX_MESSAGE_CHARS,
    ),
    {
      cause: new AggregateError(failures, 'Every dead-letter store failed.'),
      retriable,
      ...(waits.length === 0 ? {} : { retryAfterMs: Math.min(...waits) }),
      ...(first?.limit === undefined ? {} : { limit: first.limit }),
    },
  )
}
