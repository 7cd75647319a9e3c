/**
 * Bundles the Lambda functions into `dist/lambda`: one ES module each, with everything in it, so that a package holds no
 * node_modules and a cold start reads one file.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What to bundle and where to. */
export interface BuildLambdaOptions {
  /** Entry points, from the project's folder. @default functions/produce.ts and functions/consume.ts */
  readonly entryPoints?: readonly string[]
  /** @default dist/lambda */
  readonly outdir?: string
}

/** Size of one bundled function. */
export interface LambdaBundle {
  readonly file: string
  readonly bytes: number
}

/** Bundles the functions and says how large each is. */
export async function buildLambda(options: BuildLambdaOptions = {}): Promise<LambdaBundle[]> {
  const { entryPoints = ['functions/produce.ts', 'functions/consume.ts'], outdir = 'dist/lambda' } = options
  const built = await build({
    absWorkingDir: root,
    entryPoints: [...entryPoints],
    outdir,
    bundle: true,
    minify: true,
    // Names of functions name routes and errors: minifying must not change them.
    keepNames: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    metafile: true,
    // The AWS SDK is CommonJS and requires Node's own modules at run time, which an ES module has no `require` for.
    banner: { js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);" },
  })
  mkdirSync(resolve(root, outdir), { recursive: true })
  writeFileSync(resolve(root, outdir, 'package.json'), '{"type":"module"}\n')
  return Object.entries(built.metafile.outputs).map(([file, { bytes }]) => ({ file, bytes }))
}

if (import.meta.main) {
  for (const { file, bytes } of await buildLambda()) console.log(`${file}  ${(bytes / 1024).toFixed(1)} KiB`)
}
