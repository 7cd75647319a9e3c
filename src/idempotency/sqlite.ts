/**
 * Idempotency in one SQLite file on Node: WAL with `synchronous=FULL`, so that a lock or an outcome is on disk when the call
 * resolves. Processes of one machine may share the file; a network file system may not hold it.
 *
 * A file that is another application's, or of a newer version, is refused unchanged.
 */
import { DatabaseSync } from 'node:sqlite'

import { type Clock, systemClock } from '../clock.ts'
import { ConfigError, IdempotencyError, KedgeError } from '../errors.ts'
import type { IdempotencyStore } from '../idempotency.ts'
import { DEFAULT_TIMEOUT_MS } from './remote.ts'
import {
  SqlIdempotencyStore,
  type SqlResultRow,
  type SqlStatement,
  createVersionTable,
  migrationsFor,
  readVersion,
} from './sql.ts'

/** Options of `sqliteIdempotency`. */
export interface SqliteIdempotencyOptions {
  /** The database file; made where it is missing, its folder is not. */
  readonly file: string
  /** How long a call waits for another process's write, milliseconds. It blocks this process meanwhile. @default 500 */
  readonly busyMs?: number
  /** Its wall clock decides when locks and outcomes expire. @default the platform's */
  readonly clock?: Clock
}

const sqliteIdempotencyDefaults = { busyMs: 500, clock: systemClock } as const

/** `kedi`, in SQLite's field for the kind of application a file belongs to. */
const APPLICATION_ID = 0x6b656469
/** SQLite's codes, without their extension, of failures that may pass: busy, locked, an I/O error, a full disk. */
const passing: ReadonlySet<number> = new Set([5, 6, 10, 13])

/**
 * Opens the file.
 * @throws {ConfigError} when it cannot be opened, is not one of ours, or is newer than this Kedge knows
 */
export function sqliteIdempotency(options: SqliteIdempotencyOptions): IdempotencyStore {
  const { file } = options
  const database = opened(file, options.busyMs ?? sqliteIdempotencyDefaults.busyMs)
  return new SqlIdempotencyStore(
    {
      store: 'sqlite',
      clock: options.clock ?? sqliteIdempotencyDefaults.clock,
      timeoutMs: DEFAULT_TIMEOUT_MS,
      // oxlint-disable-next-line require-await -- what it throws must come as a rejection
      async transaction(statements) {
        try {
          return inTransaction(database, statements)
        } catch (error) {
          throw storeError(error, file)
        }
      },
      close: () => database.close(),
    },
    { durable: file !== ':memory:' },
  )
}

function opened(file: string, busyMs: number): DatabaseSync {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(file, { timeout: busyMs })
    prepare(database, file)
    return database
  } catch (cause) {
    database?.close()
    if (cause instanceof KedgeError) throw cause
    throw new ConfigError(
      `Cannot open the idempotency store ${file}: ${String(cause)}. Is its folder there and writable, and the file a SQLite database?`,
      { cause },
    )
  }
}

function prepare(database: DatabaseSync, file: string): void {
  const number = (sql: string): number => Number(Object.values(database.prepare(sql).get() ?? {})[0])
  database.exec('BEGIN IMMEDIATE')
  const isNew = number('SELECT count(*) FROM sqlite_schema') === 0
  if (!isNew && number('PRAGMA application_id') !== APPLICATION_ID) {
    throw new ConfigError(
      `Cannot open the idempotency store ${file}: it is another application's database. It was not changed; name another file.`,
    )
  }
  for (const sql of isNew ? [`PRAGMA application_id = ${APPLICATION_ID}`, createVersionTable.sql] : [])
    database.exec(sql)
  const steps = migrationsFor(run(database, readVersion), file)
  for (const step of steps) run(database, step)
  database.exec('COMMIT')
  database.exec('PRAGMA journal_mode = WAL')
  database.exec('PRAGMA synchronous = FULL')
}

function inTransaction(database: DatabaseSync, statements: readonly SqlStatement[]): readonly SqlResultRow[] {
  // IMMEDIATE: a transaction that only turns into a write later may find that another process was faster.
  database.exec('BEGIN IMMEDIATE')
  try {
    let rows: readonly SqlResultRow[] = []
    for (const statement of statements) rows = run(database, statement)
    database.exec('COMMIT')
    return rows
  } catch (error) {
    // After a failed commit SQLite may have rolled back by itself.
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

function run(database: DatabaseSync, { sql, parameters }: SqlStatement): readonly SqlResultRow[] {
  return database.prepare(sql).all(...parameters)
}

function storeError(error: unknown, file: string): IdempotencyError {
  const code = error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0
  return new IdempotencyError(
    'IDEMPOTENCY_STORE_UNAVAILABLE',
    `Cannot use the idempotency store ${file}: ${error instanceof Error ? error.message : String(error)}.`,
    { cause: error, retriable: passing.has(code) },
  )
}
