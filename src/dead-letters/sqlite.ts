/**
 * Dead letters in an SQLite file on this machine's disk, to be queried by anything that reads SQLite.
 *
 * WAL mode with `synchronous=FULL`: a put that resolved is on the disk. Several processes may have the file open; a write
 * that finds another one at work waits for it. A file that is not one of dead letters, or of a version that is not known
 * here, is refused untouched. Calls are synchronous inside: each takes the process for as long as the disk does.
 */
import { mkdirSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'

import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { ConfigError, DeadLetterStoreError, KedgeError } from '../errors.ts'
import { LIST_TABLES, type LetterDatabase, READ_VERSION, SCHEMA_TABLE, SqlDeadLetters, stepsFrom } from './sql.ts'

/** Options of `sqliteDeadLetters`. */
export interface SqliteDeadLettersOptions {
  /** The file, made with its folder where it is missing; `:memory:` keeps the letters in memory. */
  readonly path: string
  /** How long a call waits for another process that is writing, milliseconds. @default 1000 */
  readonly busyTimeoutMs?: number
  readonly clock?: Clock
}

const sqliteDeadLettersDefaults = { busyTimeoutMs: 1_000, clock: systemClock } as const

/** A call is synchronous and ends before a timer could fire; what bounds it is the busy timeout. */
const CALL_TIMEOUT_MS = 60_000

/** SQLite's primary result codes. @see https://sqlite.org/rescode.html */
const SQLITE_CORRUPT = 11
const SQLITE_TOOBIG = 18
const SQLITE_NOTADB = 26

/**
 * Opens the file, creating or migrating it where necessary.
 * @throws {ConfigError} when it cannot be opened, holds something else, or is of a newer version.
 */
export function sqliteDeadLetters(options: SqliteDeadLettersOptions): DeadLetterStore {
  const busyTimeoutMs = options.busyTimeoutMs ?? sqliteDeadLettersDefaults.busyTimeoutMs
  const clock = options.clock ?? sqliteDeadLettersDefaults.clock
  const file = options.path === ':memory:' ? options.path : resolve(options.path)
  const database = opened(file, busyTimeoutMs)
  return new SqlDeadLetters(letterDatabase(database), { maxLetterBytes: null, timeoutMs: CALL_TIMEOUT_MS, clock })
}

function opened(file: string, busyTimeoutMs: number): DatabaseSync {
  let database: DatabaseSync | undefined
  try {
    if (file !== ':memory:') mkdirSync(dirname(file), { recursive: true })
    database = new DatabaseSync(file, { timeout: busyTimeoutMs })
    // Looked at before anything is written: SQLite makes a file of any kind its own with the first write.
    if (stepsFrom(versionOf(database, file), file).length > 0) migrate(database, file)
    database.exec('PRAGMA journal_mode = WAL')
    database.exec('PRAGMA synchronous = FULL')
    return database
  } catch (cause) {
    database?.close()
    if (cause instanceof ConfigError) throw cause
    throw new ConfigError(
      `Cannot open the dead letters in ${file}: ${String(cause)}. Is it an SQLite file, its folder writable, and the disk neither full nor failing?`,
      { cause },
    )
  }
}

/** The version of the letters in a file, 0 in an empty one. */
function versionOf(database: DatabaseSync, file: string): number {
  const tables = database.prepare(LIST_TABLES).all()
  if (tables.length === 0) return 0
  if (!tables.some(({ name }) => name === SCHEMA_TABLE)) {
    throw new ConfigError(
      `Cannot open the dead letters in ${file}: the file holds something else. It was not touched; name another file.`,
    )
  }
  return Number(database.prepare(READ_VERSION).get()?.['version'])
}

function migrate(database: DatabaseSync, file: string): void {
  database.exec('BEGIN IMMEDIATE')
  try {
    // Looked at again under the lock: another process may have been faster.
    for (const statement of stepsFrom(versionOf(database, file), file)) database.exec(statement)
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

function letterDatabase(database: DatabaseSync): LetterDatabase {
  const statements = new Map<string, StatementSync>()
  const prepare = (sql: string): StatementSync => {
    let statement = statements.get(sql)
    if (statement === undefined) statements.set(sql, (statement = database.prepare(sql)))
    return statement
  }
  return {
    name: 'sqlite',
    run: ({ sql, values }) => Number(prepare(sql).run(...values).changes),
    all: ({ sql, values }) => prepare(sql).all(...values),
    errorOf: sqliteError,
    close: () => database.close(),
  }
}

function sqliteError(failure: unknown, what: string): Error {
  if (failure instanceof KedgeError) return failure
  const message = `Cannot ${what} in sqlite: ${failure instanceof Error ? failure.message : String(failure)}.`
  const code = failure instanceof Error && 'errcode' in failure ? Number(failure.errcode) & 0xff : undefined
  if (code === SQLITE_TOOBIG) return new DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', message, { cause: failure })
  // Busy, full and failing disks may recover; what is in a broken file does not.
  const retriable = code !== SQLITE_CORRUPT && code !== SQLITE_NOTADB
  return new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', message, { cause: failure, retriable })
}
