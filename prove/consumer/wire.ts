/** The way of a process to a gateway, in one process with it: real requests and answers, each counted as platforms count them. */
import { createHash } from 'node:crypto'
import type { Broker } from '../../src/broker.ts'
import { gatewayApp } from '../../src/gateway/app.ts'
import type { Fetch } from '../../src/brokers/rest/transport.ts'

/** The address of the gateway. */
export const GATEWAY_URL = 'http://gateway.test'

/** What a platform says of requests that are one too many. */
class TooManyRequestsError extends Error {
  override readonly name = 'TooManyRequestsError' as const
}

/** How a wire is made. */
export interface WireOptions {
  /** Requests that a process may make; each hop of a redirect is one. @default unlimited */
  readonly most?: number
  /** Whether what stands before the gateway sends a request elsewhere. @default never */
  readonly redirects?: (request: Request) => boolean
}

/** Requests of one process. */
export class Wire {
  /** Requests that were made or tried. */
  requests = 0
  /** Requests that were refused because they were too many. */
  refused = 0
  /** Answers that named another address. */
  redirected = 0
  readonly #serve: (request: Request) => Promise<Response>
  readonly #options: WireOptions

  constructor(broker: Broker, options: WireOptions = {}) {
    const sha256 = (bytes: Uint8Array): Promise<Uint8Array> =>
      Promise.resolve(new Uint8Array(createHash('sha256').update(bytes).digest()))
    const app = gatewayApp(broker, { sha256 })
    this.#serve = async (request) => await app.fetch(request)
    this.#options = options
  }

  /** As a platform's `fetch`, redirects included. */
  readonly fetch: Fetch = async (url, init) => {
    const { redirect = 'follow', ...rest } = init
    const answer = await this.#send(new Request(url, rest))
    const location = answer.headers.get('location')
    // Nothing is sent elsewhere twice.
    return redirect === 'follow' && location !== null ? await this.#send(new Request(location, rest)) : answer
  }

  async #send(request: Request): Promise<Response> {
    const { most = Number.POSITIVE_INFINITY, redirects } = this.#options
    this.requests += 1
    if (this.requests > most) {
      this.refused += 1
      throw new TooManyRequestsError(`Too many subrequests by a single invocation: ${most} are allowed.`)
    }
    const isElsewhere = new URL(request.url).pathname.startsWith('/moved')
    if (!isElsewhere && redirects?.(request) === true) {
      this.redirected += 1
      const location = request.url.replace(GATEWAY_URL, `${GATEWAY_URL}/moved`)
      return new Response(null, { status: 307, headers: { Location: location } })
    }
    return await this.#serve(isElsewhere ? new Request(request.url.replace('/moved', ''), request) : request)
  }
}
