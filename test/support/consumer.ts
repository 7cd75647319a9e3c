/** A consumer over a memory broker under a clock that tests drive, and brokers that fail on demand. */
import type { App, AppOptions } from '../../src/app.ts'
import { defineApp } from '../../src/app.ts'
import type { Broker } from '../../src/broker.ts'
import { memoryBroker } from '../../src/brokers/memory.ts'
import { createConsumer } from '../../src/consumer.ts'
import type { ConsumerOptions, RunOptions } from '../../src/consumer.ts'
import type { RunReport } from '../../src/consumer/report.ts'
import type { DeadLetterStore } from '../../src/dead-letter.ts'
import { memoryDeadLetters } from '../../src/dead-letters/memory.ts'
import type { ProducerRecord } from '../../src/record.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { Handler } from '../../src/router.ts'
import { FakeClock } from './clock.ts'

/** The topic of a bench unless its test says otherwise. */
export const TOPIC = 't'

export interface BenchOptions {
  readonly partitions?: number
  /** Handles every record of the topic. */
  readonly handler?: Handler
  readonly app?: Partial<AppOptions>
  readonly consumer?: Partial<ConsumerOptions>
  /** @default in memory */
  readonly openBroker?: (clock: FakeClock) => Broker
  /** @default in memory */
  readonly openLetters?: (broker: Broker) => DeadLetterStore
  /** Stands between the consumer and the broker. */
  readonly wrap?: (broker: Broker) => Broker
  readonly wrapLetters?: (store: DeadLetterStore) => DeadLetterStore
}

export interface Bench {
  readonly clock: FakeClock
  /** The broker itself, without what stands before it. */
  readonly broker: Broker
  readonly letters: DeadLetterStore
  readonly app: App
  /** Runs until nothing is left to read; time passes as far as the run waits for it. */
  drain(options?: Partial<RunOptions>, consumer?: Partial<ConsumerOptions>): Promise<RunReport>
  /** Runs to the end of the budget. */
  run(options?: Partial<RunOptions>, consumer?: Partial<ConsumerOptions>): Promise<RunReport>
  /** Starts a run without moving the clock. */
  start(options?: Partial<RunOptions>, consumer?: Partial<ConsumerOptions>): Promise<RunReport>
  /** Produces values, given as text, to one partition. */
  produce(values: readonly string[], partition?: number): Promise<void>
  /** The committed offset of each partition, -1 where there is none. */
  committed(): Promise<number[]>
}

export async function openBench(options: BenchOptions = {}): Promise<Bench> {
  const clock = new FakeClock()
  const broker = options.openBroker?.(clock) ?? memoryBroker({ clock })
  const letters = options.openLetters?.(broker) ?? memoryDeadLetters()
  const partitions = options.partitions ?? 1
  await broker.createTopic({ topic: TOPIC, partitions })
  const router = createRouter().on({ topic: TOPIC }, options.handler ?? ((): void => undefined))
  const app = defineApp({ groupId: 'g', router, ...options.app })
  let runs = 0

  const start: Bench['start'] = (run = {}, consumer = {}) => {
    const made = createConsumer(app, {
      broker: options.wrap?.(broker) ?? broker,
      deadLetters: options.wrapLetters?.(letters) ?? letters,
      groupInstanceId: 'i',
      clock,
      random: () => 0.5,
      ...options.consumer,
      ...consumer,
    })
    runs += 1
    return made.run({ runId: `run-${runs}`, ...run })
  }

  return {
    clock,
    broker,
    letters,
    app,
    start,
    run: (run, consumer) => finish(clock, start(run, consumer)),
    drain: (run, consumer) => finish(clock, start({ stopWhenEmpty: true, ...run }, consumer)),
    async produce(values, partition = 0) {
      const records = values.map((value): ProducerRecord => ({
        topic: TOPIC,
        partition,
        key: null,
        value: bytesOf(value),
      }))
      await broker.produce(records)
    },
    async committed() {
      const all = Array.from({ length: partitions }, (_, partition) => ({ topic: TOPIC, partition }))
      const offsets = await broker.committed('g', all)
      return offsets.map(({ offset }) => offset)
    },
  }
}

/** Lets time pass until a promise settles. */
export async function finish<T>(clock: FakeClock, promise: Promise<T>): Promise<T> {
  const state = { isSettled: false }
  const settled = promise.finally(() => {
    state.isSettled = true
  })
  // The caller gets the rejection; this only keeps it from counting as unhandled in the meantime.
  settled.catch(() => undefined)
  for (let step = 0; !state.isSettled; step++) {
    if (step > 100_000) throw new Error('The run did not end in 10,000 seconds of its clock.')
    // Where nothing waits for the clock, it is real work that goes on, as of a digest: time must not run away meanwhile.
    if (clock.pending === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    else await clock.advance(step < 20 ? 0 : 100)
  }
  return await settled
}

/** A broker with some of its methods replaced. */
export function withCalls(broker: Broker, replaced: Partial<Broker>): Broker {
  // The broker's methods live on it or its prototype; a proxy finds both.
  return new Proxy(broker, {
    get(target, name) {
      if (Object.hasOwn(replaced, name)) return Reflect.get(replaced, name) as unknown
      const value = Reflect.get(target, name, target) as unknown
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}
