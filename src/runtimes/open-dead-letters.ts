/**
 * From the URLs in KEDGE_DEAD_LETTERS to a store. The table of drivers is handed in by the runtime: one table that named
 * them all would put the AWS SDK into the Worker.
 */
import type { Broker } from '../broker.ts'
import type { DeadLetterDriver, DeadLetterStore } from '../dead-letter.ts'
import { fallbackDeadLetters } from '../dead-letters/fallback.ts'
import { topicDeadLetters } from '../dead-letters/topic.ts'
import { ConfigError } from '../errors.ts'
import { driverOf } from './driver-of.ts'

/** Drivers by the URL's scheme, without its colon. */
export type DeadLetterDrivers = Readonly<Record<string, DeadLetterDriver>>

/** Opens `topic:NAME`, and `topic:` for a topic of each source topic and group, over a broker. */
export function topicDriver(broker: Broker): DeadLetterDriver {
  return ({ pathname }) => topicDeadLetters({ broker, ...(pathname === '' ? {} : { topic: pathname }) })
}

/**
 * Opens the store that a URL names; of several URLs, with blanks or commas between them, one store that tries theirs in
 * order.
 * @throws {ConfigError} INVALID_CONFIG for what is no URL, whose scheme this runtime has no driver for, or that says more
 * than its driver reads. Nothing is left open then.
 */
export async function openDeadLetters(addresses: string, drivers: DeadLetterDrivers): Promise<DeadLetterStore> {
  const [first = '', ...others] = addresses.split(/[\s,]+/).filter((address) => address !== '')
  const opened: DeadLetterStore[] = []
  try {
    for (const address of [first, ...others]) opened.push(await openOne(address, drivers))
  } catch (failure) {
    await Promise.allSettled(opened.map((store) => store.close()))
    throw failure
  }
  const [only, second] = opened
  return only !== undefined && second === undefined ? only : fallbackDeadLetters(opened)
}

async function openOne(address: string, drivers: DeadLetterDrivers): Promise<DeadLetterStore> {
  const { driver, url } = driverOf({ what: 'dead-letter store', setting: 'KEDGE_DEAD_LETTERS', address }, drivers)
  if (url.username !== '' || url.password !== '') {
    throw new ConfigError(
      `Cannot open the dead-letter store: the ${url.protocol} URL in KEDGE_DEAD_LETTERS holds credentials. Give them as the platform does.`,
    )
  }
  if (url.search !== '' || url.hash !== '') {
    throw new ConfigError(
      `Cannot open the dead-letter store: the ${url.protocol} URL in KEDGE_DEAD_LETTERS has something behind a ? or #. No driver reads that; leave it out.`,
    )
  }
  if (!isDecodable(url.pathname)) {
    throw new ConfigError(
      `Cannot open the dead-letter store: the ${url.protocol} URL in KEDGE_DEAD_LETTERS has a % that begins no %XX. Write %25 for a percent sign.`,
    )
  }
  return await driver(url)
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
