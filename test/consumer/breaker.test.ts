import { describe, expect, test } from 'vitest'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { LogEvent } from '../../src/logger.ts'
import { openBench, TOPIC } from '../support/consumer.ts'

const lines = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`)

describe('the flood breaker', () => {
  test('opens when most of a route becomes dead letters: the offsets of the rest stay, and one alarm is raised', async () => {
    const events: LogEvent[] = []
    const bench = await openBench({
      handler: () => Promise.reject(new Error('down')),
      app: { retry: { maxAttempts: 1 } },
      consumer: { log: (event) => void events.push(event) },
    })
    await bench.produce(lines(100))

    const report = await bench.drain()

    expect(report).toMatchObject({
      deadLettered: { exhausted: 20 },
      unfinished: 80,
      breakers: [{ route: TOPIC, deadLettered: 20, settled: 20 }],
      committed: [{ offset: 20 }],
    })
    expect(events.filter(({ event }) => event === 'breaker opened')).toHaveLength(1)
  })

  test('stops what waits for its turn too, behind others of its key and for another attempt', async () => {
    const router = createRouter().on({ topic: TOPIC }, () => Promise.reject(new Error('down')), {
      ordering: 'key',
      concurrency: 2,
      retry: { maxAttempts: 2, initialMs: 100 },
    })
    const bench = await openBench({ app: { router, breaker: { minDeadLetters: 3 } } })
    await bench.broker.produce(
      lines(60).map((line) => ({
        topic: TOPIC,
        partition: 0,
        key: bytesOf(`${Number(line) % 2}`),
        value: null,
      })),
    )

    const report = await bench.drain()

    // The other key's was on its way.
    expect(report).toMatchObject({ deadLettered: { exhausted: 4 }, unfinished: 56 })
  })

  test('lets the next run probe, and everything through when the cause is mended', async () => {
    let isDown = true
    const bench = await openBench({
      handler: () => {
        if (isDown) throw new Error('down')
      },
      app: { retry: { maxAttempts: 1 } },
    })
    await bench.produce(lines(100))
    await bench.drain()
    isDown = false

    expect(await bench.drain()).toMatchObject({ handled: 80, deadLettered: {}, breakers: [] })
  })

  test('stops its route only', async () => {
    const router = createRouter()
      .on({ topic: TOPIC, key: 'bad' }, () => Promise.reject(new Error('down')), { retry: { maxAttempts: 1 } })
      .on({ topic: TOPIC, key: 'good' }, () => undefined)
    const bench = await openBench({ app: { router }, partitions: 2 })
    await bench.broker.produce(
      lines(60).flatMap(() => [
        { topic: TOPIC, partition: 0, key: bytesOf('bad'), value: null },
        { topic: TOPIC, partition: 1, key: bytesOf('good'), value: null },
      ]),
    )

    const report = await bench.drain()

    expect(report).toMatchObject({ handled: 60, deadLettered: { exhausted: 20 }, unfinished: 40 })
  })

  test('stays closed where few of many fail, and where the window has passed', async () => {
    const bench = await openBench({
      handler: ({ offset }) => {
        if (offset % 3 === 0) throw new Error('no')
      },
      app: { retry: { maxAttempts: 1 } },
    })
    await bench.produce(lines(300))

    expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 100 }, breakers: [] })
  })

  test('forgets what was before its window', async () => {
    const bench = await openBench({
      handler: () => Promise.reject(new Error('no')),
      app: { retry: { maxAttempts: 1 }, breaker: { windowMs: 10_000, minDeadLetters: 3 } },
    })
    const running = bench.start({ budget: { runMs: 100_000 } })
    for (let n = 0; n < 6; n++) {
      await bench.produce(['a'])
      await bench.clock.advance(6_000)
    }
    await bench.clock.advance(100_000)

    expect(await running).toMatchObject({ deadLettered: { exhausted: 6 }, breakers: [] })
  })

  test('can be switched off, for the app and for a route', async () => {
    for (const [app, route] of [
      [null, undefined],
      [{ minDeadLetters: 1 }, null],
    ] as const) {
      const options = route === undefined ? {} : { breaker: route }
      const router = createRouter().on({ topic: TOPIC }, () => Promise.reject(new Error('no')), options)
      const bench = await openBench({ app: { router, breaker: app, retry: { maxAttempts: 1 } } })
      await bench.produce(lines(30))

      expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 30 }, breakers: [] })
    }
  })
})
