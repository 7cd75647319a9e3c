/**
 * The log's database file on Node: SQLite in WAL mode with `synchronous=FULL`, so that a commit is on disk when it returns,
 * held by one process alone. What is not a log of ours, or of a version that is not known here, is refused untouched.
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { StatementSync } from 'node:sqlite'
import { ConfigError } from '../errors.ts'
import { migrations } from './sql-store.ts'
import type { SqlDatabase, SqlRow } from './sql-store.ts'

/** `kedg`, in SQLite's field for the kind of application a file belongs to. */
const APPLICATION_ID = 0x6b656467
const FILE_NAME = 'kedge.db'
const HEADER_BYTES = 100
/** SQLite's code for a file that another process has locked. */
const SQLITE_BUSY = 5
/**
 * Pages of 16 KiB, checkpointed every 32 MiB. Pages of 4 KiB make single records a tenth faster and 1,000 in a flush a third
 * slower.
 */
const PAGE_BYTES = 16_384
const CHECKPOINT_PAGES = 2_000

/** What this process has open. SQLite's lock does not keep a process from itself. */
const openFiles = new Set<string>()

/** Where the database is. */
export type SqliteLocation = { readonly dir: string } | { readonly memory: true }

/**
 * Opens the log's database, creating or migrating it where necessary.
 * @throws {ConfigError} when another process has it open, or the file is not a log that this version can read
 */
export function openSqlite(location: SqliteLocation): SqlDatabase {
  if ('memory' in location) return prepared(':memory:', locked(':memory:'), () => {})
  const file = join(resolve(location.dir), FILE_NAME)
  if (openFiles.has(file)) throw inUse(file, 'this process')
  makeDirectory(location.dir)
  // A crash within a migration leaves a journal, and a file that is only a log again once SQLite has rolled it back.
  if (!existsSync(`${file}-journal`)) checkHeader(file)
  const database = locked(file)
  try {
    const log = prepared(file, database, () => openFiles.delete(file))
    syncFolder(dirname(file))
    syncFolder(dirname(dirname(file)))
    openFiles.add(file)
    return log
  } catch (error) {
    database.close()
    throw error
  }
}

function inUse(file: string, holder: string, cause?: unknown): ConfigError {
  return new ConfigError(
    `Cannot open the log in ${dirname(file)}: ${holder} has it open. A log belongs to one process; stop the other one or use another directory.`,
    { cause },
  )
}

/** A database that is locked, in a transaction that nothing was written in yet. */
function locked(file: string): DatabaseSync {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(file, { timeout: 0 })
    // A new file takes its page size from the first access; one that is there keeps its own.
    database.exec(`PRAGMA page_size = ${PAGE_BYTES}`)
    // Taken at the first access and kept until the process ends, however it ends.
    database.exec('PRAGMA locking_mode = EXCLUSIVE')
    database.exec('BEGIN EXCLUSIVE')
    return database
  } catch (cause) {
    database?.close()
    const isLocked = cause instanceof Error && 'errcode' in cause && cause.errcode === SQLITE_BUSY
    if (isLocked) throw inUse(file, 'another process', cause)
    throw new ConfigError(
      `Cannot open ${file}: ${String(cause)}. Is the directory writable, and the disk neither full nor failing?`,
      { cause },
    )
  }
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

/** What platforms say that do not sync folders, or not to everybody. */
const noFolderSync: ReadonlySet<unknown> = new Set(['EACCES', 'EBADF', 'EINVAL', 'EISDIR', 'ENOTSUP', 'EPERM'])

/**
 * Makes durable that the files are in the folder, and the folder in the one above. SQLite does it for its files, and does not
 * look whether it worked.
 */
function syncFolder(dir: string): void {
  try {
    const descriptor = openSync(dir, 'r')
    try {
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && noFolderSync.has(cause.code)) return
    throw new ConfigError(`Cannot make the log's folder ${dir} durable: ${String(cause)}. Is the disk failing?`, {
      cause,
    })
  }
}

/**
 * Refuses what is not a log of ours by its header, without opening it as a database, which would change it. Never called
 * while this process has the file open: closing a file gives up all locks that the process has on it.
 */
function checkHeader(file: string): void {
  const header = new DataView(new ArrayBuffer(HEADER_BYTES))
  let length: number
  try {
    const descriptor = openSync(file, 'r')
    length = readSync(descriptor, header, 0, HEADER_BYTES, 0)
    closeSync(descriptor)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return
    throw new ConfigError(`Cannot read ${file}: ${String(error)}.`, { cause: error })
  }
  if (length === 0) return
  const magic = new TextDecoder().decode(header.buffer.slice(0, 15))
  const isDatabase = length === HEADER_BYTES && magic === 'SQLite format 3'
  checkVersion(file, isDatabase ? header.getUint32(68) : 0, header.getUint32(60))
}

function checkVersion(file: string, applicationId: number, version: number): void {
  if (applicationId !== APPLICATION_ID) {
    throw new ConfigError(
      `Cannot open ${file}: it is not a Kedge log. It was not touched; move it away or use another directory.`,
    )
  }
  if (version > migrations.length) {
    throw new ConfigError(
      `Cannot open ${file}: it has schema version ${version} and this Kedge knows versions up to ${migrations.length}. It was not touched; use a newer Kedge.`,
    )
  }
}

/** Ends the transaction that `locked` began with a database of the newest schema, made durable as the log wants it. */
function prepared(file: string, database: DatabaseSync, closed: () => void): SqlDatabase {
  const number = (sql: string): number => Number(Object.values(database.prepare(sql).get() ?? {})[0])
  const version = number('PRAGMA user_version')
  const isNew = number('SELECT count(*) FROM sqlite_schema') === 0
  // In the transaction that takes the lock, so that a crash leaves either no log or a whole one.
  if (isNew) migrate(database, 0)
  else checkVersion(file, number('PRAGMA application_id'), version)
  database.exec('COMMIT')
  if (!isNew && version < migrations.length) {
    // In rollback mode, so that the header that `checkHeader` reads is in the file itself and not in the WAL.
    database.exec('PRAGMA journal_mode = DELETE')
    database.exec('BEGIN IMMEDIATE')
    migrate(database, version)
    database.exec('COMMIT')
  }
  database.exec('PRAGMA journal_mode = WAL')
  database.exec('PRAGMA synchronous = FULL')
  database.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`)
  return wrap(database, closed)
}

function migrate(database: DatabaseSync, version: number): void {
  for (const statement of migrations.slice(version).flat()) database.exec(statement)
  database.exec(`PRAGMA application_id = ${APPLICATION_ID}`)
  database.exec(`PRAGMA user_version = ${migrations.length}`)
}

function wrap(database: DatabaseSync, closed: () => void): SqlDatabase {
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
    close() {
      database.close()
      closed()
    },
  }
}
