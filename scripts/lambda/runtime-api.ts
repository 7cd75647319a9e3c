/**
 * The server side of Lambda's Runtime API, version 2018-06-01: what a function's process polls for work and answers to.
 * Enough of it to run a handler as Lambda would: with AWS's own runtime interface client, or with `bootstrap.ts`.
 *
 * @see https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'

const PREFIX = '/2018-06-01/runtime/'
const FUNCTION_ARN = 'arn:aws:lambda:eu-central-1:000000000000:function:kedge-local'

/** What became of one invocation. `timeout` and `exit` are the harness's: the process never answered. */
export type InvocationResult =
  | { readonly kind: 'response'; readonly body: string }
  | { readonly kind: 'error'; readonly errorType: string; readonly body: string }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'exit' }

/** A running Runtime API. */
export interface RuntimeApi extends AsyncDisposable {
  /** `host:port`, as `AWS_LAMBDA_RUNTIME_API` wants it. */
  readonly address: string
  /**
   * Hands the event to the process that polls next and waits for what becomes of it: `timeout` when nothing has `timeoutMs`
   * after it was handed over. As on Lambda, the start of a cold process does not count.
   */
  invoke(event: unknown, timeoutMs: number): Promise<InvocationResult>
  /** Settles every invocation that is still open: the process is gone. */
  abandon(result: InvocationResult): void
  close(): Promise<void>
}

interface Invocation {
  readonly id: string
  readonly event: string
  readonly timeoutMs: number
  settle(result: InvocationResult): void
}

/** Opens a Runtime API on a free loopback port. */
export async function openRuntimeApi(): Promise<RuntimeApi> {
  const queue: Invocation[] = []
  const pollers: ServerResponse[] = []
  const open = new Map<string, Invocation>()

  const server = createServer((request, response) => {
    void answer(request, response).catch((failure: unknown) => response.destroy(failure as Error))
  })

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request)
    const path = request.url?.startsWith(PREFIX) === true ? request.url.slice(PREFIX.length).split('/') : []
    if (path.join('/') === 'invocation/next') {
      response.once('close', () => remove(pollers, response))
      pollers.push(response)
      hand()
      return
    }
    const [kind, id = '', outcome] = path
    if (kind === 'init') {
      abandon({ kind: 'error', errorType: errorTypeOf(request, body), body })
      respond(response, 202, { status: 'OK' })
      return
    }
    const invocation = open.get(id)
    if (invocation === undefined || (outcome !== 'response' && outcome !== 'error')) {
      respond(response, 400, { errorType: 'InvalidRequestID', errorMessage: 'There is no such invocation.' })
      return
    }
    open.delete(id)
    respond(response, 202, { status: 'OK' })
    invocation.settle(
      outcome === 'response'
        ? { kind: 'response', body }
        : { kind: 'error', errorType: errorTypeOf(request, body), body },
    )
  }

  function hand(): void {
    const invocation = queue[0]
    const response = pollers[0]
    if (invocation === undefined || response === undefined) return
    queue.shift()
    pollers.shift()
    const timer = setTimeout(() => {
      open.delete(invocation.id)
      invocation.settle({ kind: 'timeout' })
    }, invocation.timeoutMs)
    open.set(invocation.id, {
      ...invocation,
      settle(result) {
        clearTimeout(timer)
        invocation.settle(result)
      },
    })
    response.writeHead(200, {
      'content-type': 'application/json',
      'lambda-runtime-aws-request-id': invocation.id,
      'lambda-runtime-deadline-ms': String(Date.now() + invocation.timeoutMs),
      'lambda-runtime-invoked-function-arn': FUNCTION_ARN,
      'lambda-runtime-trace-id': 'Root=1-00000000-000000000000000000000000;Sampled=0',
    })
    response.end(invocation.event)
  }

  function abandon(result: InvocationResult): void {
    for (const invocation of [...open.values(), ...queue.splice(0)]) invocation.settle(result)
    open.clear()
  }

  async function close(): Promise<void> {
    abandon({ kind: 'exit' })
    server.closeAllConnections()
    if (server.listening) await new Promise((resolve) => server.close(resolve))
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The Runtime API did not get a port.')

  return {
    address: `127.0.0.1:${address.port}`,
    invoke(event, timeoutMs) {
      return new Promise((settle) => {
        queue.push({ id: randomUUID(), event: JSON.stringify(event), timeoutMs, settle })
        hand()
      })
    },
    abandon,
    close,
    [Symbol.asyncDispose]: close,
  }
}

function errorTypeOf(request: IncomingMessage, body: string): string {
  const named = /"errorType":\s*"([^"]+)"/.exec(body)?.[1]
  return named ?? String(request.headers['lambda-runtime-function-error-type'] ?? 'Unhandled')
}

function respond(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

function remove<T>(list: T[], item: T): void {
  const at = list.indexOf(item)
  if (at >= 0) list.splice(at, 1)
}
