/** What all calls of operators share: who asks, and what becomes of settings that do not allow it. */
import { ConfigError, GatewayError } from '../errors.ts'
import type { Principal } from '../gateway/principal.ts'

/** What a setting does not allow, which is the gateway's and not its caller's. @throws {GatewayError} UNSUPPORTED */
export async function asUnsupported<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new GatewayError('UNSUPPORTED', error.message, { cause: error })
  }
}

/** Who asks, for the audit. */
export function actorOf({ name }: Principal): string {
  return name === null ? 'anybody (the gateway has no credentials)' : name.toWellFormed()
}
