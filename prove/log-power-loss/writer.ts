/**
 * The program whose writes are recorded: it produces and commits in a log that it closes and opens again, and tells in a file what
 * it sent and what was acknowledged, line by line, so that the recording shows what came before what.
 */
import { openSync, writeSync } from 'node:fs'
import { logBroker } from '../../src/brokers/log.ts'
import { bytesOf } from '../../src/record.ts'
import { seeded } from '../../test/support/chaos.ts'
import { valueOf } from '../embedded-log/stored.ts'
import { GROUP, LANES, PARTITIONS, type Told, TOPIC } from './told.ts'

const [dir = '', told = '', seed = '1', lives = '3', rounds = '20', bytes = '200'] = process.argv.slice(2)
const descriptor = openSync(told, 'a')
const tell = (line: Told): void => void writeSync(descriptor, `${JSON.stringify(line)}\n`)
const random = seeded(Number(seed))
const next = new Map<string, number>()

for (let life = 0; life < Number(lives); life++) {
  await using broker = logBroker({ dir })
  if (life === 0) {
    await broker.createTopic({ topic: TOPIC, partitions: PARTITIONS, retentionMs: null })
    tell({ what: 'created' })
  }
  for (let round = 0; round < Number(rounds); round++) {
    // Those of one round share a transaction, as far as they come in one turn.
    const busy = LANES.filter(() => random() < 0.7)
    await Promise.all(busy.map(produce))
    if (random() < 0.3) await commit()
  }

  async function produce(lane: string): Promise<void> {
    const count = 1 + Math.floor(random() * 3)
    const seq = next.get(lane) ?? 0
    next.set(lane, seq + count)
    const items = Array.from({ length: count }, (_, index) => {
      const item = { lane, seq: seq + index }
      return { ...item, content: valueOf(item, Math.floor(random() * 2 * Number(bytes))) }
    })
    for (const item of items) tell({ what: 'sent', ...item })
    const partition = LANES.indexOf(lane) % PARTITIONS
    const records = items.map((item) => ({ topic: TOPIC, partition, key: bytesOf(lane), value: bytesOf(item.content) }))
    const results = await broker.produce(records)
    for (const [index, result] of results.entries()) {
      const item = items[index]
      if (item === undefined || result instanceof Error) throw result
      tell({ what: 'acknowledged', ...item, partition, offset: result.offset })
    }
  }

  async function commit(): Promise<void> {
    const partition = Math.floor(random() * PARTITIONS)
    const [end] = await broker.offsets([{ topic: TOPIC, partition }], 'latest')
    const offset = end?.offset ?? 0
    tell({ what: 'committing', partition, offset })
    await broker.commit({ groupId: GROUP, groupInstanceId: 'i' }, [{ topic: TOPIC, partition, offset }])
    tell({ what: 'committed', partition, offset })
  }
}
