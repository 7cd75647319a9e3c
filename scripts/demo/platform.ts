/** Where the demo's functions run: the Worker in workerd, or the Lambda functions in processes of their own. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import type { GithubNames } from '../../examples/github-webhooks/app.ts'
import { buildLambda } from '../build-lambda.ts'
import { openLocalLambda } from '../lambda/local-lambda.ts'
import { openLocalWorker } from '../local-worker.ts'
import { httpApiEvent } from '../lambda/http-api-event.ts'

/** The functions of an app, wherever they run. */
export interface Platform extends AsyncDisposable {
  /** Calls the produce function. */
  post(target: string, headers: Readonly<Record<string, string>>, body: string): Promise<Answer>
  /** Ticks the consume function and waits for its run to end. */
  tick(): Promise<boolean>
}

/** What the produce function answered. */
export interface Answer {
  readonly status: number
  readonly body: string
}

/** What to run and what it is told. */
export interface PlatformOptions {
  readonly env: Readonly<Record<string, string>>
  /** What the example's topic and group are called; undefined: as in the example itself. */
  readonly names: GithubNames | undefined
  readonly onLine: (line: string) => void
  readonly signal: AbortSignal
}

/** How long one run may take here: short, so that ticks can be seen. On Lambda the function's timeout says so. */
const RUN_MS = 4000

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The example as a Worker in workerd. */
export async function openWorkerPlatform({ env, names, onLine, signal }: PlatformOptions): Promise<Platform> {
  const folder = mkdtempSync(join(tmpdir(), 'kedge-demo-worker-'))
  const vars = { ...env, KEDGE_RUN_MS: String(RUN_MS), KEDGE_RUN_SUBREQUESTS: '100000' }
  const main = entryPoint('worker', names, folder)
  const worker = await openLocalWorker({ main, vars, onLine, signal })
  return {
    async post(target, headers, body) {
      const response = await fetch(worker.url + target, { method: 'POST', headers, body })
      return { status: response.status, body: await response.text() }
    },
    tick: () => worker.tick(),
    async [Symbol.asyncDispose]() {
      await worker.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The example as two Lambda functions. */
export async function openLambdaPlatform({ env, names, onLine }: PlatformOptions): Promise<Platform> {
  const taskRoot = mkdtempSync(join(tmpdir(), 'kedge-demo-lambda-'))
  await buildLambda({ entryPoints: [entryPoint('lambda', names, taskRoot)], outdir: taskRoot })
  const produce = await openLocalLambda({ taskRoot, handler: 'lambda/index.produce', env, onLine })
  const consume = await openLocalLambda({ taskRoot, handler: 'lambda/index.consume', env, onLine, timeoutMs: RUN_MS })
  return {
    async post(target, headers, body) {
      const result = await produce.invoke(httpApiEvent('POST', target, headers, body))
      if (result.kind !== 'response') return { status: 500, body: JSON.stringify(result) }
      const answer = JSON.parse(result.body) as APIGatewayProxyStructuredResultV2
      return { status: answer.statusCode ?? 200, body: answer.body ?? '' }
    },
    async tick() {
      const result = await consume.invoke({ source: 'aws.events', 'detail-type': 'Scheduled Event' })
      return result.kind === 'response'
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([produce.close(), consume.close()])
      rmSync(taskRoot, { recursive: true, force: true })
    },
  }
}

/** The entry point of the example, or one that gives its topic and group other names. */
function entryPoint(platform: 'worker' | 'lambda', names: GithubNames | undefined, folder: string): string {
  if (names === undefined) return `examples/github-webhooks/${platform}.ts`
  const file = join(folder, `${platform}.ts`)
  const app = `githubApp(${JSON.stringify(names)}), { webhookKey }`
  const from = (path: string): string => JSON.stringify(join(root, path))
  const ofPlatform =
    platform === 'worker'
      ? `import { worker } from ${from('src/runtimes/cloudflare.ts')}
         export default worker(${app})`
      : `import { lambdaConsume, lambdaProduce } from ${from('src/runtimes/lambda.ts')}
         export const produce = lambdaProduce(${app})
         export const consume = lambdaConsume(githubApp(${JSON.stringify(names)}))`
  const text = `import { githubApp, webhookKey } from ${from('examples/github-webhooks/app.ts')}\n${ofPlatform}\n`
  writeFileSync(file, text)
  return file
}
