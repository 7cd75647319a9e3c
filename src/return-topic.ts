/**
 * Topics through which records come back to one group, and to no other: retry topics for what is to be tried later, and a
 * redrive topic for dead letters whose cause was mended. A record in one has the key, value and headers that it had, and one
 * header more that says where it came from; its handler sees it as it was.
 */
import type { ConsumerRecord, ProducerRecord, TimestampMs } from './record.ts'
import { bytesOf, exactTextOf } from './record.ts'

/** What a topic brings back. */
export interface ReturnTopic {
  readonly name: string
  /** Where its records come from. */
  readonly source: string
  /** The stage of a retry topic, from 1; 0 for the redrive topic. */
  readonly stage: number
}

/** A record that came back, and what is known of it. */
export interface ReturnedRecord {
  /** To whom. Two groups whose topics happen to have one name leave each other's records alone. */
  readonly groupId: string
  /** As it was first read: its own coordinates, time and headers. */
  readonly record: ConsumerRecord
  /** How often its handler was called. */
  readonly attempts: number
  /** Not to be tried before. */
  readonly dueAtMs: TimestampMs
  /** How often it came back from being a dead letter. */
  readonly redriveCount: number
}

const RETURN_HEADER = 'kedge-returned'
const MAX_TOPIC_LENGTH = 249

/** `<topic>.<group>-retry-<stage>`; undefined where the group's name is none for a topic. */
export function retryTopicName(topic: string, groupId: string, stage: number): string | undefined {
  return topicName(`${topic}.${groupId}-retry-${stage}`)
}

/** `<topic>.<group>-redrive`; undefined where the group's name is none for a topic. */
export function redriveTopicName(topic: string, groupId: string): string | undefined {
  return topicName(`${topic}.${groupId}-redrive`)
}

/** `<group>.operations`, in which operators' verbs stand; undefined where the group's name is none for a topic. */
export function operationsTopicName(groupId: string): string | undefined {
  return topicName(`${groupId}.operations`)
}

function topicName(name: string): string | undefined {
  return name.length <= MAX_TOPIC_LENGTH && /^[a-zA-Z0-9._-]+$/.test(name) ? name : undefined
}

/** The record that brings another one back through a topic. */
export function returning(topic: string, back: ReturnedRecord): ProducerRecord {
  const { groupId, record, attempts, dueAtMs, redriveCount } = back
  const { key, value, headers, partition, offset, timestampMs } = record
  const place: Place = [groupId, record.topic, partition, offset, timestampMs, attempts, dueAtMs, redriveCount]
  return { topic, key, value, headers: [...headers, { key: RETURN_HEADER, value: bytesOf(JSON.stringify(place)) }] }
}

/** The record that came back; undefined where it is one that somebody else put there. */
export function returned({ key, value, headers }: ConsumerRecord): ReturnedRecord | undefined {
  const last = headers.at(-1)
  if (last?.key !== RETURN_HEADER || last.value === null) return undefined
  const place = placeOf(exactTextOf(last.value) ?? '')
  if (place === undefined) return undefined
  const [groupId, topic, partition, offset, timestampMs, attempts, dueAtMs, redriveCount] = place
  const record = { topic, partition, offset, timestampMs, key, value, headers: headers.slice(0, -1) }
  return { groupId, record, attempts, dueAtMs, redriveCount }
}

type Place = readonly [string, string, number, number, number, number, number, number]

function placeOf(text: string): Place | undefined {
  try {
    const place: unknown = JSON.parse(text)
    if (!Array.isArray(place) || place.length !== 8) return undefined
    const [groupId, topic, ...numbers] = place as unknown[]
    if (
      typeof groupId !== 'string' ||
      typeof topic !== 'string' ||
      !numbers.every((number) => Number.isSafeInteger(number))
    )
      return undefined
    return place as unknown as Place
  } catch {
    return undefined
  }
}
