/** The letters of the proof, and what is stored of them afterwards. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker } from '../../src/broker.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import { KedgeError } from '../../src/errors.ts'
import { bytesOf, type ConsumerRecord } from '../../src/record.ts'
import { letter } from '../../test/conformance/dead-letter-store/letters.ts'
import { GROUP, SOURCE } from './app.ts'

const FIRST_FAILED_MS = 1_700_000_000_000
const PUTS_AT_ONCE = 200
const PAGE = 2_000

/** So many letters over the partitions of the source, oldest first. Some have keys, headers, or no value. */
export function lettersOf(count: number, partitions: number): DeadLetter[] {
  return Array.from({ length: count }, (_, index) =>
    letter({
      groupId: GROUP,
      failedAtMs: FIRST_FAILED_MS + index,
      record: {
        topic: SOURCE,
        partition: index % partitions,
        offset: Math.floor(index / partitions),
        timestampMs: FIRST_FAILED_MS - index,
        key: index % 3 === 0 ? null : bytesOf(`key ${index % 50}`),
        value: index % 97 === 0 ? null : bytesOf(`letter ${index}`),
        headers: index % 5 === 0 ? [{ key: 'trace', value: bytesOf(String(index)) }] : [],
      },
    }),
  )
}

/** Puts them in their order. */
export async function putAll(store: DeadLetterStore, letters: readonly DeadLetter[]): Promise<void> {
  // The first one alone: it may have to make its topic. The others then keep their order, though many are put at once.
  for (const one of letters.slice(0, 1)) await store.put(one)
  for (let from = 1; from < letters.length; from += PUTS_AT_ONCE) {
    await Promise.all(letters.slice(from, from + PUTS_AT_ONCE).map((one) => store.put(one)))
  }
}

const MOST_TRIES = 50
const RETRY_MS = 100

/** Asks again where the gateway was killed between two calls, or a connection of its former life broke. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof KedgeError) || !error.retriable || tries === MOST_TRIES) throw error
      await sleep(RETRY_MS)
    }
  }
}

/** The ids of all letters that a store has. */
export async function idsIn(store: DeadLetterStore): Promise<Set<string>> {
  const ids = new Set<string>()
  let cursor: string | undefined
  do {
    const page = await store.list({ groupId: GROUP, limit: 1_000, ...(cursor === undefined ? {} : { cursor }) })
    for (const { id } of page.items) ids.add(id)
    cursor = page.cursor
  } while (cursor !== undefined)
  return ids
}

/** All records of a topic, partition by partition. None where there is no such topic. */
export async function recordsIn(broker: Broker, topic: string): Promise<ConsumerRecord[]> {
  const partitions = (await broker.topics()).find((one) => one.topic === topic)?.partitions ?? 0
  const all: ConsumerRecord[] = []
  for (let partition = 0; partition < partitions; partition++) {
    const [end] = await broker.offsets([{ topic, partition }], 'latest')
    for (let offset = 0; offset < (end?.offset ?? 0);) {
      const limits = { maxWaitMs: 0, maxRecords: PAGE, maxBytes: 16 << 20 }
      const records = await broker.fetch([{ topic, partition, offset }], limits)
      all.push(...records)
      offset = (records.at(-1)?.offset ?? Number.POSITIVE_INFINITY) + 1
    }
  }
  return all
}
