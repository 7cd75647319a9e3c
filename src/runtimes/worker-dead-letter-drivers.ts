/** Dead-letter stores that are bindings of a Worker, beside `topic`, which every platform has. */
import type { DeadLetterStore } from '../dead-letter.ts'
import { type D1Binding, d1DeadLetters } from '../dead-letters/d1.ts'
import { type QueueBinding, queueDeadLetters } from '../dead-letters/queue.ts'
import { type R2Binding, r2DeadLetters } from '../dead-letters/r2.ts'
import { ConfigError } from '../errors.ts'
import type { DeadLetterDrivers } from './open-dead-letters.ts'

/** `d1:BINDING`, `r2:BINDING`, `r2:BINDING/prefix` and `queue:BINDING`, by the names that `wrangler.toml` gives bindings. */
export function workerDeadLetterDrivers(env: Readonly<Record<string, unknown>>): DeadLetterDrivers {
  /** What a binding is shows in its methods: it has no class to ask. */
  function bindingOf(url: URL, methods: readonly string[]): unknown {
    const name = nameIn(url)
    const binding = Object.hasOwn(env, name) ? env[name] : undefined
    const has = (method: string): boolean => typeof (Object(binding) as Record<string, unknown>)[method] === 'function'
    if (methods.every(has)) return binding
    throw new ConfigError(
      `Cannot open the dead-letter store: KEDGE_DEAD_LETTERS has ${url.protocol}${name}, and the Worker has no such binding of that kind. Add it to wrangler.toml.`,
    )
  }

  return {
    d1(url): DeadLetterStore {
      withoutRest(url)
      return d1DeadLetters({ database: bindingOf(url, ['prepare', 'batch']) as D1Binding })
    },
    r2(url): DeadLetterStore {
      const prefix = restIn(url)
      const bucket = bindingOf(url, ['put', 'get', 'head', 'list', 'delete', 'createMultipartUpload']) as R2Binding
      return r2DeadLetters({ bucket, ...(prefix === '' ? {} : { prefix }) })
    },
    queue(url): DeadLetterStore {
      withoutRest(url)
      return queueDeadLetters({ queue: bindingOf(url, ['send', 'sendBatch']) as QueueBinding })
    },
  }
}

function nameIn({ pathname }: URL): string {
  return pathname.replace(/^\/+/, '').split('/')[0] ?? ''
}

function restIn({ pathname }: URL): string {
  return decodeURIComponent(pathname.replace(/^\/+/, '').split('/').slice(1).join('/'))
}

function withoutRest(url: URL): void {
  if (restIn(url) === '') return
  throw new ConfigError(
    `Cannot open the dead-letter store: KEDGE_DEAD_LETTERS has something behind the binding in ${url.protocol}${nameIn(url)}. Only r2 takes a prefix there; leave it out.`,
  )
}
