/** The address of a Kafka cluster, as KEDGE_BROKER has it: `kafka://host:port,host:port`. */

/** What the address of a cluster begins with. */
export const KAFKA_SCHEME = 'kafka://'

const DEFAULT_PORT = 9092
const MAX_PORT = 65_535
/** A name, an IPv4 address, or an IPv6 address in brackets; and a port. */
const SERVER = /^([a-z0-9](?:[a-z0-9_.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(\d{1,5}))?$/i

/** The brokers that an address names, or what is wrong with it. */
export interface ParsedAddress {
  /** `host:port` of each; an IPv6 address keeps its brackets. */
  readonly servers: readonly string[]
  readonly problem?: string
}

/** Reads an address. A problem is told without what may be a password. */
export function bootstrapServersOf(address: string): ParsedAddress {
  if (!address.startsWith(KAFKA_SCHEME)) return refused('must be log, memory or kafka://host:port')
  const rest = address.slice(KAFKA_SCHEME.length)
  if (rest.includes('@')) {
    return refused(
      'must not hold credentials: set KEDGE_KAFKA_SASL_MECHANISM, KEDGE_KAFKA_USERNAME and KEDGE_KAFKA_PASSWORD',
    )
  }
  if (/[?#]/.test(rest)) return refused('must end with the brokers: everything else has a setting KEDGE_KAFKA_...')
  const servers: string[] = []
  for (const text of rest.replace(/\/$/, '').split(',')) {
    const server = serverOf(text.trim())
    if (server === undefined)
      return refused(`${JSON.stringify(text)} is no broker: write host:port, port 1 to ${MAX_PORT}`)
    servers.push(server)
  }
  return { servers }
}

function serverOf(text: string): string | undefined {
  const [, host, digits = String(DEFAULT_PORT)] = SERVER.exec(text) ?? []
  const port = Number(digits)
  // What stands in brackets looks like an IPv6 address; whether it is one the platform knows.
  if (host === undefined || port < 1 || port > MAX_PORT || !URL.canParse(`http://${host}/`)) return undefined
  return `${host}:${port}`
}

function refused(problem: string): ParsedAddress {
  return { servers: [], problem }
}
