/** R2, the Kafka client library by itself: its stream of records, in a group, with a commit for every thousand. */
import { Consumer } from '@platformatic/kafka'

import type { Sample } from '../rounds.ts'
import { serve } from './serve.ts'

export interface ConsumerRun {
  readonly bootstrapServers: string
  readonly topic: string
  /** A group that has read nothing yet. */
  readonly group: string
  readonly records: number
  readonly commitEvery: number
  /** Of each partition in an answer of the broker. */
  readonly fetchBytes: number
}

serve({
  async stream({ bootstrapServers, topic, group, records, commitEvery, fetchBytes }: ConsumerRun): Promise<Sample> {
    const cpu = process.cpuUsage()
    const start = performance.now()
    const consumer = new Consumer({ clientId: 'bench', groupId: group, bootstrapBrokers: bootstrapServers.split(',') })
    const stream = await consumer.consume({
      topics: [topic],
      mode: 'earliest',
      autocommit: false,
      maxBytes: 4 * fetchBytes,
      maxBytesPerPartition: fetchBytes,
      maxWaitTime: 500,
    })
    const next = new Map<number, bigint>()
    const commit = async (): Promise<void> => {
      const offsets = Array.from(next, ([partition, offset]) => ({ topic, partition, offset, leaderEpoch: -1 }))
      next.clear()
      await consumer.commit({ offsets })
    }
    let handled = 0
    for await (const { partition, offset, value } of stream) {
      if (value.length > 0) handled += 1
      next.set(partition, offset + 1n)
      if (next.size > 0 && handled % commitEvery === 0) await commit()
      if (handled === records) break
    }
    if (next.size > 0) await commit()
    const elapsedMs = performance.now() - start
    const { user, system } = process.cpuUsage(cpu)
    await consumer.close(true)
    if (handled !== records) throw new Error(`${handled} of ${records} records were handled`)
    return { records, elapsedMs, cpuUs: user + system }
  },
})
