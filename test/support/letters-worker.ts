/**
 * Dead-letter stores that are bindings of a Worker, in real workerd: the driver runs inside the Worker, and what a test holds
 * is a store that calls it over HTTP.
 */
import { type LocalWorker, openLocalWorker } from '../../scripts/local-worker.ts'
import type { Call } from '../../src/broker.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../../src/dead-letter.ts'
import { decodeDeadLetter, encodeDeadLetter } from '../../src/dead-letters/codec.ts'
import { DeadLetterStoreError, isErrorCode } from '../../src/errors.ts'
import type { LettersCall, LettersOutcome } from './letters-worker/worker.ts'

/** The Worker with its bindings. */
export interface LettersWorker extends AsyncDisposable {
  /** Opens a store of a kind, empty. */
  open(kind: string): Promise<DeadLetterStore>
  /** What the Worker printed. */
  readonly lines: readonly string[]
  /** Runs the app of functions/app.ts once, as cron would, and says whether it ended well. */
  tick(): Promise<boolean>
  /** Asks the Worker for something of its own and gives the JSON of its answer. */
  ask(path: string, body?: string): Promise<unknown>
  close(): Promise<void>
}

/** Starts the Worker. */
export async function startLettersWorker(vars: Readonly<Record<string, string>> = {}): Promise<LettersWorker> {
  const lines: string[] = []
  const worker: LocalWorker = await openLocalWorker({
    config: 'test/support/letters-worker/wrangler.toml',
    vars,
    onLine: (line) => lines.push(line),
  })

  async function ask(path: string, body = ''): Promise<unknown> {
    const response = await fetch(worker.url + path, { method: 'POST', body })
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`)
    return await response.json()
  }

  return {
    ask,
    lines,
    tick: () => worker.tick(),
    async open(kind) {
      const { id, features } = (await ask(`/open/${kind}`)) as { id: string; features: DeadLetterFeatures }
      return storeOver(id, features, ask)
    },
    close: () => worker.close(),
    [Symbol.asyncDispose]: () => worker.close(),
  }
}

function storeOver(
  id: string,
  features: DeadLetterFeatures,
  ask: (path: string, body: string) => Promise<unknown>,
): DeadLetterStore {
  async function make(
    method: LettersCall['method'],
    argument?: string | DeadLetterQuery,
    call: Call = {},
  ): Promise<Exclude<LettersOutcome, { failure: unknown }>> {
    const reason: unknown = call.signal?.aborted === true ? call.signal.reason : undefined
    const request: LettersCall = {
      store: id,
      method,
      ...(argument === undefined ? {} : { argument }),
      ...(reason instanceof Error ? { aborted: reason.message } : {}),
    }
    const outcome = (await ask('/call', JSON.stringify(request))) as LettersOutcome
    if (!('failure' in outcome)) return outcome
    const { name, message, code = '', retriable = false, limit } = outcome.failure
    if (reason instanceof Error && message === reason.message) throw reason
    if (name !== 'DeadLetterStoreError' || !isErrorCode(code)) throw new Error(`${name}: ${message}`)
    throw new DeadLetterStoreError(code, message, { retriable, ...(limit === undefined ? {} : { limit }) })
  }
  const lettersOf = (outcome: LettersOutcome): DeadLetter[] =>
    'letters' in outcome ? outcome.letters.map(decodeDeadLetter) : []

  return {
    features,
    async put(letter, call) {
      await make('put', encodeDeadLetter(letter), call)
    },
    async list(query = {}, call): Promise<Page<DeadLetter>> {
      const outcome = await make('list', query, call)
      const items = lettersOf(outcome)
      return 'cursor' in outcome && outcome.cursor !== undefined ? { items, cursor: outcome.cursor } : { items }
    },
    async get(letterId, call) {
      return lettersOf(await make('get', letterId, call))[0]
    },
    async delete(letterId, call) {
      const outcome = await make('delete', letterId, call)
      return 'value' in outcome && outcome.value === true
    },
    async close() {
      await make('close')
    },
    async [Symbol.asyncDispose]() {
      await this.close()
    },
  }
}
