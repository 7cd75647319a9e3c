/**
 * Dead letters in SQL, for every database that speaks SQLite: the schema, the statements, and the store over a narrow
 * interface that a file on Node and a binding of a Worker offer alike.
 *
 * A row is one letter: its JSON (codec.ts) and, beside it, what lists ask for as columns of their own, so that anybody can
 * query them (`SELECT fingerprint, count(*) FROM kedge_dead_letters GROUP BY fingerprint`). The JSON is the truth; columns
 * only narrow a search down.
 */
import { base64Of } from '../base64.ts'
import type { Call } from '../broker.ts'
import type { Clock } from '../clock.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterQuery, DeadLetterStore, Page } from '../dead-letter.ts'
import { ConfigError, DeadLetterStoreError } from '../errors.ts'
import { bytesOf, exactTextOf } from '../record.ts'
import { attempt, checkCall, checkSameRecord, invalidCursor, listLimit, matches } from './call.ts'
import { decodeDeadLetter, encodeDeadLetter } from './codec.ts'

/** What a column or a parameter of ours holds. */
export type SqlValue = string | number | null

/** A statement with its parameters. */
export interface SqlStatement {
  readonly sql: string
  readonly values: readonly SqlValue[]
}

/** What the store needs of a database. Calls may throw whatever the database throws. */
export interface LetterDatabase {
  /** The store's name in messages. */
  readonly name: string
  /** Runs a statement durably and gives the number of rows it changed. */
  run(statement: SqlStatement): number | Promise<number>
  all(statement: SqlStatement): readonly SqlRow[] | Promise<readonly SqlRow[]>
  /** Says what was thrown as an error of the port. */
  errorOf(failure: unknown, what: string): Error
  close(): void
}

/** A row, by the names of its columns. */
export type SqlRow = Readonly<Record<string, unknown>>

/**
 * The schema as steps: step n takes a database from version n to n + 1. Steps are never changed, only added.
 * Every table has the prefix, so that a database of the user's own may hold them beside its own tables.
 */
export const migrations: readonly (readonly string[])[] = [
  [
    'CREATE TABLE kedge_dead_letter_schema (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), version INTEGER NOT NULL)',
    // AUTOINCREMENT: the number of a deleted letter never comes back, so a cursor never meets another letter.
    `CREATE TABLE kedge_dead_letters (
      sequence INTEGER PRIMARY KEY AUTOINCREMENT,
      id TEXT NOT NULL UNIQUE,
      topic TEXT NOT NULL,
      partition INTEGER NOT NULL,
      record_offset INTEGER NOT NULL,
      group_id TEXT NOT NULL,
      reason TEXT NOT NULL,
      route TEXT,
      fingerprint TEXT NOT NULL,
      cause_name TEXT NOT NULL,
      cause_code TEXT,
      attempts INTEGER NOT NULL,
      redrive_count INTEGER NOT NULL,
      failed_at_ms INTEGER NOT NULL,
      key_start TEXT,
      letter_bytes INTEGER NOT NULL,
      letter TEXT NOT NULL
    )`,
    'CREATE INDEX kedge_dead_letters_by_group ON kedge_dead_letters (group_id, topic)',
    'CREATE INDEX kedge_dead_letters_by_topic ON kedge_dead_letters (topic)',
    'CREATE INDEX kedge_dead_letters_by_fingerprint ON kedge_dead_letters (fingerprint)',
    'CREATE INDEX kedge_dead_letters_by_failure ON kedge_dead_letters (failed_at_ms)',
    'CREATE INDEX kedge_dead_letters_by_key ON kedge_dead_letters (key_start)',
  ],
]

/** Lists the tables of the database that may be ours: whether there is a schema, and whether there is anything. */
export const LIST_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table'"
/** The table by which a database is known to hold letters. */
export const SCHEMA_TABLE = 'kedge_dead_letter_schema'
/** The version of the schema that a database has. */
export const READ_VERSION: string = `SELECT version FROM ${SCHEMA_TABLE}`

/**
 * The statements that bring a database from a version (0: no letters yet) to the newest; none where it is there.
 * @throws {ConfigError} for a version that is newer than this Kedge.
 */
export function stepsFrom(version: number, where: string): readonly string[] {
  if (version > migrations.length) {
    throw new ConfigError(
      `Cannot use the dead letters in ${where}: they have schema version ${version} and this Kedge knows versions up to ${migrations.length}. They were not touched; use a newer Kedge.`,
    )
  }
  if (version === migrations.length) return []
  const steps = migrations.slice(version).flat()
  return [...steps, `INSERT OR REPLACE INTO ${SCHEMA_TABLE} (only_row, version) VALUES (1, ${migrations.length})`]
}

/** Letters of one page together, as stored. A page ends early rather than hold more. */
const MAX_PAGE_BYTES = 8_388_608
/** So much of a key is in its column: enough to tell keys apart, and little for an index. The JSON has it whole. */
const KEY_START_CHARS = 256

const COLUMNS = [
  'id',
  'topic',
  'partition',
  'record_offset',
  'group_id',
  'reason',
  'route',
  'fingerprint',
  'cause_name',
  'cause_code',
  'attempts',
  'redrive_count',
  'failed_at_ms',
  'key_start',
  'letter_bytes',
  'letter',
] as const

// The first of two letters of one record is kept.
const INSERT = `INSERT INTO kedge_dead_letters (${COLUMNS.join(', ')})
  VALUES (${COLUMNS.map(() => '?').join(', ')}) ON CONFLICT (id) DO NOTHING`

const HAS_HEADER = `EXISTS (SELECT 1 FROM json_each(letter, '$.record.headers') AS header
  WHERE json_extract(header.value, '$.key') = ? AND json_extract(header.value, '$.value') = ?)`

/** The statement that stores a letter. */
export function insertOf(letter: DeadLetter): SqlStatement {
  const { record, cause } = letter
  const text = encodeDeadLetter(letter)
  const keyText = record.key === null ? undefined : exactTextOf(record.key)
  const values = {
    id: letter.id,
    topic: record.topic.toWellFormed(),
    partition: record.partition,
    record_offset: record.offset,
    group_id: letter.groupId.toWellFormed(),
    reason: letter.reason,
    route: letter.route?.toWellFormed() ?? null,
    fingerprint: letter.fingerprint,
    cause_name: cause.name.toWellFormed(),
    cause_code: cause.code?.toWellFormed() ?? null,
    attempts: letter.attempts,
    redrive_count: letter.redriveCount,
    failed_at_ms: letter.failedAtMs,
    key_start: keyText === undefined ? null : keyStart(keyText),
    // ASCII: characters and bytes are the same count.
    letter_bytes: text.length,
    letter: text,
  } satisfies Record<(typeof COLUMNS)[number], SqlValue>
  return { sql: INSERT, values: COLUMNS.map((column) => values[column]) }
}

/** Bytes of a row as SQLite counts them, a little more rather than less. */
export function rowBytesOf({ values }: SqlStatement): number {
  return values.reduce<number>((sum, value) => sum + (typeof value === 'string' ? bytesOf(value).length : 8), 0)
}

/** Letters after a place that the query's columns let through, one more than the page takes, bounded by their bytes. */
function pageOf(query: DeadLetterQuery, after: number, limit: number): SqlStatement {
  const conditions: (readonly [sql: string, ...values: SqlValue[]] | undefined)[] = [
    ['sequence > ?', after],
    query.topic === undefined ? undefined : ['topic = ?', query.topic.toWellFormed()],
    query.groupId === undefined ? undefined : ['group_id = ?', query.groupId.toWellFormed()],
    query.reason === undefined ? undefined : ['reason = ?', query.reason],
    query.fingerprint === undefined ? undefined : ['fingerprint = ?', query.fingerprint],
    query.key === undefined ? undefined : ['key_start = ?', keyStart(query.key)],
    query.fromMs === undefined ? undefined : ['failed_at_ms >= ?', query.fromMs],
    query.untilMs === undefined ? undefined : ['failed_at_ms < ?', query.untilMs],
    query.header === undefined
      ? undefined
      : [HAS_HEADER, query.header.key.toWellFormed(), base64Of(bytesOf(query.header.value))],
  ]
  const asked = conditions.filter((condition) => condition !== undefined)
  return {
    sql: `SELECT letters.sequence, letters.letter, page.upto_bytes FROM (
        SELECT sequence, letter_bytes, sum(letter_bytes) OVER (ORDER BY sequence) AS upto_bytes FROM (
          SELECT sequence, letter_bytes FROM kedge_dead_letters
          WHERE ${asked.map(([sql]) => sql).join(' AND ')} ORDER BY sequence LIMIT ?
        )
      ) AS page JOIN kedge_dead_letters AS letters ON letters.sequence = page.sequence
      WHERE page.upto_bytes - page.letter_bytes < ? ORDER BY letters.sequence`,
    values: [...asked.flatMap(([, ...values]) => values), limit + 1, MAX_PAGE_BYTES],
  }
}

function keyStart(text: string): string {
  return text.slice(0, KEY_START_CHARS).toWellFormed()
}

/** How the store over a database behaves. */
export interface SqlDeadLettersSettings {
  readonly maxLetterBytes: number | null
  readonly timeoutMs: number
  readonly clock: Clock
}

/** The store over a database. */
export class SqlDeadLetters implements DeadLetterStore {
  readonly features: DeadLetterFeatures
  readonly #database: LetterDatabase
  readonly #settings: SqlDeadLettersSettings
  #isClosed = false

  constructor(database: LetterDatabase, settings: SqlDeadLettersSettings) {
    this.#database = database
    this.#settings = settings
    const { maxLetterBytes } = settings
    this.features = Object.freeze({
      deduplicates: true,
      list: true,
      listOrder: 'put',
      get: true,
      delete: true,
      maxLetterBytes,
    })
  }

  async put(letter: DeadLetter, call?: Call): Promise<void> {
    const { name } = this.#database
    checkCall(name, this.#isClosed, call)
    const statement = insertOf(letter)
    const { maxLetterBytes } = this.#settings
    const bytes = maxLetterBytes === null ? 0 : rowBytesOf(statement)
    if (maxLetterBytes !== null && bytes > maxLetterBytes) {
      throw new DeadLetterStoreError(
        'DEAD_LETTER_TOO_LARGE',
        `Cannot store dead letter ${letter.id} in ${name}: it takes ${bytes} bytes and a row may have ${maxLetterBytes}. Put it elsewhere with a claim check, or use a store without that limit.`,
        { limit: 'maxLetterBytes' },
      )
    }
    await this.#do(`store dead letter ${letter.id}`, call, async () => {
      if ((await this.#database.run(statement)) > 0) return
      const [row] = await this.#database.all(selectOf(letter.id))
      if (row !== undefined) checkSameRecord(letter, letterIn(row))
      // What was in its way was deleted since.
      else await this.#database.run(statement)
    })
  }

  async list(query: DeadLetterQuery = {}, call?: Call): Promise<Page<DeadLetter>> {
    checkCall(this.#database.name, this.#isClosed, call)
    const limit = listLimit(query)
    const statement = pageOf(query, sequenceOf(query.cursor), limit)
    const rows = await this.#do('list dead letters', call, () => this.#database.all(statement))
    const taken = rows.slice(0, limit)
    const items = taken.map(letterIn).filter((letter) => matches(letter, query))
    const last = taken.at(-1)
    const isCut = rows.length > limit || Number(last?.['upto_bytes'] ?? 0) >= MAX_PAGE_BYTES
    return last !== undefined && isCut ? { items, cursor: String(last['sequence']) } : { items }
  }

  async get(id: string, call?: Call): Promise<DeadLetter | undefined> {
    checkCall(this.#database.name, this.#isClosed, call)
    const [row] = await this.#do(`read dead letter ${id}`, call, () => this.#database.all(selectOf(id)))
    return row === undefined ? undefined : letterIn(row)
  }

  async delete(id: string, call?: Call): Promise<boolean> {
    checkCall(this.#database.name, this.#isClosed, call)
    const statement = { sql: 'DELETE FROM kedge_dead_letters WHERE id = ?', values: [id.toWellFormed()] }
    return (await this.#do(`delete dead letter ${id}`, call, () => this.#database.run(statement))) > 0
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#database.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #do<T>(what: string, call: Call | undefined, work: () => T | Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#settings
    const limits = { signal: call?.signal, timeoutMs: call?.timeoutMs ?? timeoutMs }
    return await attempt(`${what} in ${this.#database.name}`, limits, clock, async () => {
      try {
        return await work()
      } catch (failure) {
        throw this.#database.errorOf(failure, what)
      }
    })
  }
}

function selectOf(id: string): SqlStatement {
  return { sql: 'SELECT letter FROM kedge_dead_letters WHERE id = ?', values: [id.toWellFormed()] }
}

function letterIn(row: SqlRow): DeadLetter {
  return decodeDeadLetter(String(row['letter']))
}

function sequenceOf(cursor: string | undefined): number {
  if (cursor === undefined) return -1
  if (!/^\d{1,15}$/.test(cursor)) throw invalidCursor()
  return Number(cursor)
}
