/** Produces numbered records from several callers at once and prints each acknowledged offset, until it is killed. */
import { writeSync } from 'node:fs'
import { logBroker } from '../../src/brokers/log.ts'
import { bytesOf } from '../../src/record.ts'

const [dir = '', round = '0'] = process.argv.slice(2)
const broker = logBroker({ dir })
if ((await broker.topics()).length === 0) await broker.createTopic({ topic: 'kill', partitions: 3 })

async function producer(name: number): Promise<void> {
  for (let sequence = 0; ; sequence++) {
    const value = `${round}/${name}/${sequence}`
    const [stored] = await broker.produce([{ topic: 'kill', key: bytesOf(String(name)), value: bytesOf(value) }])
    if (stored === undefined || stored instanceof Error) throw new Error('An atomic produce answered with an error.')
    // Written at once, so that a kill cannot take an acknowledgement back that somebody has seen.
    writeSync(1, `${stored.partition} ${stored.offset} ${value}\n`)
  }
}

await Promise.all(Array.from({ length: 8 }, (_, name) => producer(name)))
