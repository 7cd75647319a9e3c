/** `/fetch`: reads from given offsets, without a group. */
import * as z from 'zod'
import type { Broker, Call, FetchLimits } from '../../broker.ts'
import { BrokerError } from '../../errors.ts'
import type { ConsumerRecord, TopicPartitionOffset } from '../../record.ts'
import { invalidRequest } from '../errors.ts'
import { DEFAULT_MAX_BYTES, DEFAULT_MAX_RECORDS, type GatewayLimits } from '../limits.ts'
import { recordsJson } from '../records-json.ts'
import { defineRoute, type Route } from '../route.ts'
import { FetchHeaders, FetchIn, Message, type FetchBody, type WaitBody } from '../schemas.ts'

const DEFAULT_WAIT_MS = 1000

/** `/fetch` */
export const fetchRecords: Route = defineRoute({
  methods: ['GET', 'POST'],
  path: '/fetch',
  operationId: 'fetch',
  summary: 'Read records from given offsets',
  headers: FetchHeaders,
  bodyKind: 'json',
  body: FetchIn,
  answers: { 200: z.array(Message) },
  errors: ['UNKNOWN_TOPIC_OR_PARTITION', 'OFFSET_OUT_OF_RANGE', 'INVALID_TOPIC_EXCEPTION'],
  async handle({ headers, body }, { broker, principal, limits, waiting, request }) {
    const asked = askedOf(body)
    principal.requireTopics(
      'consume',
      asked.map(({ topic }) => topic),
    )
    const { maxWaitMs, ...most } = fetchLimits(body, limits)
    const read = headers['kedge-strict-offsets'] === true ? fetchStrictly : fetchWithinLog
    const records = await waiting.run(maxWaitMs, request.signal, (wait, signal) =>
      read(broker, asked, { ...most, maxWaitMs: wait }, { signal }),
    )
    const encoding = headers['kedge-encoding'] ?? 'text'
    return { status: 200, body: recordsJson(records, encoding) }
  },
})

/** A place to read from; without an offset, the log start. */
interface Asked {
  readonly topic: string
  readonly partition: number
  readonly offset: number | undefined
}

/** The union of the single partition and the set; of a partition named twice the last counts. */
function askedOf(body: FetchBody): Asked[] {
  const set: Asked[] = [...(body.topicPartitionOffsets ?? [])]
  if (body.topic !== undefined) {
    set.push({ topic: body.topic, partition: body.partition ?? 0, offset: body.offset ?? undefined })
  }
  if (set.length === 0) {
    throw invalidRequest(
      'Cannot fetch: no partition is named. Send "topic", "partition", "offset" or "topicPartitionOffsets".',
    )
  }
  return [...new Map(set.map((asked) => [`${asked.topic}/${asked.partition}`, asked])).values()]
}

/** What a wait may bring at most: the request's wish, capped by the gateway's limits. */
export function fetchLimits(body: WaitBody, limits: GatewayLimits): FetchLimits {
  return {
    maxWaitMs: Math.min(body.timeout ?? DEFAULT_WAIT_MS, limits.maxWaitMs),
    maxRecords: Math.min(body.maxRecords ?? DEFAULT_MAX_RECORDS, limits.maxRecords),
    maxBytes: Math.min(body.maxBytes ?? DEFAULT_MAX_BYTES, limits.maxBytes),
  }
}

async function fetchStrictly(
  broker: Broker,
  asked: readonly Asked[],
  limits: FetchLimits,
  call: Call,
): Promise<ConsumerRecord[]> {
  return broker.fetch(await withLogStarts(broker, asked, call), limits, call)
}

/**
 * Fetches as the dialect does: below the log start means from the log start, and beyond the log end means waiting for
 * records that are not there yet, with nothing in between shown.
 */
async function fetchWithinLog(
  broker: Broker,
  asked: readonly Asked[],
  limits: FetchLimits,
  call: Call,
): Promise<ConsumerRecord[]> {
  const wanted = await withLogStarts(broker, asked, call)
  try {
    return await broker.fetch(wanted, limits, call)
  } catch (error) {
    if (!(error instanceof BrokerError) || error.code !== 'OFFSET_OUT_OF_RANGE') throw error
  }
  const starts = await broker.offsets(wanted, 'earliest', call)
  const ends = await broker.offsets(wanted, 'latest', call)
  const within = wanted.map((place, index) => {
    const first = starts[index]?.offset ?? 0
    return { ...place, offset: Math.max(first, Math.min(place.offset, ends[index]?.offset ?? first)) }
  })
  const records = await broker.fetch(within, limits, call)
  const floor = new Map(wanted.map((place) => [`${place.topic}/${place.partition}`, place.offset]))
  return records.filter((record) => record.offset >= (floor.get(`${record.topic}/${record.partition}`) ?? 0))
}

async function withLogStarts(broker: Broker, asked: readonly Asked[], call: Call): Promise<TopicPartitionOffset[]> {
  const open = asked.filter(({ offset }) => offset === undefined)
  const starts = open.length === 0 ? [] : await broker.offsets(open, 'earliest', call)
  return asked.map((place) => ({
    topic: place.topic,
    partition: place.partition,
    offset: place.offset ?? starts[open.indexOf(place)]?.offset ?? 0,
  }))
}
