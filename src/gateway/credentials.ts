/**
 * Credentials: how they are stored, made and checked.
 *
 * Stored is the SHA-256 of a secret that Kedge generated from 256 random bits. A slow digest (scrypt) protects secrets
 * that people chose and that can be guessed; nobody guesses 256 bits, and every request must be checked, so a fast one is
 * right. A password from the environment is held in memory as the same digest and is stored nowhere.
 */
import * as z from 'zod'
import { ConfigError, GatewayError } from '../errors.ts'
import { bytesOf } from '../record.ts'
import { Principal, verbs, type Scope } from './principal.ts'
import { bytesOfBase64 } from '../base64.ts'
import { strictText } from './text.ts'

/** One credential of the credentials file. */
export interface Credential {
  readonly username: string
  /** SHA-256 of the password, 64 hexadecimal digits. */
  readonly passwordSha256: string
  readonly scopes: readonly Scope[]
}

/** SHA-256, by whatever the platform has. */
export type Sha256 = (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>

const ScopeEntry = z.strictObject({
  verbs: z.array(z.enum(verbs)).min(1),
  topics: z.array(z.string().regex(/^[a-zA-Z0-9._-]*\*?$/)).optional(),
  groups: z.array(z.string().regex(/^[^*]*\*?$/)).optional(),
})
const CredentialsFile = z.strictObject({
  credentials: z.array(
    z.strictObject({
      username: z.string().regex(/^[^:\p{Cc}]{1,128}$/u),
      passwordSha256: z.string().regex(/^[0-9a-f]{64}$/),
      scopes: z.array(ScopeEntry),
    }),
  ),
})

/**
 * The credentials of a file's text: `{"credentials":[{username, passwordSha256, scopes}]}`.
 * @throws {ConfigError} naming every entry that is wrong; a name given twice is wrong
 */
export function parseCredentials(text: string, file: string): readonly Credential[] {
  const parsed = CredentialsFile.safeParse(jsonOf(text, file))
  if (!parsed.success) {
    throw new ConfigError(`Cannot read the credentials file ${file}:\n${z.prettifyError(parsed.error)}`)
  }
  const seen = new Set<string>()
  for (const { username } of parsed.data.credentials) {
    if (seen.has(username))
      throw new ConfigError(`Cannot read the credentials file ${file}: ${username} is there twice.`)
    seen.add(username)
  }
  return parsed.data.credentials
}

function jsonOf(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new ConfigError(`Cannot read the credentials file ${file}: it is not JSON.`, { cause })
  }
}

/** An entry for a secret, as it belongs in the credentials file. */
export async function credentialFor(
  username: string,
  password: string,
  scopes: readonly Scope[],
  sha256: Sha256 = webSha256,
): Promise<Credential> {
  return { username, passwordSha256: hexOf(await sha256(bytesOf(password))), scopes }
}

/** Finds who calls. Without credentials everybody is `everyone`. */
export interface Authenticator {
  /**
   * @param authorization the `Authorization` header
   * @param query user and password of a webhook's query, used where there is no header
   * @throws {GatewayError} UNAUTHENTICATED where there is nothing readable, SASL_AUTHENTICATION_FAILED where it is wrong
   */
  authenticate(authorization: string | undefined, query?: QueryCredentials): Promise<Principal>
}

/** User name and password from the query, where a call takes them there. */
export interface QueryCredentials {
  readonly user?: string | undefined
  readonly pass?: string | undefined
}

/** An authenticator over credentials. */
export function authenticator(credentials: readonly Credential[], sha256: Sha256 = webSha256): Authenticator {
  const known = new Map(
    credentials.map((entry) => [
      entry.username,
      { digest: bytesOfHex(entry.passwordSha256), principal: new Principal(entry.username, entry.scopes) },
    ]),
  )
  // Compared for a name nobody has, so that an unknown name takes the time of a wrong password.
  const nobody = { digest: new Uint8Array(32), principal: new Principal(null, []) }
  return {
    async authenticate(authorization, query) {
      const pair = authorization === undefined ? queryPair(query) : headerPair(authorization)
      if (pair === undefined) {
        throw new GatewayError(
          'UNAUTHENTICATED',
          'Cannot serve the request without credentials: send Authorization: Basic base64(username:password).',
        )
      }
      const entry = known.get(pair.username)
      const digest = await sha256(bytesOf(pair.password))
      const right = equalInConstantTime(digest, (entry ?? nobody).digest)
      if (entry === undefined || !right) {
        throw new GatewayError('SASL_AUTHENTICATION_FAILED', 'Authentication failed due to invalid credentials.')
      }
      return entry.principal
    },
  }
}

interface Pair {
  readonly username: string
  readonly password: string
}

function queryPair(query: QueryCredentials | undefined): Pair | undefined {
  return query?.user === undefined || query.pass === undefined
    ? undefined
    : { username: query.user, password: query.pass }
}

/** Basic, and Bearer with the same ready-made pair, which some clients copied from Upstash's console. */
function headerPair(authorization: string): Pair | undefined {
  const encoded = /^(?:basic|bearer) +([A-Za-z0-9+/]+={0,2}) *$/i.exec(authorization)?.[1]
  if (encoded === undefined) return undefined
  const bytes = bytesOfBase64(encoded.padEnd(Math.ceil(encoded.length / 4) * 4, '='))
  const text = bytes === undefined ? undefined : strictText(bytes)
  const colon = text?.indexOf(':') ?? -1
  if (text === undefined || colon === -1) return undefined
  return { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** Whether two digests are equal, in a time that does not tell where they differ. */
export function equalInConstantTime(one: Uint8Array, other: Uint8Array): boolean {
  let difference = one.length ^ other.length
  for (let at = 0; at < other.length; at += 1) difference |= (one[at] ?? 0) ^ (other[at] ?? 0)
  return difference === 0
}

/** SHA-256 by WebCrypto, which every platform has. Node's own is ten times faster for a password. */
export async function webSha256(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', Uint8Array.from(bytes)))
}

/** Lower-case hexadecimal digits. */
export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function bytesOfHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}
