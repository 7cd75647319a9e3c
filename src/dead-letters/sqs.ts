/**
 * Dead letters as messages of an Amazon SQS queue: for alarms, for a consumer that repairs, for keeping up to 14 days.
 *
 * One message per letter; its body is the letter's JSON (codec.ts), its attributes say reason, topic and group for
 * filters. One request per put, the SDK's own retries off. A standard queue may hold a letter twice after a repeated put;
 * a FIFO queue drops a repeat within five minutes and keeps the order of each source partition.
 * A queue can neither be listed nor searched by id, so reading is not offered here: the queue hands its letters over (runtimes/lambda-redrive.ts).
 * @see https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
 */
import {
  GetQueueAttributesCommand,
  type MessageAttributeValue,
  SQSClient,
  type SQSClientConfig,
  SendMessageCommand,
  type SendMessageCommandInput,
} from '@aws-sdk/client-sqs'

import type { Call } from '../broker.ts'
import { type Clock, systemClock } from '../clock.ts'
import type { DeadLetter, DeadLetterFeatures, DeadLetterStore } from '../dead-letter.ts'
import { ConfigError, DeadLetterStoreError } from '../errors.ts'
import { bytesOf } from '../record.ts'
import { attempt, checkCall, unsupported } from './call.ts'
import { encodeDeadLetter } from './codec.ts'
import { digestOf } from '../digest.ts'
import { isInvalidParameter, sqsError, tooLarge } from './sqs-errors.ts'

/** Options of `sqsDeadLetters`. */
export interface SqsDeadLettersOptions {
  /** The queue's URL, as SQS gave it. */
  readonly queueUrl: string
  /**
   * A client of your own, made with `maxAttempts: 1`; not closed with the store. The four options below are then not read.
   * @default one made of the options below
   */
  readonly client?: SQSClient
  /** @default the region in the queue's URL, else the SDK's own search */
  readonly region?: string
  /** Another endpoint than the queue URL's origin. */
  readonly endpoint?: string
  /** @default the SDK's credential chain */
  readonly credentials?: NonNullable<SQSClientConfig['credentials']>
  /** Replaces the SDK's HTTP handler. */
  readonly requestHandler?: NonNullable<SQSClientConfig['requestHandler']>
  /** Whether the queue is a FIFO queue. @default whether the URL ends in `.fifo`, as the name of every FIFO queue does */
  readonly fifo?: boolean
  /** Longest time of one put when its call names none, milliseconds. @default 10000 */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

const sqsDeadLettersDefaults = { timeoutMs: 10_000, clock: systemClock } as const

/** SQS's largest message, body and attributes together; a queue's MaximumMessageSize can be lower. */
export const MAX_SQS_MESSAGE_BYTES = 1_048_576

/** The longest MessageGroupId. */
const MAX_GROUP_ID_LENGTH = 128

/**
 * Opens a store over a queue. Nothing is sent before the first put.
 * @throws {ConfigError} for a queue URL that is none.
 */
export function sqsDeadLetters(options: SqsDeadLettersOptions): DeadLetterStore {
  return new SqsDeadLetters(options)
}

class SqsDeadLetters implements DeadLetterStore {
  readonly features: DeadLetterFeatures
  readonly #queueUrl: string
  readonly #client: SQSClient
  readonly #ownsClient: boolean
  readonly #fifo: boolean
  readonly #timeoutMs: number
  readonly #clock: Clock
  #isClosed = false

  constructor(options: SqsDeadLettersOptions) {
    const url = queueUrlOf(options.queueUrl)
    this.#queueUrl = options.queueUrl
    this.#client = options.client ?? clientFor(url, options)
    this.#ownsClient = options.client === undefined
    this.#fifo = options.fifo ?? url.pathname.endsWith('.fifo')
    this.#timeoutMs = options.timeoutMs ?? sqsDeadLettersDefaults.timeoutMs
    this.#clock = options.clock ?? sqsDeadLettersDefaults.clock
    this.features = Object.freeze({
      deduplicates: this.#fifo,
      list: false,
      listOrder: 'none',
      get: false,
      delete: false,
      maxLetterBytes: MAX_SQS_MESSAGE_BYTES,
    })
  }

  async put(letter: DeadLetter, call: Call = {}): Promise<void> {
    checkCall('sqs', this.#isClosed, call)
    const message = await messageOf(letter, this.#queueUrl, this.#fifo)
    const bytes = messageBytes(message)
    if (bytes > MAX_SQS_MESSAGE_BYTES) throw tooLarge(letter.id, bytes, MAX_SQS_MESSAGE_BYTES)
    const limits = { signal: call.signal, timeoutMs: call.timeoutMs ?? this.#timeoutMs }
    await attempt(`store dead letter ${letter.id} in its queue`, limits, this.#clock, (signal) =>
      this.#send(letter, message, bytes, signal),
    )
  }

  async list(_query?: unknown, call?: Call): Promise<never> {
    checkCall('sqs', this.#isClosed, call)
    throw unsupported('sqs', 'list letters')
  }

  async get(_id: string, call?: Call): Promise<never> {
    checkCall('sqs', this.#isClosed, call)
    throw unsupported('sqs', 'look a letter up')
  }

  async delete(_id: string, call?: Call): Promise<never> {
    checkCall('sqs', this.#isClosed, call)
    throw unsupported('sqs', 'delete a letter')
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#ownsClient) this.#client.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #send(letter: DeadLetter, message: SendMessageCommandInput, bytes: number, signal: AbortSignal): Promise<void> {
    await this.#checkAttempts()
    try {
      await this.#client.send(new SendMessageCommand(message), { abortSignal: signal })
    } catch (error) {
      // SQS says "too large" in words only; the queue's own limit says it in a number.
      const maxBytes = isInvalidParameter(error) ? await this.#queueLimit(signal) : undefined
      if (maxBytes !== undefined && bytes > maxBytes) throw tooLarge(letter.id, bytes, maxBytes)
      throw sqsError(error, letter.id, this.#queueUrl)
    }
  }

  /** A client that retries by itself would break the port: one attempt per call, the policy above decides. */
  async #checkAttempts(): Promise<void> {
    const maxAttempts = await this.#client.config.maxAttempts()
    if (maxAttempts <= 1) return
    throw new DeadLetterStoreError(
      'INVALID_CONFIG',
      `Cannot use the SQS client for dead letters: it makes up to ${maxAttempts} attempts. Make it with maxAttempts: 1.`,
    )
  }

  async #queueLimit(signal: AbortSignal): Promise<number | undefined> {
    try {
      const command = new GetQueueAttributesCommand({
        QueueUrl: this.#queueUrl,
        AttributeNames: ['MaximumMessageSize'],
      })
      const { Attributes } = await this.#client.send(command, { abortSignal: signal })
      return Number(Attributes?.['MaximumMessageSize'])
    } catch {
      // Not allowed to ask: the first error stands as it is.
      return undefined
    }
  }
}

function queueUrlOf(text: string): URL {
  const url = URL.parse(text)
  if (url !== null && (url.protocol === 'https:' || url.protocol === 'http:')) return url
  throw new ConfigError(`Cannot open the dead-letter queue: queueUrl is ${text}. Give the URL that SQS shows for it.`)
}

function clientFor(url: URL, options: SqsDeadLettersOptions): SQSClient {
  const region = options.region ?? /^sqs\.([a-z0-9-]+)\.amazonaws\.com/.exec(url.hostname)?.[1]
  return new SQSClient({
    maxAttempts: 1,
    // Without an endpoint the SDK takes the queue URL's and says so on the console, once a request.
    endpoint: options.endpoint ?? url.origin,
    ...(region === undefined ? {} : { region }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    ...(options.requestHandler === undefined ? {} : { requestHandler: options.requestHandler }),
  })
}

async function messageOf(letter: DeadLetter, queueUrl: string, fifo: boolean): Promise<SendMessageCommandInput> {
  const { topic, partition } = letter.record
  const groupId = `${topic}-${partition}`
  return {
    QueueUrl: queueUrl,
    MessageBody: encodeDeadLetter(letter),
    MessageAttributes: {
      reason: attributeOf(letter.reason),
      topic: attributeOf(topic),
      group: attributeOf(letter.groupId),
    },
    ...(fifo
      ? {
          MessageGroupId: groupId.length <= MAX_GROUP_ID_LENGTH ? groupId : await digestOf(groupId),
          // The time too: where a topic was made anew, another record has the same place.
          MessageDeduplicationId: await digestOf(`${letter.id}/${letter.record.timestampMs}`),
        }
      : {}),
  }
}

/** An attribute is for filters, the body is the truth: characters that SQS refuses are shown as U+FFFD here. */
function attributeOf(text: string): MessageAttributeValue {
  // oxlint-disable-next-line no-control-regex -- the control characters are what it looks for
  const legal = text.toWellFormed().replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd')
  return { DataType: 'String', StringValue: legal === '' ? '-' : legal }
}

/** As SQS counts: the body, and each attribute's name, type and value. */
function messageBytes({ MessageBody = '', MessageAttributes = {} }: SendMessageCommandInput): number {
  let bytes = bytesOf(MessageBody).length
  for (const [name, { DataType = '', StringValue = '' }] of Object.entries(MessageAttributes)) {
    bytes += name.length + DataType.length + bytesOf(StringValue).length
  }
  return bytes
}
