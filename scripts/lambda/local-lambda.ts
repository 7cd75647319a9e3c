/**
 * One Lambda function on this machine: a process of its own that gets its events over the Runtime API. As on Lambda, one
 * invocation at a time, a process that outlives its deadline is killed, and the next invocation starts a new one.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type InvocationResult, openRuntimeApi, type RuntimeApi } from './runtime-api.ts'

/** The function to run. */
export interface LocalLambdaOptions {
  /** Folder with the built function. */
  readonly taskRoot: string
  /** `file.export`, as in serverless.yml. */
  readonly handler: string
  readonly env: Readonly<Record<string, string>>
  /** @default 30000 */
  readonly timeoutMs?: number
  /** The program that polls the Runtime API. @default `bootstrap.ts` beside this file */
  readonly client?: string
  /** Gets every line the function writes. @default nothing is kept */
  readonly onLine?: (line: string) => void
}

/** A function that can be invoked. */
export interface LocalLambda extends AsyncDisposable {
  invoke(event: unknown): Promise<InvocationResult>
  close(): Promise<void>
}

const bootstrap = fileURLToPath(new URL('bootstrap.ts', import.meta.url))

/** Opens a function; its process starts with the first invocation, as a cold start does. */
export async function openLocalLambda(options: LocalLambdaOptions): Promise<LocalLambda> {
  const { timeoutMs = 30_000 } = options
  const api = await openRuntimeApi()
  let child: ChildProcess | undefined
  let turn: Promise<unknown> = Promise.resolve()

  async function invokeNow(event: unknown): Promise<InvocationResult> {
    if (child === undefined || hasEnded(child)) child = start(options, api)
    const running = child
    const result = await api.invoke(event, timeoutMs)
    // Gone for certain, so that the next invocation does not count on it.
    if (result.kind === 'timeout' || result.kind === 'exit') await end(running)
    return result
  }

  async function close(): Promise<void> {
    if (child !== undefined) await end(child)
    await api.close()
  }

  return {
    invoke(event) {
      const result = turn.then(() => invokeNow(event))
      turn = result
      return result
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

function start(options: LocalLambdaOptions, api: RuntimeApi): ChildProcess {
  const child = spawn(process.execPath, [options.client ?? bootstrap, options.handler], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      AWS_LAMBDA_RUNTIME_API: api.address,
      _HANDLER: options.handler,
      LAMBDA_TASK_ROOT: options.taskRoot,
      AWS_LAMBDA_FUNCTION_NAME: 'kedge-local',
      AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
      AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '256',
      AWS_LAMBDA_LOG_GROUP_NAME: '/aws/lambda/kedge-local',
      AWS_LAMBDA_LOG_STREAM_NAME: 'local',
      AWS_REGION: 'eu-central-1',
      ...options.env,
    },
  })
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null) createInterface({ input: stream }).on('line', (line) => options.onLine?.(line))
  }
  const onExit = (): void => void child.kill('SIGKILL')
  process.once('exit', onExit)
  child.once('exit', () => {
    process.off('exit', onExit)
    api.abandon({ kind: 'exit' })
  })
  return child
}

async function end(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}
