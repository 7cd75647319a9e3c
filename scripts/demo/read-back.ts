/** What the log, the group and the dead-letter store say after the fact: the only things the demo's verdict rests on. */
import type { Broker } from '../../src/broker.ts'
import type { DeadLetter, DeadLetterStore } from '../../src/dead-letter.ts'
import type { ConsumerRecord } from '../../src/record.ts'

const FETCH_LIMITS = { maxWaitMs: 0, maxRecords: 1000, maxBytes: 8_388_608 }

/** Every record of a topic, partition by partition. */
export async function allRecords(broker: Broker, topic: string): Promise<ConsumerRecord[]> {
  const records: ConsumerRecord[] = []
  for (const { partition, offset: end } of await logEnds(broker, topic)) {
    let offset = 0
    while (offset < end) {
      const batch = await broker.fetch([{ topic, partition, offset }], FETCH_LIMITS)
      const last = batch.at(-1)
      if (last === undefined) throw new Error(`${topic}[${partition}] ends at ${end} but has nothing at ${offset}.`)
      records.push(...batch)
      offset = last.offset + 1
    }
  }
  return records
}

/** How many records of a topic the group has not committed yet. */
export async function lagOf(broker: Broker, topic: string, groupId: string): Promise<number> {
  const ends = await logEnds(broker, topic)
  const committed = await broker.committed(groupId, ends)
  return ends.reduce((lag, { offset }, index) => lag + offset - Math.max(0, committed[index]?.offset ?? 0), 0)
}

/** Every dead letter of the group. */
export async function allLetters(store: DeadLetterStore, groupId: string, topic: string): Promise<DeadLetter[]> {
  const letters: DeadLetter[] = []
  let cursor: string | undefined
  do {
    const page = await store.list({ groupId, topic, limit: 1000, ...(cursor === undefined ? {} : { cursor }) })
    letters.push(...page.items)
    cursor = page.cursor
  } while (cursor !== undefined)
  return letters
}

async function logEnds(broker: Broker, topic: string): Promise<{ topic: string; partition: number; offset: number }[]> {
  const description = (await broker.topics()).find((known) => known.topic === topic)
  const partitions = Array.from({ length: description?.partitions ?? 0 }, (_, partition) => ({ topic, partition }))
  return await broker.offsets(partitions, 'latest')
}
