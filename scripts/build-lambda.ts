/**
 * Bundles the Lambda functions into `dist/lambda`: a folder of ES modules each, with everything in it, so that a package holds
 * no node_modules. A cold start reads `index.js` and what that imports; the Kafka client lies beside it and is read when a
 * cluster is configured.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, parse, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type BuildOptions, type Plugin } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What to bundle and where to. */
export interface BuildLambdaOptions {
  /** Entry points, from the project's folder. @default functions/produce.ts, functions/consume.ts and functions/redrive.ts */
  readonly entryPoints?: readonly string[]
  /** @default dist/lambda */
  readonly outdir?: string
}

/** Size of one file of a function. */
export interface LambdaBundle {
  readonly file: string
  readonly bytes: number
}

/**
 * The Kafka client is one package that exports everything it has. What a file of it exports and nobody uses may stay out, and
 * with it what only that file needs: schema registries, its own producer and consumer.
 */
const onlyWhatIsUsed: Plugin = {
  name: 'only what is used of the Kafka client',
  setup(build) {
    const isResolved = Symbol('resolved')
    build.onResolve({ filter: /^@platformatic\/kafka$|^\.\.?\// }, async ({ path, ...place }) => {
      const isOfClient = path.startsWith('@') || place.importer.includes('/node_modules/@platformatic/kafka/')
      if (!isOfClient || place.pluginData === isResolved) return undefined
      const { importer, kind, namespace, resolveDir } = place
      const resolved = await build.resolve(path, { importer, kind, namespace, resolveDir, pluginData: isResolved })
      return resolved.errors.length > 0 ? resolved : { path: resolved.path, sideEffects: false }
    })
  },
}

/** How a function for Lambda is bundled, whatever goes in. */
export const lambdaBundling: BuildOptions = {
  // Names of functions name routes and errors: minifying must not change them.
  keepNames: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  splitting: true,
  // Their code in one text, where the package itself would read a second file that is not in the bundle.
  alias: { '@platformatic/wasm-utils': '@platformatic/wasm-utils/bundled' },
  plugins: [onlyWhatIsUsed],
  // Packages in CommonJS require Node's own modules at run time, which an ES module has no `require` for.
  banner: { js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);" },
}

/** Bundles the functions, each into a folder of its name, and says how large their files are. */
export async function buildLambda(options: BuildLambdaOptions = {}): Promise<LambdaBundle[]> {
  const {
    entryPoints = ['functions/produce.ts', 'functions/consume.ts', 'functions/redrive.ts'],
    outdir = 'dist/lambda',
  } = options
  const bundles: LambdaBundle[] = []
  for (const index of entryPoints) {
    const folder = resolve(root, outdir, parse(index).name)
    // Files of an earlier build have other names and would be packaged too.
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const { metafile } = await build({
      ...lambdaBundling,
      absWorkingDir: root,
      entryPoints: { index },
      outdir: folder,
      bundle: true,
      minify: true,
      metafile: true,
    })
    bundles.push(...Object.entries(metafile.outputs).map(([file, { bytes }]) => ({ file, bytes })))
  }
  writeFileSync(join(resolve(root, outdir), 'package.json'), '{"type":"module"}\n')
  return bundles
}

if (import.meta.main) {
  for (const { file, bytes } of await buildLambda()) console.log(`${file}  ${(bytes / 1024).toFixed(1)} KiB`)
}
