/**
 * Dead-letter stores over a Worker's bindings, called over HTTP by a test (`../letters-worker.ts`): one call of the port for
 * each request, its outcome as JSON. Its scheduled handler is that of functions/worker.ts, with these bindings.
 */
import shipped from '../../../functions/worker.ts'
import type { DeadLetterQuery, DeadLetterStore } from '../../../src/dead-letter.ts'
import { decodeDeadLetter, encodeDeadLetter } from '../../../src/dead-letters/codec.ts'
import { type D1Binding, d1DeadLetters } from '../../../src/dead-letters/d1.ts'
import { type QueueBinding, queueDeadLetters } from '../../../src/dead-letters/queue.ts'
import { type R2Binding, r2DeadLetters } from '../../../src/dead-letters/r2.ts'
import { KedgeError } from '../../../src/errors.ts'

interface Env {
  readonly DB: D1Binding
  readonly BUCKET: R2Binding
  readonly QUEUE: QueueBinding
}

/** A call of the port. `aborted` is the message of the reason with which its signal was aborted before. */
export interface LettersCall {
  readonly store: string
  readonly method: 'put' | 'list' | 'get' | 'delete' | 'close'
  readonly argument?: string | DeadLetterQuery
  readonly aborted?: string
}

/** What became of a call. */
export type LettersOutcome =
  | { readonly letters: readonly string[]; readonly cursor?: string }
  | { readonly value: boolean | null }
  | {
      readonly failure: {
        readonly name: string
        readonly message: string
        readonly code?: string
        readonly retriable?: boolean
        readonly limit?: string
      }
    }

interface MessageBatch {
  readonly messages: readonly { readonly body: string }[]
}

const stores = new Map<string, DeadLetterStore>()
/** Bodies of the messages that this Worker consumed. */
const received: string[] = []

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname } = new URL(request.url)
    if (pathname === '/sql') {
      const { results } = await env.DB.prepare(await request.text()).all()
      return Response.json(results)
    }
    if (pathname === '/send') return Response.json(await env.QUEUE.send(await request.text(), { contentType: 'text' }))
    if (pathname === '/objects') {
      const { objects } = await env.BUCKET.list({ prefix: await request.text(), limit: 1000 })
      return Response.json(objects.map(({ key }) => key))
    }
    if (pathname === '/received') return Response.json(received)
    if (pathname === '/forget') return Response.json(received.splice(0).length)
    if (pathname.startsWith('/open/')) return Response.json(await opened(pathname.slice('/open/'.length), env))
    return Response.json(await outcomeOf((await request.json()) as LettersCall))
  },

  async scheduled(controller: unknown, env: Env): Promise<void> {
    await shipped.scheduled(controller, { ...env })
  },

  async queue({ messages }: MessageBatch): Promise<void> {
    received.push(...messages.map(({ body }) => body))
  },
}

/** Opens a store of a kind over what is empty. */
async function opened(kind: string, env: Env): Promise<Pick<DeadLetterStore, 'features'> & { readonly id: string }> {
  const id = crypto.randomUUID()
  const store = await openStore(kind, env)
  stores.set(id, store)
  return { id, features: store.features }
}

async function openStore(kind: string, env: Env): Promise<DeadLetterStore> {
  // A prefix of its own is as good as a bucket of its own.
  if (kind === 'r2') return r2DeadLetters({ bucket: env.BUCKET, prefix: crypto.randomUUID() })
  if (kind === 'queue') return queueDeadLetters({ queue: env.QUEUE })
  if (kind === 'd1') {
    await env.DB.batch(
      ['kedge_dead_letters', 'kedge_dead_letter_schema'].map((table) =>
        env.DB.prepare(`DROP TABLE IF EXISTS ${table}`),
      ),
    )
  }
  return d1DeadLetters({ database: env.DB })
}

async function outcomeOf(call: LettersCall): Promise<LettersOutcome> {
  try {
    return await made(call)
  } catch (failure) {
    if (failure instanceof KedgeError) {
      const { name, message, code, retriable, limit } = failure
      return { failure: { name, message, code, retriable, ...(limit === undefined ? {} : { limit }) } }
    }
    return { failure: { name: 'Error', message: failure instanceof Error ? failure.message : String(failure) } }
  }
}

async function made({ store: id, method, argument, aborted }: LettersCall): Promise<LettersOutcome> {
  const store = stores.get(id)
  if (store === undefined) throw new Error(`there is no store ${id}`)
  const call = aborted === undefined ? {} : { signal: AbortSignal.abort(new Error(aborted)) }
  if (method === 'list') {
    const { items, cursor } = await store.list(argument as DeadLetterQuery, call)
    return { letters: items.map(encodeDeadLetter), ...(cursor === undefined ? {} : { cursor }) }
  }
  const text = argument as string
  if (method === 'get') {
    const letter = await store.get(text, call)
    return { letters: letter === undefined ? [] : [encodeDeadLetter(letter)] }
  }
  if (method === 'delete') return { value: await store.delete(text, call) }
  await (method === 'put' ? store.put(decodeDeadLetter(text), call) : store.close())
  return { value: null }
}
