/**
 * From the URL in KEDGE_IDEMPOTENCY to a store. The table of drivers is handed in by the runtime; `memory:` every one has.
 */
import { ConfigError } from '../errors.ts'
import type { IdempotencyDriver, IdempotencyStore } from '../idempotency.ts'
import { memoryIdempotency } from '../idempotency/memory.ts'
import { driverOf } from './driver-of.ts'

/** Drivers by the URL's scheme, without its colon. */
export type IdempotencyDrivers = Readonly<Record<string, IdempotencyDriver>>

/**
 * Opens the store that a URL names.
 * @throws {ConfigError} INVALID_CONFIG for what is no URL, whose scheme this runtime has no driver for, that has a query,
 * credentials or other parts its driver does not read, or that the driver refuses.
 */
export async function openIdempotency(address: string, drivers: IdempotencyDrivers): Promise<IdempotencyStore> {
  const table: IdempotencyDrivers = { memory: () => memoryIdempotency(), ...drivers }
  const { driver, url } = driverOf({ what: 'idempotency store', setting: 'KEDGE_IDEMPOTENCY', address }, table)
  if (url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    throw new ConfigError(
      'Cannot open the idempotency store: KEDGE_IDEMPOTENCY has more than a scheme and a name. Leave out query, fragment and credentials.',
    )
  }
  return await driver(url)
}
