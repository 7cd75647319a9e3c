/**
 * `npm run test:lambda`: the tests of the Lambda functions, driven by AWS's own runtime client (aws-lambda-ric) instead of
 * ours. It needs cmake and a C++ compiler and takes a minute to build, so it is no dependency: it is built once, into
 * .cache/.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const VERSION = '4.0.2'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = join(root, '.cache/lambda', VERSION)
const client = join(folder, 'node_modules/aws-lambda-ric/index.mjs')

if (!existsSync(client)) {
  console.log(`Building aws-lambda-ric ${VERSION} in ${folder} ...`)
  run('npm', ['install', '--prefix', folder, '--no-save', '--loglevel=error', `aws-lambda-ric@${VERSION}`])
}
run(
  process.execPath,
  ['node_modules/vitest/vitest.mjs', 'run', 'test/functions/lambda.test.ts', ...process.argv.slice(2)],
  {
    KEDGE_TEST_LAMBDA_CLIENT: client,
  },
)

function run(command: string, args: readonly string[], env: Record<string, string> = {}): void {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (status === 0) return
  console.error(error ?? `${command} ended with status ${status}.`)
  process.exit(1)
}
