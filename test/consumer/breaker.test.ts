import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { defineApp } from '../../src/app.ts'
import { sleep } from '../../src/clock.ts'
import { SkipError } from '../../src/handler-errors.ts'
import { defineTopic } from '../../src/topic.ts'
import { bytesOf } from '../../src/record.ts'
import { createRouter } from '../../src/router.ts'
import type { Handler } from '../../src/router.ts'
import type { LogEvent } from '../../src/logger.ts'
import { finish, openBench, TOPIC } from '../support/consumer.ts'

const lines = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`)

const down = (): Promise<never> => Promise.reject(new Error('down'))
const once = { retry: { maxAttempts: 1 } }

/** A handler that fails from the record with an offset on. */
function downFrom(offset: number): Handler {
  return (record) => {
    if (record.offset >= offset) throw new Error('down')
  }
}

describe('the flood breaker', () => {
  test('opens when most of a route becomes dead letters: the offsets of the rest stay, and one alarm is raised', async () => {
    const events: LogEvent[] = []
    const bench = await openBench({
      handler: downFrom(1),
      app: once,
      consumer: { log: (event) => void events.push(event) },
    })
    await bench.produce(lines(100))

    const report = await bench.drain()

    expect(report).toMatchObject({
      deadLettered: { exhausted: 20 },
      unfinished: 79,
      breakers: [{ route: TOPIC, deadLettered: 20, settled: 21 }],
      committed: [{ offset: 21 }],
    })
    expect(events.filter(({ event }) => event === 'breaker opened')).toMatchObject([
      {
        level: 'error',
        route: TOPIC,
        deadLettered: 20,
        settled: 21,
        message: expect.stringContaining('mend') as string,
      },
    ])
  })

  test('opens at so many dead letters in the window, whatever their share', async () => {
    const bench = await openBench({
      handler: ({ offset }) => {
        if (offset % 10 === 1) throw new Error('no')
      },
      app: { ...once, breaker: { maxDeadLetters: 5 } },
    })
    await bench.produce(lines(100))

    expect(await bench.drain()).toMatchObject({
      deadLettered: { exhausted: 5 },
      breakers: [{ deadLettered: 5, settled: 42 }],
    })
  })

  test('stops what waits for its turn too, behind others of its key and for another attempt', async () => {
    const router = createRouter().on({ topic: TOPIC }, down, {
      ordering: 'key',
      concurrency: 2,
      retry: { maxAttempts: 2, initialMs: 100 },
    })
    const bench = await openBench({ app: { router } })
    await bench.broker.produce(
      lines(60).map((line) => ({
        topic: TOPIC,
        partition: 0,
        key: bytesOf(`${Number(line) % 2}`),
        value: null,
      })),
    )

    expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 3 }, unfinished: 57 })
  })

  test('lets the next run probe, and everything through when the cause is mended', async () => {
    let isDown = true
    const bench = await openBench({
      handler: () => {
        if (isDown) throw new Error('down')
      },
      app: once,
    })
    await bench.produce(lines(100))
    await bench.drain()
    isDown = false

    expect(await bench.drain()).toMatchObject({ handled: 97, deadLettered: {}, breakers: [] })
  })

  test('stops its route only', async () => {
    const router = createRouter()
      .on({ topic: TOPIC, key: 'bad' }, down, once)
      .on({ topic: TOPIC, key: 'good' }, () => undefined)
    const bench = await openBench({ app: { router }, partitions: 2 })
    await bench.broker.produce(
      lines(60).flatMap(() => [
        { topic: TOPIC, partition: 0, key: bytesOf('bad'), value: null },
        { topic: TOPIC, partition: 1, key: bytesOf('good'), value: null },
      ]),
    )

    expect(await bench.drain()).toMatchObject({
      ended: 'drained',
      handled: 60,
      deadLettered: { exhausted: 3 },
      unfinished: 57,
    })
  })

  test('stays closed where few of many fail, and where the window has passed', async () => {
    const bench = await openBench({
      handler: ({ offset }) => {
        if (offset % 3 === 0) throw new Error('no')
      },
      app: once,
    })
    await bench.produce(lines(300))

    expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 100 }, breakers: [] })
  })

  test('forgets what was before its window', async () => {
    const bench = await openBench({
      handler: downFrom(1),
      app: { ...once, breaker: { windowMs: 10_000, minDeadLetters: 3 } },
    })
    const running = bench.start({ budget: { runMs: 100_000 } })
    for (let n = 0; n < 7; n++) {
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
      const router = createRouter().on({ topic: TOPIC }, down, options)
      const bench = await openBench({ app: { router, breaker: app, ...once } })
      await bench.produce(lines(30))

      expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: 30 }, breakers: [] })
    }
  })

  test('takes refused values for no failed probes', async () => {
    const numbers = defineTopic(TOPIC, z.object({ n: z.number() }))
    const bench = await openBench({ app: { router: createRouter().on(numbers, () => undefined) } })
    await bench.produce([...Array.from({ length: 10 }, () => 'no'), '{"n":1}'])

    expect(await bench.drain()).toMatchObject({ handled: 1, deadLettered: { invalid: 10 }, breakers: [] })
  })

  test('refuses figures that mean nothing', () => {
    const breaker = { probes: 0, maxDeadLetters: 1.5, openMs: 999 }

    expect(() => defineApp({ groupId: 'g', topics: [defineTopic(TOPIC, 'bytes')], breaker })).toThrow(
      /breaker\.probes is 0.*breaker\.maxDeadLetters is 1\.5.*breaker\.openMs is 999/s,
    )
  })
})

describe('a run begins with the breaker half open', () => {
  test('so a cause that is still down costs a few letters each run, and each run gets on', async () => {
    const bench = await openBench({ handler: down, app: once })
    await bench.produce(lines(10))

    const reports = [await bench.drain(), await bench.drain(), await bench.drain(), await bench.drain()]

    expect(reports.map(({ deadLettered }) => deadLettered)).toEqual([
      { exhausted: 3 },
      { exhausted: 3 },
      { exhausted: 3 },
      { exhausted: 1 },
    ])
    expect(reports.map(({ breakers }) => breakers.length)).toEqual([1, 1, 1, 0])
    expect(await bench.committed()).toEqual([10])
  })

  test('no more are handled at once than would open it, and the first that is handled lifts that', async () => {
    let most = 0
    let active = 0
    const mosts: number[] = []
    let isDown = true
    const router = createRouter().on(
      { topic: TOPIC },
      async () => {
        active += 1
        most = Math.max(most, active)
        await sleep(bench.clock, 1_000)
        active -= 1
        if (isDown) throw new Error('down')
      },
      { ordering: 'none', concurrency: 32, ...once },
    )
    const bench = await openBench({ app: { router } })
    await bench.produce(lines(100))

    const first = await bench.drain()
    mosts.push(most)
    isDown = false
    const second = await bench.drain()
    mosts.push(most)

    expect(first).toMatchObject({ deadLettered: { exhausted: 3 }, breakers: [{ deadLettered: 3, settled: 3 }] })
    expect(second).toMatchObject({ handled: 97, breakers: [] })
    expect(mosts).toEqual([3, 32])
    // Three in the first second, and the others as they would have been.
    expect(second.durationMs).toBeLessThanOrEqual(5_000)
  })

  test('as many probes as its route says, and never more than the fewest dead letters that open it', async () => {
    for (const [breaker, letters] of [
      [{ probes: 7 }, 7],
      [{ probes: 7, minDeadLetters: 2 }, 2],
    ] as const) {
      const bench = await openBench({ handler: down, app: { ...once, breaker } })
      await bench.produce(lines(10))

      expect(await bench.drain()).toMatchObject({ deadLettered: { exhausted: letters } })
    }
  })

  test('what is passed over neither opens nor closes it', async () => {
    const bench = await openBench({
      handler: ({ offset }) => {
        throw offset % 2 === 0 ? new SkipError('not ours') : new Error('down')
      },
      app: once,
    })
    await bench.produce(lines(20))

    expect(await bench.drain()).toMatchObject({ skipped: 3, deadLettered: { exhausted: 3 } })
  })

  test('but closed where no handler could close it: what no route takes counts by its window alone', async () => {
    const router = createRouter().on({ topic: TOPIC, key: 'known' }, () => undefined)
    const bench = await openBench({ app: { router } })
    await bench.produce(lines(15))

    expect(await bench.drain()).toMatchObject({ deadLettered: { unroutable: 15 }, breakers: [] })
  })
})

describe('a run whose breaker opened', () => {
  test('ends when it is time to probe again, however long it might go on', async () => {
    const router = createRouter()
      .on({ topic: TOPIC, key: 'bad' }, down, once)
      .on({ topic: TOPIC, key: 'good' }, () => undefined)
    const bench = await openBench({ app: { router, breaker: { openMs: 30_000 } }, partitions: 2 })
    await bench.broker.produce(lines(9).map(() => ({ topic: TOPIC, partition: 0, key: bytesOf('bad'), value: null })))
    const running = bench.start({ budget: { runMs: 900_000 } })
    await bench.clock.advance(20_000)
    await bench.broker.produce([{ topic: TOPIC, partition: 1, key: bytesOf('good'), value: null }])

    const report = await finish(bench.clock, running)

    expect(report).toMatchObject({ ended: 'breaker-open', handled: 1, deadLettered: { exhausted: 3 }, retryAfterMs: 0 })
    expect(report.durationMs).toBeGreaterThanOrEqual(30_000)
    expect(report.durationMs).toBeLessThan(31_000)
  })

  test('ends at once where nothing is left that it may handle, and says when to probe', async () => {
    const bench = await openBench({ handler: down, app: once })
    await bench.produce(lines(9))

    const report = await bench.run({ budget: { runMs: 900_000 } })

    expect(report).toMatchObject({ ended: 'breaker-open', deadLettered: { exhausted: 3 }, committed: [{ offset: 3 }] })
    expect(report.durationMs).toBeLessThan(1_000)
    expect(report.retryAfterMs).toBeGreaterThan(59_000)
  })
})
