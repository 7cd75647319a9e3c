/**
 * Keeps web pages out of a gateway without credentials. Such a gateway trusts everything on its machine, and a browser on
 * that machine sends it whatever any page asks: cross-site forms and images need no CORS, and a name that is re-pointed
 * at 127.0.0.1 makes a page same-origin. So: the Host must be loopback, and what a browser marks as coming from another
 * page is refused unless its origin is allowed.
 */
import { GatewayError } from '../errors.ts'
import type { GatewayRequest } from './request.ts'

const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/i

/** @throws {GatewayError} CLUSTER_AUTHORIZATION_FAILED */
export function refuseForeignPages(request: GatewayRequest, allowedOrigins: ReadonlySet<string>): void {
  const host = request.header('host')
  if (host !== undefined && !LOOPBACK_HOST.test(host)) {
    throw refused(`the Host is ${JSON.stringify(host)} and a gateway without credentials serves loopback only`)
  }
  const origin = request.header('origin')
  const site = request.header('sec-fetch-site')
  if (origin === undefined && (site === undefined || site === 'none' || site === 'same-origin')) return
  if (origin !== undefined && (allowedOrigins.has(origin) || origin === `http://${host}`)) return
  throw refused('it comes from a web page that is not allowed')
}

function refused(why: string): GatewayError {
  return new GatewayError(
    'CLUSTER_AUTHORIZATION_FAILED',
    `Cannot serve the request: ${why}. Configure credentials, or allow the page's origin.`,
  )
}
