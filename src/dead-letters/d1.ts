/**
 * Dead letters in Cloudflare D1, through a Worker's binding: the same tables as in an SQLite file, to be queried with
 * `wrangler d1 execute` or the dashboard.
 *
 * The tables are made on the first call where they are missing, beside whatever else the database holds. A put resolves
 * when D1 has committed it. One statement per call, a put of what is there already one more, after one that looks at the schema
 * once for each store.
 * @see https://developers.cloudflare.com/d1/platform/limits/
 */
import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetterStore } from '../dead-letter.ts'
import { DeadLetterStoreError, KedgeError } from '../errors.ts'
import {
  LIST_TABLES,
  type LetterDatabase,
  READ_VERSION,
  SCHEMA_TABLE,
  SqlDeadLetters,
  type SqlRow,
  type SqlStatement,
  stepsFrom,
} from './sql.ts'

/** What of a Worker's D1 binding is used. */
export interface D1Binding {
  prepare(sql: string): D1PreparedStatement
  /** Runs statements in one transaction. */
  batch(statements: D1PreparedStatement[]): Promise<unknown>
}

/** A statement of a D1 binding. */
export interface D1PreparedStatement {
  bind(...values: unknown[]): D1PreparedStatement
  run(): Promise<{ readonly meta: { readonly changes: number } }>
  all(): Promise<{ readonly results: readonly unknown[] }>
}

/** Options of `d1DeadLetters`. */
export interface D1DeadLettersOptions {
  /** The binding, as the Worker's environment has it. */
  readonly database: D1Binding
  /** Longest time of one call that names none itself, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

const d1DeadLettersDefaults = { timeoutMs: 10_000, clock: systemClock } as const

/** D1's largest row. */
export const MAX_D1_ROW_BYTES = 2_000_000

/** Opens a store over a binding. Nothing is asked before the first call. */
export function d1DeadLetters(options: D1DeadLettersOptions): DeadLetterStore {
  return new SqlDeadLetters(letterDatabase(options.database), {
    maxLetterBytes: MAX_D1_ROW_BYTES,
    timeoutMs: options.timeoutMs ?? d1DeadLettersDefaults.timeoutMs,
    clock: options.clock ?? d1DeadLettersDefaults.clock,
  })
}

function letterDatabase(database: D1Binding): LetterDatabase {
  let preparing: Promise<void> | undefined
  /** Once for all calls that come meanwhile; after a failure the next call begins anew. */
  const prepared = (): Promise<void> => {
    preparing ??= prepareSchema(database).catch((failure: unknown) => {
      preparing = undefined
      throw failure
    })
    return preparing
  }
  const bound = ({ sql, values }: SqlStatement): D1PreparedStatement => database.prepare(sql).bind(...values)
  return {
    name: 'd1',
    async run(statement) {
      await prepared()
      return (await bound(statement).run()).meta.changes
    },
    async all(statement) {
      await prepared()
      // Rows of our own tables.
      return (await bound(statement).all()).results as readonly SqlRow[]
    },
    errorOf: d1Error,
    // A binding is the platform's to close.
    close() {},
  }
}

async function prepareSchema(database: D1Binding): Promise<void> {
  const steps = stepsFrom(await versionOf(database), 'd1')
  if (steps.length === 0) return
  try {
    await database.batch(steps.map((step) => database.prepare(step)))
  } catch (failure) {
    // Another isolate may have been faster, and then this batch changed nothing.
    if (stepsFrom(await versionOf(database), 'd1').length > 0) throw failure
  }
}

/** The version of the letters in a database, 0 where it holds none. */
async function versionOf(database: D1Binding): Promise<number> {
  const tables = (await database.prepare(LIST_TABLES).all()).results as readonly SqlRow[]
  if (!tables.some(({ name }) => name === SCHEMA_TABLE)) return 0
  const [row] = (await database.prepare(READ_VERSION).all()).results as readonly SqlRow[]
  return Number(row?.['version'])
}

function d1Error(failure: unknown, what: string): Error {
  if (failure instanceof KedgeError) return failure
  const said = failure instanceof Error ? failure.message : String(failure)
  const message = `Cannot ${what} in d1: ${said}.`
  if (/too big|SQLITE_TOOBIG|exceeds/i.test(said)) {
    return new DeadLetterStoreError('DEAD_LETTER_TOO_LARGE', message, { cause: failure })
  }
  return new DeadLetterStoreError('DEAD_LETTER_STORE_UNAVAILABLE', message, { cause: failure })
}
