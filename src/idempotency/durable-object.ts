/**
 * Idempotency in Durable Objects: one object for each key, which is asked by one caller after the other and has one clock
 * for all of them. The worker exports `KedgeIdempotency`; the store reaches it through the worker's binding.
 *
 * Store and object speak JSON over the object's `fetch`:
 * `POST /begin {owner, lockMs}` gives a `BeginResult`, `POST /complete {owner, keepMs, outcome}` gives `{"stored": bool}`,
 * `POST /abandon {owner}` gives `{}`; outcomes are base64. An object deletes all it holds when that has expired.
 * @see https://developers.cloudflare.com/durable-objects/api/sqlite-storage-api/
 */
import { base64Of, bytesOfBase64 } from '../base64.ts'
import { type Clock, systemClock } from '../clock.ts'
import { IdempotencyError, KedgeError } from '../errors.ts'
import {
  EXPIRED_LOCK_MS,
  MAX_OUTCOME_BYTES,
  type BeginResult,
  type IdempotencyFeatures,
  type IdempotencyStore,
} from '../idempotency.ts'
import { type CallScope, checkBegin, checkCall, checkComplete, lockLost } from './call.ts'
import { type Entry, beginOn, canAbandon, completeOn } from './entry.ts'
import { decodeEntry, encodeEntry } from './entry-json.ts'
import { DEFAULT_TIMEOUT_MS, attempt, nameOf } from './remote.ts'

/** What the store uses of a binding to the namespace of `KedgeIdempotency`. */
export interface DurableObjectBinding<Id = unknown> {
  idFromName(name: string): Id
  get(id: Id): { fetch(url: string, init: { method: string; body: string; signal?: AbortSignal }): Promise<Response> }
}

/** What the object uses of its state. */
export interface DurableObjectState {
  readonly storage: {
    /** Texts are all that is put. */
    get(key: string): Promise<string | undefined>
    put(key: string, value: string): Promise<void>
    deleteAll(): Promise<void>
    setAlarm(atMs: number): Promise<void>
  }
}

/** Options of `durableObjectIdempotency`. */
export interface DurableObjectIdempotencyOptions {
  readonly namespace: DurableObjectBinding
  /** Longest time of a call that names none, milliseconds. @default 5000 */
  readonly timeoutMs?: number
  /** Measures the time of a call. When locks expire is the object's to say. @default the platform's */
  readonly clock?: Clock
}

const features: IdempotencyFeatures = Object.freeze({
  linearizable: true,
  durable: true,
  maxOutcomeBytes: MAX_OUTCOME_BYTES,
})

/** Longer keys name their object by a digest. */
const MAX_NAME_BYTES = 512
const STORE = 'do'
const ENTRY = 'entry'

/** Opens a store over a namespace. Nothing is sent before the first call. */
export function durableObjectIdempotency(options: DurableObjectIdempotencyOptions): IdempotencyStore {
  const { namespace } = options
  const timed = {
    store: STORE,
    clock: options.clock ?? systemClock,
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
  }
  let isClosed = false
  const scope = (): CallScope => ({ store: STORE, isClosed })

  async function ask(
    key: string,
    verb: string,
    question: object,
    call: Parameters<typeof attempt>[1],
  ): Promise<Answer> {
    const name = await nameOf(key, MAX_NAME_BYTES)
    return await attempt(timed, call, async (signal) => {
      const stub = namespace.get(namespace.idFromName(name))
      const init = { method: 'POST', body: JSON.stringify(question), signal }
      return await answerOf(stub.fetch(`https://kedge-idempotency/${verb}`, init))
    })
  }

  return {
    features,
    async begin(key, { owner, lockMs }, call) {
      checkBegin(scope(), key, { owner, lockMs }, call)
      return resultOf(await ask(key, 'begin', { owner, lockMs }, call))
    },
    async complete(key, owner, outcome, { keepMs }, call) {
      checkComplete(scope(), key, owner, outcome, { keepMs }, call)
      const answer = await ask(key, 'complete', { owner, keepMs, outcome: base64Of(outcome) }, call)
      if (answer['stored'] !== true) throw lockLost(STORE)
    },
    async abandon(key, owner, call) {
      checkCall(scope(), key, owner, call)
      await ask(key, 'abandon', { owner }, call)
    },
    async close() {
      isClosed = true
    },
    async [Symbol.asyncDispose]() {
      await this.close()
    },
  }
}

/**
 * The Durable Object class: `export { KedgeIdempotency } from 'kedge/idempotency/durable-object'` in the worker, with a
 * binding and a migration for it in wrangler.toml. Never called by users' code.
 */
export class KedgeIdempotency {
  /** Decides when locks and outcomes expire. */
  protected readonly clock: Clock = systemClock
  readonly #state: DurableObjectState

  constructor(state: DurableObjectState) {
    this.#state = state
  }

  /** Serves one call of the store. */
  async fetch(request: Request): Promise<Response> {
    const question = (await request.json()) as Answer
    const owner = String(question['owner'])
    // No other call is let in from here to the write: the object waits for nothing but its own storage.
    const entry = await this.#entry()
    switch (new URL(request.url).pathname) {
      case '/begin':
        return Response.json(await this.#begin(entry, owner, Number(question['lockMs'])))
      case '/complete':
        return Response.json({ stored: await this.#complete(entry, owner, question) })
      case '/abandon':
        if (canAbandon(entry, owner)) await this.#state.storage.deleteAll()
        return Response.json({})
      default:
        return new Response('There is no such call.', { status: 404 })
    }
  }

  /** Deletes what has expired. Called by the platform. */
  async alarm(): Promise<void> {
    const entry = await this.#entry()
    if (entry === undefined) return
    if (forgetAtMs(entry) <= this.clock.now()) await this.#state.storage.deleteAll()
    else await this.#state.storage.setAlarm(forgetAtMs(entry))
  }

  async #begin(entry: Entry | undefined, owner: string, lockMs: number): Promise<object> {
    const nowMs = this.clock.now()
    const result = beginOn(entry, owner, nowMs)
    if (result.kind === 'started') await this.#write({ owner, expiresAtMs: nowMs + lockMs, outcome: null })
    return result.kind === 'done' ? { kind: 'done', outcome: base64Of(result.outcome) } : result
  }

  async #complete(entry: Entry | undefined, owner: string, question: Answer): Promise<boolean> {
    const what = completeOn(entry, owner)
    const outcome = bytesOfBase64(String(question['outcome'])) ?? new Uint8Array(0)
    if (what === 'write') {
      await this.#write({ owner, expiresAtMs: this.clock.now() + Number(question['keepMs']), outcome })
    }
    return what !== 'lost'
  }

  async #entry(): Promise<Entry | undefined> {
    const stored = await this.#state.storage.get(ENTRY)
    return stored === undefined ? undefined : decodeEntry(stored)
  }

  async #write(entry: Entry): Promise<void> {
    const { storage } = this.#state
    // Writes that nothing is awaited between are written together or not at all.
    await Promise.all([storage.put(ENTRY, encodeEntry(entry)), storage.setAlarm(forgetAtMs(entry))])
  }
}

type Answer = Readonly<Record<string, unknown>>

/** An expired lock is remembered a while, for its owner may still come. */
function forgetAtMs({ expiresAtMs, outcome }: Entry): number {
  return outcome === null ? expiresAtMs + EXPIRED_LOCK_MS : expiresAtMs
}

async function answerOf(response: Promise<Response>): Promise<Answer> {
  try {
    const answered = await response
    if (answered.ok) return (await answered.json()) as Answer
    throw badAnswer(`it answered ${answered.status}: ${(await answered.text()).slice(0, 200)}`)
  } catch (cause) {
    if (cause instanceof KedgeError) throw cause
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new IdempotencyError(
      'IDEMPOTENCY_STORE_UNAVAILABLE',
      `Cannot use the idempotency store do: its object failed: ${message}`,
      { cause },
    )
  }
}

function resultOf({ kind, retryAfterMs, outcome }: Answer): BeginResult {
  if (kind === 'started') return { kind }
  if (kind === 'in-progress' && typeof retryAfterMs === 'number') return { kind, retryAfterMs }
  const bytes = kind === 'done' && typeof outcome === 'string' ? bytesOfBase64(outcome) : undefined
  if (bytes !== undefined) return { kind: 'done', outcome: bytes }
  throw badAnswer('its answer is not one of KedgeIdempotency')
}

function badAnswer(what: string): IdempotencyError {
  return new IdempotencyError(
    'BAD_RESPONSE',
    `Cannot use the idempotency store do: ${what}. Does the binding name the class KedgeIdempotency, of the same version?`,
  )
}
