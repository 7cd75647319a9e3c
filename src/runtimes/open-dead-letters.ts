/**
 * From the URL in KEDGE_DEAD_LETTERS to a store. The table of drivers is handed in by the runtime: one table that named
 * them all would put the AWS SDK into the Worker.
 */
import type { DeadLetterDriver, DeadLetterStore } from '../dead-letter.ts'
import { driverOf } from './driver-of.ts'

/** Drivers by the URL's scheme, without its colon. */
export type DeadLetterDrivers = Readonly<Record<string, DeadLetterDriver>>

/**
 * Opens the store that a URL names.
 * @throws {ConfigError} INVALID_CONFIG for what is no URL, or whose scheme this runtime has no driver for.
 */
export async function openDeadLetters(address: string, drivers: DeadLetterDrivers): Promise<DeadLetterStore> {
  const { driver, url } = driverOf({ what: 'dead-letter store', setting: 'KEDGE_DEAD_LETTERS', address }, drivers)
  return await driver(url)
}
