/** Mixed batches: records that can be taken, and records of each kind that cannot. */
import { Buffer } from 'node:buffer'

/** What is right or wrong with a record. */
export type Kind =
  | 'good'
  | 'tombstone'
  | 'empty'
  | 'no topic'
  | 'no partition'
  | 'over the limit of the topic'
  // What the request itself may not have: nothing of the batch is taken, whatever was asked for each.
  | 'forbidden topic'
  | 'not base64'
  | 'partition below zero'

/** Kinds that can be taken. */
export const good: ReadonlySet<Kind> = new Set(['good', 'tombstone', 'empty'])
/** Kinds that refuse the whole request. */
export const refusing: ReadonlySet<Kind> = new Set(['forbidden topic', 'not base64', 'partition below zero'])

/** Topics that are there, with their partitions; records of the first may have 400 bytes. */
export const TOPICS = { small: 2, blue: 3 } as const
/** Bytes that a record of `small` may have. */
export const SMALL_BYTES = 400

/** A record as it is sent. */
export interface Item {
  readonly kind: Kind
  readonly body: Readonly<Record<string, unknown>>
  /** The value that is to be read, or null. */
  readonly value: string | null
}

/** How a batch is sent. */
export interface Batch {
  readonly items: readonly Item[]
  readonly isEach: boolean
  readonly isBase64: boolean
  readonly idempotencyKey: string | undefined
  /** Sent to this topic's own path, where every record is for it. */
  readonly path: string
}

const itemKinds: readonly Kind[] = ['tombstone', 'empty', 'no topic', 'no partition', 'over the limit of the topic']

/** A batch by chance. `number` makes its values its own. */
export function batchOf(number: number, random: () => number): Batch {
  const isBase64 = random() < 0.5
  const isMixed = random() < 0.8
  const refusesWhole = random() < 0.15
  const count = 1 + Math.floor(random() * 12)
  const refusedAt = refusesWhole ? Math.floor(random() * count) : -1
  const pathTopic = random() < 0.3 ? 'blue' : undefined
  const items = Array.from({ length: count }, (_, index) => {
    const kind = index === refusedAt ? refusal(isBase64, random) : mixed(isMixed, random)
    return itemOf(fits(kind, pathTopic), `${number}.${index}`, isBase64, pathTopic, random)
  })
  return {
    items,
    isEach: random() < 0.7,
    isBase64,
    idempotencyKey: random() < 0.3 ? `batch-${number}` : undefined,
    path: pathTopic === undefined ? '/produce' : `/produce/${pathTopic}`,
  }
}

function refusal(isBase64: boolean, random: () => number): Kind {
  const kinds: readonly Kind[] = isBase64 ? [...refusing] : ['forbidden topic', 'partition below zero']
  return kinds[Math.floor(random() * kinds.length)] ?? 'forbidden topic'
}

function mixed(isMixed: boolean, random: () => number): Kind {
  if (!isMixed || random() < 0.6) return 'good'
  return itemKinds[Math.floor(random() * itemKinds.length)] ?? 'good'
}

/** A path names one topic, which is there, is not small and is allowed. */
function fits(kind: Kind, pathTopic: string | undefined): Kind {
  const needsTopic = kind === 'no topic' || kind === 'forbidden topic' || kind === 'over the limit of the topic'
  return pathTopic !== undefined && needsTopic ? 'good' : kind
}

function itemOf(
  kind: Kind,
  name: string,
  isBase64: boolean,
  pathTopic: string | undefined,
  random: () => number,
): Item {
  const value = valueOf(kind, name, isBase64)
  const topic = pathTopic ?? topicOf(kind, random)
  const encoded = value === null || !isBase64 ? value : Buffer.from(value).toString('base64')
  const body = {
    ...(pathTopic === undefined ? { topic } : {}),
    value: kind === 'not base64' ? '%%%' : encoded,
    ...(random() < 0.5 ? { key: isBase64 ? Buffer.from(name).toString('base64') : name } : {}),
    ...partitionOf(kind),
  }
  return { kind, body, value }
}

function valueOf(kind: Kind, name: string, isBase64: boolean): string | null {
  // In text a tombstone is sent as null as well; an empty value is an empty text.
  if (kind === 'tombstone') return null
  if (kind === 'empty') return ''
  if (kind === 'over the limit of the topic') return name.padEnd(SMALL_BYTES + 100, isBase64 ? 'b' : 't')
  return name
}

function topicOf(kind: Kind, random: () => number): string {
  if (kind === 'no topic') return 'missing'
  if (kind === 'forbidden topic') return 'secret'
  if (kind === 'over the limit of the topic') return 'small'
  return random() < 0.5 ? 'small' : 'blue'
}

function partitionOf(kind: Kind): { readonly partition?: number } {
  if (kind === 'no partition') return { partition: 7 }
  return kind === 'partition below zero' ? { partition: -1 } : {}
}
