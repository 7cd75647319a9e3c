/** Where the demo's functions run: the Worker in workerd, or the Lambda functions in processes of their own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
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
  readonly onLine: (line: string) => void
  readonly signal: AbortSignal
}

/** How long one run may take here: short, so that ticks can be seen. On Lambda the function's timeout says so. */
const RUN_MS = 4000

/** The example as a Worker in workerd. */
export async function openWorkerPlatform({ env, onLine, signal }: PlatformOptions): Promise<Platform> {
  const vars = { ...env, KEDGE_RUN_MS: String(RUN_MS), KEDGE_RUN_SUBREQUESTS: '100000' }
  const worker = await openLocalWorker({ main: 'examples/github-webhooks/worker.ts', vars, onLine, signal })
  return {
    async post(target, headers, body) {
      const response = await fetch(worker.url + target, { method: 'POST', headers, body })
      return { status: response.status, body: await response.text() }
    },
    tick: () => worker.tick(),
    [Symbol.asyncDispose]: () => worker.close(),
  }
}

/** The example as two Lambda functions. */
export async function openLambdaPlatform({ env, onLine }: PlatformOptions): Promise<Platform> {
  const taskRoot = mkdtempSync(join(tmpdir(), 'kedge-demo-lambda-'))
  await buildLambda({ entryPoints: ['examples/github-webhooks/lambda.ts'], outdir: taskRoot })
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
