/**
 * Idempotency in Cloudflare D1, by the Worker's binding: the same rows and statements as `sqlite`, each call one batch,
 * which D1 runs as one transaction on the database's primary.
 * @see https://developers.cloudflare.com/d1/worker-api/d1-database/#batch
 */
import { type Clock, systemClock } from '../clock.ts'
import { IdempotencyError } from '../errors.ts'
import type { IdempotencyStore } from '../idempotency.ts'
import { DEFAULT_TIMEOUT_MS } from './remote.ts'
import {
  SqlIdempotencyStore,
  type SqlParameter,
  type SqlResultRow,
  type SqlStatement,
  createVersionTable,
  migrationsFor,
  readVersion,
} from './sql.ts'

/** What the driver uses of a D1 binding. */
export interface D1Binding {
  prepare(sql: string): D1Statement
  batch(statements: D1Statement[]): Promise<readonly { readonly results?: readonly unknown[] }[]>
}

/** What the driver uses of a prepared statement. */
export interface D1Statement {
  bind(...parameters: (string | number | ArrayBuffer | null)[]): D1Statement
}

/** Options of `d1Idempotency`. */
export interface D1IdempotencyOptions {
  readonly database: D1Binding
  /** Longest time of a call that names none, milliseconds. @default 5000 */
  readonly timeoutMs?: number
  /** Its wall clock decides when locks and outcomes expire. @default the platform's */
  readonly clock?: Clock
}

/** Opens a store over a database. The first call makes or migrates the tables. */
export function d1Idempotency({ database, ...options }: D1IdempotencyOptions): IdempotencyStore {
  let ready: Promise<void> | undefined

  async function transaction(statements: readonly SqlStatement[]): Promise<readonly SqlResultRow[]> {
    try {
      ready ??= migrate(database)
      await ready
      return await batch(database, statements)
    } catch (error) {
      ready = undefined
      throw d1Error(error)
    }
  }

  return new SqlIdempotencyStore({
    store: 'd1',
    clock: options.clock ?? systemClock,
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    transaction,
    close() {},
  })
}

async function migrate(database: D1Binding): Promise<void> {
  const steps = migrationsFor(await batch(database, [createVersionTable, readVersion]), 'd1')
  if (steps.length > 0) await batch(database, steps)
}

async function batch(database: D1Binding, statements: readonly SqlStatement[]): Promise<readonly SqlResultRow[]> {
  const prepared = statements.map(({ sql, parameters }) => database.prepare(sql).bind(...parameters.map(parameterOf)))
  const results = await database.batch(prepared)
  // Rows of our own tables: objects by column names.
  return (results.at(-1)?.results ?? []) as readonly SqlResultRow[]
}

function parameterOf(value: SqlParameter): string | number | ArrayBuffer | null {
  return value instanceof Uint8Array ? Uint8Array.from(value).buffer : value
}

/** D1 tells its failures apart by their texts alone. */
function d1Error(error: unknown): Error {
  if (error instanceof Error && error.name === 'ConfigError') return error
  const message = error instanceof Error ? error.message : String(error)
  if (/SQLITE_ERROR|SQLITE_CONSTRAINT|D1_TYPE_ERROR/.test(message)) {
    return new IdempotencyError(
      'INVALID_CONFIG',
      `Cannot use the idempotency store d1: ${message}. Does the database have other tables of these names?`,
      { cause: error },
    )
  }
  return new IdempotencyError('IDEMPOTENCY_STORE_UNAVAILABLE', `Cannot use the idempotency store d1: ${message}`, {
    cause: error,
  })
}
