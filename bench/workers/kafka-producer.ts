/**
 * R2, the Kafka client library by itself: idempotent, so acks=all. As one would write it first, with a send for each record;
 * with one send for all records that wait; with 1,000 records in each send.
 */
import { Producer } from '@platformatic/kafka'

import { type Latencies, openLoop } from '../open-loop.ts'
import { jsonValue } from '../payload.ts'
import type { Sample } from '../rounds.ts'
import { serve } from './serve.ts'

export interface ProducerRun {
  readonly bootstrapServers: string
  readonly topic: string
  readonly partitions: number
  readonly runMs: number
  /** Bytes of each value. */
  readonly bytes: number
  /** Who send at the same time. */
  readonly callers: number
}

export interface OpenProducerRun extends ProducerRun {
  readonly perSecond: number
}

const BATCH_RECORDS = 1000

let opened: Producer | undefined

serve(
  {
    prime,
    naive: (run: ProducerRun) => {
      const send = sender(run)
      return closedLoop(run, () => send(1))
    },
    coalesced: (run: ProducerRun) => {
      const produce = sharing(run)
      return closedLoop(run, async () => {
        await produce()
        return 1
      })
    },
    batch: (run: ProducerRun) => {
      const send = sender(run)
      return closedLoop(run, () => send(BATCH_RECORDS))
    },
    openLoop: (run: OpenProducerRun): Promise<Latencies> => openLoop(run.perSecond, run.runMs, sharing(run)),
  },
  () => opened?.close(),
)

function open({ bootstrapServers }: ProducerRun): Producer {
  opened = new Producer({
    clientId: 'bench',
    bootstrapBrokers: bootstrapServers.split(','),
    idempotent: true,
    retries: 10,
    retryDelay: 100,
  })
  return opened
}

/** Sends so many records at once and gives their number. */
function sender(run: ProducerRun): (count: number) => Promise<number> {
  const { topic, bytes } = run
  const producer = opened ?? open(run)
  const value = Buffer.from(jsonValue(bytes))
  return async (count) => {
    await producer.send({ messages: Array.from({ length: count }, () => ({ topic, value })) })
    return count
  }
}

/**
 * Sends one record to each partition, by itself: then the client knows the topic, and no partition is too new to be written to.
 * Where one is, the client sends all of a send again, and those for other partitions are stored twice.
 */
async function prime(run: ProducerRun): Promise<number> {
  const producer = opened ?? open(run)
  for (let partition = 0; partition < run.partitions; partition++) {
    await producer.send({ messages: [{ topic: run.topic, partition, value: Buffer.from('primed') }] })
  }
  return run.partitions
}

/** Sends one record; those that wait for the send before share the next one. */
function sharing(run: ProducerRun): () => Promise<void> {
  const send = sender(run)
  let waiting: PromiseWithResolvers<void>[] = []
  let isSending = false
  const sendWaiting = async (): Promise<void> => {
    isSending = true
    while (waiting.length > 0) {
      const sent = waiting
      waiting = []
      try {
        await send(sent.length)
        for (const { resolve } of sent) resolve()
      } catch (error) {
        for (const { reject } of sent) reject(error)
      }
    }
    isSending = false
  }
  return () => {
    const record = Promise.withResolvers<void>()
    waiting.push(record)
    if (!isSending) void sendWaiting()
    return record.promise
  }
}

async function closedLoop({ callers, runMs }: ProducerRun, send: () => Promise<number>): Promise<Sample> {
  const cpu = process.cpuUsage()
  const start = performance.now()
  let records = 0
  const caller = async (): Promise<void> => {
    do {
      const acknowledged = await send()
      records += acknowledged
    } while (performance.now() - start < runMs)
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const elapsedMs = performance.now() - start
  const { user, system } = process.cpuUsage(cpu)
  return { records, elapsedMs, cpuUs: user + system }
}
