/**
 * The log's database file on Node: SQLite in WAL mode with `synchronous=FULL`, so that a commit is on disk when it returns,
 * held by one process alone. What is not a log of ours, or of a version that is not known here, is refused untouched.
 */
import { closeSync, mkdirSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { StatementSync } from 'node:sqlite'
import { ConfigError } from '../errors.ts'
import { migrations } from './sql-store.ts'
import type { SqlDatabase, SqlRow } from './sql-store.ts'

/** `kedg`, in SQLite's field for the kind of application a file belongs to. */
const APPLICATION_ID = 0x6b656467
const FILE_NAME = 'kedge.db'
const HEADER_BYTES = 100
/**
 * Pages of 16 KiB, checkpointed every 32 MiB: measured against 4 to 64 KiB, the best for large batches that costs single
 * records nothing against an append and fdatasync of the same bytes.
 */
const PAGE_BYTES = 16_384
const CHECKPOINT_PAGES = 2_000

/** Where the database is. */
export type SqliteLocation = { readonly dir: string } | { readonly memory: true }

/**
 * Opens the log's database, creating or migrating it where necessary.
 * @throws {ConfigError} when another process has it open, or the file is not a log that this version can read
 */
export function openSqlite(location: SqliteLocation): SqlDatabase {
  if ('memory' in location) return migrated(new DatabaseSync(':memory:'), 0)
  const { dir } = location
  const file = join(dir, FILE_NAME)
  makeDirectory(dir)
  const version = versionOf(file)
  const database = new DatabaseSync(file, { timeout: 0 })
  try {
    // Taken at the first access and kept until the process ends, however it ends.
    database.exec('PRAGMA locking_mode = EXCLUSIVE')
    database.exec('BEGIN EXCLUSIVE')
    database.exec('COMMIT')
  } catch (cause) {
    database.close()
    throw new ConfigError(
      `Cannot open the log in ${dir}: another process has it open. A log belongs to one process; stop the other one or use another directory.`,
      { cause },
    )
  }
  return migrated(database, version)
}

function makeDirectory(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true })
  } catch (cause) {
    throw new ConfigError(
      `Cannot create the log's directory ${dir}: ${String(cause)}. Choose one that can be written.`,
      {
        cause,
      },
    )
  }
}

/** The schema version of a file, read from its header without opening it as a database, which would change it. */
function versionOf(file: string): number {
  const header = new DataView(new ArrayBuffer(HEADER_BYTES))
  let length: number
  try {
    const descriptor = openSync(file, 'r')
    length = readSync(descriptor, header, 0, HEADER_BYTES, 0)
    closeSync(descriptor)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return 0
    throw new ConfigError(`Cannot read ${file}: ${String(error)}.`, { cause: error })
  }
  if (length === 0) return 0
  const magic = new TextDecoder().decode(header.buffer.slice(0, 15))
  if (length < HEADER_BYTES || magic !== 'SQLite format 3' || header.getUint32(68) !== APPLICATION_ID) {
    throw new ConfigError(
      `Cannot open ${file}: it is not a Kedge log. It was not touched; move it away or use another directory.`,
    )
  }
  const version = header.getUint32(60)
  if (version <= migrations.length) return version
  throw new ConfigError(
    `Cannot open ${file}: it has schema version ${version} and this Kedge knows versions up to ${migrations.length}. It was not touched; use a newer Kedge.`,
  )
}

function migrated(database: DatabaseSync, version: number): SqlDatabase {
  const steps = migrations.slice(version)
  if (steps.length > 0) {
    // In rollback mode, so that the header that `versionOf` reads is in the file itself and not in the WAL.
    database.exec('PRAGMA journal_mode = DELETE')
    if (version === 0) database.exec(`PRAGMA page_size = ${PAGE_BYTES}`)
    database.exec('BEGIN IMMEDIATE')
    for (const statement of steps.flat()) database.exec(statement)
    database.exec(`PRAGMA application_id = ${APPLICATION_ID}`)
    database.exec(`PRAGMA user_version = ${migrations.length}`)
    database.exec('COMMIT')
  }
  database.exec('PRAGMA journal_mode = WAL')
  database.exec('PRAGMA synchronous = FULL')
  database.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`)
  return wrap(database)
}

function wrap(database: DatabaseSync): SqlDatabase {
  const statements = new Map<string, StatementSync>()
  const prepare = (sql: string): StatementSync => {
    let statement = statements.get(sql)
    if (statement === undefined) statements.set(sql, (statement = database.prepare(sql)))
    return statement
  }
  const begin = database.prepare('BEGIN IMMEDIATE')
  const commit = database.prepare('COMMIT')
  return {
    run(sql, ...values) {
      prepare(sql).run(...values)
    },
    // The columns of our own tables hold nothing but these types.
    all: (sql, ...values) => prepare(sql).all(...values) as SqlRow[],
    transaction(work) {
      begin.run()
      try {
        work()
        commit.run()
      } catch (error) {
        // After a failed commit SQLite may have rolled back by itself.
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    },
    close: () => database.close(),
  }
}
