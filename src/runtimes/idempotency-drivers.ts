/** Idempotency stores of the platforms that have Node's modules, beside `memory`, which every platform has. */
import { ConfigError } from '../errors.ts'
import type { IdempotencyStore } from '../idempotency.ts'
import type { IdempotencyDrivers } from './open-idempotency.ts'

/** `sqlite:PATH`, and `dynamodb://TABLE`, whose region and credentials are the SDK's to find. */
export const idempotencyDrivers: IdempotencyDrivers = { sqlite: openSqlite, dynamodb: openDynamoDb }

async function openSqlite({ host, pathname }: URL): Promise<IdempotencyStore> {
  const file = pathOf(pathname)
  if (file === undefined || file === '' || host !== '') {
    throw new ConfigError(
      'Cannot open the idempotency store: KEDGE_IDEMPOTENCY names no file. Write sqlite:PATH or sqlite:///PATH.',
    )
  }
  // Loaded when it is needed: a start that keeps no such file reads no SQLite.
  const { sqliteIdempotency } = await import('../idempotency/sqlite.ts')
  return sqliteIdempotency({ file })
}

async function openDynamoDb({ host, pathname }: URL): Promise<IdempotencyStore> {
  if (host === '' || (pathname !== '' && pathname !== '/')) {
    throw new ConfigError(
      'Cannot open the idempotency store: KEDGE_IDEMPOTENCY names no table. Write dynamodb://TABLE.',
    )
  }
  // Loaded when it is needed: the SDK's client would lengthen every other start.
  const { dynamoDbIdempotency } = await import('../idempotency/dynamodb.ts')
  return dynamoDbIdempotency({ table: host })
}

/** A URL shows spaces and the like as percent signs. */
function pathOf(pathname: string): string | undefined {
  try {
    return decodeURIComponent(pathname)
  } catch {
    return undefined
  }
}
