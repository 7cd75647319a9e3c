/**
 * AWS Lambda as the consumer of an event source mapping: batches of Kafka, whose answer names the lowest offset of each
 * partition that is to come again, and batches of SQS, whose answer names the messages.
 *
 * Both need `ReportBatchItemFailures` in the mapping, without which Lambda takes any answer for a success.
 */
import type { Context, MSKEvent, SelfManagedKafkaEvent, SQSBatchResponse, SQSEvent } from 'aws-lambda'
import type { App } from '../app.ts'
import { bytesOfBase64 } from '../base64.ts'
import { type FunctionsConfig, readConfig } from '../config.ts'
import type { ConsumerRecord, Header } from '../record.ts'
import { bytesOf } from '../record.ts'
import { brokerDrivers } from './broker-drivers.ts'
import { deadLetterDrivers } from './dead-letter-drivers.ts'
import { type HandedBatch, placeOfId, runBatch } from './handed-batch.ts'
import { idempotencyDrivers } from './idempotency-drivers.ts'
import { lambdaBudget } from './lambda-budget.ts'
import { consoleLog } from './log-line.ts'
import { openBroker } from './open-broker.ts'

/** Which records of a Kafka batch are to come again: everything of a partition from an offset on. */
export interface KafkaBatchResponse {
  readonly batchItemFailures: readonly {
    /** `partition` is `<topic>-<partition>`, as in the event. */
    readonly itemIdentifier: { readonly partition: string; readonly offset: number }
  }[]
}

/** Handles a batch of a Kafka event source. */
export type KafkaBatchHandler = (
  event: MSKEvent | SelfManagedKafkaEvent,
  context: Context,
) => Promise<KafkaBatchResponse>
/** Handles a batch of an SQS queue. */
export type SqsBatchHandler = (event: SQSEvent, context: Context) => Promise<SQSBatchResponse>

/**
 * Runs an app over batches of Kafka that Lambda polls by itself. Topics are those of the event; the group that Lambda uses
 * is its own, and the app's names dead letters and idempotency keys.
 * @throws {ConfigError} INVALID_CONFIG at a cold start with wrong settings.
 */
export function lambdaKafkaBatch(app: App): KafkaBatchHandler {
  const config = readConfig('functions', process.env)
  return async (event, context) => {
    const batches = Object.entries(event.records).map(
      ([partition, records]) => [partition, records.map(kafkaRecord)] as const,
    )
    const records = batches.flatMap(([, held]) => held)
    const { unsettled } = await runBatch(app, config, handed(config, context, records))
    const open = new Set(unsettled)
    return {
      batchItemFailures: batches.flatMap(([partition, held]) => {
        const first = held.find((record) => open.has(record))
        return first === undefined ? [] : [{ itemIdentifier: { partition, offset: first.offset } }]
      }),
    }
  }
}

/**
 * Runs an app over batches of an SQS queue, as records of `topic`: the body is the value, the message group the key, and
 * attributes are headers. Its partition and offset are made of its message id.
 * @throws {ConfigError} INVALID_CONFIG at a cold start with wrong settings.
 */
export function lambdaSqsBatch(app: App, { topic }: { readonly topic: string }): SqsBatchHandler {
  const config = readConfig('functions', process.env)
  return async ({ Records: messages }, context) => {
    const records = messages.map((message, offset): ConsumerRecord => {
      const { body, attributes, messageAttributes } = message
      return {
        topic,
        partition: 0,
        offset,
        timestampMs: Number(attributes.SentTimestamp),
        key: attributes.MessageGroupId === undefined ? null : bytesOf(attributes.MessageGroupId),
        value: bytesOf(body),
        headers: Object.entries(messageAttributes).map(([key, { stringValue, binaryValue }]) => {
          return { key, value: stringValue === undefined ? bytesOrNull(binaryValue) : bytesOf(stringValue) }
        }),
      }
    })
    const attemptsOf = ({ offset }: ConsumerRecord): number =>
      Math.max(0, Number(messages[offset]?.attributes.ApproximateReceiveCount ?? 1) - 1)
    const idOf = ({ offset }: ConsumerRecord): string => messages[offset]?.messageId ?? ''
    const placeOf: HandedBatch['placeOf'] = (record) => placeOfId(idOf(record))
    const { unsettled } = await runBatch(app, config, { ...handed(config, context, records), attemptsOf, placeOf })
    return { batchItemFailures: unsettled.map((record) => ({ itemIdentifier: idOf(record) })) }
  }
}

function handed(config: FunctionsConfig, context: Context, records: readonly ConsumerRecord[]): HandedBatch {
  return {
    records,
    runId: `${context.awsRequestId}.${crypto.randomUUID()}`,
    budget: lambdaBudget(config, context),
    log: consoleLog,
    through: () => openBroker(config.broker, brokerDrivers),
    deadLetters: deadLetterDrivers,
    idempotency: idempotencyDrivers,
  }
}

type KafkaEventRecord = MSKEvent['records'][string][number]

function kafkaRecord({ topic, partition, offset, timestamp, key, value, headers }: KafkaEventRecord): ConsumerRecord {
  return {
    topic,
    partition,
    offset,
    timestampMs: timestamp,
    key: bytesOrNull(key),
    value: bytesOrNull(value),
    // Each header is an object of one name, in the order in which the record has them.
    headers: headers.flatMap((header): Header[] =>
      Object.entries(header).map(([name, bytes]) => ({ key: name, value: headerValue(bytes) })),
    ),
  }
}

/** Bytes of a header are signed numbers, as Java has them. */
function headerValue(bytes: readonly number[] | null): Uint8Array | null {
  return bytes === null ? null : Uint8Array.from(bytes, (byte) => byte & 0xff)
}

/** What Kafka has as null is absent or null in an event, whatever its types say. */
function bytesOrNull(base64: string | null | undefined): Uint8Array | null {
  return base64 === null || base64 === undefined ? null : (bytesOfBase64(base64) ?? null)
}
