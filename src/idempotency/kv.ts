/**
 * Idempotency in Workers KV: NOT linearizable. A value that was written here may be seen elsewhere a minute later, and there
 * is no conditional write, so two begins that come close together may both start. It thins out repeats that come later
 * than that; for effects that must not happen twice take `durable-object` or `d1`.
 *
 * KV takes one write a second for each key. Handling a record makes two, so the second may be refused with
 * IDEMPOTENCY_STORE_UNAVAILABLE and a wait of a second.
 * @see https://developers.cloudflare.com/kv/concepts/how-kv-works/#consistency
 */
import { type Clock, systemClock } from '../clock.ts'
import { IdempotencyError } from '../errors.ts'
import { EXPIRED_LOCK_MS, MAX_OUTCOME_BYTES, type IdempotencyFeatures, type IdempotencyStore } from '../idempotency.ts'
import { type CallScope, checkBegin, checkCall, checkComplete, lockLost } from './call.ts'
import { type Entry, beginOn, canAbandon, completeOn } from './entry.ts'
import { decodeEntry, encodeEntry } from './entry-json.ts'
import { DEFAULT_TIMEOUT_MS, attempt, nameOf } from './remote.ts'

/** What the driver uses of a KV binding. */
export interface KvBinding {
  get(key: string): Promise<string | null>
  put(key: string, value: string, options: { expirationTtl: number }): Promise<void>
  delete(key: string): Promise<void>
}

/** Options of `kvIdempotency`. */
export interface KvIdempotencyOptions {
  readonly namespace: KvBinding
  /** Longest time of a call that names none, milliseconds. @default 5000 */
  readonly timeoutMs?: number
  /** Its wall clock decides when locks and outcomes expire. @default the platform's */
  readonly clock?: Clock
}

const features: IdempotencyFeatures = Object.freeze({
  linearizable: false,
  durable: true,
  maxOutcomeBytes: MAX_OUTCOME_BYTES,
})

/** KV's longest key, bytes. */
const MAX_KV_KEY_BYTES = 512
/** KV's shortest time to live, seconds. */
const MIN_TTL_SECONDS = 60
/** KV's one write a second for each key. */
const WRITE_WAIT_MS = 1_000

/** Opens a store over a namespace. Nothing is sent before the first call. */
export function kvIdempotency(options: KvIdempotencyOptions): IdempotencyStore {
  const { namespace } = options
  const clock = options.clock ?? systemClock
  const timed = { store: 'kv', clock, timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS }
  let isClosed = false
  const scope = (): CallScope => ({ store: 'kv', isClosed })

  async function read(name: string): Promise<Entry | undefined> {
    const text = await namespace.get(name).catch(fail)
    return text === null ? undefined : decodeEntry(text)
  }

  async function write(name: string, entry: Entry, liveMs: number): Promise<void> {
    const expirationTtl = Math.max(MIN_TTL_SECONDS, Math.ceil(liveMs / 1000))
    await namespace.put(name, encodeEntry(entry), { expirationTtl }).catch(fail)
  }

  return {
    features,
    async begin(key, { owner, lockMs }, call) {
      checkBegin(scope(), key, { owner, lockMs }, call)
      const name = await nameOf(key, MAX_KV_KEY_BYTES)
      return await attempt(timed, call, async () => {
        const nowMs = clock.now()
        const result = beginOn(await read(name), owner, nowMs)
        if (result.kind === 'started') {
          await write(name, { owner, expiresAtMs: nowMs + lockMs, outcome: null }, lockMs + EXPIRED_LOCK_MS)
        }
        return result
      })
    },
    async complete(key, owner, outcome, { keepMs }, call) {
      checkComplete(scope(), key, owner, outcome, { keepMs }, call)
      const name = await nameOf(key, MAX_KV_KEY_BYTES)
      const bytes = Uint8Array.from(outcome)
      await attempt(timed, call, async () => {
        const entry = await read(name)
        // What this owner wrote may not be visible yet, and a key that nobody is seen to hold is nobody's to lose.
        const what = entry === undefined ? 'write' : completeOn(entry, owner)
        if (what === 'lost') throw lockLost('kv')
        if (what === 'write') await write(name, { owner, expiresAtMs: clock.now() + keepMs, outcome: bytes }, keepMs)
      })
    },
    async abandon(key, owner, call) {
      checkCall(scope(), key, owner, call)
      const name = await nameOf(key, MAX_KV_KEY_BYTES)
      await attempt(timed, call, async () => {
        if (canAbandon(await read(name), owner)) await namespace.delete(name).catch(fail)
      })
    },
    async close() {
      isClosed = true
    },
    async [Symbol.asyncDispose]() {
      await this.close()
    },
  }
}

/** KV tells its failures apart by the HTTP status in their texts. */
function fail(cause: unknown): never {
  const message = cause instanceof Error ? cause.message : String(cause)
  const status = Number(/failed: (\d{3})\b/.exec(message)?.[1] ?? 0)
  if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
    throw new IdempotencyError('INVALID_REQUEST', `Cannot use the idempotency store kv: ${message}`, { cause })
  }
  throw new IdempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE', `Cannot use the idempotency store kv: ${message}`, {
    cause,
    ...(status === 429 ? { retryAfterMs: WRITE_WAIT_MS } : {}),
  })
}
