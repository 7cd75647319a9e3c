/** The gateway as a Hono app, for every platform that speaks `fetch`. */
import { Hono, type Context } from 'hono'
import type { Broker } from '../broker.ts'
import { bytesOf } from '../record.ts'
import { gather } from './body.ts'
import { Gateway, type GatewayOptions, type PathEntry } from './gateway.ts'
import { matchPath, pathOf } from './path.ts'
import type { GatewayRequest, GatewayResponse, HeaderLine } from './request.ts'

/**
 * What a runtime may know of a request that `Request` cannot say: the target before it was normalised, headers in the
 * sender's spelling, a body on GET. Handed to the app as its `env`.
 */
export interface GatewayBindings {
  readonly gatewayRequest?: GatewayRequest
}

/** The Hono app that `gatewayApp` makes. */
export type GatewayApp = Hono<{ Bindings: GatewayBindings }>

/** The gateway over any broker as an app that can be served, mounted, or called in process with `app.request()`. */
export function gatewayApp(broker: Broker, options: GatewayOptions = {}): GatewayApp {
  return appOver(new Gateway(broker, options))
}

/** The app over a gateway that a runtime has made already. */
export function appOver(gateway: Gateway): GatewayApp {
  const app = new Hono<{ Bindings: GatewayBindings }>({ strict: false })
  for (const entry of gateway.entries) {
    app.all(honoPath(entry), async (c) => {
      const request = requestOf(c)
      // A runtime's own request has the target as it was sent, which Hono's URL may not.
      if (isFromRuntime(c)) return responseOf(await gateway.handle(request))
      // What comes before our path is whatever the app is mounted under.
      const skip = c.req.routePath.split('/').length - entry.pattern.path.split('/').length
      return responseOf(
        await gateway.serve(request, () => {
          const params = matchPath(entry.pattern, pathOf(request.target), skip)
          return params && { entry, params }
        }),
      )
    })
  }
  app.notFound(async (c) => responseOf(await gateway.handle(requestOf(c))))
  app.onError((error, c) => responseOf(gateway.fail(error, requestOf(c))))
  return app
}

function honoPath({ pattern }: PathEntry): string {
  return pattern.path.replace(/\{(\w+)\+\}/, ':$1{.+}').replace(/\{(\w+)\}/g, ':$1')
}

type GatewayContext = Context<{ Bindings: GatewayBindings }>

function isFromRuntime(c: GatewayContext): boolean {
  // Hono gives no env where the app is called without one.
  return (c.env as GatewayBindings | undefined)?.gatewayRequest !== undefined
}

function requestOf(c: GatewayContext): GatewayRequest {
  return (c.env as GatewayBindings | undefined)?.gatewayRequest ?? fetchRequest(c.req.raw)
}

function fetchRequest(raw: Request): GatewayRequest {
  return {
    method: raw.method,
    target: targetOf(raw.url),
    header: (name) => raw.headers.get(name) ?? undefined,
    headerLines: () => Array.from(raw.headers, ([name, value]): HeaderLine => ({ name, value: bytesOf(value) })),
    readBody: async (maxBytes) => (raw.body === null ? new Uint8Array() : gather(raw.body, maxBytes)),
    signal: raw.signal,
  }
}

/** Path and query of a URL, as they stand. */
function targetOf(url: string): string {
  const path = url.indexOf('/', url.indexOf('//') + 2)
  return path === -1 ? '/' : url.slice(path)
}

function responseOf(response: GatewayResponse): Response {
  // A body over bytes of a shared buffer would not be a BodyInit; ours never are.
  return new Response(response.body as string | Uint8Array<ArrayBuffer>, {
    status: response.status,
    headers: { 'Content-Type': 'application/json', ...response.headers },
  })
}
