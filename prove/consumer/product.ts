/**
 * The product as a process has loaded it. Loaded anew, none of its modules remembers anything of another load: that is what a
 * fresh isolate of a platform has. Its globals are the proof's own, which the product does not write to.
 */
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'
import { build } from 'esbuild'
import * as own from '../../src/index.ts'

/** What the scenarios use of the product. */
export type Product = Pick<
  typeof own,
  | 'createConsumer'
  | 'createRouter'
  | 'defineApp'
  | 'defineTopic'
  | 'reject'
  | 'restBroker'
  | 'topicDeadLetters'
  | 'RetryAfterError'
>

/** The proof's own load of it. */
export const product: Product = own

/** Bundles the public API, and gives what loads it: each time anew, all modules of it. */
export async function bundledProduct(): Promise<() => Product> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('../../src/index.ts', import.meta.url))],
    bundle: true,
    write: false,
    format: 'cjs',
    platform: 'browser',
    conditions: ['workerd', 'worker', 'browser'],
    logLevel: 'silent',
  })
  const text = outputFiles[0]?.text ?? ''
  const script = new Script(`(function (module, exports) {${text}\n})`, { filename: 'product.cjs' })
  return () => {
    const module: { exports: object } = { exports: {} }
    // What the script evaluates to is written two lines above, and its exports are those of the entry point.
    const load = script.runInThisContext() as (module: { exports: object }, exports: object) => void
    load(module, module.exports)
    return module.exports as Product
  }
}
