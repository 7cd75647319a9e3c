/**
 * From the URL in KEDGE_DEAD_LETTERS to a store. The table of drivers is handed in by the runtime: one table that named
 * them all would put the AWS SDK into the Worker.
 */
import type { DeadLetterDriver, DeadLetterStore } from '../dead-letter.ts'
import { ConfigError } from '../errors.ts'

/** Drivers by the URL's scheme, without its colon. */
export type DeadLetterDrivers = Readonly<Record<string, DeadLetterDriver>>

/**
 * Opens the store that a URL names.
 * @throws {ConfigError} INVALID_CONFIG for what is no URL, or whose scheme this runtime has no driver for.
 */
export async function openDeadLetters(address: string, drivers: DeadLetterDrivers): Promise<DeadLetterStore> {
  const known = Object.keys(drivers).join(', ')
  if (!URL.canParse(address)) {
    throw new ConfigError(`Cannot open the dead-letter store: KEDGE_DEAD_LETTERS is not a URL. Schemes here: ${known}.`)
  }
  const url = new URL(address)
  const scheme = url.protocol.slice(0, -1)
  const driver = Object.hasOwn(drivers, scheme) ? drivers[scheme] : undefined
  if (driver === undefined) {
    throw new ConfigError(
      `Cannot open the dead-letter store: KEDGE_DEAD_LETTERS has the scheme ${scheme}, for which this runtime has no driver. It has: ${known}.`,
    )
  }
  return await driver(url)
}
