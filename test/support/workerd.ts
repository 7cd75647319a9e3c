/** Real workerd: over any module, and with a D1 database, a KV namespace and Durable Objects over one whose parts are in `test/idempotency`. */
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { Miniflare, convertV4MiniflareOptions } from 'miniflare'

import type { D1Binding } from '../../src/idempotency/d1.ts'
import type { DurableObjectBinding } from '../../src/idempotency/durable-object.ts'
import type { KvBinding } from '../../src/idempotency/kv.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The bindings by their own interfaces, from outside of the worker. */
export interface Workerd extends AsyncDisposable {
  readonly d1: D1Binding
  readonly kv: KvBinding
  readonly durableObjects: DurableObjectBinding
  /** Asks the worker. */
  ask(path: string, body?: unknown): Promise<{ readonly status: number; readonly json: unknown }>
  close(): Promise<void>
}

type V4Options = Extract<Parameters<typeof convertV4MiniflareOptions>[0], { readonly script: string }>

/** Starts workerd with a module, which imports from the repository's root, and what is bound to it. Dispose of it. */
export async function startModule(
  contents: string,
  bindings: Pick<
    V4Options,
    'bindings' | 'd1Databases' | 'kvNamespaces' | 'durableObjects' | 'queueProducers' | 'queueConsumers'
  >,
): Promise<Miniflare> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root, loader: 'ts' },
    bundle: true,
    format: 'esm',
    conditions: ['workerd', 'worker', 'browser'],
    write: false,
  })
  return new Miniflare(
    convertV4MiniflareOptions({
      host: '127.0.0.1',
      port: 0,
      modules: true,
      script: outputFiles[0]?.text ?? '',
      compatibilityDate: '2026-11-01',
      ...bindings,
    }),
  )
}

/** Starts the worker of the idempotency stores, with nothing in it. */
export async function startWorkerd(): Promise<Workerd> {
  const contents = `
    import { serve } from './test/idempotency/in-worker.ts'
    export { ClockedIdempotency } from './test/idempotency/in-worker.ts'
    export default { fetch: serve }
  `
  const miniflare = await startModule(contents, {
    d1Databases: ['DB'],
    kvNamespaces: ['KV'],
    durableObjects: { LOCKS: { className: 'ClockedIdempotency', useSQLite: true } },
  })
  const close = (): Promise<void> => miniflare.dispose()
  return {
    d1: await miniflare.getD1Database('DB'),
    // Miniflare types these by the package of workerd's types, which is not installed: they are what is bound.
    kv: (await miniflare.getKVNamespace('KV')) as unknown as KvBinding,
    durableObjects: (await miniflare.getDurableObjectNamespace('LOCKS')) as unknown as DurableObjectBinding,
    async ask(path, body) {
      const response = await miniflare.dispatchFetch(`http://worker${path}`, {
        method: 'POST',
        body: JSON.stringify(body ?? null),
      })
      return { status: response.status, json: await response.json() }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
