/** What a scheduled function that is woken up waits for until it has its first record, milliseconds: in three ways. */
import { Kafka, logLevel } from 'kafkajs'

import { defineApp } from '../../src/app.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { createRouter } from '../../src/router.ts'
import { serve } from './serve.ts'

export interface RunInvocation {
  readonly url: string
  readonly topic: string
  readonly group: string
  readonly runId: string
}

export interface KafkajsInvocation {
  readonly bootstrapServers: string
  readonly topic: string
  readonly group: string
}

// kafkajs sets timers of negative times, of which Node would warn.
process.removeAllListeners('warning')

serve({
  /** A round trip with the JSON of one record in the answer: what no gateway can be faster than. */
  async bare(url: string): Promise<number> {
    const start = performance.now()
    const response = await fetch(url, { method: 'POST', body: '{"topic":"bench"}' })
    const records = (await response.json()) as unknown[]
    const elapsedMs = performance.now() - start
    if (records.length !== 1) throw new Error(`${records.length} records were answered`)
    return elapsedMs
  },
  /** A consumer run, to the handler. The run then commits and ends, uncounted. */
  async run({ url, topic, group, runId }: RunInvocation): Promise<number> {
    let elapsedMs = Number.NaN
    const start = performance.now()
    const router = createRouter().on({ topic }, () => {
      if (Number.isNaN(elapsedMs)) elapsedMs = performance.now() - start
    })
    const consumer = createConsumer(defineApp({ groupId: group, router }), {
      broker: restBroker({ url }),
      deadLetters: memoryDeadLetters(),
      groupInstanceId: 'bench',
    })
    const report = await consumer.run({ runId, deadlineMs: Date.now() + 60_000, stopWhenEmpty: true })
    if (Number.isNaN(elapsedMs)) throw new Error(`a run had no record: ${JSON.stringify(report)}`)
    return elapsedMs
  },
  /** Connect, join, fetch, as a function does that has no gateway. Leaving is uncounted. */
  async kafkajs({ bootstrapServers, topic, group }: KafkajsInvocation): Promise<number> {
    const start = performance.now()
    const kafka = new Kafka({ clientId: 'bench', brokers: bootstrapServers.split(','), logLevel: logLevel.NOTHING })
    const consumer = kafka.consumer({ groupId: group })
    const first = Promise.withResolvers<number>()
    consumer.on(consumer.events.CRASH, ({ payload }) => first.reject(payload.error))
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({ eachMessage: async () => first.resolve(performance.now() - start) })
    const elapsedMs = await first.promise
    await consumer.disconnect()
    return elapsedMs
  },
})
