/** What a function weighs and holds when it is bundled as its platform bundles it. */
import { builtinModules } from 'node:module'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build, type BuildOptions, type Metafile, type OutputFile } from 'esbuild'
import { lambdaBundling } from '../../scripts/build-lambda.ts'

const root: string = fileURLToPath(new URL('../..', import.meta.url))

/** A bundle and everything that went into it. */
export interface Bundle {
  /** Bytes as bundled, minified, and minified and compressed. */
  readonly rawBytes: number
  readonly minBytes: number
  readonly gzipBytes: number
  /** Minified and compressed bytes of what a start reads; the rest is loaded when it is needed. */
  readonly startGzipBytes: number
  /** Names of the packages whose code is inside. */
  readonly packages: readonly string[]
  /** Those of them that a start reads. */
  readonly startPackages: readonly string[]
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
  return bundle(entry, lambdaBundling)
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
    outdir: 'bundle',
    write: false as const,
    metafile: true as const,
    logLevel: 'silent' as const,
  }
  const raw = await build(options)
  const min = await build({ ...options, minify: true })
  const outputs = Object.values(raw.metafile.outputs)
  const inputs = outputs.flatMap(({ inputs }) => Object.keys(inputs))
  return {
    rawBytes: sum(raw.outputFiles.map(({ contents }) => contents.length)),
    minBytes: sum(min.outputFiles.map(({ contents }) => contents.length)),
    gzipBytes: sum(min.outputFiles.map(gzipBytesOf)),
    startGzipBytes: sum(
      readByStart(min.metafile)
        .flatMap((file) => fileAt(min.outputFiles, file))
        .map(gzipBytesOf),
    ),
    packages: packagesOf(inputs),
    startPackages: packagesOf(
      readByStart(raw.metafile).flatMap((file) => Object.keys(raw.metafile.outputs[file]?.inputs ?? {})),
    ),
    files: inputs.filter((file) => packageOf(file) === undefined),
    imports: unique(
      outputs.flatMap(({ imports }) => imports.filter(({ external }) => external === true).map(({ path }) => path)),
    ),
  }
}

/** The files that are read before anything runs: the entry point's, and what it imports other than when it is needed. */
function readByStart({ outputs }: Metafile): string[] {
  const found = new Set<string>()
  const read = (file: string): void => {
    if (found.has(file)) return
    found.add(file)
    for (const { path, kind, external } of outputs[file]?.imports ?? []) {
      if (external !== true && kind !== 'dynamic-import') read(path)
    }
  }
  const loadedLater = new Set(
    Object.values(outputs).flatMap(({ imports }) =>
      imports.filter(({ kind }) => kind === 'dynamic-import').map(({ path }) => path),
    ),
  )
  const entry = Object.entries(outputs).find(
    ([file, { entryPoint }]) => entryPoint !== undefined && !loadedLater.has(file),
  )
  if (entry !== undefined) read(entry[0])
  return [...found]
}

function fileAt(files: readonly OutputFile[], path: string): OutputFile[] {
  return files.filter((file) => file.path === resolve(root, path))
}

function gzipBytesOf({ contents }: OutputFile): number {
  return gzipSync(contents, { level: 9 }).length
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

function packagesOf(inputs: readonly string[]): string[] {
  return unique(inputs.flatMap((file) => packageOf(file) ?? []))
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)].sort()
}

function packageOf(file: string): string | undefined {
  return /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]
}
