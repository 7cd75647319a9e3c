/**
 * Idempotency in SQL, as `sqlite` and `d1` speak it: the schema, the statements, and a store over anything that runs a few
 * statements as one transaction. One row per key. Time arrives from the caller's wall clock.
 */
import type { Call } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { ConfigError } from '../errors.ts'
import {
  EXPIRED_LOCK_MS,
  MAX_OUTCOME_BYTES,
  type BeginOptions,
  type BeginResult,
  type CompleteOptions,
  type IdempotencyFeatures,
  type IdempotencyStore,
} from '../idempotency.ts'
import { type CallScope, checkBegin, checkCall, checkComplete, lockLost } from './call.ts'
import { type Entry, completeOn } from './entry.ts'
import { attempt } from './remote.ts'

/** What a parameter may be. */
export type SqlParameter = string | number | Uint8Array | null
/** A row, by the names of its columns. */
export type SqlResultRow = Readonly<Record<string, unknown>>

/** One statement with its parameters, in order. */
export interface SqlStatement {
  readonly sql: string
  readonly parameters: readonly SqlParameter[]
}

/** What the store needs of a database. */
export interface SqlConnection {
  /** The store's name, for messages. */
  readonly store: string
  readonly clock: Clock
  /** Longest time of a call that names none, milliseconds. */
  readonly timeoutMs: number
  /** Runs the statements as one transaction, durable when it resolves, and gives the rows of the last one. */
  transaction(statements: readonly SqlStatement[]): Promise<readonly SqlResultRow[]>
  close(): void
}

/** Creates the table that says which version the schema has. May run at any time. */
export const createVersionTable: SqlStatement = statement(
  `CREATE TABLE IF NOT EXISTS kedge_idempotency_schema (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
  )`,
)

/** Gives the version, or no row in a new database. */
export const readVersion: SqlStatement = statement('SELECT version FROM kedge_idempotency_schema')

/**
 * The schema as steps: step n takes a database from version n to n + 1. Steps are never changed, only added. Each may run
 * twice, for two processes may find the same database new.
 */
const migrations: readonly (readonly string[])[] = [
  [
    `CREATE TABLE IF NOT EXISTS kedge_idempotency (
      key TEXT PRIMARY KEY,
      owner TEXT NOT NULL,
      expires_at_ms INTEGER NOT NULL,
      is_done INTEGER NOT NULL,
      outcome BLOB
    )`,
    'CREATE INDEX IF NOT EXISTS kedge_idempotency_by_expiry ON kedge_idempotency (expires_at_ms)',
  ],
]

/**
 * What brings a database whose `readVersion` gave these rows up to date; nothing where it is.
 * @throws {ConfigError} where it is newer than this Kedge knows.
 */
export function migrationsFor(rows: readonly SqlResultRow[], where: string): readonly SqlStatement[] {
  const version = Number(rows[0]?.['version'] ?? 0)
  if (version > migrations.length) {
    throw new ConfigError(
      `Cannot open the idempotency store ${where}: it has schema version ${version} and this Kedge knows versions up to ${migrations.length}. It was not changed; use a newer Kedge.`,
    )
  }
  if (version === migrations.length) return []
  return [
    ...migrations
      .slice(version)
      .flat()
      .map((sql) => statement(sql)),
    statement(
      `INSERT INTO kedge_idempotency_schema (id, version) VALUES (1, ?)
       ON CONFLICT (id) DO UPDATE SET version = max(version, excluded.version)`,
      migrations.length,
    ),
  ]
}

const BEGIN = `INSERT INTO kedge_idempotency (key, owner, expires_at_ms, is_done, outcome) VALUES (?, ?, ?, 0, NULL)
  ON CONFLICT (key) DO UPDATE
  SET owner = excluded.owner, expires_at_ms = excluded.expires_at_ms, is_done = 0, outcome = NULL
  WHERE kedge_idempotency.expires_at_ms <= ?
    OR (kedge_idempotency.is_done = 0 AND kedge_idempotency.owner = excluded.owner)`
const COMPLETE =
  'UPDATE kedge_idempotency SET is_done = 1, outcome = ?, expires_at_ms = ? WHERE key = ? AND owner = ? AND is_done = 0'
const ABANDON = 'DELETE FROM kedge_idempotency WHERE key = ? AND owner = ? AND is_done = 0'
const READ = 'SELECT owner, expires_at_ms, is_done, outcome FROM kedge_idempotency WHERE key = ?'
const PURGE = `DELETE FROM kedge_idempotency WHERE key IN
  (SELECT key FROM kedge_idempotency WHERE expires_at_ms <= ? LIMIT ?)`

/** At most this often does a begin delete what has long expired, and at most so many rows. */
const PURGE_EVERY_MS = 60_000
const PURGE_ROWS = 200

const features: IdempotencyFeatures = Object.freeze({
  linearizable: true,
  durable: true,
  maxOutcomeBytes: MAX_OUTCOME_BYTES,
})

/** A store over a database whose schema is up to date, or becomes so within its `transaction`. */
export class SqlIdempotencyStore implements IdempotencyStore {
  readonly features: IdempotencyFeatures
  readonly #connection: SqlConnection
  #isClosed = false
  #purgeAt = Number.NEGATIVE_INFINITY

  constructor(connection: SqlConnection, differences: Partial<IdempotencyFeatures> = {}) {
    this.#connection = connection
    this.features = Object.freeze({ ...features, ...differences })
  }

  async begin(key: string, { owner, lockMs }: BeginOptions, call?: Call): Promise<BeginResult> {
    checkBegin(this.#scope(), key, { owner, lockMs }, call)
    const nowMs = this.#connection.clock.now()
    const take = statement(BEGIN, key, owner, nowMs + lockMs, nowMs)
    const [row] = await this.#run([...this.#purge(nowMs), take, statement(READ, key)], call)
    const entry = entryOf(row)
    if (entry === undefined || (entry.outcome === null && entry.owner === owner)) return { kind: 'started' }
    if (entry.outcome !== null) return { kind: 'done', outcome: entry.outcome }
    return { kind: 'in-progress', retryAfterMs: Math.max(1, entry.expiresAtMs - nowMs) }
  }

  async complete(
    key: string,
    owner: string,
    outcome: Uint8Array,
    { keepMs }: CompleteOptions,
    call?: Call,
  ): Promise<void> {
    checkComplete(this.#scope(), key, owner, outcome, { keepMs }, call)
    const expiresAtMs = this.#connection.clock.now() + keepMs
    const store = statement(COMPLETE, Uint8Array.from(outcome), expiresAtMs, key, owner)
    const [row] = await this.#run([store, statement(READ, key)], call)
    if (completeOn(entryOf(row), owner) !== 'written') throw lockLost(this.#connection.store)
  }

  async abandon(key: string, owner: string, call?: Call): Promise<void> {
    checkCall(this.#scope(), key, owner, call)
    await this.#run([statement(ABANDON, key, owner)], call)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#connection.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #scope(): CallScope {
    return { store: this.#connection.store, isClosed: this.#isClosed }
  }

  async #run(statements: readonly SqlStatement[], call: Call | undefined): Promise<readonly SqlResultRow[]> {
    return await attempt(this.#connection, call, () => this.#connection.transaction(statements))
  }

  #purge(nowMs: number): SqlStatement[] {
    const at = this.#connection.clock.monotonic()
    if (at < this.#purgeAt) return []
    this.#purgeAt = at + PURGE_EVERY_MS
    return [statement(PURGE, nowMs - EXPIRED_LOCK_MS, PURGE_ROWS)]
  }
}

function statement(sql: string, ...parameters: SqlParameter[]): SqlStatement {
  return { sql, parameters }
}

function entryOf(row: SqlResultRow | undefined): Entry | undefined {
  if (row === undefined) return undefined
  return {
    owner: String(row['owner']),
    expiresAtMs: Number(row['expires_at_ms']),
    outcome: Number(row['is_done']) === 1 ? blobOf(row['outcome']) : null,
  }
}

/** Node gives bytes, D1 a list of numbers; an empty blob may have been stored as NULL. */
function blobOf(value: unknown): Uint8Array {
  if (value === null || value === undefined) return new Uint8Array(0)
  return Uint8Array.from(value as Iterable<number>)
}
