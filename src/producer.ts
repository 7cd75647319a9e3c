/**
 * The producer: checks a value against its topic's schema, encodes it, and has it written durably. A failed produce is
 * tried again only where that cannot write twice: with an idempotency key, which is made up where the broker honours
 * keys, or after a refusal that says nothing was written.
 */
import { backoffDefaults, backoffMs } from './backoff.ts'
import type { Backoff, BackoffOptions } from './backoff.ts'
import type { Broker, Call, ProduceResult } from './broker.ts'
import { sleep, systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import { abortError, BrokerError, KedgeError, RecordError } from './errors.ts'
import type { ErrorCode, RecordIssue } from './errors.ts'
import { headersOf } from './headers.ts'
import type { HeadersInput } from './headers.ts'
import { randomId, systemRandom } from './random.ts'
import type { Random } from './random.ts'
import { bytesOf } from './record.ts'
import type { ProducerRecord, RecordMetadata, TimestampMs } from './record.ts'
import { checkValue, sizeError, writeValue } from './topic.ts'
import type { Topic } from './topic.ts'

/** How a producer tries and waits. */
export interface ProducerOptions {
  /** Waits between tries. @default 100 ms growing to 1000 ms */
  readonly backoff?: BackoffOptions
  /** How long one produce may take, tries and waits together, milliseconds. @default 15000, legal 1 to 900000 */
  readonly timeoutMs?: number
  /** How long one try may take, milliseconds. @default 5000, legal 1 to `timeoutMs` */
  readonly attemptTimeoutMs?: number
  readonly clock?: Clock
  readonly random?: Random
  /** Makes idempotency keys: 1 to 255 visible ASCII characters, never the same twice. @default random UUIDs */
  readonly newKey?: () => string
}

/** What a record has besides its value. */
export interface RecordOptions {
  /** Records with equal keys go to one partition. A text is its UTF-8 bytes. @default null */
  readonly key?: string | Uint8Array | null
  readonly headers?: HeadersInput
  /** @default chosen by the key, or spread where there is none */
  readonly partition?: number
  /** @default the time at which the broker stores the record */
  readonly timestampMs?: TimestampMs
}

/** A value with what else its record has. */
export interface RecordInput<V> extends RecordOptions {
  readonly value: V
}

/** How one produce is made. */
export interface ProduceCall {
  /**
   * Names this produce, so that the caller too may repeat it for 24 hours without writing twice; null: none, not even a
   * made-up one. A broker that knows no keys refuses one that is given here with UNSUPPORTED. @default made up where the
   * broker honours keys
   */
  readonly idempotencyKey?: string | null
  /** Aborted: the produce is given up; whether it was written is then unknown. */
  readonly signal?: AbortSignal
  /** @default the producer's `timeoutMs` */
  readonly timeoutMs?: number
}

/** What became of one record of `produceEach`. */
export type EachResult = RecordMetadata | BrokerError | RecordError

/**
 * Writes records. Values are typed by their topic.
 *
 * Every method rejects with `RecordError` INVALID_RECORD (with every issue of every value), `BrokerError`
 * MESSAGE_TOO_LARGE for a record over its topic's `maxRecordBytes`, the broker's own errors, or, where the signal is
 * aborted, the signal's reason. Concurrent calls are sent in the order in which they were made as long as their schemas
 * answer at once; a call that has to be tried again may come after later ones.
 */
export interface Producer {
  /** Writes one value. Resolves when it is durable. */
  produce<Input>(
    topic: Topic<Input, unknown>,
    value: NoInfer<Input>,
    options?: RecordOptions & ProduceCall,
  ): Promise<RecordMetadata>
  /** Writes records, all or none where the broker can. Resolves when all are durable, with one result each, in order. */
  produceMany<Input>(
    topic: Topic<Input, unknown>,
    records: readonly RecordInput<NoInfer<Input>>[],
    options?: ProduceCall,
  ): Promise<RecordMetadata[]>
  /** Writes records, each for itself: the result at the index of a record that was not written is its error. */
  produceEach<Input>(
    topic: Topic<Input, unknown>,
    records: readonly RecordInput<NoInfer<Input>>[],
    options?: ProduceCall,
  ): Promise<EachResult[]>
  /** Writes records that are encoded already, to any topics, without a schema or a limit of ours. */
  produceRecords(
    records: readonly ProducerRecord[],
    options?: ProduceCall & { readonly atomic?: boolean },
  ): Promise<ProduceResult[]>
}

const DEFAULT_TIMEOUT_MS = 15_000
const DEFAULT_ATTEMPT_TIMEOUT_MS = 5_000

/** The broker took nothing: safe to send again even without a key. */
const refusedWhole: ReadonlySet<string> = new Set(['OVERLOADED'])

/** Makes a producer over a broker. It holds nothing that would have to be closed. */
export function createProducer(broker: Broker, options: ProducerOptions = {}): Producer {
  const settings: Settings = {
    broker,
    backoff: {
      initialMs: options.backoff?.initialMs ?? backoffDefaults.initialMs,
      maxMs: options.backoff?.maxMs ?? backoffDefaults.maxMs,
      factor: options.backoff?.factor ?? backoffDefaults.factor,
    },
    timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    attemptTimeoutMs: options.attemptTimeoutMs ?? DEFAULT_ATTEMPT_TIMEOUT_MS,
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    newKey: options.newKey ?? randomId,
  }
  return {
    async produce(topic, value, options = {}) {
      const encoded = encodeRecord(topic, { ...options, value })
      // Not awaited where there is nothing to wait for: that keeps concurrent calls in order.
      const record = encoded instanceof Promise ? await encoded : encoded
      const [result] = await send(settings, [record], true, options)
      return stored(result)
    },
    async produceMany(topic, records, options = {}) {
      const encoded = encodeAll(topic, records)
      const all = encoded instanceof Promise ? await encoded : encoded
      const refused = all.filter((one) => one instanceof KedgeError)
      if (refused.length > 0) throw allRefused(topic, all)
      const results = await send(settings, all as ProducerRecord[], true, options)
      return results.map(stored)
    },
    async produceEach(topic, records, options = {}) {
      const encoded = encodeAll(topic, records)
      const all = encoded instanceof Promise ? await encoded : encoded
      const good = all.filter((one): one is ProducerRecord => !(one instanceof KedgeError))
      const results = (await send(settings, good, false, options)).values()
      return all.map((one) => (one instanceof KedgeError ? one : missing(results.next().value)))
    },
    produceRecords(records, options = {}) {
      return send(settings, records, options.atomic ?? true, options)
    },
  }
}

/**
 * Checks and encodes one record; at once where its schema answers at once.
 * @throws {RecordError} INVALID_RECORD with every issue.
 * @throws {BrokerError} MESSAGE_TOO_LARGE for a record over the topic's `maxRecordBytes`.
 */
function encodeRecord<Input>(
  topic: Topic<Input, unknown>,
  input: RecordInput<NoInfer<Input>>,
): ProducerRecord | Promise<ProducerRecord> {
  const checked = checkValue(topic, input.value)
  return checked instanceof Promise ? checked.then(() => recordOf(topic, input)) : recordOf(topic, input)
}

function recordOf(topic: Topic, input: RecordInput<unknown>): ProducerRecord {
  const record = {
    topic: topic.name,
    key: typeof input.key === 'string' ? bytesOf(input.key) : (input.key ?? null),
    value: writeValue(topic, input.value),
    headers: headersOf(input.headers ?? []),
    ...(input.partition === undefined ? {} : { partition: input.partition }),
    ...(input.timestampMs === undefined ? {} : { timestampMs: input.timestampMs }),
  }
  const tooLarge = sizeError(topic, record)
  if (tooLarge !== undefined) throw tooLarge
  return record
}

type Encoded = ProducerRecord | BrokerError | RecordError

function encodeAll(topic: Topic, inputs: readonly RecordInput<unknown>[]): Encoded[] | Promise<Encoded[]> {
  let waits = false
  const all = inputs.map((input): Encoded | Promise<Encoded> => {
    try {
      const encoded = encodeRecord(topic, input)
      if (!(encoded instanceof Promise)) return encoded
      waits = true
      return encoded.catch(refusalOf)
    } catch (error) {
      return refusalOf(error)
    }
  })
  return waits ? Promise.all(all.map(async (one) => one)) : (all as Encoded[])
}

/** A record's own error is a result; anything else is a mistake in the schema or in Kedge and is thrown. */
function refusalOf(error: unknown): BrokerError | RecordError {
  if (error instanceof BrokerError || error instanceof RecordError) return error
  throw error
}

/** One error for all records that were refused, every issue with the index of its record. */
function allRefused(topic: Topic, all: readonly Encoded[]): BrokerError | RecordError {
  const issues: RecordIssue[] = []
  let tooLarge: BrokerError | undefined
  for (const [index, one] of all.entries()) {
    if (one instanceof BrokerError) tooLarge ??= one
    else if (one instanceof RecordError) {
      const found = one.issues.length > 0 ? one.issues : [{ path: [], message: one.message }]
      issues.push(...found.map(({ path, message }) => ({ path: [index, ...path], message })))
    }
  }
  if (issues.length === 0 && tooLarge !== undefined) return tooLarge
  const shown = issues.map(({ path, message }) => `at ${path.join('.')}: ${message}`).join('; ')
  return new RecordError(
    `Cannot produce to ${topic.name}: ${issues.length} issues, nothing was written: ${shown}`,
    issues,
  )
}

interface Settings {
  readonly broker: Broker
  readonly backoff: Backoff
  readonly timeoutMs: number
  readonly attemptTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly newKey: () => string
}

async function send(
  settings: Settings,
  records: readonly ProducerRecord[],
  atomic: boolean,
  options: ProduceCall,
): Promise<ProduceResult[]> {
  if (records.length === 0) return []
  const { broker, clock } = settings
  let key = idempotencyKeyOf(settings, options)
  const endsAt = clock.monotonic() + (options.timeoutMs ?? settings.timeoutMs)
  for (let tries = 1; ; tries++) {
    if (options.signal?.aborted === true) throw abortError(options.signal)
    try {
      const produceOptions = { atomic, ...(key === undefined ? {} : { idempotencyKey: key }) }
      const timeoutMs = Math.min(settings.attemptTimeoutMs, endsAt - clock.monotonic())
      return await broker.produce(records, produceOptions, callOf(timeoutMs, options.signal))
    } catch (error) {
      if (isOwnKeyRefused(error, key, options)) {
        // A gateway cannot say beforehand what the broker behind it can do. It wrote nothing, and the next produce knows.
        key = undefined
        continue
      }
      if (!mayRepeat(error, key)) throw error
      const waitMs = backoffMs(settings.backoff, tries, settings.random, error.retryAfterMs)
      if (clock.monotonic() + waitMs >= endsAt) throw error
      await sleep(clock, waitMs, options.signal)
    }
  }
}

function idempotencyKeyOf(settings: Settings, options: ProduceCall): string | undefined {
  if (options.idempotencyKey === null) return undefined
  if (options.idempotencyKey !== undefined) return options.idempotencyKey
  return settings.broker.features.idempotencyKeys ? settings.newKey() : undefined
}

/** Whether the broker knows no keys after all, and this one was made up here: nobody but us has asked for it. */
function isOwnKeyRefused(error: unknown, key: string | undefined, { idempotencyKey }: ProduceCall): boolean {
  return key !== undefined && idempotencyKey === undefined && hasCode(error, 'UNSUPPORTED')
}

function hasCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof KedgeError && error.code === code
}

function mayRepeat(error: unknown, key: string | undefined): error is KedgeError {
  return error instanceof KedgeError && error.retriable && (key !== undefined || refusedWhole.has(error.code))
}

function callOf(timeoutMs: number, signal: AbortSignal | undefined): Call {
  return signal === undefined ? { timeoutMs } : { timeoutMs, signal }
}

/** The result of a record that a driver may only report as stored. */
function stored(result: ProduceResult | undefined): RecordMetadata {
  const one = missing(result)
  if (one instanceof BrokerError) throw one
  return one
}

function missing(result: ProduceResult | undefined): ProduceResult {
  if (result !== undefined) return result
  return new BrokerError('BAD_RESPONSE', 'The broker answered a produce with fewer results than records.')
}
