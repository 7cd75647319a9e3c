/**
 * Idempotency in a table of Amazon DynamoDB: one item per key, every call one conditional write of that item. One request
 * per call, the SDK's own retries off; a begin that finds the key taken, on a server that does not send the item along,
 * makes a second one to read it.
 *
 * Item: `key` (S, the partition key), `owner` (S), `expiresAtMs` (N), `isDone` (BOOL), `outcome` (B), and `ttl` (N, seconds
 * since 1970) for the table's own time to live, which deletes what has expired and is never relied on.
 * @see https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.ConditionExpressions.html
 */
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  type DynamoDBClientConfig,
  GetItemCommand,
  PutItemCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'

import type { Call } from '../broker.ts'
import { type Clock, systemClock } from '../clock.ts'
import { ConfigError, IdempotencyError } from '../errors.ts'
import {
  EXPIRED_LOCK_MS,
  MAX_OUTCOME_BYTES,
  type BeginOptions,
  type BeginResult,
  type CompleteOptions,
  type IdempotencyFeatures,
  type IdempotencyStore,
} from '../idempotency.ts'
import { type CallScope, checkBegin, checkCall, checkComplete, lockLost } from './call.ts'
import { dynamoDbError } from './dynamodb-errors.ts'
import { type Entry, completeOn } from './entry.ts'
import { DEFAULT_TIMEOUT_MS, attempt, nameOf } from './remote.ts'

/** Options of `dynamoDbIdempotency`. */
export interface DynamoDbIdempotencyOptions {
  /** The table: its partition key is `key`, a string, and it has no sort key. */
  readonly table: string
  /**
   * A client of your own, made with `maxAttempts: 1`; not closed with the store. The four options below are then not read.
   * @default one made of the options below
   */
  readonly client?: DynamoDBClient
  /** @default the SDK's own search */
  readonly region?: string
  /** Another endpoint than the region's. */
  readonly endpoint?: string
  /** @default the SDK's credential chain */
  readonly credentials?: NonNullable<DynamoDBClientConfig['credentials']>
  /** Replaces the SDK's HTTP handler. */
  readonly requestHandler?: NonNullable<DynamoDBClientConfig['requestHandler']>
  /** Longest time of a call that names none, milliseconds. @default 5000 */
  readonly timeoutMs?: number
  /** Its wall clock decides when locks and outcomes expire. @default the platform's */
  readonly clock?: Clock
}

const features: IdempotencyFeatures = Object.freeze({
  linearizable: true,
  durable: true,
  maxOutcomeBytes: MAX_OUTCOME_BYTES,
})

/** DynamoDB's longest partition key, bytes. */
const MAX_PARTITION_KEY_BYTES = 2_048
/** Attributes by names of our own, for some are DynamoDB's words. */
const names = { '#key': 'key', '#owner': 'owner', '#expires': 'expiresAtMs', '#done': 'isDone' } as const
const OWN_LOCK = '#owner = :owner AND #done = :no'

/**
 * Opens a store over a table. Nothing is sent before the first call.
 * @throws {ConfigError} for a name that no table can have.
 */
export function dynamoDbIdempotency(options: DynamoDbIdempotencyOptions): IdempotencyStore {
  return new DynamoDbIdempotency(options)
}

class DynamoDbIdempotency implements IdempotencyStore {
  readonly features = features
  readonly #table: string
  readonly #client: DynamoDBClient
  readonly #ownsClient: boolean
  readonly #timeoutMs: number
  readonly #clock: Clock
  #isClosed = false

  constructor(options: DynamoDbIdempotencyOptions) {
    this.#table = checkedTable(options.table)
    this.#client = options.client ?? clientFor(options)
    this.#ownsClient = options.client === undefined
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
    this.#clock = options.clock ?? systemClock
  }

  async begin(key: string, { owner, lockMs }: BeginOptions, call?: Call): Promise<BeginResult> {
    checkBegin(this.#scope(), key, { owner, lockMs }, call)
    const nowMs = this.#clock.now()
    const taken = await this.#asked(key, call, (name, abortSignal) =>
      this.#client.send(
        new PutItemCommand({
          TableName: this.#table,
          Item: lockItem(name, owner, nowMs + lockMs),
          ConditionExpression: `attribute_not_exists(#key) OR #expires <= :now OR (${OWN_LOCK})`,
          ExpressionAttributeNames: names,
          ExpressionAttributeValues: { ':owner': { S: owner }, ':no': { BOOL: false }, ':now': { N: String(nowMs) } },
          ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
        }),
        { abortSignal },
      ),
    )
    if (taken === 'written') return { kind: 'started' }
    // It was freed between the write and the look: the next begin finds it so.
    if (taken === undefined) return { kind: 'in-progress', retryAfterMs: 1 }
    if (taken.outcome !== null) return { kind: 'done', outcome: taken.outcome }
    return { kind: 'in-progress', retryAfterMs: Math.max(1, taken.expiresAtMs - nowMs) }
  }

  async complete(
    key: string,
    owner: string,
    outcome: Uint8Array,
    { keepMs }: CompleteOptions,
    call?: Call,
  ): Promise<void> {
    checkComplete(this.#scope(), key, owner, outcome, { keepMs }, call)
    const expiresAtMs = this.#clock.now() + keepMs
    const bytes = Uint8Array.from(outcome)
    const found = await this.#asked(key, call, (name, abortSignal) =>
      this.#client.send(
        new UpdateItemCommand({
          TableName: this.#table,
          Key: { key: { S: name } },
          UpdateExpression: 'SET #done = :yes, #outcome = :outcome, #expires = :expires, #ttl = :ttl',
          ConditionExpression: OWN_LOCK,
          ExpressionAttributeNames: {
            '#owner': names['#owner'],
            '#done': names['#done'],
            '#expires': names['#expires'],
            '#outcome': 'outcome',
            '#ttl': 'ttl',
          },
          ExpressionAttributeValues: {
            ':owner': { S: owner },
            ':no': { BOOL: false },
            ':yes': { BOOL: true },
            ':outcome': { B: bytes },
            ':expires': { N: String(expiresAtMs) },
            ':ttl': secondsOf(expiresAtMs),
          },
          ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
        }),
        { abortSignal },
      ),
    )
    if (found !== 'written' && completeOn(found, owner) !== 'written') throw lockLost('dynamodb')
  }

  async abandon(key: string, owner: string, call?: Call): Promise<void> {
    checkCall(this.#scope(), key, owner, call)
    await this.#asked(
      key,
      call,
      (name, abortSignal) =>
        this.#client.send(
          new DeleteItemCommand({
            TableName: this.#table,
            Key: { key: { S: name } },
            ConditionExpression: OWN_LOCK,
            ExpressionAttributeNames: { '#owner': names['#owner'], '#done': names['#done'] },
            ExpressionAttributeValues: { ':owner': { S: owner }, ':no': { BOOL: false } },
          }),
          { abortSignal },
        ),
      { look: false },
    )
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#ownsClient) this.#client.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #scope(): CallScope {
    return { store: 'dynamodb', isClosed: this.#isClosed }
  }

  /** Makes a conditional write, and gives what stood in its way: the entry, or undefined where it is gone by now. */
  async #asked(
    key: string,
    call: Call | undefined,
    write: (name: string, signal: AbortSignal) => Promise<unknown>,
    { look = true } = {},
  ): Promise<Entry | 'written' | undefined> {
    await this.#checkAttempts()
    const name = await nameOf(key, MAX_PARTITION_KEY_BYTES)
    const limits = { store: 'dynamodb', clock: this.#clock, timeoutMs: this.#timeoutMs }
    return await attempt(limits, call, async (signal) => {
      try {
        await write(name, signal)
        return 'written'
      } catch (error) {
        if (!(error instanceof ConditionalCheckFailedException)) throw dynamoDbError(error, this.#table)
        if (!look) return undefined
        return entryOf(error.Item) ?? (await this.#look(name, signal))
      }
    })
  }

  async #look(name: string, abortSignal: AbortSignal): Promise<Entry | undefined> {
    try {
      const command = new GetItemCommand({ TableName: this.#table, Key: { key: { S: name } }, ConsistentRead: true })
      return entryOf((await this.#client.send(command, { abortSignal })).Item)
    } catch (error) {
      throw dynamoDbError(error, this.#table)
    }
  }

  /** A client that retries by itself would break the port: one attempt per call, the policy above decides. */
  async #checkAttempts(): Promise<void> {
    const maxAttempts = await this.#client.config.maxAttempts()
    if (maxAttempts <= 1) return
    throw new IdempotencyError(
      'INVALID_CONFIG',
      `Cannot use the DynamoDB client for idempotency: it makes up to ${maxAttempts} attempts. Make it with maxAttempts: 1.`,
    )
  }
}

function checkedTable(table: string): string {
  // A name, or the ARN of a table in another account.
  if (/^[\w.-]{3,255}$/.test(table) || /^arn:[\w:./-]{1,1020}$/.test(table)) return table
  throw new ConfigError(
    `Cannot open the idempotency store dynamodb: the table is ${JSON.stringify(table)}. Give a name of 3 to 255 letters, digits and _.- characters, or an ARN.`,
  )
}

function clientFor(options: DynamoDbIdempotencyOptions): DynamoDBClient {
  const { region, endpoint, credentials, requestHandler } = options
  return new DynamoDBClient({
    maxAttempts: 1,
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(requestHandler === undefined ? {} : { requestHandler }),
  })
}

function lockItem(name: string, owner: string, expiresAtMs: number): Record<string, AttributeValue> {
  return {
    key: { S: name },
    owner: { S: owner },
    expiresAtMs: { N: String(expiresAtMs) },
    isDone: { BOOL: false },
    ttl: secondsOf(expiresAtMs + EXPIRED_LOCK_MS),
  }
}

function secondsOf(ms: number): { readonly N: string } {
  return { N: String(Math.ceil(ms / 1000)) }
}

function entryOf(item: Readonly<Record<string, AttributeValue>> | undefined): Entry | undefined {
  if (item === undefined) return undefined
  const { owner, expiresAtMs, isDone, outcome } = item
  return {
    owner: owner?.S ?? '',
    expiresAtMs: Number(expiresAtMs?.N ?? 0),
    outcome: isDone?.BOOL === true ? Uint8Array.from(outcome?.B ?? []) : null,
  }
}
