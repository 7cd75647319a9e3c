/** What is produced in a simulation, and what its handlers make of it. */
import { DeadLetterError } from '../../src/handler-errors.ts'
import type { ProducerRecord } from '../../src/record.ts'
import { bytesOf } from '../../src/record.ts'
import type { Failure } from './batch-handler.ts'

/** What becomes of a record: most are handled, the others never. */
export type Fate =
  | 'good'
  | 'tombstone'
  | 'throws'
  | 'rejects'
  | 'hangs'
  | 'overflows'
  | 'not JSON'
  | 'no route'
  /** JSON that a schema refuses. */
  | 'wrong shape'
  /** The same, and deeper than a stack. */
  | 'too deep'
  | 'ends its process'

const poison: readonly Fate[] = ['throws', 'rejects', 'hangs', 'not JSON', 'no route', 'throws', 'rejects', 'overflows']

/** The topic of a simulation. */
export const TOPIC = 't'
/** The header that the route asks for, and what it is to say. */
export const ROUTED = { name: 'to', value: 'handler' } as const
/** Records share so many keys in each partition. */
const KEYS = 3
/** More than calls that call themselves get to. */
const DEPTH = 50_000

/** A fate by chance. */
export function chooseFate(random: () => number, poisonShare: number): Fate {
  const chance = random()
  if (chance < poisonShare) return poison[Math.floor(random() * poison.length)] ?? 'throws'
  return chance < poisonShare + 0.05 ? 'tombstone' : 'good'
}

/** A record with its lane and number in its headers. */
export function recordOf(partition: number, lane: string, seq: number, fate: Fate): ProducerRecord {
  return {
    topic: TOPIC,
    partition,
    key: bytesOf(`k${seq % KEYS}`),
    value: valueOf(fate, `${lane}#${seq}`),
    headers: [
      { key: 'lane', value: bytesOf(lane) },
      { key: 'seq', value: bytesOf(String(seq)) },
      { key: ROUTED.name, value: bytesOf(fate === 'no route' ? 'nobody' : ROUTED.value) },
      // Kept as it is, doubled, null and empty: a dead letter must have it too.
      { key: 'seq', value: null },
      { key: '', value: new Uint8Array() },
    ],
  }
}

function valueOf(fate: Fate, name: string): Uint8Array | null {
  if (fate === 'tombstone') return null
  if (fate === 'not JSON') return Uint8Array.of(0xff, 0x7b, 0x00, ...bytesOf(name))
  if (fate === 'wrong shape') return bytesOf(JSON.stringify({ fate: null, name }))
  if (fate === 'too deep') return bytesOf(`${'['.repeat(DEPTH)}"${name}"${']'.repeat(DEPTH)}`)
  return bytesOf(JSON.stringify({ fate, name }))
}

/** Calls itself until there is no room. */
export function overflow(depth: number): number {
  return overflow(depth + 1) + 1
}

/** How a handler fails at a record of a fate; undefined where it does not. */
export function failureOf(fate: Fate): Failure | undefined {
  if (fate === 'hangs') return 'hangs'
  if (fate === 'good' || fate === 'tombstone') return undefined
  if (fate === 'rejects') return { error: new DeadLetterError('poison') }
  try {
    if (fate === 'overflows') overflow(0)
    return { error: new Error('poison') }
  } catch (error) {
    return { error }
  }
}
