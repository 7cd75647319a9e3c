/**
 * A broker behind a Kedge gateway, over HTTP, for code that can hold no connection: Workers, Lambda, browsers.
 *
 * It speaks through the objects of `@upstash/kafka`, whose private `client` is replaced by a transport of ours: one
 * attempt a call, a deadline, the caller's signal, and failures told apart. What that SDK cannot say (claims, bytes,
 * idempotency keys, positions) goes along as headers and body fields, what it has no call for through the same transport.
 * A produce is never sent twice.
 *
 * Guarantees are the gateway's. Produces to one topic are sent one after the other, since HTTP keeps no order between
 * requests: the next leaves when the one before is answered. Gather records into one call where throughput matters.
 *
 * @see PROTOCOL.md
 */
import { Kafka } from '@upstash/kafka'
import { base64Of } from '../base64.ts'
import type { Broker, BrokerFeatures, Call, GroupDescription, TopicDescription } from '../broker.ts'
import type { Clock } from '../clock.ts'
import { systemClock } from '../clock.ts'
import type { ErrorCode } from '../errors.ts'
import { BrokerError } from '../errors.ts'
import type { CommittedOffset } from '../record.ts'
import { bytesOf } from '../record.ts'
import {
  baseUrlOf,
  claimPath,
  consumeSettings,
  namesOf,
  quotedKey,
  runHeaders,
  sizeLimits,
  wireCommit,
  wirePartition,
} from './rest/requests.ts'
import type { Answer, ExchangeRequest, Fetch } from './rest/transport.ts'
import { badResponse, Transport } from './rest/transport.ts'
import {
  finite,
  groupOf,
  itemOf,
  listOf,
  numberOf,
  partitionOf,
  pollResultOf,
  recordsOf,
  resultsOf,
  textOrNull,
  topicOf,
  WireError,
  wireRecord,
} from './rest/wire.ts'

/** Options of `restBroker`. */
export interface RestBrokerOptions {
  /** Address of the gateway, http or https, with no credentials in it. */
  readonly url: string
  /** @default no credentials are sent */
  readonly username?: string
  /** @default '' */
  readonly password?: string
  /** @default globalThis.fetch */
  readonly fetch?: Fetch
  /** Longest time of a call that names none itself; a poll's or fetch's wait comes on top, milliseconds. @default 30000 */
  readonly timeoutMs?: number
  /** @default systemClock */
  readonly clock?: Clock
  /** What the broker behind the gateway cannot do. @default everything, and no idempotency keys once one was refused */
  readonly features?: Partial<BrokerFeatures>
}

/** What `restBroker` does where its options say nothing. */
export const restBrokerDefaults = Object.freeze({
  username: '',
  password: '',
  timeoutMs: 30_000,
}) satisfies Partial<RestBrokerOptions> as Readonly<{ username: string; password: string; timeoutMs: number }>

/** What a gateway over the embedded log can do. */
const allFeatures: BrokerFeatures = {
  atomicProduce: true,
  idempotencyKeys: true,
  claims: true,
  topicAdmin: true,
  autoCommit: true,
  offsetMetadata: true,
  retention: true,
}

/** `/committed` has an instance in its path and reads the group's offsets whatever it is. */
const ANY_INSTANCE = '-'

/**
 * Opens a broker at the gateway's address. Nothing is sent before the first call.
 * @throws {ConfigError} when the address is not one
 */
export function restBroker(options: RestBrokerOptions): Broker {
  return new RestBroker(options)
}

/** What one call says beyond what the SDK can say. */
interface Extension {
  readonly headers?: Readonly<Record<string, string>>
  /** The body to send, from the one the SDK made. */
  readonly body?: (sent: unknown) => unknown
  readonly notFound?: ErrorCode
  readonly maxWaitMs?: number
  readonly after?: Promise<unknown>
}

/** A request as the SDK hands it to its `client`. */
interface SdkRequest {
  readonly path: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
}

class RestBroker implements Broker {
  #features: BrokerFeatures
  readonly #transport: Transport
  readonly #sdk: Kafka
  /** The newest produce to each topic: the next waits for it. */
  readonly #newest = new Map<string, Promise<unknown>>()

  constructor(options: RestBrokerOptions) {
    const baseUrl = baseUrlOf(options.url)
    const username = options.username ?? restBrokerDefaults.username
    const password = options.password ?? restBrokerDefaults.password
    this.#features = { ...allFeatures, ...options.features }
    this.#transport = new Transport({
      baseUrl,
      headers: username === '' ? {} : { Authorization: `Basic ${base64Of(bytesOf(`${username}:${password}`))}` },
      // Called bare: on some platforms `fetch` refuses to be the method of another object.
      fetch: options.fetch ?? ((url, init) => globalThis.fetch(url, init)),
      timeoutMs: options.timeoutMs ?? restBrokerDefaults.timeoutMs,
      clock: options.clock ?? systemClock,
    })
    // Its own client is never used; should it be after a change of the SDK, it has nowhere to go.
    this.#sdk = new Kafka({ url: 'http://kedge.invalid', username: '', password: '' })
  }

  get features(): BrokerFeatures {
    return this.#features
  }

  async produce(...[records, options = {}, call = {}]: Parameters<Broker['produce']>): ReturnType<Broker['produce']> {
    this.#transport.check(call)
    if (records.length === 0) return []
    const wire = records.map(wireRecord)
    const headers = {
      'Kedge-Encoding': 'base64',
      ...(options.atomic === false ? { 'Kedge-Results': 'each' } : {}),
      ...(options.idempotencyKey === undefined ? {} : { 'Idempotency-Key': quotedKey(options.idempotencyKey) }),
    }
    const topics = new Set(records.map(({ topic }) => topic))
    const after = Promise.allSettled([...topics].map((topic) => this.#newest.get(topic) ?? Promise.resolve()))
    const producing = this.#ask(
      // The SDK writes null as the text "null".
      {
        headers,
        after,
        body: (sent) => listOf(sent, 'records').map((item, n) => ({ ...item, value: wire[n]?.value })),
      },
      call,
      (kafka) => kafka.producer().produceMany(wire as SdkRecord[]),
      ({ json }) => resultsOf(json, records.length),
    ).catch((error: unknown) => {
      if (options.idempotencyKey !== undefined) this.#learnFrom(error)
      throw error
    })
    this.#queue(topics, producing)
    return producing
  }

  /** From now on nobody need make up a key for this broker, only to have it refused. */
  #learnFrom(error: unknown): void {
    if (!(error instanceof BrokerError) || error.code !== 'UNSUPPORTED') return
    this.#features = { ...this.#features, idempotencyKeys: false }
  }

  /** Makes the next produces to these topics wait for this one, whatever becomes of it. */
  #queue(topics: ReadonlySet<string>, producing: Promise<unknown>): void {
    const forget = (): void => {
      for (const topic of topics) if (this.#newest.get(topic) === settled) this.#newest.delete(topic)
    }
    const settled: Promise<void> = producing.then(forget, forget)
    for (const topic of topics) this.#newest.set(topic, settled)
  }

  async fetch(...[from, limits, call = {}]: Parameters<Broker['fetch']>): ReturnType<Broker['fetch']> {
    this.#transport.check(call)
    if (from.length === 0) return []
    return this.#ask(
      {
        headers: { 'Kedge-Encoding': 'base64', 'Kedge-Strict-Offsets': 'true' },
        body: (sent) => ({ ...itemOf(sent, 'body'), ...sizeLimits(limits) }),
        maxWaitMs: limits.maxWaitMs,
      },
      call,
      (kafka) =>
        kafka
          .consumer()
          .fetch(
            { topicPartitionOffsets: [...from], timeout: finite(limits.maxWaitMs, 'maxWaitMs') },
            { parallel: false },
          ),
      ({ json }) => recordsOf(json),
    )
  }

  async poll(...[request, call = {}]: Parameters<Broker['poll']>): ReturnType<Broker['poll']> {
    const { group, run, sessionTimeoutMs } = request
    return this.#ask(
      {
        headers: {
          'Kedge-Encoding': 'base64',
          ...(sessionTimeoutMs === undefined ? {} : { 'Kafka-Session-Timeout-Ms': String(sessionTimeoutMs) }),
          ...(run === undefined ? {} : runHeaders(run)),
        },
        body: (sent) => ({
          ...itemOf(sent, 'body'),
          ...sizeLimits(request),
          ...(run?.positions === undefined ? {} : { positions: run.positions }),
        }),
        maxWaitMs: request.maxWaitMs,
      },
      call,
      (kafka) => kafka.consumer().consume({ ...namesOf(group), ...consumeSettings(request) }),
      ({ headers, json }) => pollResultOf(headers, json),
    )
  }

  async claim(...[group, run, call = {}]: Parameters<Broker['claim']>): Promise<void> {
    await this.#send({ method: 'POST', path: claimPath(group), headers: runHeaders(run) }, call)
  }

  async release(...[group, runId, call = {}]: Parameters<Broker['release']>): Promise<void> {
    await this.#send({ method: 'DELETE', path: claimPath(group), headers: runHeaders({ runId }) }, call)
  }

  async commit(...[group, offsets, options = {}, call = {}]: Parameters<Broker['commit']>): Promise<void> {
    this.#transport.check(call)
    // On the wire an empty list means what was polled; here it means nothing.
    if (offsets.length === 0) return
    const { runId, generationId } = options
    await this.#ask(
      {
        headers: {
          ...(runId === undefined ? {} : runHeaders({ runId })),
          ...(generationId === undefined ? {} : { 'Kedge-Generation': String(generationId) }),
        },
        notFound: offsets === 'polled' ? 'UNKNOWN_MEMBER_ID' : 'UNKNOWN_TOPIC_OR_PARTITION',
      },
      call,
      (kafka) =>
        kafka.consumer().commit({
          ...namesOf(group),
          ...(offsets === 'polled' ? {} : { offset: offsets.map(wireCommit) }),
        }),
      () => undefined,
    )
  }

  async committed(...[groupId, partitions, call = {}]: Parameters<Broker['committed']>): Promise<CommittedOffset[]> {
    this.#transport.check(call)
    if (partitions?.length === 0) return []
    return this.#ask(
      partitions === undefined ? { body: () => undefined } : {},
      call,
      (kafka) =>
        kafka.consumer().committed({
          ...namesOf({ groupId, groupInstanceId: ANY_INSTANCE }),
          topicPartitions: (partitions ?? []).map(wirePartition),
        }),
      ({ json }) =>
        listOf(json, 'offsets').map((item) => ({
          ...partitionOf(item),
          offset: numberOf(item, 'offset'),
          metadata: textOrNull(item, 'metadata'),
        })),
    )
  }

  async offsets(...[partitions, at, call = {}]: Parameters<Broker['offsets']>): ReturnType<Broker['offsets']> {
    this.#transport.check(call)
    if (partitions.length === 0) return []
    return this.#ask(
      {},
      call,
      (kafka) => kafka.admin().topicPartitionOffsets({ timestamp: at, topicPartitions: partitions.map(wirePartition) }),
      ({ json }) => listOf(json, 'offsets').map((item) => ({ ...partitionOf(item), offset: numberOf(item, 'offset') })),
    )
  }

  async topics(call: Call = {}): Promise<TopicDescription[]> {
    const request = { method: 'GET', path: ['topics'], query: 'describe=true' } as const
    return read(request, await this.#send(request, call), ({ json }) => listOf(json, 'topics').map(topicOf))
  }

  async createTopic(...[topic, call = {}]: Parameters<Broker['createTopic']>): Promise<TopicDescription> {
    const { topic: name, ...body } = topic
    for (const [setting, value] of Object.entries(body)) if (typeof value === 'number') finite(value, setting)
    const request = { method: 'PUT', path: ['topics', name], body } as const
    return read(request, await this.#send(request, call), ({ json }) => topicOf(itemOf(json, 'fields')))
  }

  async deleteTopic(...[topic, call = {}]: Parameters<Broker['deleteTopic']>): Promise<void> {
    await this.#send({ method: 'DELETE', path: ['topics', topic] }, call)
  }

  async groups(call: Call = {}): Promise<GroupDescription[]> {
    const request = { method: 'GET', path: ['groups'] } as const
    return read(request, await this.#send(request, call), ({ json }) => listOf(json, 'groups').map(groupOf))
  }

  async leave(...[group, call = {}]: Parameters<Broker['leave']>): Promise<void> {
    await this.#ask(
      { notFound: 'UNKNOWN_MEMBER_ID' },
      call,
      (kafka) => kafka.admin().removeConsumerInstance(group.groupId, group.groupInstanceId),
      () => undefined,
    )
  }

  async close(): Promise<void> {
    this.#transport.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Lets the SDK make one request, sends it with what the SDK cannot say, and reads the answer. */
  async #ask<T>(
    extension: Extension,
    call: Call,
    use: (kafka: Kafka) => Promise<unknown>,
    readAnswer: (answer: Answer) => T,
  ): Promise<T> {
    let result: { readonly value: T } | undefined
    const { headers, body = (sent: unknown) => sent, notFound = 'UNKNOWN_TOPIC_OR_PARTITION', ...timing } = extension
    const exchange = async (method: 'GET' | 'POST', sdk: SdkRequest): Promise<unknown> => {
      const request = { method, path: sdk.path, headers: { ...sdk.headers, ...headers }, notFound, ...timing }
      const answer = await this.#transport.send({ ...request, body: body(sdk.body) }, call)
      result = { value: read(request, answer, readAnswer) }
      // What the SDK makes of it is not used; a list satisfies all of its methods.
      return []
    }
    const client = {
      get: (request: SdkRequest) => exchange('GET', request),
      post: (request: SdkRequest) => exchange('POST', request),
    }
    // A view of the SDK's object with a client of this call: producer(), consumer() and admin() hand it on.
    await use(Object.create(this.#sdk, { client: { value: client } }) as Kafka)
    if (result === undefined) {
      throw new BrokerError('UNSUPPORTED', 'Cannot use @upstash/kafka: it has changed shape. Install version 1.3.5.')
    }
    return result.value
  }

  /** Sends what the SDK has no call for. A server that is not ours has no such path. */
  #send(request: Omit<ExchangeRequest, 'notFound'>, call: Call): Promise<Answer> {
    return this.#transport.send({ ...request, notFound: 'UNSUPPORTED' }, call)
  }
}

/** What the SDK's types allow a record to be; null header values go beyond them and through. */
type SdkRecord = Parameters<ReturnType<Kafka['producer']>['produceMany']>[0][number]

/** Reads an answer; what cannot be read is the server's fault. */
function read<T>(request: { readonly path: readonly string[] }, answer: Answer, reader: (answer: Answer) => T): T {
  try {
    return reader(answer)
  } catch (error) {
    if (error instanceof WireError) throw badResponse(request, `the answer cannot be read: ${error.message}`)
    throw error
  }
}
