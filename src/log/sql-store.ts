/**
 * The log in SQL, over a narrow synchronous interface that SQLite offers on Node and inside a Durable Object alike.
 * One row per batch, its records in the bytes in which they are read (`batch.ts`); a rowid table with one index.
 */
import type { TopicDescription } from '../broker.ts'
import type { StoredBatch } from './batch.ts'
import type { LogStore, PartitionId } from './store.ts'

/** What a column or a parameter may hold. */
export type SqlValue = string | number | null | Uint8Array
/** A row, by the names of its columns. */
export type SqlRow = Readonly<Record<string, SqlValue>>

/** What the store needs of a database: synchronous calls and transactions. */
export interface SqlDatabase {
  /** Runs a statement whose rows nobody wants. */
  run(sql: string, ...values: SqlValue[]): void
  all(sql: string, ...values: SqlValue[]): SqlRow[]
  /** Runs `work` in a transaction that is durable when this returns, and undone when it throws. */
  transaction(work: () => void): void
  close(): void
}

/**
 * The schema as steps: step n takes a database from version n to n + 1. Steps are never changed, only added.
 * Small columns come before the bytes, so that looking at a batch does not read it.
 */
export const migrations: readonly (readonly string[])[] = [
  [
    `CREATE TABLE topics (
      name TEXT PRIMARY KEY,
      description TEXT NOT NULL
    )`,
    `CREATE TABLE partitions (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      topic TEXT NOT NULL,
      partition INTEGER NOT NULL,
      log_start_offset INTEGER NOT NULL DEFAULT 0,
      log_end_offset INTEGER NOT NULL DEFAULT 0,
      UNIQUE (topic, partition)
    )`,
    `CREATE TABLE batches (
      id INTEGER PRIMARY KEY,
      partition_id INTEGER NOT NULL,
      base_offset INTEGER NOT NULL,
      record_count INTEGER NOT NULL,
      max_timestamp_ms INTEGER NOT NULL,
      bytes BLOB NOT NULL
    )`,
    'CREATE UNIQUE INDEX batches_by_offset ON batches (partition_id, base_offset)',
    `CREATE TABLE committed_offsets (
      group_id TEXT NOT NULL,
      topic TEXT NOT NULL,
      partition INTEGER NOT NULL,
      committed_offset INTEGER NOT NULL,
      metadata TEXT,
      PRIMARY KEY (group_id, topic, partition)
    ) WITHOUT ROWID`,
    'CREATE TABLE groups (group_id TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID',
    `CREATE TABLE idempotency_keys (
      idempotency_key TEXT PRIMARY KEY,
      fingerprint TEXT NOT NULL,
      results TEXT NOT NULL,
      expires_at_ms INTEGER NOT NULL
    ) WITHOUT ROWID`,
    'CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at_ms)',
  ],
]

const BATCH = 'SELECT base_offset, record_count, max_timestamp_ms, bytes FROM batches WHERE partition_id = ?'

/** A store over a database whose schema is up to date. */
export function sqlStore(database: SqlDatabase): LogStore {
  const first = (sql: string, ...values: SqlValue[]): SqlRow | undefined => database.all(`${sql} LIMIT 1`, ...values)[0]

  return {
    transaction: (work) => database.transaction(work),
    topics: () =>
      database
        .all('SELECT description FROM topics')
        .map((row) => JSON.parse(textIn(row, 'description')) as TopicDescription),
    partitions: () =>
      // The end of the newest batch counts; the stored end is for partitions of which retention left nothing.
      database
        .all(
          `SELECT id, topic, partition, log_start_offset, log_end_offset,
             (SELECT base_offset + record_count FROM batches WHERE partition_id = p.id
                ORDER BY base_offset DESC LIMIT 1) AS newest_end,
             (SELECT coalesce(sum(length(bytes)), 0) FROM batches WHERE partition_id = p.id) AS bytes
           FROM partitions AS p`,
        )
        .map((row) => ({
          id: numberIn(row, 'id'),
          topic: textIn(row, 'topic'),
          partition: numberIn(row, 'partition'),
          logStartOffset: numberIn(row, 'log_start_offset'),
          logEndOffset: Math.max(
            numberIn(row, 'log_end_offset'),
            row['newest_end'] === null ? 0 : numberIn(row, 'newest_end'),
          ),
          bytes: numberIn(row, 'bytes'),
        })),
    createTopic(description) {
      const { topic } = description
      database.run('INSERT INTO topics (name, description) VALUES (?, ?)', topic, JSON.stringify(description))
      for (let partition = 0; partition < description.partitions; partition++) {
        database.run('INSERT INTO partitions (topic, partition) VALUES (?, ?)', topic, partition)
      }
      return database
        .all('SELECT id FROM partitions WHERE topic = ? ORDER BY partition', topic)
        .map((row) => numberIn(row, 'id'))
    },
    deleteTopic(topic) {
      database.run('DELETE FROM batches WHERE partition_id IN (SELECT id FROM partitions WHERE topic = ?)', topic)
      database.run('DELETE FROM partitions WHERE topic = ?', topic)
      database.run('DELETE FROM committed_offsets WHERE topic = ?', topic)
      database.run('DELETE FROM topics WHERE name = ?', topic)
    },
    append(partition, batch) {
      database.run(
        'INSERT INTO batches (partition_id, base_offset, record_count, max_timestamp_ms, bytes) VALUES (?, ?, ?, ?, ?)',
        partition,
        batch.baseOffset,
        batch.count,
        batch.maxTimestampMs,
        batch.bytes,
      )
    },
    *batches(partition, fromOffset) {
      // One look-up per batch: a cursor left open over the table would stand in the way of the next write.
      let row = first(`${BATCH} AND base_offset <= ? ORDER BY base_offset DESC`, partition, fromOffset)
      if (row === undefined || endOf(row) <= fromOffset) {
        row = first(`${BATCH} AND base_offset >= ? ORDER BY base_offset`, partition, fromOffset)
      }
      while (row !== undefined) {
        yield batchIn(row)
        row = first(`${BATCH} AND base_offset >= ? ORDER BY base_offset`, partition, endOf(row))
      }
    },
    batchAtTime(partition: PartitionId, timestampMs: number) {
      const row = first(`${BATCH} AND max_timestamp_ms >= ? ORDER BY base_offset`, partition, timestampMs)
      return row === undefined ? undefined : batchIn(row)
    },
    truncate(partition, logStartOffset, logEndOffset) {
      database.run(
        'DELETE FROM batches WHERE partition_id = ? AND base_offset + record_count <= ?',
        partition,
        logStartOffset,
      )
      database.run(
        'UPDATE partitions SET log_start_offset = ?, log_end_offset = max(log_end_offset, ?) WHERE id = ?',
        logStartOffset,
        logEndOffset,
        partition,
      )
    },
    committed: () =>
      database
        .all('SELECT group_id, topic, partition, committed_offset, metadata FROM committed_offsets')
        .map((row) => ({
          groupId: textIn(row, 'group_id'),
          offset: {
            topic: textIn(row, 'topic'),
            partition: numberIn(row, 'partition'),
            offset: numberIn(row, 'committed_offset'),
            metadata: row['metadata'] === null ? null : textIn(row, 'metadata'),
          },
        })),
    putCommitted(groupId, { topic, partition, offset, metadata }) {
      database.run(
        'INSERT OR REPLACE INTO committed_offsets VALUES (?, ?, ?, ?, ?)',
        groupId,
        topic,
        partition,
        offset,
        metadata,
      )
    },
    groups: () =>
      database
        .all('SELECT group_id, state FROM groups')
        .map((row) => ({ groupId: textIn(row, 'group_id'), state: textIn(row, 'state') })),
    putGroup(groupId, state) {
      database.run('INSERT OR REPLACE INTO groups VALUES (?, ?)', groupId, state)
    },
    idempotencyKey(key) {
      const row = first(
        'SELECT fingerprint, results, expires_at_ms FROM idempotency_keys WHERE idempotency_key = ?',
        key,
      )
      if (row === undefined) return undefined
      return {
        fingerprint: textIn(row, 'fingerprint'),
        results: textIn(row, 'results'),
        expiresAtMs: numberIn(row, 'expires_at_ms'),
      }
    },
    putIdempotencyKey(key, { fingerprint, results, expiresAtMs }) {
      database.run(
        'INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?)',
        key,
        fingerprint,
        results,
        expiresAtMs,
      )
    },
    pruneIdempotencyKeys(nowMs) {
      database.run('DELETE FROM idempotency_keys WHERE expires_at_ms <= ?', nowMs)
    },
    close: () => database.close(),
  }
}

function batchIn(row: SqlRow): StoredBatch {
  const bytes = row['bytes']
  if (!(bytes instanceof Uint8Array)) throw new TypeError('A stored batch holds no bytes.')
  return {
    baseOffset: numberIn(row, 'base_offset'),
    count: numberIn(row, 'record_count'),
    maxTimestampMs: numberIn(row, 'max_timestamp_ms'),
    bytes,
  }
}

function endOf(row: SqlRow): number {
  return numberIn(row, 'base_offset') + numberIn(row, 'record_count')
}

function numberIn(row: SqlRow, column: string): number {
  const value = row[column]
  if (typeof value !== 'number') throw new TypeError(`Column ${column} holds no number.`)
  return value
}

function textIn(row: SqlRow, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new TypeError(`Column ${column} holds no text.`)
  return value
}
