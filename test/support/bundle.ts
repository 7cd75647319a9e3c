/** What a function weighs and holds when it is bundled as its platform bundles it. */
import { builtinModules } from 'node:module'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build, type BuildOptions } from 'esbuild'

const root: string = fileURLToPath(new URL('../..', import.meta.url))

/** A bundle and everything that went into it. */
export interface Bundle {
  /** Bytes as bundled, minified, and minified and compressed. */
  readonly rawBytes: number
  readonly minBytes: number
  readonly gzipBytes: number
  /** Names of the packages whose code is inside. */
  readonly packages: readonly string[]
  /** The project's own files inside. */
  readonly files: readonly string[]
  /** Modules that stay outside and are imported when the code runs: those of the platform. */
  readonly imports: readonly string[]
}

/** What to bundle: a file of the project, or a text that stands in its folder. */
export type Entry = { readonly file: string } | { readonly text: string }

/** Bundles as `wrangler` does for a Worker without Node compatibility. */
export function bundleWorker(entry: Entry): Promise<Bundle> {
  return bundle(entry, {
    platform: 'browser',
    conditions: ['workerd', 'worker', 'browser'],
    // Left outside, so that they are seen as imports instead of failing the build.
    external: ['node:*', 'cloudflare:*', ...builtinModules],
  })
}

/** Bundles as `scripts/build-lambda.ts` does for AWS Lambda. */
export function bundleLambda(entry: Entry): Promise<Bundle> {
  return bundle(entry, { platform: 'node', target: 'node24' })
}

async function bundle(entry: Entry, platform: BuildOptions): Promise<Bundle> {
  const options = {
    ...('file' in entry
      ? { entryPoints: [entry.file] }
      : { stdin: { contents: entry.text, resolveDir: root, loader: 'ts' as const } }),
    ...platform,
    absWorkingDir: root,
    bundle: true,
    format: 'esm' as const,
    keepNames: true,
    outfile: 'bundle.js',
    write: false as const,
    metafile: true as const,
    logLevel: 'silent' as const,
  }
  const raw = await build(options)
  const min = await build({ ...options, minify: true })
  const bytes = min.outputFiles[0]?.contents ?? new Uint8Array()
  const inputs = Object.values(raw.metafile.outputs).flatMap(({ inputs }) => Object.keys(inputs))
  return {
    rawBytes: raw.outputFiles[0]?.contents.length ?? 0,
    minBytes: bytes.length,
    gzipBytes: gzipSync(bytes, { level: 9 }).length,
    packages: [...new Set(inputs.flatMap((file) => packageOf(file) ?? []))].sort(),
    files: inputs.filter((file) => packageOf(file) === undefined),
    imports: [
      ...new Set(Object.values(raw.metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path))),
    ].sort(),
  }
}

function packageOf(file: string): string | undefined {
  return /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]
}
