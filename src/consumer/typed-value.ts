/** Values of records as their topics have them: read, and checked by a schema that may answer at once or later. */
import type { ConsumerRecord } from '../record.ts'
import { unread } from '../route-table.ts'
import type { Handler } from '../router.ts'
import { checkValue, readValue } from '../topic.ts'
import type { Topic } from '../topic.ts'

/** Marks what a schema that answers later refused, so that it is not taken for a failure of the handler. */
export class InvalidValue {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

/** The value as its topic has it. Throws or rejects where the schema refuses it. */
export function valueOf(topic: Topic, { value }: ConsumerRecord, json: unknown): unknown {
  return checkValue(topic, json === unread || value === null ? readValue(topic, value) : json)
}

/** For a schema that answers later: its answer counts as part of the first attempt, time limit included. */
export function handlerAfter(value: Promise<unknown>, handler: Handler<never>): Handler<never> {
  return async (record: ConsumerRecord<never>, context) => {
    const checked = value.catch((error: unknown) => {
      throw new InvalidValue(error)
    })
    const typed = withValue(record, await checked)
    if (!context.signal.aborted) await (handler as Handler<unknown>)(typed, context)
  }
}

/** The record with another value. */
export function withValue(
  { topic, partition, offset, timestampMs, key, headers }: ConsumerRecord<unknown>,
  value: unknown,
): ConsumerRecord<unknown> {
  return { topic, partition, offset, timestampMs, key, value, headers }
}
