/**
 * The process side of Lambda's Runtime API: loads the handler that `_HANDLER` names from `LAMBDA_TASK_ROOT`, then asks for
 * one invocation after the other. A small stand-in for AWS's `aws-lambda-ric`, which needs a C++ build.
 *
 * It speaks over node:http because a poll for the next invocation may wait longer than fetch's header timeout.
 */
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'

interface Answer {
  readonly headers: NodeJS.Dict<string | string[]>
  readonly body: string
}

type Handler = (event: unknown, context: unknown) => unknown

const api = setting('AWS_LAMBDA_RUNTIME_API')

try {
  const handler = await loadHandler()
  for (;;) await serveOne(handler)
} catch (failure) {
  await report('init/error', failure)
  process.exitCode = 1
}

async function loadHandler(): Promise<Handler> {
  const [file = '', name = ''] = setting('_HANDLER').split(/\.(?=[^.]+$)/)
  const path = join(setting('LAMBDA_TASK_ROOT'), `${file}.js`)
  const loaded = (await import(pathToFileURL(path).href)) as Record<string, unknown>
  const handler = loaded[name]
  if (typeof handler !== 'function') throw new Error(`${path} exports no function ${name}.`)
  return handler as Handler
}

async function serveOne(handler: Handler): Promise<void> {
  const next = await call('GET', 'invocation/next')
  const id = String(next.headers['lambda-runtime-aws-request-id'])
  const deadlineMs = Number(next.headers['lambda-runtime-deadline-ms'])
  const context = {
    awsRequestId: id,
    invokedFunctionArn: String(next.headers['lambda-runtime-invoked-function-arn']),
    functionName: setting('AWS_LAMBDA_FUNCTION_NAME'),
    functionVersion: setting('AWS_LAMBDA_FUNCTION_VERSION'),
    memoryLimitInMB: setting('AWS_LAMBDA_FUNCTION_MEMORY_SIZE'),
    logGroupName: setting('AWS_LAMBDA_LOG_GROUP_NAME'),
    logStreamName: setting('AWS_LAMBDA_LOG_STREAM_NAME'),
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => deadlineMs - Date.now(),
  }
  try {
    const result = await handler(JSON.parse(next.body), context)
    await call('POST', `invocation/${id}/response`, JSON.stringify(result ?? null))
  } catch (failure) {
    await report(`invocation/${id}/error`, failure)
  }
}

async function report(path: string, failure: unknown): Promise<void> {
  const error = failure instanceof Error ? failure : new Error(String(failure))
  const body = { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? '').split('\n') }
  await call('POST', path, JSON.stringify(body), { 'lambda-runtime-function-error-type': error.name })
}

function call(method: string, path: string, body = '', headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(`http://${api}/2018-06-01/runtime/${path}`, { method, headers }, (incoming) => {
      text(incoming).then((body) => resolve({ headers: incoming.headers, body }), reject)
    })
    outgoing.once('error', reject)
    outgoing.end(body)
  })
}

function setting(name: string): string {
  const value = process.env[name]
  if (value === undefined) throw new Error(`Missing environment variable ${name}.`)
  return value
}
