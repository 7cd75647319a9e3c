/** Idempotency stores of Cloudflare Workers, by the names of their bindings, beside `memory`, which every platform has. */
import { ConfigError } from '../errors.ts'
import { d1Idempotency, type D1Binding } from '../idempotency/d1.ts'
import { durableObjectIdempotency, type DurableObjectBinding } from '../idempotency/durable-object.ts'
import { kvIdempotency, type KvBinding } from '../idempotency/kv.ts'
import type { IdempotencyDrivers } from './open-idempotency.ts'

/** `d1:BINDING`, `do:BINDING` and `kv:BINDING`, over the bindings of a Worker. */
export function workerIdempotencyDrivers(env: Readonly<Record<string, unknown>>): IdempotencyDrivers {
  return {
    d1: (url) => d1Idempotency({ database: binding<D1Binding>(env, url, 'D1 database', ['prepare', 'batch']) }),
    do: (url) =>
      durableObjectIdempotency({
        namespace: binding<DurableObjectBinding>(env, url, 'Durable Object namespace', ['idFromName', 'get']),
      }),
    kv: (url) => kvIdempotency({ namespace: binding<KvBinding>(env, url, 'KV namespace', ['get', 'put', 'delete']) }),
  }
}

/** The binding that a URL names, known by the methods that are needed of it. */
function binding<Binding>(
  env: Readonly<Record<string, unknown>>,
  { pathname }: URL,
  kind: string,
  methods: readonly (keyof Binding & string)[],
): Binding {
  const bound = Object.hasOwn(env, pathname) ? env[pathname] : undefined
  const found = Object(bound) as Readonly<Record<string, unknown>>
  // What has these methods is what wrangler.toml says it is.
  if (methods.every((name) => typeof found[name] === 'function')) return bound as Binding
  throw new ConfigError(
    `Cannot open the idempotency store: KEDGE_IDEMPOTENCY names the binding ${JSON.stringify(pathname)}, which is no ${kind} of this Worker. Check wrangler.toml.`,
  )
}
