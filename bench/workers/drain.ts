/** Two ways to read a whole topic through the gateway: the consumer run, and the loop one would write by hand. */
import { defineApp } from '../../src/app.ts'
import { restBroker } from '../../src/brokers/rest.ts'
import { createConsumer } from '../../src/consumer.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import { createRouter } from '../../src/router.ts'
import type { Sample } from '../rounds.ts'
import { serve } from './serve.ts'

export interface DrainRun {
  readonly url: string
  readonly topic: string
  /** A group that has read nothing yet. */
  readonly group: string
  readonly records: number
  readonly maxRecords: number
  readonly maxBytes: number
}

serve({
  async run({ url, topic, group, records, maxRecords, maxBytes }: DrainRun): Promise<Sample> {
    let handled = 0
    const router = createRouter().on({ topic }, () => {
      handled += 1
    })
    const consumer = createConsumer(defineApp({ groupId: group, router, topicNames: /./ }), {
      broker: restBroker({ url }),
      deadLetters: memoryDeadLetters(),
      groupInstanceId: 'bench',
      maxPollRecords: maxRecords,
      maxPollBytes: maxBytes,
    })
    return timed(records, async () => {
      await consumer.run({ runId: group, deadlineMs: Date.now() + 60_000, stopWhenEmpty: true })
      return handled
    })
  },
  async loop({ url, topic, group, records, maxRecords, maxBytes }: DrainRun): Promise<Sample> {
    const headers = {
      'content-type': 'application/json',
      'Kafka-Auto-Offset-Reset': 'earliest',
      'Kafka-Enable-Auto-Commit': 'false',
    }
    const post = async (path: string, body: unknown): Promise<{ headers: Headers; answer: unknown }> => {
      const response = await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
      const text = await response.text()
      if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`)
      return { headers: response.headers, answer: text === '' ? undefined : JSON.parse(text) }
    }
    let handled = 0
    const handle = (record: { readonly value: string }): void => {
      if (record.value !== '') handled += 1
    }
    return timed(records, async () => {
      for (;;) {
        const polled = await post(`/consume/${group}/bench`, { topic, timeout: 0, maxRecords, maxBytes })
        const answer = polled.answer as { readonly value: string }[]
        // An empty answer that says when to come again is not the end: the group still has to let the instance in.
        if (answer.length === 0 && !polled.headers.has('retry-after')) return handled
        for (const record of answer) handle(record)
        if (answer.length > 0) await post(`/commit/${group}/bench`, [])
      }
    })
  },
})

async function timed(records: number, drain: () => Promise<number>): Promise<Sample> {
  const cpu = process.cpuUsage()
  const start = performance.now()
  const handled = await drain()
  const elapsedMs = performance.now() - start
  const { user, system } = process.cpuUsage(cpu)
  if (handled !== records) throw new Error(`${handled} of ${records} records were handled`)
  return { records, elapsedMs, cpuUs: user + system }
}
