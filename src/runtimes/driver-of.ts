/** From a setting that is a URL to the driver that its scheme names. */
import { ConfigError } from '../errors.ts'

/**
 * Finds the driver in the table that the runtime handed in: one table for all runtimes would put the AWS SDK into the Worker.
 * @throws {ConfigError} INVALID_CONFIG for what is no URL, or whose scheme this runtime has no driver for. Never shows more
 * of the address than its scheme.
 */
export function driverOf<Driver>(
  { what, setting, address }: { readonly what: string; readonly setting: string; readonly address: string },
  drivers: Readonly<Record<string, Driver>>,
): { readonly driver: Driver; readonly url: URL } {
  const known = Object.keys(drivers).join(', ')
  if (!URL.canParse(address)) {
    throw new ConfigError(`Cannot open the ${what}: ${setting} is not a URL. Schemes here: ${known}.`)
  }
  const url = new URL(address)
  const scheme = url.protocol.slice(0, -1)
  const driver = Object.hasOwn(drivers, scheme) ? drivers[scheme] : undefined
  if (driver === undefined) {
    throw new ConfigError(
      `Cannot open the ${what}: ${setting} has the scheme ${scheme}, for which this runtime has no driver. It has: ${known}.`,
    )
  }
  return { driver, url }
}
