/**
 * The embedded log on Node: SQLite, nothing to install. An acknowledged record is on disk (fsync) and survives the kill of
 * the process and a loss of power; it does not survive the loss of the disk. One process per directory.
 */
import type { Broker } from '../broker.ts'
import { embeddedBroker } from '../log/engine.ts'
import type { EngineOptions } from '../log/engine.ts'
import { openSqlite } from '../log/node-sqlite.ts'
import type { SqliteLocation } from '../log/node-sqlite.ts'
import { sqlStore } from '../log/sql-store.ts'

/** Options of `logBroker`: where the log is, and how its engine works. */
export type LogBrokerOptions = EngineOptions & SqliteLocation

/**
 * Opens the log in a directory (created where missing), or in memory.
 * @throws {ConfigError} when another process has it open, or the file there is not a log this version can read
 */
export function logBroker(options: LogBrokerOptions): Broker {
  // By then everything that had arrived in this turn of the event loop has been read, and shares one sync.
  return embeddedBroker(sqlStore(openSqlite(options)), { defer: setImmediate, ...options })
}
