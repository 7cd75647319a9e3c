/** What a log holds, read through a broker, for the checker of histories. */
import type { Broker } from '../../src/broker.ts'
import type { ConsumerRecord } from '../../src/record.ts'
import { textOf } from '../../src/record.ts'
import type { At, Item, Place } from '../history/history.ts'

const PAGE = 2_000

/** Reads everything from the log start on, partition by partition. */
export async function storedItems(
  broker: Broker,
  topic: string,
  partitions: number,
): Promise<Map<Place, (Item & At)[]>> {
  const stored = new Map<Place, (Item & At)[]>()
  for (let partition = 0; partition < partitions; partition++) {
    const items: (Item & At)[] = []
    const [end] = await broker.offsets([{ topic, partition }], 'latest')
    while (items.length < (end?.offset ?? 0)) {
      const from = [{ topic, partition, offset: items.length }]
      const records = await broker.fetch(from, { maxWaitMs: 0, maxRecords: PAGE, maxBytes: 16 << 20 })
      if (records.length === 0) break
      items.push(
        ...records.map((record) => ({ ...itemOf(record), place: `${topic}/${partition}`, offset: record.offset })),
      )
    }
    stored.set(`${topic}/${partition}`, items)
  }
  return stored
}

/** A value names its lane and number; the rest is what the bytes must be. */
export function valueOf({ lane, seq }: Item, bytes = 0): string {
  const name = `${lane} ${seq} `
  return name + String.fromCharCode(97 + (seq % 26)).repeat(Math.max(0, bytes - name.length))
}

/** A record by lane and number, with which its value begins. */
export function itemOf({ value }: Pick<ConsumerRecord, 'value'>): Item {
  const content = textOf(value)
  const [lane = '', seq = ''] = content.split(' ', 2)
  return { lane, seq: Number(seq), content }
}
